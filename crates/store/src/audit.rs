//! The audit chain. The Manager computes the hashes; the store keeps numbers unique, so that it cannot fork.

use legation_model::{Millis, Scope};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer},
};

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Position, from 1.
    pub number: u64,
    /// When.
    pub at: Millis,
    /// Who.
    pub actor: String,
    /// What, such as `token.revoke`.
    pub action: String,
    /// To what, by id.
    pub object: String,
    /// Where.
    pub scope: Scope,
    /// More, as text that holds no secret.
    pub detail: String,
    /// The API request that caused it, or empty.
    pub request: String,
    /// The hash of the record before.
    pub previous: Vec<u8>,
    /// The hash of this one.
    pub hash: Vec<u8>,
}

const LAST: &str = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
const RECORDS: many::Into = many::Into {
    table: "audit",
    columns: "number, at, actor, action, object, scope, detail, request, previous, hash",
    conflict: "",
};
const LIST: &str =
    concat!("SELECT * FROM audit WHERE number < $1 AND ", page::in_scope!(2), " ORDER BY number DESC LIMIT $3");

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
        .bind(record.at)
        .bind(record.actor.clone())
        .bind(record.action.clone())
        .bind(record.object.clone())
        .bind(record.scope.to_string())
        .bind(record.detail.clone())
        .bind(record.request.clone())
        .bind(record.previous.clone())
        .bind(record.hash.clone());
    Ok(query)
}

/// The records at or below a scope, newest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(conn: &mut Conn, within: Option<&Scope>, page: &Page) -> Result<Paged<AuditRecord>, StoreError> {
    let (before, _) = page.border(Millis::MAX)?;
    let query = sqlx::query(LIST).bind(before).bind(page::within(within)).bind(page.rows());
    let items = conn.all(query).await?.iter().map(record).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |record: &AuditRecord| format!("{}.", record.number)))
}

fn record(row: &AnyRow) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        number: row.number("number")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        object: row.text("object")?,
        scope: row.word("scope")?,
        detail: row.text("detail")?,
        request: row.text("request")?,
        previous: row.bytes("previous")?,
        hash: row.bytes("hash")?,
    })
}
