//! The Manager's own keys, sealed by the caller: link keys, signing keys, the wrapped data key.

use legation_model::Millis;
use sqlx::any::AnyRow;

use crate::{Conn, StoreError, row::Columns};

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// What it is for, in a word of the Manager's.
    pub kind: String,
    /// Which one.
    pub id: String,
    /// The part that may be known.
    pub public: Vec<u8>,
    /// The part that the store cannot read.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Millis,
    /// Since when nothing new is made with it.
    pub retired_at: Option<Millis>,
}

const PUT: &str = "INSERT INTO keys (kind, id, public, sealed, created_at) VALUES ($1, $2, $3, $4, $5)";
const RESEAL: &str = "UPDATE keys SET sealed = $3 WHERE kind = $1 AND id = $2";
const NEWEST: &str = "SELECT MAX(created_at) AS newest FROM keys WHERE kind = $1";
const RETIRE_UNUSED: &str = "UPDATE keys SET retired_at = $2, sealed = $3 WHERE kind = $1 AND retired_at IS NULL \
     AND created_at < (SELECT MAX(created_at) FROM keys WHERE kind = $1) \
     AND NOT EXISTS (SELECT 1 FROM token_secrets WHERE manager_key = keys.id) RETURNING id";
const ALL: &str = "SELECT * FROM keys ORDER BY kind, created_at, id";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the kind has one of this id: a key is never overwritten.
pub async fn put(
    conn: &mut Conn,
    kind: &str,
    id: &str,
    public: &[u8],
    sealed: &[u8],
    now: Millis,
) -> Result<(), StoreError> {
    let query = sqlx::query(PUT).bind(kind.to_owned()).bind(id.to_owned());
    conn.run_one(query.bind(public.to_vec()).bind(sealed.to_vec()).bind(now)).await
}

/// Exchanges the sealed part of one.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of this kind and id.
pub async fn reseal(conn: &mut Conn, kind: &str, id: &str, sealed: &[u8]) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(RESEAL).bind(kind.to_owned()).bind(id.to_owned()).bind(sealed.to_vec())).await
}

/// When the newest of a kind was made.
///
/// # Errors
/// Those of the database.
pub async fn newest(conn: &mut Conn, kind: &str) -> Result<Option<Millis>, StoreError> {
    let row = conn.maybe(sqlx::query(NEWEST).bind(kind.to_owned())).await?;
    row.map(|row| row.maybe_number("newest")).transpose().map(Option::flatten)
}

/// Retires those of a kind, the newest excepted, that no kept secret of a token was made for, and erases their sealed
/// parts; which.
///
/// # Errors
/// Those of the database.
pub async fn retire_unused(conn: &mut Conn, kind: &str, now: Millis) -> Result<Vec<String>, StoreError> {
    let rows = conn.all(sqlx::query(RETIRE_UNUSED).bind(kind.to_owned()).bind(now).bind(Vec::<u8>::new())).await?;
    rows.iter().map(|row| row.text("id")).collect()
}

/// All of them, by kind and age.
///
/// # Errors
/// Those of the database.
pub async fn all(conn: &mut Conn) -> Result<Vec<StoredKey>, StoreError> {
    conn.all(sqlx::query(ALL)).await?.iter().map(key).collect()
}

fn key(row: &AnyRow) -> Result<StoredKey, StoreError> {
    Ok(StoredKey {
        kind: row.text("kind")?,
        id: row.text("id")?,
        public: row.bytes("public")?,
        sealed: row.bytes("sealed")?,
        created_at: row.time("created_at")?,
        retired_at: row.maybe_number("retired_at")?,
    })
}
