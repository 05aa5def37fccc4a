//! Receipts of revocations: an opening statement, and facts that are only ever added.

use legation_model::{
    Millis, Within,
    ids::{DelegateId, ReceiptId, TokenId},
    receipt::{Receipt, ReceiptLine, Statement},
};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, conn::Statement as Query, many, page, row::Columns};

const INSERT: &str = "INSERT INTO receipts (id, token, scope, cause, reason, actor, revoked_at, completed_at, \
     attempts_lost) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const LINES_OF: many::Into = many::Into {
    table: "receipt_lines",
    columns: "receipt, delegate, boot, name, connected, cut_at, stopped_at, tasks_killed, lease_ends_by",
    // A line that is there is older than the one that would replace it, and nearer to what happened.
    conflict: "ON CONFLICT (receipt, delegate) DO NOTHING",
};
/// Lines that are added at once; a revocation of many adds them one portion after the other, so that others are written
/// in between.
pub const LINES_TOGETHER: usize = many::ROWS_MAX;
const ADD_STATEMENT: &str =
    "INSERT INTO receipt_statements (receipt, number, body, signature, public_key) VALUES ($1, $2, $3, $4, $5)";
const COMPLETE: &str = "UPDATE receipts SET completed_at = $2 WHERE id = $1 AND completed_at IS NULL";
const COMPLETED: &str = "SELECT completed_at FROM receipts WHERE id = $1";
const STOPPED: &str = "UPDATE receipt_lines SET stopped_at = $3, tasks_killed = $4 \
     WHERE receipt = $1 AND delegate = $2 AND stopped_at IS NULL \
     RETURNING (SELECT revoked_at FROM receipts WHERE id = $1) AS revoked_at";
const GET: &str = "SELECT * FROM receipts WHERE id = $1";
const LINES: &str = "SELECT * FROM receipt_lines WHERE receipt = $1 ORDER BY name, delegate";
const STATEMENTS: &str = "SELECT * FROM receipt_statements WHERE receipt = $1 ORDER BY number";
const LAST_STATEMENT: &str = "SELECT * FROM receipt_statements WHERE receipt = $1 ORDER BY number DESC LIMIT 1";
const INCOMPLETE: &str = "SELECT id, token FROM receipts WHERE completed_at IS NULL";
const LIST: &str = "SELECT * FROM receipts WHERE (revoked_at < $1 OR (revoked_at = $1 AND id < $2)) \
     AND ($3 = '' OR token = $3) AND {within} ORDER BY revoked_at DESC, id DESC LIMIT $4";

/// Adds one, without lines and statements: those come when it is complete.
///
/// # Errors
/// [`StoreError::Taken`] when the id exists; [`StoreError::NotFound`] without its token.
pub async fn insert(conn: &mut Conn, receipt: &Receipt) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(receipt.id.to_string())
        .bind(receipt.token.to_string())
        .bind(receipt.scope.to_string())
        .bind(receipt.cause.as_str())
        .bind(receipt.reason.clone())
        .bind(receipt.actor.clone())
        .bind(receipt.revoked_at)
        .bind(receipt.completed_at)
        .bind(i64::from(receipt.attempts_lost));
    conn.run_one(query).await
}

/// Adds lines; how many. One that is there stays.
///
/// # Errors
/// [`StoreError::NotFound`] without its receipt.
pub async fn add_lines(conn: &mut Conn, id: ReceiptId, lines: &[ReceiptLine]) -> Result<u64, StoreError> {
    many::insert(conn, LINES_OF, lines, |query, line| Ok(bind(query, id, line))).await
}

/// Adds its statements, and when it was completed.
///
/// # Errors
/// [`StoreError::NotFound`] for one that is complete or not there.
pub async fn complete(conn: &mut Conn, receipt: &Receipt) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(COMPLETE).bind(receipt.id.to_string()).bind(receipt.completed_at)).await?;
    for statement in &receipt.statements {
        add_statement(conn, receipt.id, statement).await?;
    }
    Ok(())
}

/// Whether it has all its lines.
///
/// # Errors
/// Those of the database.
pub async fn is_complete(conn: &mut Conn, id: ReceiptId) -> Result<bool, StoreError> {
    let row = conn.maybe(sqlx::query(COMPLETED).bind(id.to_string())).await?;
    Ok(row.map(|row| row.maybe_number::<Millis>("completed_at")).transpose()?.flatten().is_some())
}

