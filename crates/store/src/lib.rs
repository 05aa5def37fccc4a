//! Rows in, nouns out.
//!
//! [`Store`] owns the database: one writer that batches ([`Store::write`], [`Store::write_first`]) and a few
//! readers ([`Store::read`]). Each noun has a module of functions that take a [`Conn`] and speak the model's
//! types; SQL stands beside the mapping. Only the engine's module knows which database it is.

mod conn;
mod db;
mod error;
mod lock;
mod many;
mod migrate;
mod page;
mod reserve;
mod row;
mod writer;

pub mod accounts;
pub mod api_keys;
pub mod audit;
pub mod delegates;
pub mod idempotency;
pub mod keys;
pub mod output;
pub mod receipts;
pub mod tasks;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::Mutex, task::JoinHandle};

pub use conn::Conn;
pub use error::StoreError;
pub use page::{PAGE_MAX, Page, Paged};
pub use writer::{BATCH_MAX, QUEUE_MAX, URGENT_MAX, WriterStats};

use db::{Database, Hold, Readers};
use reserve::Reserve;
use row::Columns;
use writer::{Queues, Writer};

/// A connection inside the writer's transaction; the same type, so that a noun's functions serve both.
pub type Tx = Conn;

/// Names the type of a job, so that a closure kept in a variable is one for every borrow.
pub fn job<T, F>(job: F) -> F
where
    F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, StoreError>>,
{
    job
}

/// How often a hold that depends on a server is looked after.
const WATCH_PERIOD: Duration = Duration::from_secs(2);

/// The database. Clones share it; it closes when [`Store::close`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    queues: Queues,
    readers: Readers,
    epoch: i64,
    writer: Mutex<Option<JoinHandle<()>>>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get_mut() {
            watch.abort();
        }
    }
}

impl Store {
    /// Opens `sqlite:///absolute/path` or `postgres://…` for the one Manager that may use it: takes the
    /// exclusive lock, migrates, refuses settings under which a commit may be lost, and raises the epoch.
    ///
    /// # Errors
    /// [`StoreError::Refused`] names who holds the database, or the setting; [`StoreError::Unavailable`] says
    /// why it cannot be opened.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let database = Database::parse(url)?;
        database.create()?;
        let hold = database.hold().await?;
        let mut reserve = database.file().map(Reserve::beside);
        let mut conn = database.writer().await?;
        migrate::migrate(&mut conn).await?;
        let raised = conn.raw("UPDATE manager SET epoch = epoch + 1 WHERE one = 1 RETURNING epoch").await?;
        reserve.as_mut().map(Reserve::hold);
        let watch = tokio::spawn(watch(hold, database.clone()));
        Self::start(&database, conn, first_epoch(&raised)?, reserve, Some(watch))
    }

    /// Opens the database beside a Manager that may be running: for break-glass commands on the same host.
    /// Takes no lock and leaves the epoch as it is.
    ///
    /// # Errors
    /// As [`Store::open`], without the lock.
    pub async fn open_beside(url: &str) -> Result<Self, StoreError> {
        let database = Database::parse(url)?;
        database.create()?;
        let mut conn = database.writer().await?;
        migrate::migrate(&mut conn).await?;
        let found = conn.raw("SELECT epoch FROM manager WHERE one = 1").await?;
        Self::start(&database, conn, first_epoch(&found)?, None, None)
    }

    fn start(
        database: &Database,
        conn: Conn,
        epoch: i64,
        reserve: Option<Reserve>,
        watch: Option<JoinHandle<()>>,
    ) -> Result<Self, StoreError> {
        let (writer, queues) = Writer::new(conn, epoch, reserve);
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        let readers = database.readers();
        Ok(Self { shared: Arc::new(Shared { queues, readers, epoch, writer, watch: Mutex::new(watch) }) })
    }

    /// Runs a job in the writer's next transaction and answers after its commit. A job that fails, or in which
    /// a statement failed, is undone alone; nothing of it remains.
    ///
    /// # Errors
    /// What the job returned, or why there is no commit; after [`StoreError::Unavailable`] a commit whose
    /// confirmation was lost cannot be told from none, so a repeat must be harmless.
    pub async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static,
    {
        self.shared.queues.submit(false, job).await
    }

    /// Like [`Store::write`], before everything that waits, in a transaction without ordinary jobs, and with the
    /// disk space reserved for it: for revocations.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_first<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static,
    {
        self.shared.queues.submit(true, job).await
    }

    /// Runs a job on one of the readers. It sees what is committed, and cannot write.
    ///
    /// # Errors
    /// What the job returned, or [`StoreError::Unavailable`] when no reader comes free in time.
    pub async fn read<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, StoreError>>,
    {
        let mut conn = self.shared.readers.get().await?;
        job(&mut conn).await
    }

    /// The number of this opening; each [`Store::open`] has the next.
    pub fn epoch(&self) -> i64 {
        self.shared.epoch
    }

    /// What the writer has done so far.
    pub fn stats(&self) -> WriterStats {
        self.shared.queues.stats()
    }

    /// Whether the newest transaction failed as a whole: the database is locked, gone, full or taken over.
    pub fn failing(&self) -> bool {
        self.shared.queues.failing()
    }

    /// How many jobs wait for the writer now: what a load figure shows.
    pub fn waiting(&self) -> usize {
        self.shared.queues.waiting()
    }

    /// Lets the writer finish what waits, then closes the connections and gives up the lock.
    pub async fn close(&self) {
        self.shared.queues.stop();
        if let Some(writer) = self.shared.writer.lock().await.take() {
            // It ends in panic only by a bug, which has been reported by then.
            drop(writer.await);
        }
        self.shared.readers.close().await;
        if let Some(watch) = self.shared.watch.lock().await.take() {
            watch.abort();
            // The hold ends with the task, and the task has ended when this has.
            drop(watch.await);
        }
    }
}

fn first_epoch(rows: &[sqlx::any::AnyRow]) -> Result<i64, StoreError> {
    let missing = || StoreError::Corrupt("the manager's epoch is missing".to_owned());
    rows.first().ok_or_else(missing)?.number("epoch")
}

/// Keeps the hold, and takes it again when it was lost with a server. If another Manager was faster, the epoch
/// stops this one at its next write.
async fn watch(mut hold: Hold, database: Database) {
    let mut period = tokio::time::interval(WATCH_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        if hold.stands().await {
            continue;
        }
        match database.hold().await {
            Ok(again) => hold = again,
            Err(error) => tracing::warn!(%error, "the exclusive lock on the database is lost for now"),
        }
    }
}
