//! A connection, with what every noun needs of it.

use futures_util::{Stream, TryStreamExt as _};
use sqlx::{
    Any, AnyConnection, AssertSqlSafe, Connection,
    any::{AnyArguments, AnyRow},
    pool::PoolConnection,
    query::Query,
};

use crate::{
    StoreError,
    db::{Database, explain},
    row::Columns,
};

/// A statement with its arguments.
pub(crate) type Statement<'q> = Query<'q, Any, AnyArguments>;

/// A connection; in a write, one that is inside the writer's transaction.
pub struct Conn {
    inner: Inner,
    database: Database,
    identity: Option<(u64, u64)>,
    failed: Option<StoreError>,
}

enum Inner {
    Own(AnyConnection),
    Pooled(PoolConnection<Any>),
}

impl Conn {
    /// A connection of the writer's own.
    pub(crate) fn own(inner: AnyConnection, database: Database) -> Self {
        let identity = database.identity();
        Self { inner: Inner::Own(inner), database, identity, failed: None }
    }

    /// A connection that goes back to its pool.
    pub(crate) fn pooled(inner: PoolConnection<Any>, database: Database) -> Self {
        Self { inner: Inner::Pooled(inner), database, identity: None, failed: None }
    }

    /// Runs a statement; how many rows it changed.
    pub(crate) async fn run(&mut self, statement: Statement<'_>) -> Result<u64, StoreError> {
        let done = statement.execute(self.any()).await;
        self.noted(done).map(|done| done.rows_affected())
    }

    /// Runs a statement that must change exactly one row.
    pub(crate) async fn run_one(&mut self, statement: Statement<'_>) -> Result<(), StoreError> {
        if self.run(statement).await? == 1 { Ok(()) } else { Err(StoreError::NotFound) }
    }

    /// The first row, if any.
    pub(crate) async fn maybe(&mut self, statement: Statement<'_>) -> Result<Option<AnyRow>, StoreError> {
        let row = statement.fetch_optional(self.any()).await;
        self.noted(row)
    }

    /// All rows.
    pub(crate) async fn all(&mut self, statement: Statement<'_>) -> Result<Vec<AnyRow>, StoreError> {
        let rows = statement.fetch_all(self.any()).await;
        self.noted(rows)
    }

    /// The rows of a statement without arguments, one after the other.
    pub(crate) fn stream(&mut self, text: String) -> impl Stream<Item = Result<AnyRow, StoreError>> + Unpin {
        sqlx::query(AssertSqlSafe(text)).fetch(self.any()).map_err(explain)
    }

    /// The names of all tables.
    pub(crate) async fn tables(&mut self) -> Result<Vec<String>, StoreError> {
        let text = self.database.tables();
        self.raw(text).await?.iter().map(|row| row.text("name")).collect()
    }

    /// Begins a transaction that reads everything as it is at its first statement.
    pub(crate) async fn begin_snapshot(&mut self) -> Result<(), StoreError> {
        let text = self.database.begin_snapshot();
        self.raw(text).await.map(drop)
    }

    /// Runs statements without arguments in one round trip; the rows of all of them.
    pub(crate) async fn raw(&mut self, text: impl Into<String>) -> Result<Vec<AnyRow>, StoreError> {
        let rows = sqlx::raw_sql(AssertSqlSafe(text.into())).fetch_all(self.any()).await;
        self.noted(rows)
    }

    /// Begins a transaction that writes and reads the epoch in the same round trip.
    pub(crate) async fn begin(&mut self) -> Result<i64, StoreError> {
        if self.identity != self.database.identity() {
            return Err(StoreError::Unavailable("its file was moved, replaced or deleted: put it back".to_owned()));
        }
        let text = format!("{}; SELECT epoch FROM manager WHERE one = 1{}", self.database.begin(), self.for_share());
        first_epoch(&self.raw(text).await?)
    }

    /// Reads the epoch.
    pub(crate) async fn epoch(&mut self) -> Result<i64, StoreError> {
        first_epoch(&self.raw("SELECT epoch FROM manager WHERE one = 1").await?)
    }

    /// Begins the one transaction in which the schema may change.
    pub(crate) async fn begin_migration(&mut self) -> Result<(), StoreError> {
        let text = self.database.begin_migration();
        self.raw(text).await.map(|_| ())
    }

    /// What makes a SELECT hold its rows until the transaction ends. SQLite has one writer; nothing can pass it.
    pub(crate) fn for_share(&self) -> &'static str {
        self.database.for_share()
    }

    /// The first failure since the last call. A transaction in which a statement failed is not continued, even
    /// if the job swallowed the error: PostgreSQL would not, and SQLite may have rolled it back by itself.
    pub(crate) fn take_failure(&mut self) -> Option<StoreError> {
        self.failed.take()
    }

    /// Has the connection closed instead of used again: an answer may still be on its way.
    pub(crate) fn close_on_drop(&mut self) {
        if let Inner::Pooled(conn) = &mut self.inner {
            conn.close_on_drop();
        }
    }

    /// Ends the connection.
    pub(crate) async fn close(self) {
        if let Inner::Own(conn) = self.inner {
            // Its work is committed or lost by now; a failing farewell changes nothing.
            drop(conn.close().await);
        }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    fn any(&mut self) -> &mut AnyConnection {
        match &mut self.inner {
            Inner::Own(conn) => conn,
            Inner::Pooled(conn) => conn,
        }
    }

    fn noted<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            let error = explain(error);
            self.failed.get_or_insert_with(|| error.clone());
            error
        })
    }
}

/// The epoch in the answer to a statement that asks for it.
pub(crate) fn first_epoch(rows: &[AnyRow]) -> Result<i64, StoreError> {
    let missing = || StoreError::Corrupt("the manager's epoch is missing".to_owned());
    rows.first().ok_or_else(missing)?.number("epoch")
}