fn bind(query: Query<'static>, id: ReceiptId, line: &ReceiptLine) -> Query<'static> {
    query
        .bind(id.to_string())
        .bind(line.delegate.to_string())
        .bind(line.boot.to_string())
        .bind(line.name.clone())
        .bind(i64::from(line.connected))
        .bind(line.cut_at)
        .bind(line.stopped_reported_at)
        .bind(line.tasks_killed.map(i64::from))
        .bind(line.lease_ends_by)
}

/// Adds a signed statement.
///
/// # Errors
/// [`StoreError::Taken`] when its number is in use; [`StoreError::NotFound`] without its receipt.
pub async fn add_statement(conn: &mut Conn, id: ReceiptId, statement: &Statement) -> Result<(), StoreError> {
    let query = sqlx::query(ADD_STATEMENT)
        .bind(id.to_string())
        .bind(i64::from(statement.number))
        .bind(statement.body.clone())
        .bind(statement.signature.clone())
        .bind(statement.key.to_vec());
    conn.run_one(query).await
}

/// The newest statement of a receipt.
///
/// # Errors
/// [`StoreError::NotFound`] for a receipt without any, which is none of ours.
pub async fn last_statement(conn: &mut Conn, id: ReceiptId) -> Result<Statement, StoreError> {
    let row = conn.maybe(sqlx::query(LAST_STATEMENT).bind(id.to_string())).await?;
    statement(&row.ok_or(StoreError::NotFound)?)
}

/// Notes what a delegate said of itself; when its token was revoked if that is news, which it is not when it has no line
/// or said so before.
///
/// # Errors
/// Those of the database.
pub async fn stopped(
    conn: &mut Conn,
    id: ReceiptId,
    delegate: DelegateId,
    at: Millis,
    killed: u32,
) -> Result<Option<Millis>, StoreError> {
    let query = sqlx::query(STOPPED).bind(id.to_string()).bind(delegate.to_string()).bind(at).bind(i64::from(killed));
    conn.maybe(query).await?.map(|row| row.time("revoked_at")).transpose()
}

/// The one with this id, with its lines and statements.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: ReceiptId) -> Result<Option<Receipt>, StoreError> {
    let Some(row) = conn.maybe(sqlx::query(GET).bind(id.to_string())).await? else { return Ok(None) };
    let statements = conn.all(sqlx::query(STATEMENTS).bind(id.to_string())).await?;
    Ok(Some(Receipt {
        lines: lines(conn, id).await?,
        statements: statements.iter().map(statement).collect::<Result<_, _>>()?,
        ..receipt(&row)?
    }))
}

/// The lines of a receipt, by name and delegate.
///
/// # Errors
/// Those of the database.
pub async fn lines(conn: &mut Conn, id: ReceiptId) -> Result<Vec<ReceiptLine>, StoreError> {
    conn.all(sqlx::query(LINES).bind(id.to_string())).await?.iter().map(line).collect()
}

/// Those that are not complete yet, each with its token.
///
/// # Errors
/// Those of the database.
pub async fn incomplete(conn: &mut Conn) -> Result<Vec<(ReceiptId, TokenId)>, StoreError> {
    let rows = conn.all(sqlx::query(INCOMPLETE)).await?;
    rows.iter().map(|row| Ok((row.word("id")?, row.word("token")?))).collect()
}

/// Those within, newest first, without lines and statements: those may be many ([`get`] has them).
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    token: Option<TokenId>,
    page: &Page,
) -> Result<Paged<Receipt>, StoreError> {
    let (at, id) = page.border(Millis::MAX)?;
    let query = page::confined(LIST, 4, within).bind(at).bind(id);
    let query = query.bind(token.map(|token| token.to_string()).unwrap_or_default()).bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(receipt).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |receipt: &Receipt| page::border(receipt.revoked_at, receipt.id)))
}

fn receipt(row: &AnyRow) -> Result<Receipt, StoreError> {
    Ok(Receipt {
        id: row.word("id")?,
        token: row.word("token")?,
        scope: row.word("scope")?,
        cause: row.word("cause")?,
        reason: row.text("reason")?,
        actor: row.text("actor")?,
        revoked_at: row.time("revoked_at")?,
        completed_at: row.maybe_number("completed_at")?,
        attempts_lost: row.number("attempts_lost")?,
        lines: Vec::new(),
        statements: Vec::new(),
    })
}

fn line(row: &AnyRow) -> Result<ReceiptLine, StoreError> {
    Ok(ReceiptLine {
        delegate: row.word("delegate")?,
        boot: row.word("boot")?,
        name: row.text("name")?,
        connected: row.number::<i64>("connected")? != 0,
        cut_at: row.maybe_number("cut_at")?,
        stopped_reported_at: row.maybe_number("stopped_at")?,
        tasks_killed: row.maybe_number("tasks_killed")?,
        lease_ends_by: row.time("lease_ends_by")?,
    })
}

fn statement(row: &AnyRow) -> Result<Statement, StoreError> {
    Ok(Statement {
        number: row.number("number")?,
        body: row.text("body")?,
        signature: row.bytes("signature")?,
        key: row.key("public_key")?,
    })
}
