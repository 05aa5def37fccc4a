//! Restoring a backup into an empty database, of either engine, in one transaction.
//!
//! Before it begins a mark is committed, with which no Manager starts; the transaction takes it away together with writing
//! everything else. So a restore that was killed leaves a database that is empty and says why, and is done again.

use std::io::Read;

use futures_util::future::BoxFuture;
use legation_model::Millis;

use crate::{
    Conn, StoreError, Tx,
    archive::{Reader, Record, Value},
    db::Database,
    many, migrate,
};

/// The table that is there while a restore is not finished.
const MARK: &str = "restore_unfinished";
/// How far the epoch is raised: by more starts than any Manager had since the backup, so that one that still runs elsewhere
/// on what it takes for its database is told apart.
const EPOCH_STEP: i64 = 1 << 32;
/// Tables whose rows are not taken over, by their names in whichever version has them: console sessions, and one-time codes
/// that a token's value waits for. Which of them ended after the backup nobody knows; people log in again, and what waited is
/// issued anew.
const NOT_TAKEN_OVER: &[&str] = &["logins", "wraps"];
/// Arguments of one statement, below SQLite's 32,766.
const ARGUMENTS_MAX: usize = 16_000;
/// Bytes of one statement, so that memory stays bounded.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// Writes a whole backup into the empty database at `url`, brings it to this version's schema and has `finish` do its work in
/// the same transaction. Every lease that an earlier Manager may have granted counts as `longest_lease`: what the backup says
/// of that may be out of date.
///
/// # Errors
/// [`StoreError::Refused`] when the database is in use or not empty, or the backup is damaged or of a newer version; what
/// `finish` returned; [`StoreError::Unavailable`]. Nothing of the backup is in the database then, and no Manager starts on it.
pub async fn restore<T, F>(
    url: &str,
    mut backup: Reader<impl Read>,
    longest_lease: Millis,
    finish: F,
) -> Result<T, StoreError>
where
    F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>>,
{
    let count = migrate::known(&backup.header().migrations)?;
    let database = Database::parse(url)?;
    database.create()?;
    let _hold = database.hold().await?;
    let mut conn = database.writer().await?;
    mark(&mut conn).await?;
    conn.begin_migration().await?;
    let outcome = fill(&mut conn, &mut backup, count, longest_lease, finish).await;
    match outcome {
        Ok(value) => conn.raw("COMMIT").await.map(|_| value),
        Err(error) => {
            // The transaction is over whether this arrives or not.
            drop(conn.raw("ROLLBACK").await);
            Err(error)
        }
    }
}

/// Refuses a database in which a restore was begun and not finished.
pub(crate) async fn refuse_unfinished(conn: &mut Conn) -> Result<(), StoreError> {
    if conn.tables().await?.iter().any(|table| table == MARK) {
        return Err(StoreError::refused(
            "a restore of this database was interrupted, and nothing is in it: run `legation-manager restore` again, or use \
             another database",
        ));
    }
    Ok(())
}

async fn mark(conn: &mut Conn) -> Result<(), StoreError> {
    let tables = conn.tables().await?;
    if tables.iter().any(|table| table != MARK) {
        return Err(StoreError::refused(
            "the database is not empty, and a restore overwrites nothing: name an empty one, or a data directory without a \
             database",
        ));
    }
    conn.raw(format!("CREATE TABLE IF NOT EXISTS {MARK} (one BIGINT)")).await.map(drop)
}

async fn fill<T, F>(
    conn: &mut Conn,
    backup: &mut Reader<impl Read>,
    count: usize,
    longest_lease: Millis,
    finish: F,
) -> Result<T, StoreError>
where
    F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>>,
{
    migrate::apply_first(conn, count).await?;
    let tables = migrate::tables(count);
    for table in tables.iter().rev() {
        // What the migrations put there is in the backup too, as it was by then.
        conn.raw(format!("DELETE FROM {table}")).await?;
    }
    copy(conn, backup, &tables).await?;
    migrate::apply_all(conn).await?;
    conn.raw(format!("DROP TABLE {MARK}")).await?;
    let update = "UPDATE manager SET epoch = epoch + $1, longest_lease = $2 WHERE one = 1";
    conn.run_one(sqlx::query(update).bind(EPOCH_STEP).bind(longest_lease)).await?;
    finish(conn).await
}

