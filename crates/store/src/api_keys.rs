//! API keys, by the hash of their secret.

use legation_model::{Millis, Name, Scope, access::Role, ids::ApiKeyId};
use sqlx::any::AnyRow;

use crate::{Conn, StoreError, row::Columns};

/// Who may call the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Identity.
    pub id: ApiKeyId,
    /// For people; several keys may share it.
    pub name: Name,
    /// Hash of the secret.
    pub hash: Vec<u8>,
    /// What it may do.
    pub role: Role,
    /// Where: at and below this scope, or everywhere.
    pub scope: Option<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// From when on it is refused.
    pub expires_at: Option<Millis>,
}

const INSERT: &str = "INSERT INTO api_keys (id, name, hash, role, scope, created_at, expires_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
const GET: &str = "SELECT * FROM api_keys WHERE id = $1";
const DELETE: &str = "DELETE FROM api_keys WHERE id = $1";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the id exists.
pub async fn insert(conn: &mut Conn, key: &ApiKey) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(key.id.to_string())
        .bind(key.name.to_string())
        .bind(key.hash.clone())
        .bind(key.role.as_str())
        .bind(key.scope.as_ref().map(Scope::to_string))
        .bind(key.created_at)
        .bind(key.expires_at);
    conn.run_one(query).await
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(key).transpose()
}

/// Removes one.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(conn: &mut Conn, id: ApiKeyId) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(DELETE).bind(id.to_string())).await
}

fn key(row: &AnyRow) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: row.word("id")?,
        name: row.word("name")?,
        hash: row.bytes("hash")?,
        role: row.word("role")?,
        scope: row.maybe_word("scope")?,
        created_at: row.time("created_at")?,
        expires_at: row.maybe_number("expires_at")?,
    })
}
