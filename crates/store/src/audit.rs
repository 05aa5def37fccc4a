//! The audit chain. The Manager computes the hashes; the store keeps numbers unique, so that it cannot fork.

use legation_model::{
    Millis, Scope, Within,
    audit::{AuditRecord, Checkpoint, Outcome},
};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer},
};

/// Records that are read at once, in the order of their numbers.
pub const RANGE_MAX: u32 = 500;

const LAST: &str = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
const RECORDS: many::Into = many::Into {
    table: "audit",
    columns: "number, format, at, actor, address, action, object, scope, old_values, new_values, detail, outcome, \
              request, previous, hash",
    conflict: "",
};
const GET: &str = "SELECT * FROM audit WHERE number = $1";
// An actor is spelled `name (id)`, `name (id, id)` or `name/name (id, id)`, and found by any of these or by all.
const LIST: &str = "SELECT * FROM audit WHERE number < $1 \
     AND ($2 = '' OR actor = $2 OR substr(actor, 1, length($2) + 2) = $2 || ' (' \
     OR substr(actor, 1, length($2) + 1) = $2 || '/' \
     OR substr(actor, length(actor) - length($2) - 1) IN ('(' || $2 || ')', ' ' || $2 || ')') \
     OR REPLACE(actor, '(' || $2 || ',', '') <> actor) \
     AND ($3 = '' OR action = $3 OR substr(action, 1, length($3) + 1) = $3 || '.') \
     AND ($4 = '' OR object = $4) AND ($5 = '' OR outcome = $5) AND at >= $6 AND at < $7 AND {within} \
     ORDER BY number DESC LIMIT $8";
const RANGE: &str = "SELECT * FROM audit WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3";
const PLACES: &str =
    "SELECT * FROM audit_checkpoints WHERE kind = $1 AND number > $2 AND number <= $3 ORDER BY number LIMIT $4";
const LAST_PLACE: &str = "SELECT * FROM audit_checkpoints WHERE kind = $1 ORDER BY number DESC LIMIT 1";
const DUE: &str = "SELECT * FROM audit_checkpoints WHERE kind = 'checkpoint' AND number > $1 AND at <= $2 \
     ORDER BY number LIMIT 1";
const SIGN: &str = "INSERT INTO audit_checkpoints (kind, number, hash, at, previous, signature, public_key) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
const FORGET: &str = "DELETE FROM audit WHERE number <= $1";
const FORGET_PLACES: &str = "DELETE FROM audit_checkpoints WHERE number < $1 OR (number = $1 AND kind = 'checkpoint')";

/// What a signed place in the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The chain was so up to here.
    Checkpoint,
    /// The records up to here were deleted.
    Base,
}

impl Place {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Base => "base",
        }
    }
}

/// Which records to list. What is empty or `None` leaves nothing out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFilter {
    /// At or below this scope; what belongs to no scope is then left out.
    pub within: Within,
    /// By this actor: the name, the id, or both as the record has them.
    pub actor: String,
    /// This action, or all those of a noun, such as `token`.
    pub action: String,
    /// To this object.
    pub object: String,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Not before.
    pub from: Millis,
    /// Before.
    pub until: Millis,
}

impl Default for AuditFilter {
    fn default() -> Self {
        Self {
            within: Within::Everywhere,
            actor: String::new(),
            action: String::new(),
            object: String::new(),
            outcome: None,
            from: Millis::MIN,
            until: Millis::MAX,
        }
    }
}

/// Number and hash of the newest record.
///
/// # Errors
/// Those of the database.
pub async fn last(conn: &mut Conn) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let row = conn.maybe(sqlx::query(LAST)).await?;
    row.map(|row| Ok((row.number("number")?, row.bytes("hash")?))).transpose()
}

/// Adds records.
///
/// # Errors
/// [`StoreError::Taken`] when a number is in use.
pub async fn append(conn: &mut Conn, records: &[AuditRecord]) -> Result<(), StoreError> {
    many::insert(conn, RECORDS, records, bind).await.map(drop)
}

fn bind(query: Statement<'static>, record: &AuditRecord) -> Result<Statement<'static>, StoreError> {
    let query = query
        .bind(integer(record.number)?)
        .bind(i64::from(record.format))
        .bind(record.at)
        .bind(record.actor.clone())
        .bind(record.address.clone())
        .bind(record.action.clone())
        .bind(record.object.clone())
        .bind(record.scope.as_ref().map(Scope::to_string).unwrap_or_default())
        .bind(record.before.clone())
        .bind(record.after.clone())
        .bind(record.detail.clone())
        .bind(record.outcome.as_str())
        .bind(record.request.clone())
        .bind(record.previous.clone())
        .bind(record.hash.clone());
    Ok(query)
}

/// The record of this number.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, number: u64) -> Result<Option<AuditRecord>, StoreError> {
    let Ok(number) = integer(number) else { return Ok(None) };
    conn.maybe(sqlx::query(GET).bind(number)).await?.as_ref().map(record).transpose()
}

