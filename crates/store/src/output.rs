//! What attempts wrote, as chunks that follow each other without gap or overlap.

use legation_model::ids::{AttemptId, TaskId};
use sqlx::any::AnyRow;

use crate::{
    Conn, StoreError,
    row::{Columns, integer},
};

/// One stretch of an attempt's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes before it, both streams counted together.
    pub offset: u64,
    /// Which stream, in the caller's word.
    pub stream: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What became of appended bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// They are stored, as far as they were new.
    Stored,
    /// All of them had been stored before; nothing changed.
    Known,
    /// The attempt is over or not known; nothing changed.
    Closed,
}

const APPEND: &str = "INSERT INTO output (attempt, begins, ends, stream, bytes) SELECT $1, $2, $3, $4, $5 \
     WHERE COALESCE((SELECT ends FROM output WHERE attempt = $1 ORDER BY begins DESC LIMIT 1), 0) = $2 \
     AND (SELECT COUNT(*) FROM tasks WHERE attempt = $1 AND state IN ('assigned', 'running')) = 1";
const OPEN: &str = "SELECT COUNT(*) AS open FROM tasks WHERE attempt = $1 AND state IN ('assigned', 'running')";
const END: &str = "SELECT ends FROM output WHERE attempt = $1 ORDER BY begins DESC LIMIT 1";
const READ: &str = "SELECT begins, stream, bytes FROM output \
     WHERE attempt = (SELECT attempt FROM tasks WHERE id = $1) AND ends > $2 AND begins < $3 ORDER BY begins";

/// Adds bytes at an offset. Repeating what is stored changes nothing, so a delegate may send again whatever was
/// not acknowledged.
///
/// # Errors
/// [`StoreError::Refused`] for an offset beyond the end: something in between is missing.
pub async fn append(
    conn: &mut Conn,
    attempt: AttemptId,
    offset: u64,
    stream: &str,
    bytes: &[u8],
) -> Result<Appended, StoreError> {
    if bytes.is_empty() {
        return Ok(Appended::Known);
    }
    let length = bytes.len() as u64;
    let after = offset.checked_add(length).ok_or_else(|| StoreError::refused("the output's offset is too large"))?;
    if insert(conn, attempt, offset, stream, bytes).await? {
        return Ok(Appended::Stored);
    }
    let open = conn.maybe(sqlx::query(OPEN).bind(attempt.to_string())).await?;
    if open.is_none_or(|row| row.number::<i64>("open") == Ok(0)) {
        return Ok(Appended::Closed);
    }
    match end(conn, attempt).await? {
        end if end >= after => Ok(Appended::Known),
        end if end < offset => Err(StoreError::refused(format!(
            "output at {offset} leaves a gap: {end} bytes are stored, send from there"
        ))),
        end => {
            insert(conn, attempt, end, stream, &bytes[(end - offset) as usize..]).await?;
            Ok(Appended::Stored)
        }
    }
}

/// Chunks of the task's newest attempt from an offset on, the first one cut to it. About `max_bytes` in all: at
/// least one chunk if there is any, and none that begins beyond.
///
/// # Errors
/// Those of the database.
pub async fn read(conn: &mut Conn, task: TaskId, from: u64, max_bytes: u64) -> Result<Vec<Chunk>, StoreError> {
    let until = from.saturating_add(max_bytes.max(1)).min(i64::MAX as u64);
    let query = sqlx::query(READ).bind(task.to_string()).bind(integer(from)?).bind(integer(until)?);
    conn.all(query).await?.iter().map(|row| chunk(row, from)).collect()
}

/// How many bytes of an attempt are stored.
///
/// # Errors
/// Those of the database.
pub async fn end(conn: &mut Conn, attempt: AttemptId) -> Result<u64, StoreError> {
    let row = conn.maybe(sqlx::query(END).bind(attempt.to_string())).await?;
    row.map_or(Ok(0), |row| row.number("ends"))
}

async fn insert(
    conn: &mut Conn,
    attempt: AttemptId,
    offset: u64,
    stream: &str,
    bytes: &[u8],
) -> Result<bool, StoreError> {
    let query = sqlx::query(APPEND).bind(attempt.to_string()).bind(integer(offset)?);
    let query = query.bind(integer(offset + bytes.len() as u64)?).bind(stream.to_owned()).bind(bytes.to_vec());
    Ok(conn.run(query).await? == 1)
}

fn chunk(row: &AnyRow, from: u64) -> Result<Chunk, StoreError> {
    let begins: u64 = row.number("begins")?;
    let mut bytes = row.bytes("bytes")?;
    let known = from.saturating_sub(begins) as usize;
    Ok(Chunk { offset: begins.max(from), stream: row.text("stream")?, bytes: bytes.split_off(known.min(bytes.len())) })
}
