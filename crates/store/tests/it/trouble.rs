//! The database is locked, gone, full or set up unsafely: said as such, and over when it is over.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use legation_model::receipt::Cause;
use legation_store::{Store, StoreError, api_keys, principals::BREAK_GLASS, receipts, tasks, tokens};
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::Semaphore;

use crate::{
    make::{self, NOW, id},
    nouns::with_token,
    place::{Place, connect, postgres_server, read, write},
    writing::until,
};

/// Where the child process finds the small file system that it fills.
const FULL_DIR: &str = "LEGATION_TEST_FULL_DIR";

async fn insert(store: &Store, number: u64) -> Result<(), StoreError> {
    write!(store, |tx| tokens::insert(tx, &make::token(number)).await)
}

fn is_unavailable<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}

pub(crate) async fn a_locked_database_is_unavailable_until_it_is_free(place: &Place) {
    let store = place.open().await;
    let mut other = place.behind().await;
    let lock =
        if place.is_postgres() { "BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE" } else { "BEGIN IMMEDIATE" };
    other.execute(sqlx::raw_sql(lock)).await.unwrap();
    is_unavailable(insert(&store, 1).await);
    other.execute("ROLLBACK").await.unwrap();
    insert(&store, 1).await.unwrap();
}

pub(crate) async fn a_database_that_is_gone_comes_back(place: &Place) {
    let store = place.open().await;
    insert(&store, 1).await.unwrap();
    if place.is_postgres() {
        let (_, name) = place.url.rsplit_once('/').unwrap();
        let mut server = connect(&postgres_server()).await;
        let admit = async |conn: &mut sqlx::AnyConnection, admit: bool| {
            let allow = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {admit}");
            conn.execute(AssertSqlSafe(allow)).await.unwrap();
            let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND NOT $2";
            sqlx::query(end).bind(name).bind(admit).execute(conn).await.unwrap();
        };
        admit(&mut server, false).await;
        is_unavailable(insert(&store, 2).await);
        is_unavailable(read!(store, |conn| tokens::get(conn, id(1)).await));
        admit(&mut server, true).await;
    } else {
        let path = PathBuf::from(place.url.strip_prefix("sqlite://").unwrap());
        let away = path.with_extension("away");
        fs::rename(&path, &away).unwrap();
        is_unavailable(insert(&store, 2).await);
        fs::rename(&away, &path).unwrap();
    }
    until(async || insert(&store, 3).await.is_ok()).await;
    let found = read!(store, |conn| tokens::get(conn, id(1)).await).unwrap();
    assert!(found.is_some());
    if place.is_postgres() {
        // The exclusive hold was lost with its connection and comes back by itself.
        let mut conn = place.behind().await;
        let held = "SELECT COUNT(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
             WHERE l.locktype = 'advisory' AND d.datname = current_database()";
        until(async || sqlx::query_scalar(held).fetch_one(&mut conn).await.is_ok_and(|count: i64| count == 1)).await;
    }
    assert!(matches!(Store::open(&place.url).await, Err(StoreError::Refused(_))));
    insert(&store, 4).await.unwrap();
}

pub(crate) async fn readers_are_few(place: &Place) {
    const READERS: usize = 4;
    let store = place.open().await;
    let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (store, entered, go) = (store.clone(), entered.clone(), go.clone());
            tokio::spawn(async move {
                read!(store, |_conn| {
                    entered.add_permits(1);
                    go.acquire().await.unwrap().forget();
                    Ok(())
                })
            })
        })
        .collect();
    entered.acquire_many(READERS as u32).await.unwrap().forget();
    is_unavailable(read!(store, |conn| tokens::states(conn).await));
    go.add_permits(READERS);
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    read!(store, |conn| tokens::states(conn).await).unwrap();
}

pub(crate) async fn closing_finishes_what_waits(place: &Place) {
    let store = place.open().await;
    let jobs: Vec<_> = (1..=100)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { insert(&store, number).await })
        })
        .collect();
    until(async || store.stats().jobs + store.waiting() as u64 >= 50).await;
    store.close().await;
    is_unavailable(insert(&store, 200).await);
    let store = place.open().await;
    for (number, job) in (1..).zip(jobs) {
        let found = read!(store, |conn| tokens::get(conn, id(number)).await).unwrap();
        assert_eq!(job.await.unwrap().is_ok(), found.is_some(), "job {number}");
    }
}

