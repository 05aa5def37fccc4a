//! The audit chain. The Manager computes the hashes; the store keeps numbers unique, so that it cannot fork.

use legation_model::{Millis, Scope, audit::AuditRecord};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer},
};

const LAST: &str = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
const RECORDS: many::Into = many::Into {
    table: "audit",
    columns: "number, format, at, actor, address, action, object, scope, old_values, new_values, detail, outcome, \
              request, previous, hash",
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
        .bind(i64::from(record.format))
        .bind(record.at)
        .bind(record.actor.clone())
        .bind(record.address.clone())
        .bind(record.action.clone())
        .bind(record.object.clone())
        .bind(page::within(record.scope.as_ref()))
        .bind(record.before.clone())
        .bind(record.after.clone())
        .bind(record.detail.clone())
        .bind(record.outcome.as_str())
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
