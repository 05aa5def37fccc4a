//! A database of its own for each test.

use std::sync::atomic::{AtomicU64, Ordering};

use legation_store::Store;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

/// Where a test's database is; a directory of it is removed with this, a PostgreSQL one with its cluster.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) dir: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite://{}/store.db", dir.path().display()), dir: Some(dir) }
    }

    pub(crate) async fn postgres() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let server = postgres_server();
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = format!("store_{process}_{number}");
        let mut conn = connect(&server).await;
        let text = format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} TEMPLATE template0");
        for text in text.split(';') {
            conn.execute(AssertSqlSafe(text.to_owned())).await.unwrap();
        }
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { url: format!("{base}/{name}"), dir: None }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.dir.is_none()
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }

    /// A connection past the store.
    pub(crate) async fn behind(&self) -> AnyConnection {
        connect(&self.url).await
    }
}

/// The URL of the test cluster. No guarantee is silently untested: without it the tests fail.
pub(crate) fn postgres_server() -> String {
    std::env::var("LEGATION_TEST_POSTGRES")
        .expect("run `make test`, or set LEGATION_TEST_POSTGRES to the URL that scripts/postgres.sh prints")
}

pub(crate) async fn connect(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(url).await.unwrap()
}

/// `write!(store, |tx| body)`: a write whose body may await; it owns what it captures.
macro_rules! write {
    ($store:expr, |$tx:ident| $body:expr) => {
        $store.write(move |$tx| Box::pin(async move { $body })).await
    };
}
pub(crate) use write;

/// `read!(store, |conn| body)`, likewise.
macro_rules! read {
    ($store:expr, |$conn:ident| $body:expr) => {
        $store.read(move |$conn| Box::pin(async move { $body })).await
    };
}
pub(crate) use read;