#[tokio::test]
async fn unsafe_settings_are_refused() {
    let place = Place::postgres().await;
    let (_, name) = place.url.rsplit_once('/').unwrap();
    let text = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    connect(&place.url).await.execute(AssertSqlSafe(text)).await.unwrap();
    let refused = Store::open(&place.url).await.err();
    let Some(StoreError::Refused(sentence)) = refused else { panic!("{refused:?}") };
    assert!(sentence.contains("synchronous_commit = off"), "{sentence}");
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let place = Place::sqlite();
    let path = PathBuf::from(place.url.strip_prefix("sqlite://").unwrap());
    File::create(&path).unwrap().set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    let store = place.open().await;
    insert(&store, 1).await.unwrap();
    let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_is_deleted_leaves_the_file() {
    let place = Place::sqlite();
    let store = place.open().await;
    let canary = b"a-canary-that-must-not-stay-in-a-free-page".to_vec();
    let key = api_keys::ApiKey { hash: canary.clone(), ..make::api_key(1, BREAK_GLASS) };
    write!(store, |tx| api_keys::insert(tx, &key).await).unwrap();
    write!(store, |tx| api_keys::delete(tx, id(1)).await).unwrap();
    store.close().await;
    let bytes = fs::read(place.url.strip_prefix("sqlite://").unwrap()).unwrap();
    assert!(!bytes.windows(canary.len()).any(|window| window == canary));
}

/// A small file system of its own makes the disk full for this test alone. Where the kernel refuses that to an
/// ordinary user the test says so.
#[test]
fn a_revocation_fits_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-euc", script, "sh"]).arg(dir.path());
        command.arg(std::env::current_exe().unwrap());
        command
    };
    let mount = "mount -t tmpfs -o size=24m,mode=700 tmpfs \"$1\"";
    if !namespace(mount).status().is_ok_and(|status| status.success()) {
        eprintln!("NOT TESTED: this kernel lets no user namespace mount a file system; run as root");
        return;
    }
    let script = format!("{mount}; exec \"$2\" --exact trouble::full --nocapture");
    let status = namespace(&script).env(FULL_DIR, dir.path()).status().unwrap();
    assert!(status.success(), "see above");
}

/// The process on the full disk. As a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full() {
    let Ok(dir) = std::env::var(FULL_DIR) else { return };
    let place = Place { url: format!("sqlite://{dir}/store.db"), ..Place::sqlite() };
    let (store, token) = with_token(&place).await;
    fill(&Path::new(&dir).join("ballast"));
    let ordinary = async |store: &Store, number| {
        write!(store, |tx| tasks::insert(tx, &[make::new(make::task(number), &[7; 100 << 10], None)]).await)
    };
    // The log has some room of its own left; when that is used up, ordinary writes fail.
    let mut number = 1;
    while ordinary(&store, number).await.is_ok() {
        number += 1;
        assert!(number < 1000, "the disk is not full");
    }
    is_unavailable(ordinary(&store, number).await);
    fill(&Path::new(&dir).join("ballast"));
    is_unavailable(ordinary(&store, number).await);

    let receipt = make::receipt(1, token, 2000);
    let revoked = store.write_first(move |tx| {
        Box::pin(async move {
            receipts::insert(tx, &receipt).await?;
            receipts::add_lines(tx, receipt.id, &receipt.lines).await?;
            tokens::revoke(tx, token, Cause::Kill, NOW, "leaked", receipt.id).await
        })
    });
    assert_eq!(revoked.await, Ok(()), "a revocation found no room");
    let found = read!(store, |conn| receipts::get(conn, id(1)).await).unwrap().unwrap();
    assert_eq!(found.lines.len(), 2000);

    // A Manager that restarts on the full disk must come up: there may be more to revoke.
    store.close().await;
    fill(&Path::new(&dir).join("ballast"));
    let store = place.open().await;
    let end = store.write_first(move |tx| Box::pin(tokens::delete(tx, token, NOW)));
    assert_eq!(end.await, Ok(()), "no room was left for the next one");
    fs::remove_file(Path::new(&dir).join("ballast")).unwrap();
    ordinary(&store, number).await.unwrap();
}

/// Writes until not a byte more fits.
fn fill(path: &Path) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
