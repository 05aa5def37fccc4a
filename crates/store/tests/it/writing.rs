//! The writer: batches, order, isolation, and what an answer means.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
};

use legation_store::{BATCH_MAX, QUEUE_MAX, Store, StoreError, tokens};
use sqlx::{Connection, Executor};
use tokio::{
    sync::{Barrier, Notify},
    task::JoinHandle,
};

use crate::{
    make::{self, NOW, id, name},
    nouns::with_token,
    place::{Place, connect, read, write},
};

/// Where a child process finds the database that it writes to until it is killed.
const CHILD_URL: &str = "LEGATION_TEST_CHILD_URL";

pub(crate) async fn a_failing_job_is_undone_alone(place: &Place) {
    let store = place.open().await;
    // While it holds the writer, the others wait, and then share a transaction.
    let plug = Hold::start(&store).await;
    let before = store.stats().transactions;
    let jobs: Vec<_> = (1..=9_u64)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                write!(store, |tx| {
                    tokens::insert(tx, &make::token(number)).await?;
                    match number % 3 {
                        // Its own rule fails, after it has written.
                        0 => Err(StoreError::Refused("no".to_owned())),
                        // A statement fails, and the job swallows that.
                        1 => {
                            let mut namesake = make::token(100 + number);
                            namesake.name = name(&format!("token{number}"));
                            assert_eq!(tokens::insert(tx, &namesake).await, Err(StoreError::Taken));
                            Ok(())
                        }
                        _ => Ok(()),
                    }
                })
            })
        })
        .collect();
    until(async || store.waiting() == 9).await;
    plug.end().await;
    for (number, job) in (1..=9_u64).zip(jobs) {
        let expected = match number % 3 {
            0 => Err(StoreError::Refused("no".to_owned())),
            1 => Err(StoreError::Taken),
            _ => Ok(()),
        };
        assert_eq!(job.await.unwrap(), expected, "job {number}");
        let kept = read!(store, |conn| tokens::get(conn, id(number)).await).unwrap().is_some();
        assert_eq!(kept, number % 3 == 2, "job {number}");
    }
    assert_eq!(store.stats().transactions, before + 2, "the nine did not share one transaction");
}

pub(crate) async fn a_panicking_job_does_not_end_the_writer(place: &Place) {
    let store = place.open().await;
    let outcome: Result<(), _> = write!(store, |tx| {
        tokens::insert(tx, &make::token(1)).await?;
        panic!("a bug in a job");
    });
    assert!(matches!(outcome, Err(StoreError::Corrupt(_))), "{outcome:?}");
    write!(store, |tx| tokens::insert(tx, &make::token(1)).await).unwrap();
}

pub(crate) async fn an_urgent_job_goes_first(place: &Place) {
    let store = place.open().await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let plug = Hold::start(&store).await;
    let ordinary: Vec<_> = (0..100).map(|_| noting(&store, &order, "ordinary", false)).collect();
    until(async || store.waiting() == 100).await;
    let urgent = noting(&store, &order, "urgent", true);
    until(async || store.waiting() == 101).await;
    plug.end().await;
    urgent.await.unwrap().unwrap();
    for job in ordinary {
        job.await.unwrap().unwrap();
    }
    assert_eq!(order.lock().unwrap().iter().position(|job| *job == "urgent"), Some(0));
}

pub(crate) async fn an_urgent_job_interrupts_a_batch(place: &Place) {
    let store = place.open().await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let plug = Hold::start(&store).await;
    // The next batch begins with a job that holds it; the others of the batch come after that one.
    let holder = Hold::new(&store);
    until(async || store.waiting() == 1).await;
    let ordinary: Vec<_> = (0..100).map(|_| noting(&store, &order, "ordinary", false)).collect();
    until(async || store.waiting() == 101).await;
    plug.end().await;
    holder.entered().await;
    let urgent = noting(&store, &order, "urgent", true);
    until(async || store.waiting() == 101 - BATCH_MAX + 1).await;
    holder.end().await;
    urgent.await.unwrap().unwrap();
    for job in ordinary {
        job.await.unwrap().unwrap();
    }
    assert_eq!(order.lock().unwrap().iter().position(|job| *job == "urgent"), Some(0));
}

/// A job that occupies the writer until it is told to end.
struct Hold {
    entered: Arc<Notify>,
    go: Arc<Notify>,
    job: JoinHandle<Result<(), StoreError>>,
}

impl Hold {
    fn new(store: &Store) -> Self {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (store, entering, going) = (store.clone(), entered.clone(), go.clone());
        let job = tokio::spawn(async move {
            write!(store, |_tx| {
                entering.notify_one();
                going.notified().await;
                Ok(())
            })
        });
        Self { entered, go, job }
    }

    async fn start(store: &Store) -> Self {
        let hold = Self::new(store);
        hold.entered().await;
        hold
    }

