//! API keys, by the hash of their secret.

use legation_model::{
    Millis, Name, Scope, Within,
    access::Role,
    ids::{ApiKeyId, PrincipalId},
};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, page, principals::BREAK_GLASS, row::Columns};

/// What one principal calls the API with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Identity.
    pub id: ApiKeyId,
    /// Whose.
    pub owner: PrincipalId,
    /// For people; several keys may share it.
    pub name: Name,
    /// Hash of the secret.
    pub hash: Vec<u8>,
    /// Narrows what its owner holds to this scope and what is below it.
    pub scope: Option<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
    /// From when on it is refused.
    pub expires_at: Option<Millis>,
    /// When it was last used, to within a few seconds.
    pub last_used_at: Option<Millis>,
}

/// What stands in the column of the role that keys had before they had owners: a program of that time, which may still
/// run while a key is made on the host, takes the admin for one and refuses every other key.
fn former_role(key: &ApiKey) -> &'static str {
    let on_the_host = key.owner == BREAK_GLASS && key.scope.is_none();
    if on_the_host { Role::Admin.as_str() } else { "of-its-owner" }
}

const INSERT: &str = "INSERT INTO api_keys (id, owner, name, hash, role, scope, created_at, created_by, expires_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const GET: &str = "SELECT * FROM api_keys WHERE id = $1 AND owner IS NOT NULL";
const LIST: &str = "SELECT * FROM (SELECT k.id, k.owner, k.name, k.hash, k.created_at, k.created_by, k.expires_at, \
     k.last_used_at, k.scope AS narrowed, p.scope FROM api_keys k JOIN principals p ON p.id = k.owner) AS keys \
     WHERE (created_at, id) > ($1, $2) AND ($3 = '' OR owner = $3) AND {within} ORDER BY created_at, id LIMIT $4";
const COUNT: &str = "SELECT COUNT(*) AS keys FROM api_keys WHERE owner = $1";
const DELETE: &str = "DELETE FROM api_keys WHERE id = $1";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the id exists.
pub async fn insert(conn: &mut Conn, key: &ApiKey) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(key.id.to_string())
        .bind(key.owner.to_string())
        .bind(key.name.to_string())
        .bind(key.hash.clone())
        .bind(former_role(key))
        .bind(key.scope.as_ref().map(Scope::to_string))
        .bind(key.created_at)
        .bind(key.created_by.clone())
        .bind(key.expires_at);
    conn.run_one(query).await
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(|row| key(row, "scope")).transpose()
}

/// Those whose owners are within, of one owner if one is named, oldest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    owner: Option<PrincipalId>,
    page: &Page,
) -> Result<Paged<ApiKey>, StoreError> {
    let (at, id) = page.border(Millis::MIN)?;
    let owner = owner.map(|owner| owner.to_string()).unwrap_or_default();
    let query = page::confined(LIST, 4, within).bind(at).bind(id).bind(owner).bind(page.rows());
    let rows = conn.all(page::scopes(query, within)).await?;
    let items = rows.iter().map(|row| key(row, "narrowed")).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |key| page::border(key.created_at, key.id)))
}

/// How many keys one principal owns.
///
/// # Errors
/// Those of the database.
pub async fn count(conn: &mut Conn, owner: PrincipalId) -> Result<u64, StoreError> {
    let row = conn.maybe(sqlx::query(COUNT).bind(owner.to_string())).await?.ok_or(StoreError::NotFound)?;
    row.number("keys")
}

/// Removes one.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(conn: &mut Conn, id: ApiKeyId) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(DELETE).bind(id.to_string())).await
}

pub(crate) fn key(row: &AnyRow, scope: &'static str) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.word("id")?,
        owner: row.word("owner")?,
        name: row.word("name")?,
        hash: row.bytes("hash")?,
        scope: row.maybe_word(scope)?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
        expires_at: row.maybe_number("expires_at")?,
        last_used_at: row.maybe_number("last_used_at")?,
    })
}
