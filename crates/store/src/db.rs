//! The engine: the only file that knows which database it talks to.
//!
//! Everything else writes one SQL text that both engines take. What differs is here: how a connection is
//! prepared, how a transaction begins, who holds the database, which settings are unsafe, what an error means.

use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    AnyConnection, AssertSqlSafe, ConnectOptions, Executor,
    any::{AnyConnectOptions, AnyPoolOptions},
};

use crate::{
    Conn, StoreError,
    lock::{FileLock, holder_name},
};

/// How long SQLite waits for another process's write, and PostgreSQL for a row lock, before it is an error.
const BUSY: Duration = Duration::from_secs(5);
/// Connections that only read; a few, because each holds memory and, on SQLite, a thread.
const READERS: u32 = 4;
/// How long a reader waits for one of them.
const READER_WAIT: Duration = Duration::from_secs(5);
/// How often the lock is tried: the server may need a moment to notice that a Manager which was killed is gone.
const HOLD_TRIES: u32 = 20;
/// Pause between two tries.
const HOLD_PAUSE: Duration = Duration::from_millis(100);
/// The key of PostgreSQL's advisory lock: "legation" in ASCII.
const LOCK_KEY: i64 = 0x6c65_6761_7469_6f6e;
/// The key under which concurrent migrations wait for each other.
const MIGRATION_KEY: i64 = LOCK_KEY + 1;

