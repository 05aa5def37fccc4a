//! Grants: which principal has which role, and where.

use legation_model::{
    Millis, Name, Scope, Within,
    access::Role,
    ids::{GrantId, PrincipalId},
};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, page, principals::BREAK_GLASS, row::Columns};

/// One role of one principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Identity.
    pub id: GrantId,
    /// Whose.
    pub principal: PrincipalId,
    /// A built-in role, or one of people's own making.
    pub role: Name,
    /// At and below this scope; everywhere without one.
    pub scope: Option<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
}

/// Which grants a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantFilter {
    /// Only those of this principal.
    pub principal: Option<PrincipalId>,
    /// Only those of this role.
    pub role: Option<Name>,
}

const INSERT: &str =
    "INSERT INTO grants (id, principal, role, scope, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6)";
const GET: &str = "SELECT * FROM grants WHERE id = $1";
const LIST: &str = "SELECT * FROM grants WHERE (created_at, id) > ($1, $2) AND ($3 = '' OR principal = $3) \
     AND ($4 = '' OR role = $4) AND {within} ORDER BY created_at, id LIMIT $5";
const OF: &str = "SELECT * FROM grants WHERE principal = $1 ORDER BY created_at, id";
const MAPPED: &str = "SELECT * FROM grants WHERE principal = $1 AND mapped = 1 ORDER BY created_at, id";
const SET_MAPPED: &str = "UPDATE grants SET mapped = 1 WHERE id = $1";
const USES: &str = "SELECT COUNT(*) AS uses FROM grants WHERE role = $1";
const ADMINS: &str = "SELECT g.id, g.principal FROM grants g JOIN principals p ON p.id = g.principal \
     WHERE g.role = $1 AND g.scope IS NULL AND p.disabled_at IS NULL AND p.id <> $2";
const DELETE: &str = "DELETE FROM grants WHERE id = $1";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the principal has that role there, [`StoreError::NotFound`] without the principal.
pub async fn insert(conn: &mut Conn, grant: &Grant) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(grant.id.to_string())
        .bind(grant.principal.to_string())
        .bind(grant.role.to_string())
        .bind(grant.scope.as_ref().map(Scope::to_string))
        .bind(grant.created_at)
        .bind(grant.created_by.clone());
    conn.run_one(query).await
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: GrantId) -> Result<Option<Grant>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(grant).transpose()
}

/// Those within that the filter lets through, oldest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    filter: &GrantFilter,
    page: &Page,
) -> Result<Paged<Grant>, StoreError> {
    let (at, id) = page.border(Millis::MIN)?;
    let query = page::confined(LIST, 5, within)
        .bind(at)
        .bind(id)
        .bind(filter.principal.map(|id| id.to_string()).unwrap_or_default())
        .bind(filter.role.as_ref().map(Name::to_string).unwrap_or_default())
        .bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(grant).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |grant| page::border(grant.created_at, grant.id)))
}

/// All of one principal, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn of(conn: &mut Conn, principal: PrincipalId) -> Result<Vec<Grant>, StoreError> {
    conn.all(sqlx::query(OF).bind(principal.to_string())).await?.iter().map(grant).collect()
}

/// Those of one principal that the mapping of groups made, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn mapped(conn: &mut Conn, principal: PrincipalId) -> Result<Vec<Grant>, StoreError> {
    conn.all(sqlx::query(MAPPED).bind(principal.to_string())).await?.iter().map(grant).collect()
}

/// Adds one that the mapping of groups makes, and may take away.
///
/// # Errors
/// As [`insert`].
pub async fn insert_mapped(conn: &mut Conn, grant: &Grant) -> Result<(), StoreError> {
    insert(conn, grant).await?;
    conn.run_one(sqlx::query(SET_MAPPED).bind(grant.id.to_string())).await
}

/// How many grants a role has.
///
/// # Errors
/// Those of the database.
pub async fn uses(conn: &mut Conn, role: &Name) -> Result<u64, StoreError> {
    let row = conn.maybe(sqlx::query(USES).bind(role.to_string())).await?.ok_or(StoreError::NotFound)?;
    row.number("uses")
}

/// The grants that make enabled principals admins everywhere, without that of the keys made on the host.
///
/// # Errors
/// Those of the database.
pub async fn admins(conn: &mut Conn) -> Result<Vec<(GrantId, PrincipalId)>, StoreError> {
    let query = sqlx::query(ADMINS).bind(Role::Admin.as_str()).bind(BREAK_GLASS.to_string());
    conn.all(query).await?.iter().map(|row| Ok((row.word("id")?, row.word("principal")?))).collect()
}

/// Removes one.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(conn: &mut Conn, id: GrantId) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(DELETE).bind(id.to_string())).await
}

fn grant(row: &AnyRow) -> Result<Grant, StoreError> {
    Ok(Grant {
        id: row.word("id")?,
        principal: row.word("principal")?,
        role: row.word("role")?,
        scope: row.maybe_word("scope")?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
    })
}
