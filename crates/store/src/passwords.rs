//! Passwords of users: the sealed hash of each, and nothing from which it could be guessed.

use legation_model::{Millis, ids::PrincipalId};

use crate::{Conn, StoreError, row::Columns};

const GET: &str = "SELECT sealed_hash FROM passwords WHERE principal = $1";
const SET: &str = "INSERT INTO passwords (principal, sealed_hash, set_at, set_by) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (principal) DO UPDATE SET sealed_hash = excluded.sealed_hash, set_at = excluded.set_at, \
     set_by = excluded.set_by";

/// The sealed hash of somebody's password, if they have one.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, owner: PrincipalId) -> Result<Option<Vec<u8>>, StoreError> {
    let row = conn.maybe(sqlx::query(GET).bind(owner.to_string())).await?;
    row.as_ref().map(|row| row.bytes("sealed_hash")).transpose()
}

/// Gives somebody a password, in the place of the one before.
///
/// # Errors
/// Those of the database.
pub async fn set(
    conn: &mut Conn,
    owner: PrincipalId,
    sealed_hash: &[u8],
    at: Millis,
    by: &str,
) -> Result<(), StoreError> {
    let query = sqlx::query(SET).bind(owner.to_string()).bind(sealed_hash.to_vec()).bind(at).bind(by.to_owned());
    conn.run_one(query).await
}