/// Where the database is, and what speaks there.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    engine: Engine,
    options: AnyConnectOptions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Engine {
    Sqlite(PathBuf),
    Postgres,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// The exclusive hold on a database; it ends when this is dropped.
pub(crate) enum Hold {
    /// A lock on a file beside the database.
    File { _lock: FileLock },
    /// A lock of a connection's session, which is lost with the connection.
    Session(Box<Conn>),
}

impl Database {
    /// Reads `sqlite:///absolute/path` or `postgres://…`.
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let engine = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Engine::Sqlite(sqlite_path(url)?),
            Some("postgres" | "postgresql") => Engine::Postgres,
            _ => return Err(StoreError::refused("the database URL must begin with sqlite:/// or postgres://")),
        };
        let options = AnyConnectOptions::from_str(url)
            .map_err(|_| StoreError::refused("the database URL cannot be read: check its spelling"))?;
        Ok(Self { engine, options: options.disable_statement_logging() })
    }

    /// The file of an embedded database; disk space for it can be reserved beside it.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.engine {
            Engine::Sqlite(path) => Some(path),
            Engine::Postgres => None,
        }
    }

    /// Creates what a first start needs, readable by its owner alone.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        let Engine::Sqlite(path) = &self.engine else { return Ok(()) };
        let failed = |error| StoreError::Unavailable(format!("{} cannot be opened: {error}", path.display()));
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)
    }

    /// Takes the database for this process alone, or says in one sentence who has it.
    pub(crate) async fn hold(&self) -> Result<Hold, StoreError> {
        match &self.engine {
            Engine::Sqlite(path) => Ok(Hold::File { _lock: FileLock::take(path)? }),
            Engine::Postgres => self.hold_session().await,
        }
    }

    async fn hold_session(&self) -> Result<Hold, StoreError> {
        let mut conn = self.writer().await?;
        for _ in 0..HOLD_TRIES {
            let taken = conn.maybe(sqlx::query("SELECT pg_try_advisory_lock($1)").bind(LOCK_KEY)).await?;
            if taken.is_some_and(|row| sqlx::Row::try_get(&row, 0).unwrap_or(false)) {
                return Ok(Hold::Session(Box::new(conn)));
            }
            tokio::time::sleep(HOLD_PAUSE).await;
        }
        const HOLDER: &str = "SELECT a.application_name || ' from ' || COALESCE(a.client_addr::text, 'this machine') \
             || ', server process ' || a.pid::text FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = $1 >> 32 \
             AND l.objid::bigint = $1 & 4294967295 AND a.datname = current_database()";
        let row = conn.maybe(sqlx::query(HOLDER).bind(LOCK_KEY)).await?;
        let who: Option<String> = row.and_then(|row| sqlx::Row::try_get(&row, 0).ok());
        Err(held_by(&who.unwrap_or_else(|| "another process".to_owned())))
    }

    /// The epoch as a new connection finds it.
    pub(crate) async fn epoch(&self) -> Result<i64, StoreError> {
        let mut conn = self.writer().await?;
        let epoch = conn.epoch().await;
        conn.close().await;
        epoch
    }

    /// A connection that writes, after a look at the settings on which durability rests.
    pub(crate) async fn writer(&self) -> Result<Conn, StoreError> {
        let mut inner = self.options.connect().await.map_err(unopened)?;
        self.prepare(&mut inner, Use::Write).await.map_err(explain)?;
        let mut conn = Conn::own(inner, self.clone());
        self.refuse_unsafe_settings(&mut conn).await?;
        Ok(conn)
    }

    /// A connection of its own that only reads, beside whoever writes.
    pub(crate) async fn reader(&self) -> Result<Conn, StoreError> {
        let mut inner = self.options.connect().await.map_err(unopened)?;
        self.prepare(&mut inner, Use::Read).await.map_err(explain)?;
        Ok(Conn::own(inner, self.clone()))
    }

    /// The connections that read.
    pub(crate) fn readers(&self) -> Readers {
        let database = self.clone();
        let pool = AnyPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT)
            // A server may have ended a connection meanwhile; nothing ends one to a file.
            .test_before_acquire(self.engine == Engine::Postgres)
            .after_connect(move |conn, _| {
                let database = database.clone();
                Box::pin(async move { database.prepare(conn, Use::Read).await })
            })
            .connect_lazy_with(self.options.clone());
        Readers { pool, database: self.clone() }
    }

    async fn prepare(&self, conn: &mut AnyConnection, intent: Use) -> Result<(), sqlx::Error> {
        let busy = BUSY.as_millis();
        let text = match (&self.engine, intent) {
            (Engine::Sqlite(_), Use::Write) => format!(
                "PRAGMA busy_timeout = {busy}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; \
                 PRAGMA trusted_schema = OFF;"
            ),
            (Engine::Sqlite(_), Use::Read) => format!(
                "PRAGMA busy_timeout = {busy}; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; \
                 PRAGMA query_only = ON;"
            ),
            (Engine::Postgres, intent) => format!(
                "SET application_name = '{}'; SET lock_timeout = {busy}; SET statement_timeout = {}; \
                 SET idle_in_transaction_session_timeout = {}; SET default_transaction_read_only = {};",
                holder_name().replace('\'', ""),
                busy * 2,
                busy * 4,
                if intent == Use::Read { "on" } else { "off" },
            ),
        };
        conn.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(|_| ())
    }

    /// One migration in this engine's words: its type of bytes, and texts in byte order, so that cursors and
    /// indexes depend neither on a server's locale nor on an update of its C library.
    pub(crate) fn schema(&self, text: &str) -> String {
        match &self.engine {
            Engine::Sqlite(_) => text.replace(" BYTEA", " BLOB"),
            Engine::Postgres => text.replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }

    /// A statement with many arguments, which must stand in the order of their numbers, in this engine's words:
    /// SQLite looks up a numbered argument among all before it, and one without a number by its position.
    pub(crate) fn in_order(&self, text: &str) -> String {
        if self.engine == Engine::Postgres {
            return text.to_owned();
        }
        let mut parts = text.split('$');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for (number, part) in (1..).zip(parts) {
            let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
            debug_assert_eq!(part[..part.len() - rest.len()].parse(), Ok(number), "out of order in {text}");
            plain.push('?');
            plain.push_str(rest);
        }
        plain
    }

    /// What begins a transaction that writes.
    pub(crate) fn begin(&self) -> &'static str {
        match self.engine {
            Engine::Sqlite(_) => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// What begins a transaction in which nobody else changes the schema.
    pub(crate) fn begin_migration(&self) -> String {
        match self.engine {
            Engine::Sqlite(_) => "BEGIN IMMEDIATE".to_owned(),
            Engine::Postgres => format!("BEGIN; SELECT 1 FROM pg_advisory_xact_lock({MIGRATION_KEY}) LIMIT 1"),
        }
    }

    /// What begins a transaction that sees one moment, however long it takes. In SQLite the first statement takes it.
    pub(crate) fn begin_snapshot(&self) -> &'static str {
        match self.engine {
            Engine::Sqlite(_) => "BEGIN",
            Engine::Postgres => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
                 SET LOCAL idle_in_transaction_session_timeout = 0"
            }
        }
    }

    /// What lists the tables.
    pub(crate) fn tables(&self) -> &'static str {
        match self.engine {
            Engine::Sqlite(_) => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
            Engine::Postgres => "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = current_schema()",
        }
    }

    /// What makes a SELECT hold its rows until the transaction ends. SQLite has one writer; nothing can pass it.
    pub(crate) fn for_share(&self) -> &'static str {
        match self.engine {
            Engine::Sqlite(_) => "",
            Engine::Postgres => " FOR SHARE",
        }
    }

    async fn refuse_unsafe_settings(&self, conn: &mut Conn) -> Result<(), StoreError> {
        if self.engine != Engine::Postgres {
            return Ok(());
        }
        let unsafe_ones = "SELECT name || ' = ' || setting FROM pg_settings \
             WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'";
        match conn.maybe(sqlx::query(unsafe_ones)).await? {
            None => Ok(()),
            Some(row) => Err(StoreError::refused(format!(
                "PostgreSQL runs with {}, so that a revocation could be lost in a crash: turn it on",
                sqlx::Row::try_get::<String, _>(&row, 0).unwrap_or_default()
            ))),
        }
    }

    /// Which file the path leads to now; a database that was replaced or removed must not be written on.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        let found = fs::metadata(self.file()?).ok()?;
        Some((found.dev(), found.ino()))
    }
}