    async fn entered(&self) {
        self.entered.notified().await;
    }

    async fn end(self) {
        self.go.notify_one();
        self.job.await.unwrap().unwrap();
    }
}

/// A job that notes when it ran.
fn noting(
    store: &Store,
    order: &Arc<std::sync::Mutex<Vec<&'static str>>>,
    word: &'static str,
    urgent: bool,
) -> JoinHandle<Result<(), StoreError>> {
    let (store, order) = (store.clone(), order.clone());
    tokio::spawn(async move {
        let job = async move {
            order.lock().unwrap().push(word);
            Ok(())
        };
        if urgent { store.write_first(|_tx| Box::pin(job)).await } else { store.write(|_tx| Box::pin(job)).await }
    })
}

pub(crate) async fn callers_share_transactions(place: &Place) {
    const CALLERS: u64 = 64;
    const EACH: u64 = 8;
    let store = place.open().await;
    let start = Arc::new(Barrier::new(CALLERS as usize));
    let before = store.stats();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (store, start) = (store.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                for job in 0..EACH {
                    let token = make::token(caller * EACH + job);
                    write!(store, |tx| tokens::insert(tx, &token).await).unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let stats = store.stats();
    let (jobs, transactions) = (stats.jobs - before.jobs, stats.transactions - before.transactions);
    assert_eq!(jobs, CALLERS * EACH);
    assert!(transactions <= jobs / 4, "{transactions} transactions for {jobs} jobs");
}

pub(crate) async fn a_queue_slows_its_callers_down(place: &Place) {
    let store = place.open().await;
    let plug = Hold::start(&store).await;
    let callers: Vec<_> = (0..QUEUE_MAX + 100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { write!(store, |_tx| Ok(())) })
        })
        .collect();
    until(async || store.waiting() == QUEUE_MAX).await;
    plug.end().await;
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
}

pub(crate) async fn an_answered_write_survives_kill_9(place: &Place) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writing::child", "--nocapture"])
        .env(CHILD_URL, &place.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("id ")?.parse::<u64>().ok());
    let mut numbers: Vec<_> = answered.by_ref().take(200).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said in its last moment counts most.
    numbers.extend(answered);
    assert!(numbers.len() >= 200, "{} answers", numbers.len());
    let store = reopened(place).await;
    for number in numbers {
        let found = read!(store, |conn| tokens::get(conn, id(number)).await).unwrap();
        assert!(found.is_some(), "answered write {number} is gone");
    }
}

/// The process that is killed. As a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(url) = std::env::var(CHILD_URL) else { return };
    let store = Store::open(&url).await.unwrap();
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (writer..).step_by(8) {
                    write!(store, |tx| tokens::insert(tx, &make::token(number)).await).unwrap();
                    println!("id {number}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

pub(crate) async fn an_effect_holds_its_token_until_it_is_committed(place: &Place) {
    if !place.is_postgres() {
        // SQLite has one writer at a time: there is no one to hold the row against.
        return;
    }
    let (store, token) = with_token(place).await;
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let effect = tokio::spawn({
        let (store, entered, go) = (store.clone(), entered.clone(), go.clone());
        async move {
            write!(store, |tx| {
                assert!(tokens::lock_shared(tx, token).await?.is_some_and(|status| status.is_live()));
                entered.notify_one();
                go.notified().await;
                tokens::touch_used(tx, &[(token, NOW)]).await
            })
        }
    });
    entered.notified().await;
    let mut other = place.behind().await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap();
    let revoke = tokio::spawn(async move {
        sqlx::query("UPDATE tokens SET status = 'revoked'").execute(&mut other).await.map(|_| other)
    });
    // The revocation is seen to wait for a lock, and not just to be slow.
    let mut watcher = place.behind().await;
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
    loop {
        let waiting: i64 = sqlx::query_scalar(waits).bind(pid).fetch_one(&mut watcher).await.unwrap();
        if waiting == 1 {
            break;
        }
        assert!(!revoke.is_finished(), "the revocation passed an effect that was under way");
    }
    go.notify_one();
    effect.await.unwrap().unwrap();
    revoke.await.unwrap().unwrap().close().await.unwrap();
}

/// Opens a database whose last user was killed; a server may need a moment to notice.
async fn reopened(place: &Place) -> Store {
    loop {
        match Store::open(&place.url).await {
            Ok(store) => return store,
            Err(StoreError::Refused(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Awaits a condition; the test runner's own limit ends a hopeless wait.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        tokio::task::yield_now().await;
    }
}

/// Runs statements past the store.
pub(crate) async fn behind(url: &str, text: &'static str) {
    let mut conn = connect(url).await;
    conn.execute(sqlx::raw_sql(text)).await.unwrap();
    conn.close().await.unwrap();
}
