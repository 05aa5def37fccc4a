//! The one writer: waiting jobs share a transaction, and each is answered after the sync.
//!
//! A transaction costs a sync to the disk whatever it holds, so up to [`BATCH_MAX`] jobs share one, each in a
//! savepoint of its own: a job that fails is undone alone. Urgent jobs have a queue, a transaction and, where
//! the disk can fill up, space of their own.

use std::{
    collections::VecDeque,
    mem,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{Conn, Overtaken, StoreError, db::Database, overtake, reserve::Reserve};

/// Jobs in one transaction: enough to hide the sync, few enough that an urgent job waits only milliseconds.
pub const BATCH_MAX: usize = 64;
/// Jobs that wait; beyond it callers wait to be let in, so that a burst is slowed down and not buffered.
pub const QUEUE_MAX: usize = 1024;
/// Urgent jobs that wait.
pub const URGENT_MAX: usize = 256;
/// How long one transaction may take before its connection is given up and its callers are told.
const BATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Counters of the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Transactions committed.
    pub transactions: u64,
    /// Jobs committed in them.
    pub jobs: u64,
}

#[derive(Default)]
struct Counters {
    transactions: AtomicU64,
    jobs: AtomicU64,
    failing: AtomicBool,
}

/// The callers' side.
pub(crate) struct Queues {
    ordinary: mpsc::Sender<Box<dyn Job>>,
    urgent: mpsc::Sender<Box<dyn Job>>,
    counters: Arc<Counters>,
    stop: Arc<Notify>,
}

impl Queues {
    /// Has the job run, and waits for its answer.
    pub(crate) async fn submit<T, F>(&self, urgent: bool, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Waiting { job: Some(job), value: None, reply });
        let queue = if urgent { &self.urgent } else { &self.ordinary };
        queue.send(job).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// What has been written so far.
    pub(crate) fn stats(&self) -> WriterStats {
        WriterStats {
            transactions: self.counters.transactions.load(Ordering::Relaxed),
            jobs: self.counters.jobs.load(Ordering::Relaxed),
        }
    }

    /// Whether the newest transaction failed as a whole.
    pub(crate) fn failing(&self) -> bool {
        self.counters.failing.load(Ordering::Relaxed)
    }

    /// How many jobs are in the queues.
    pub(crate) fn waiting(&self) -> usize {
        let length = |queue: &mpsc::Sender<_>| queue.max_capacity() - queue.capacity();
        length(&self.ordinary) + length(&self.urgent)
    }

    /// Lets the writer finish what waits and end.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the transaction was given up; whether it was committed is not known".to_owned())
}

/// The writer's side.
pub(crate) struct Writer {
    database: Database,
    epoch: i64,
    conn: Option<Conn>,
    reserve: Option<Reserve>,
    ordinary: mpsc::Receiver<Box<dyn Job>>,
    urgent: mpsc::Receiver<Box<dyn Job>>,
    counters: Arc<Counters>,
    stop: Arc<Notify>,
    overtaken: Overtaken,
}

impl Writer {
    /// A writer for this epoch, on a connection that is ready.
    pub(crate) fn new(conn: Conn, epoch: i64, reserve: Option<Reserve>, overtaken: Overtaken) -> (Self, Queues) {
        let (ordinary, ordinary_jobs) = mpsc::channel(QUEUE_MAX);
        let (urgent, urgent_jobs) = mpsc::channel(URGENT_MAX);
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(Notify::new());
        let queues = Queues { ordinary, urgent, counters: counters.clone(), stop: stop.clone() };
        let writer = Self {
            database: conn.database().clone(),
            epoch,
            conn: Some(conn),
            reserve,
            ordinary: ordinary_jobs,
            urgent: urgent_jobs,
            counters,
            stop,
            overtaken,
        };
        (writer, queues)
    }

    /// Runs until it is stopped and nothing waits.
    pub(crate) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        loop {
            if let Ok(job) = self.urgent.try_recv() {
                self.urgently(job).await;
            } else if !waiting.is_empty() {
                self.transact(&mut waiting).await;
            } else if !self.gather(&mut waiting).await {
                break;
            }
        }
        if let Some(conn) = self.conn {
            conn.close().await;
        }
    }

    /// Waits for work; `false` when there will be none any more.
    async fn gather(&mut self, waiting: &mut VecDeque<Box<dyn Job>>) -> bool {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            Some(job) = self.urgent.recv() => self.urgently(job).await,
            Some(job) = self.ordinary.recv() => waiting.push_back(job),
            () = stop.notified(), if !self.ordinary.is_closed() => {
                self.urgent.close();
                self.ordinary.close();
            }
            else => return false,
        }
        while waiting.len() < BATCH_MAX
            && let Ok(job) = self.ordinary.try_recv()
        {
            waiting.push_back(job);
        }
        true
    }

    /// Runs all urgent jobs that wait, with the reserved space.
    async fn urgently(&mut self, first: Box<dyn Job>) {
        let mut jobs = VecDeque::from([first]);
        while jobs.len() < BATCH_MAX
            && let Ok(job) = self.urgent.try_recv()
        {
            jobs.push_back(job);
        }
        self.reserve.as_mut().map(Reserve::release);
        while !jobs.is_empty() {
            self.transact(&mut jobs).await;
        }
        self.reserve.as_mut().map(Reserve::hold);
    }

    /// Runs jobs in one transaction and answers them; leaves over what an urgent job has interrupted.
    async fn transact(&mut self, jobs: &mut VecDeque<Box<dyn Job>>) {
        let mut batch = Batch { waiting: mem::take(jobs), ..Batch::default() };
        let conn = self.conn.take();
        let work = batch.run(conn, &self.database, self.epoch, &self.urgent);
        let outcome = tokio::time::timeout(BATCH_TIMEOUT, work).await.unwrap_or_else(|_| Err(closed()));
        self.counters.failing.store(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Ok(conn) => {
                self.conn = Some(conn);
                self.counters.transactions.fetch_add(1, Ordering::Relaxed);
                self.counters.jobs.fetch_add(batch.kept.len() as u64, Ordering::Relaxed);
                *jobs = batch.answer();
            }
            Err(error) => {
                tracing::warn!(%error, "a transaction of {} jobs failed", batch.len());
                if error == StoreError::Fenced {
                    overtake(&self.overtaken, StoreError::Fenced);
                }
                batch.fail(&error);
            }
        }
    }
}

