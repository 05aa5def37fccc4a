//! A database of its own for each world, on either engine.

use std::{
    env,
    path::{Path, PathBuf},
};

use sqlx::{Connection, PgConnection};

/// Which database a world stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file in the world's own directory.
    Sqlite,
    /// A new database in the cluster that `LEGATION_TEST_POSTGRES` names.
    Postgres,
}

impl Engine {
    /// Makes an empty database and says its URL.
    ///
    /// # Panics
    /// When there is no PostgreSQL to make one in.
    pub async fn create(self, data: &Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite://{}/legation.db", data.display()),
            Self::Postgres => create_postgres().await,
        }
    }
}

/// The cluster that the test script started.
///
/// # Panics
/// When the variable is not set: a skipped suite would look like a passed one.
pub fn postgres() -> String {
    env::var("LEGATION_TEST_POSTGRES")
        .expect("LEGATION_TEST_POSTGRES names no PostgreSQL: run the tests with `make test`")
}

async fn create_postgres() -> String {
    let cluster = postgres();
    let name = format!("legation_world_{:016x}", rand::random::<u64>());
    let mut connection = PgConnection::connect(&cluster).await.expect("the cluster of LEGATION_TEST_POSTGRES answers");
    // The name is made of our own letters and digits; identifiers cannot be bound as parameters.
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(statement).execute(&mut connection).await.expect("the cluster makes databases");
    connection.close().await.expect("the connection closes");
    within(&cluster, &name)
}

/// Directories with the raw rows of a PostgreSQL database and with everything that was ever written to it.
///
/// # Panics
/// When the server does not answer or does not say where its files are.
pub async fn files(url: &str) -> Vec<PathBuf> {
    let mut connection = PgConnection::connect(url).await.expect("the database answers");
    // What is only in memory would not be found.
    sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await.expect("a superuser of the test cluster");
    let query = "SELECT current_setting('data_directory'), pg_database.oid::bigint FROM pg_database \
                 WHERE datname = current_database()";
    let (data, id): (String, i64) = sqlx::query_as(query).fetch_one(&mut connection).await.expect("its own row");
    connection.close().await.expect("the connection closes");
    vec![Path::new(&data).join("base").join(id.to_string()), Path::new(&data).join("pg_wal")]
}

/// The same URL with another database.
fn within(cluster: &str, database: &str) -> String {
    let (base, query) = cluster.split_once('?').unwrap_or((cluster, ""));
    let start = base.find("://").map_or(0, |at| at + 3);
    let authority = base[start..].find('/').map_or(base, |slash| &base[..start + slash]);
    let question = if query.is_empty() { "" } else { "?" };
    format!("{authority}/{database}{question}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_cluster() {
        assert_eq!(within("postgres://u@h:5/postgres?host=%2Ftmp", "x"), "postgres://u@h:5/x?host=%2Ftmp");
        assert_eq!(within("postgres://u@h:5", "x"), "postgres://u@h:5/x");
    }
}
