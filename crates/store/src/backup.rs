//! A backup: every table as it was at one moment, while a Manager may go on writing.

use std::io::{self, Write};

use futures_util::TryStreamExt as _;
use legation_model::Millis;
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _, any::AnyRow};

use crate::{
    Conn, StoreError,
    archive::{Header, Value, Writer},
    db::Database,
    migrate,
    restore::refuse_unfinished,
    row::Columns,
};

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What the backup is of.
    pub header: Header,
    /// How many rows of each table.
    pub tables: Vec<(String, u64)>,
    /// How long the file is.
    pub bytes: u64,
}

/// Writes a backup of the database to `to`; `progress` hears of each table when it is saved.
///
/// # Errors
/// [`StoreError::Refused`] when another version built the database, [`StoreError::Unavailable`] when it cannot be read or
/// the backup not be written.
pub async fn save(
    url: &str,
    to: impl Write,
    now: Millis,
    mut progress: impl FnMut(&str, u64),
) -> Result<Saved, StoreError> {
    let database = Database::parse(url)?;
    let mut conn = database.reader().await?;
    refuse_unfinished(&mut conn).await?;
    conn.begin_snapshot().await?;
    let migrations = migrate::applied(&mut conn).await?;
    let header = Header {
        epoch: conn.epoch().await?,
        taken_at: now,
        database: database_id(&mut conn).await?,
        migrations: migrations.clone(),
    };
    let mut writer = Writer::new(to, &header).map_err(unwritten)?;
    let mut tables = Vec::new();
    for table in migrate::tables(migrations.len()) {
        let rows = table_rows(&mut conn, table, &mut writer).await?;
        progress(table, rows);
        tables.push((table.to_owned(), rows));
    }
    let (_, bytes) = writer.finish().map_err(unwritten)?;
    conn.close().await;
    Ok(Saved { header, tables, bytes })
}

/// The id of the data key, which no other database has.
async fn database_id(conn: &mut Conn) -> Result<String, StoreError> {
    let row = conn.maybe(sqlx::query("SELECT id FROM keys WHERE kind = 'data'")).await?;
    Ok(row.map(|row| row.text("id")).transpose()?.unwrap_or_default())
}

/// One row after the other, so that memory holds one.
async fn table_rows(conn: &mut Conn, table: &str, writer: &mut Writer<impl Write>) -> Result<u64, StoreError> {
    let text = format!("SELECT * FROM {table}");
    let mut stream = conn.stream(text);
    let mut rows = 0;
    while let Some(row) = stream.try_next().await? {
        if rows == 0 {
            let columns: Vec<&str> = row.columns().iter().map(|column| column.name()).collect();
            writer.table(table, &columns).map_err(unwritten)?;
        }
        writer.row(&values(table, &row)?).map_err(unwritten)?;
        rows += 1;
    }
    Ok(rows)
}

fn values(table: &str, row: &AnyRow) -> Result<Vec<Value>, StoreError> {
    let unexpected = |_| StoreError::Corrupt(format!("a row of the table {table}"));
    let value = |at: usize| {
        let raw = row.try_get_raw(at)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        match raw.type_info().name() {
            "BLOB" => row.try_get(at).map(Value::Bytes),
            "TEXT" => row.try_get(at).map(Value::Text),
            _ => row.try_get(at).map(Value::Integer),
        }
    };
    (0..row.len()).map(value).collect::<Result<_, sqlx::Error>>().map_err(unexpected)
}

fn unwritten(error: io::Error) -> StoreError {
    StoreError::Unavailable(format!("the backup cannot be written: {error}"))
}
