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
