//! Rows in, nouns out.
//!
//! [`Store`] owns the database: one writer that batches ([`Store::write`], [`Store::write_first`]) and a few
//! readers ([`Store::read`]). Each noun has a module of functions that take a [`Conn`] and speak the model's
//! types; SQL stands beside the mapping. Only the engine's module knows which database it is.

mod archive;
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

pub mod api_keys;
pub mod attempts;
pub mod audit;
pub mod backup;
pub mod clones;
pub mod delegates;
pub mod grants;
pub mod idempotency;
pub mod identities;
pub mod keys;
pub mod leases;
pub mod logins;
pub mod output;
pub mod passwords;
pub mod principals;
pub mod receipts;
pub mod restore;
pub mod roles;
pub mod scopes;
pub mod standing;
pub mod tasks;
pub mod token_uses;
pub mod token_values;
pub mod tokens;
pub mod wraps;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, SetOnce},
    task::JoinHandle,
};

pub use archive::{Header, Reader};
pub use conn::Conn;
pub use error::StoreError;
pub use page::{PAGE_MAX, Page, Paged};
pub use writer::{BATCH_MAX, QUEUE_MAX, URGENT_MAX, WriterStats};

use db::{Database, Hold, Readers};
use reserve::Reserve;
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
/// How long one job of a reader may take: a server ends a statement by itself before, so this is for a server, or a
/// network, that has fallen silent.
pub const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Says why this opening of the database is over, once.
type Overtaken = Arc<SetOnce<StoreError>>;

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
    overtaken: Overtaken,
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
        restore::refuse_unfinished(&mut conn).await?;
        migrate::migrate(&mut conn).await?;
        let raised = conn.raw("UPDATE manager SET epoch = epoch + 1 WHERE one = 1 RETURNING epoch").await?;
        reserve.as_mut().map(Reserve::hold);
        let (epoch, overtaken) = (conn::first_epoch(&raised)?, Overtaken::default());
        let watch = tokio::spawn(watch(hold, database.clone(), epoch, overtaken.clone()));
        Self::start(&database, conn, epoch, reserve, Some(watch), overtaken)
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
        restore::refuse_unfinished(&mut conn).await?;
        migrate::migrate(&mut conn).await?;
        let epoch = conn.epoch().await?;
        Self::start(&database, conn, epoch, None, None, Overtaken::default())
    }

    fn start(
        database: &Database,
        conn: Conn,
        epoch: i64,
        reserve: Option<Reserve>,
        watch: Option<JoinHandle<()>>,
        overtaken: Overtaken,
    ) -> Result<Self, StoreError> {
        let (writer, queues) = Writer::new(conn, epoch, reserve, overtaken.clone());
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        let readers = database.readers();
        Ok(Self { shared: Arc::new(Shared { queues, readers, epoch, writer, watch: Mutex::new(watch), overtaken }) })
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
    /// What the job returned, or [`StoreError::Unavailable`] when no reader comes free in time, or the database
    /// does not answer within [`READ_TIMEOUT`].
    pub async fn read<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, StoreError>>,
    {
        let mut conn = self.shared.readers.get().await?;
        match tokio::time::timeout(READ_TIMEOUT, job(&mut conn)).await {
            Ok(answer) => answer,
            Err(_late) => {
                conn.close_on_drop();
                Err(StoreError::Unavailable("the database does not answer".to_owned()))
            }
        }
    }

    /// Asks the database whether it answers.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|conn| Box::pin(async move { conn.epoch().await.map(drop) })).await
    }

    /// Waits until another Manager has taken this database over, which ends this one: nothing it writes is taken
    /// any more, and what it goes on doing in memory, such as renewing leases, nobody could revoke.
    pub async fn overtaken(&self) -> StoreError {
        self.shared.overtaken.wait().await.clone()
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

    /// How many jobs wait for the writer now.
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

/// Keeps the hold, and takes it again when it was lost with a server, unless another Manager was faster. That is
/// told by the epoch, which each Manager raises when it begins: the lock alone may still be with a connection of
/// our own that the server has not given up yet.
async fn watch(hold: Hold, database: Database, epoch: i64, overtaken: Overtaken) {
    let mut hold = Some(hold);
    let mut period = tokio::time::interval(WATCH_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let found = match &mut hold {
            Some(held) => tokio::time::timeout(READ_TIMEOUT, held.epoch()).await,
            None => tokio::time::timeout(READ_TIMEOUT, database.epoch()).await.map(|found| found.map(Some)),
        };
        match found {
            Ok(Ok(Some(found))) if found != epoch => return overtake(&overtaken, StoreError::Fenced),
            Ok(Ok(_)) if hold.is_some() => continue,
            _ => hold = None,
        }
        match database.hold().await {
            Ok(again) => hold = Some(again),
            Err(error) => tracing::warn!(%error, "the exclusive lock on the database is lost for now"),
        }
    }
}

fn overtake(overtaken: &Overtaken, why: StoreError) {
    // Watch and writer may both find out; the first says it.
    drop(overtaken.set(why));
}