impl Hold {
    /// Asks the server whether the hold still stands, and for the epoch it finds there; nothing to ask where the
    /// hold depends on no server.
    pub(crate) async fn epoch(&mut self) -> Result<Option<i64>, StoreError> {
        match self {
            Self::File { .. } => Ok(None),
            Self::Session(conn) => conn.epoch().await.map(Some),
        }
    }
}

/// A bounded set of connections that only read.
pub(crate) struct Readers {
    pool: sqlx::AnyPool,
    database: Database,
}

impl Readers {
    /// Waits for one of them.
    pub(crate) async fn get(&self) -> Result<Conn, StoreError> {
        let inner = self.pool.acquire().await.map_err(unopened)?;
        Ok(Conn::pooled(inner, self.database.clone()))
    }

    /// Closes them.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// The one sentence for a second Manager.
pub(crate) fn held_by(who: &str) -> StoreError {
    StoreError::refused(format!("another Manager has this database open ({who}): stop it first"))
}

fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    let path = url.strip_prefix("sqlite://").map(|rest| rest.split('?').next().unwrap_or(rest));
    let path = path.filter(|path| path.starts_with('/') && !path.contains('%')).map(PathBuf::from);
    path.ok_or_else(|| StoreError::refused("a SQLite URL must be sqlite:// and an absolute path without % signs"))
}

fn unopened(error: sqlx::Error) -> StoreError {
    match explain(error) {
        StoreError::Corrupt(why) => StoreError::Unavailable(why),
        other => other,
    }
}

/// What an engine's error means for the caller.
pub(crate) fn explain(error: sqlx::Error) -> StoreError {
    let sqlx::Error::Database(error) = &error else {
        return match error {
            sqlx::Error::RowNotFound => StoreError::NotFound,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::TypeNotFound { .. } => {
                StoreError::Corrupt(error.to_string())
            }
            _ => StoreError::Unavailable(error.to_string()),
        };
    };
    let code = error.code().unwrap_or_default();
    if error.is_unique_violation() {
        StoreError::Taken
    } else if error.is_foreign_key_violation() {
        StoreError::NotFound
    } else if is_passing(&code) {
        StoreError::Unavailable(format!("{} (code {code})", error.message()))
    } else {
        StoreError::Corrupt(format!("{} (code {code})", error.message()))
    }
}

/// Whether an error code speaks of the state of the machine or server and not of the statement.
fn is_passing(code: &str) -> bool {
    // SQLite's primary codes in the low byte: nomem, readonly, interrupt, ioerr, full, cantopen, busy, locked.
    if let Ok(extended) = code.parse::<u32>()
        && code.len() != SQLSTATE_CHARS
    {
        return matches!(extended & 0xff, 5..=10 | 13 | 14);
    }
    // SQLSTATE classes: connection, rollback, resources, not in prerequisite state, operator, system, read-only.
    ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25006"
}

/// The length of an SQLSTATE; SQLite's extended codes have at most four digits.
const SQLSTATE_CHARS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_embedded_writer_is_durable_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::parse(&format!("sqlite://{}/db", dir.path().display())).unwrap();
        database.create().unwrap();
        let mut conn = database.writer().await.unwrap();
        let text = "SELECT s.synchronous, f.foreign_keys, d.secure_delete, t.temp_store, j.journal_mode \
             FROM pragma_synchronous s, pragma_foreign_keys f, pragma_secure_delete d, pragma_temp_store t, \
             pragma_journal_mode j";
        let rows = conn.raw(text).await.unwrap();
        let number = |index: usize| sqlx::Row::get::<i64, _>(&rows[0], index);
        assert_eq!((number(0), number(1), number(2), number(3)), (2, 1, 1, 2));
        assert_eq!(sqlx::Row::get::<String, _>(&rows[0], 4), "wal");
    }

    #[test]
    fn urls_are_read_or_refused_with_the_fix() {
        for url in ["", "mysql://x", "sqlite:relative.db", "sqlite://relative.db", "sqlite:///a%20b", "/a/b"] {
            let refused = Database::parse(url).err();
            assert!(matches!(&refused, Some(StoreError::Refused(fix)) if fix.contains("must")), "{url}: {refused:?}");
        }
        let password = "postgres://user:hunter2@[bad/db";
        assert!(!format!("{:?}", Database::parse(password).err()).contains("hunter2"));
    }

    #[test]
    fn codes_are_told_apart() {
        for passing in ["5", "13", "14", "778", "4874", "53100", "57P01", "08006", "55P03", "25006"] {
            assert!(is_passing(passing), "{passing}");
        }
        for lasting in ["1", "11", "26", "42601", "23505", "XX001", ""] {
            assert!(!is_passing(lasting), "{lasting}");
        }
    }
}