/// The jobs of one transaction.
#[derive(Default)]
struct Batch {
    waiting: VecDeque<Box<dyn Job>>,
    running: Option<Box<dyn Job>>,
    kept: Vec<Box<dyn Job>>,
    undone: Vec<(Box<dyn Job>, StoreError)>,
}

impl Batch {
    /// Runs the jobs and commits. An error is the fate of all of them, and of the connection, which is dropped:
    /// after a failure such as a full disk SQLite may have rolled back behind the savepoints.
    async fn run(
        &mut self,
        conn: Option<Conn>,
        database: &Database,
        epoch: i64,
        urgent: &mpsc::Receiver<Box<dyn Job>>,
    ) -> Result<Conn, StoreError> {
        let mut conn = match conn {
            Some(conn) => conn,
            None => database.writer().await?,
        };
        if conn.begin().await? != epoch {
            return Err(StoreError::Fenced);
        }
        if self.waiting.len() == 1 {
            self.run_alone(&mut conn).await?;
        } else {
            self.run_together(&mut conn, urgent).await?;
        }
        Ok(conn)
    }

    /// One job needs no savepoint: the transaction is its own.
    async fn run_alone(&mut self, conn: &mut Conn) -> Result<(), StoreError> {
        let end = match self.next(conn).await? {
            true => "COMMIT",
            false => "ROLLBACK",
        };
        conn.raw(end).await.map(|_| ())
    }

    async fn run_together(&mut self, conn: &mut Conn, urgent: &mpsc::Receiver<Box<dyn Job>>) -> Result<(), StoreError> {
        conn.raw("SAVEPOINT job").await?;
        while !self.waiting.is_empty() && (urgent.is_empty() || self.kept.is_empty()) {
            let border = match self.next(conn).await? {
                true => "RELEASE SAVEPOINT job; SAVEPOINT job",
                false => "ROLLBACK TO SAVEPOINT job",
            };
            conn.raw(border).await?;
        }
        conn.raw("RELEASE SAVEPOINT job; COMMIT").await.map(|_| ())
    }

    /// Runs the next job; whether its changes stay.
    async fn next(&mut self, conn: &mut Conn) -> Result<bool, StoreError> {
        let Some(job) = self.waiting.pop_front() else { return Ok(true) };
        let job = self.running.insert(job);
        let panicked = || Err(StoreError::Corrupt("a job of the writer panicked".to_owned()));
        let outcome = AssertUnwindSafe(job.run(conn)).catch_unwind().await.unwrap_or_else(|_| panicked());
        let failure = conn.take_failure();
        if let Some(error @ StoreError::Unavailable(_)) = failure {
            return Err(error);
        }
        let job = self.running.take().expect("it was put there above");
        match outcome.and(failure.map_or(Ok(()), Err)) {
            Ok(()) => self.kept.push(job),
            Err(error) => {
                self.undone.push((job, error));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.kept.len() + self.undone.len() + usize::from(self.running.is_some())
    }

    /// After the commit: every job that ran learns its own outcome; those that did not run are left over.
    fn answer(self) -> VecDeque<Box<dyn Job>> {
        self.kept.into_iter().for_each(|job| job.answer(Ok(())));
        self.undone.into_iter().for_each(|(job, error)| job.answer(Err(error)));
        self.waiting
    }

    /// Without a commit: all learn why.
    fn fail(self, error: &StoreError) {
        let undone = self.undone.into_iter().map(|(job, _)| job);
        let jobs = self.running.into_iter().chain(self.kept).chain(undone).chain(self.waiting);
        jobs.for_each(|job| job.answer(Err(error.clone())));
    }
}

/// A job whose type of answer is forgotten.
pub(crate) trait Job: Send {
    /// Runs it once and keeps its value.
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Tells its caller.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Waiting<T, F> {
    job: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Waiting<T, F>
where
    T: Send,
    F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, StoreError>> + Send,
{
    fn run<'a>(&'a mut self, conn: &'a mut Conn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let job = self.job.take().expect("a job runs once");
            self.value = Some(job(conn).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let missing = || StoreError::Corrupt("a job ended without a value".to_owned());
        let Self { value, reply, .. } = *self;
        // A caller who has gone away does not need it.
        drop(reply.send(outcome.and_then(|()| value.ok_or_else(missing))));
    }
}