async fn copy(conn: &mut Conn, backup: &mut Reader<impl Read>, tables: &[&'static str]) -> Result<(), StoreError> {
    let mut portion = Portion::default();
    let mut passed_over = false;
    while let Some(record) = backup.next()? {
        match record {
            Record::Table(name, columns) => {
                portion.write(conn).await?;
                passed_over = NOT_TAKEN_OVER.contains(&name.as_str());
                portion = if passed_over { Portion::default() } else { Portion::of(&name, columns, tables)? };
            }
            Record::Row(_) if passed_over => {}
            Record::Row(row) => {
                portion.add(row)?;
                if portion.is_full() {
                    portion.write(conn).await?;
                }
            }
            Record::End(_) => return Err(strange()),
        }
    }
    portion.write(conn).await
}

/// Rows of one table that are written together.
#[derive(Default)]
struct Portion {
    table: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Portion {
    /// Names of columns become part of a statement, so that they are looked at closely.
    fn of(name: &str, columns: Vec<String>, tables: &[&'static str]) -> Result<Self, StoreError> {
        let is_name = |column: &String| {
            !column.is_empty() && column.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        let table = tables.iter().find(|table| **table == name).copied().ok_or_else(strange)?;
        if columns.is_empty() || !columns.iter().all(is_name) {
            return Err(strange());
        }
        Ok(Self { table, columns, ..Self::default() })
    }

    fn add(&mut self, row: Vec<Value>) -> Result<(), StoreError> {
        if row.len() != self.columns.len() || row.is_empty() {
            return Err(strange());
        }
        self.bytes += row.iter().map(Value::size).sum::<usize>();
        self.rows.push(row);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes >= STATEMENT_BYTES_MAX || (self.rows.len() + 1) * self.columns.len() > ARGUMENTS_MAX
    }

    async fn write(&mut self, conn: &mut Conn) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        // Null has no type that would suit every column as an argument.
        let mut number = 0;
        let mut spell = |value: &Value| match value {
            Value::Null => "NULL".to_owned(),
            _ => {
                number += 1;
                format!("${number}")
            }
        };
        let values: Vec<String> =
            rows.iter().map(|row| format!("({})", row.iter().map(&mut spell).collect::<Vec<_>>().join(", "))).collect();
        let text = format!("INSERT INTO {} ({}) VALUES {}", self.table, self.columns.join(", "), values.join(", "));
        let query = rows.into_iter().flatten().fold(many::passing(conn, &text), |query, value| match value {
            Value::Null => query,
            Value::Integer(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        });
        conn.run(query).await.map(drop)
    }
}

fn strange() -> StoreError {
    StoreError::refused(
        "the backup holds something that no version writes: take another copy of it, or an older backup",
    )
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;
    use crate::{Header, Store, archive::Writer, backup};

    fn url(directory: &tempfile::TempDir, name: &str) -> String {
        format!("sqlite://{}/{name}.db", directory.path().display())
    }

    async fn put(url: &str, bytes: &[u8]) -> Result<(), StoreError> {
        restore(url, Reader::new(bytes)?, 5, |_| Box::pin(async { Ok(()) })).await
    }

    async fn rows(url: &str, text: &str) -> Vec<sqlx::any::AnyRow> {
        let mut conn = Database::parse(url).unwrap().reader().await.unwrap();
        conn.raw(text).await.unwrap()
    }

    #[tokio::test]
    async fn an_older_schema_is_brought_to_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (url(&directory, "old"), url(&directory, "new"));
        let database = Database::parse(&old).unwrap();
        database.create().unwrap();
        let mut conn = database.writer().await.unwrap();
        conn.begin_migration().await.unwrap();
        migrate::apply_first(&mut conn, 5).await.unwrap();
        let key = "INSERT INTO api_keys (id, name, hash, role, created_at) VALUES ('lak_1', 'k', x'00ff', 'admin', 7)";
        conn.raw(format!("{key}; COMMIT")).await.unwrap();
        let mut bytes = Vec::new();
        let saved = backup::save(&old, &mut bytes, 9, |_, _| ()).await.unwrap();
        assert_eq!((saved.header.migrations.len(), saved.header.taken_at), (5, 9));
        assert!(saved.tables.iter().all(|(table, _)| table != "principals"), "{saved:?}");

        put(&new, &bytes).await.unwrap();
        // What a later migration makes of the rows is made of the restored ones.
        let text = "SELECT k.hash, p.name FROM api_keys k JOIN principals p ON p.id = k.owner";
        let found = rows(&new, text).await;
        assert_eq!((found[0].get::<Vec<u8>, _>(0), found[0].get::<String, _>(1)), (vec![0, 255], "k-1".to_owned()));
        let manager = rows(&new, "SELECT epoch, longest_lease FROM manager").await;
        assert_eq!((manager[0].get::<i64, _>(0), manager[0].get::<i64, _>(1)), (EPOCH_STEP, 5));
        let store = Store::open(&new).await.unwrap();
        assert_eq!(store.epoch(), EPOCH_STEP + 1);
        store.close().await;
        assert!(matches!(put(&new, &bytes).await, Err(StoreError::Refused(why)) if why.contains("not empty")));
    }

    #[tokio::test]
    async fn what_a_backup_says_is_no_statement() {
        let directory = tempfile::tempdir().unwrap();
        let (evil, text) = (url(&directory, "evil"), |text: &str| Value::Text(text.to_owned()));
        let header = || Header { migrations: migrate::ours(), ..Header::default() };
        let file = |header: &Header, table: &str, columns: &[&str], row: &[Value]| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, header).unwrap();
            writer.table(table, columns).unwrap();
            writer.row(row).unwrap();
            writer.finish().unwrap();
            bytes
        };
        for (table, columns, row) in [
            ("sqlite_master", &["name"][..], &[text("x")][..]),
            ("migrations", &["name"], &[text("x")]),
            ("accounts", &["scope)VALUES('x');--"], &[text("x")]),
            ("accounts", &["scope"], &[text("x"), text("y")]),
            ("accounts", &[], &[]),
        ] {
            let refused = put(&evil, &file(&header(), table, columns, row)).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{table} {columns:?}: {refused:?}");
        }
        let unfinished = Store::open(&evil).await.err();
        assert!(matches!(unfinished, Some(StoreError::Refused(why)) if why.contains("interrupted")));
        let sessions = file(&header(), NOT_TAKEN_OVER[0], &["id"], &[text("x")]);
        let passed_over = put(&url(&directory, "sessions"), &sessions).await;
        assert_eq!(passed_over, Err(StoreError::NotFound), "only then the Manager's own row is missed");
        let mut newer = header();
        newer.migrations.push(("later".to_owned(), String::new()));
        let refused = put(&evil, &file(&newer, "accounts", &["scope"], &[text("x")])).await;
        assert!(matches!(refused, Err(StoreError::Refused(why)) if why.contains("newer")));
    }

    #[tokio::test]
    async fn every_table_is_saved() {
        let directory = tempfile::tempdir().unwrap();
        let url = url(&directory, "db");
        Store::open(&url).await.unwrap().close().await;
        let mut found = Database::parse(&url).unwrap().reader().await.unwrap().tables().await.unwrap();
        found.retain(|table| table != "migrations");
        let mut known = migrate::tables(usize::MAX);
        known.sort_unstable();
        found.sort();
        assert_eq!(found, known);
    }
}