/// The records that the filter lets through, newest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(conn: &mut Conn, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRecord>, StoreError> {
    let (before, _) = page.border(Millis::MAX)?;
    let query = page::confined(LIST, 8, &filter.within)
        .bind(before)
        .bind(filter.actor.clone())
        .bind(filter.action.clone())
        .bind(filter.object.clone())
        .bind(filter.outcome.map(Outcome::as_str).unwrap_or_default())
        .bind(filter.from)
        .bind(filter.until)
        .bind(page.rows());
    let items = conn.all(page::scopes(query, &filter.within)).await?.iter().map(record).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |record: &AuditRecord| format!("{}.", record.number)))
}

/// The first [`RANGE_MAX`] records behind `after`, up to `until`, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn range(conn: &mut Conn, after: u64, until: u64) -> Result<Vec<AuditRecord>, StoreError> {
    let query = sqlx::query(RANGE).bind(integer(after)?).bind(integer(until)?).bind(i64::from(RANGE_MAX));
    conn.all(query).await?.iter().map(record).collect()
}

/// The checkpoints of records behind `after`, up to `until`: as many as [`range`] can have records.
///
/// # Errors
/// Those of the database.
pub async fn checkpoints(conn: &mut Conn, after: u64, until: u64) -> Result<Vec<Checkpoint>, StoreError> {
    let query = sqlx::query(PLACES).bind(Place::Checkpoint.as_str());
    let query = query.bind(integer(after)?).bind(integer(until)?).bind(i64::from(RANGE_MAX));
    conn.all(query).await?.iter().map(checkpoint).collect()
}

/// The newest signed place of a kind.
///
/// # Errors
/// Those of the database.
pub async fn last_place(conn: &mut Conn, place: Place) -> Result<Option<Checkpoint>, StoreError> {
    conn.maybe(sqlx::query(LAST_PLACE).bind(place.as_str())).await?.as_ref().map(checkpoint).transpose()
}

/// The first checkpoint behind `after` that was signed by `at`: up to there records may be deleted.
///
/// # Errors
/// Those of the database.
pub async fn due(conn: &mut Conn, after: u64, at: Millis) -> Result<Option<Checkpoint>, StoreError> {
    conn.maybe(sqlx::query(DUE).bind(integer(after)?).bind(at)).await?.as_ref().map(checkpoint).transpose()
}

/// Adds a signed place.
///
/// # Errors
/// [`StoreError::Taken`] when the record has one of this kind.
pub async fn sign(conn: &mut Conn, place: Place, signed: &Checkpoint) -> Result<(), StoreError> {
    let query = sqlx::query(SIGN)
        .bind(place.as_str())
        .bind(integer(signed.number)?)
        .bind(signed.hash.clone())
        .bind(signed.at)
        .bind(integer(signed.previous)?)
        .bind(signed.signature.clone())
        .bind(signed.key.to_vec());
    conn.run_one(query).await
}

/// Deletes the records up to a base, and what was signed before it.
///
/// # Errors
/// Those of the database.
pub async fn forget(conn: &mut Conn, base: u64) -> Result<(), StoreError> {
    conn.run(sqlx::query(FORGET).bind(integer(base)?)).await?;
    conn.run(sqlx::query(FORGET_PLACES).bind(integer(base)?)).await.map(drop)
}

fn record(row: &AnyRow) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        number: row.number("number")?,
        format: row.number("format")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        address: row.text("address")?,
        action: row.text("action")?,
        object: row.text("object")?,
        scope: row.words("scope")?.pop(),
        before: row.text("old_values")?,
        after: row.text("new_values")?,
        detail: row.text("detail")?,
        outcome: row.word("outcome")?,
        request: row.text("request")?,
        previous: row.bytes("previous")?,
        hash: row.bytes("hash")?,
    })
}

fn checkpoint(row: &AnyRow) -> Result<Checkpoint, StoreError> {
    Ok(Checkpoint {
        number: row.number("number")?,
        hash: row.bytes("hash")?,
        at: row.time("at")?,
        previous: row.number("previous")?,
        signature: row.bytes("signature")?,
        key: row.key("public_key")?,
    })
}
