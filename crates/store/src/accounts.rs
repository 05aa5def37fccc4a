//! Accounts, and later the organizations and projects below them: the places of the scope tree.

use legation_model::{Millis, Scope, Text};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, page, row::Columns};

/// A place in the scope tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The place itself.
    pub scope: Scope,
    /// Free text.
    pub description: Text,
    /// The lease of its delegates in milliseconds, where it is not the Manager's default.
    pub lease: Option<Millis>,
    /// When it was created.
    pub created_at: Millis,
    /// Who created it.
    pub created_by: String,
}

const INSERT: &str =
    "INSERT INTO accounts (scope, description, lease, created_at, created_by) VALUES ($1, $2, $3, $4, $5)";
const GET: &str = "SELECT * FROM accounts WHERE scope = $1";
const LONGEST_LEASE: &str = "SELECT MAX(lease) AS lease FROM accounts";
const LIST: &str =
    concat!("SELECT * FROM accounts WHERE scope > $1 AND ", page::in_scope!(2), " ORDER BY scope LIMIT $3");

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the scope exists.
pub async fn insert(conn: &mut Conn, account: &Account) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT).bind(account.scope.to_string()).bind(account.description.to_string());
    conn.run_one(query.bind(account.lease).bind(account.created_at).bind(account.created_by.clone())).await
}

/// The one at this place.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, scope: &Scope) -> Result<Option<Account>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(scope.to_string())).await?.as_ref().map(account).transpose()
}

/// The longest lease that any of them sets.
///
/// # Errors
/// Those of the database.
pub async fn longest_lease(conn: &mut Conn) -> Result<Option<Millis>, StoreError> {
    conn.maybe(sqlx::query(LONGEST_LEASE)).await?.map_or(Ok(None), |row| row.maybe_number("lease"))
}

/// All at or below a scope, in the order of their spelling.
///
/// # Errors
/// Those of the database.
pub async fn list(conn: &mut Conn, within: Option<&Scope>, page: &Page) -> Result<Paged<Account>, StoreError> {
    let after = page.after.clone().unwrap_or_default();
    let query = sqlx::query(LIST).bind(after).bind(page::within(within)).bind(page.rows());
    let items = conn.all(query).await?.iter().map(account).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |account| account.scope.to_string()))
}

fn account(row: &AnyRow) -> Result<Account, StoreError> {
    Ok(Account {
        scope: row.word("scope")?,
        description: row.word("description")?,
        lease: row.maybe_number("lease")?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
    })
}
