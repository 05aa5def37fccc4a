//! Values of tokens under one-time codes: sealed by the caller with what only the code has, and erased at their end.

use std::collections::BTreeMap;

use legation_model::{
    Millis,
    ids::{TokenId, WrapId},
    wrap::Wrap,
};
use sqlx::any::AnyRow;

use crate::{Conn, StoreError, conn::Statement, many, row::Columns};

/// A new one.
#[derive(Clone, PartialEq, Eq)]
pub struct NewWrap {
    /// What may be known of it.
    pub wrap: Wrap,
    /// A keyed hash of the code's secret.
    pub hash: Vec<u8>,
    /// The token's value; the store cannot read it.
    pub sealed: Vec<u8>,
}

/// One as it is stored.
pub struct StoredWrap {
    /// What may be known of it.
    pub wrap: Wrap,
    /// A keyed hash of the code's secret.
    pub hash: Vec<u8>,
    /// The token's value, until the end.
    pub sealed: Option<Vec<u8>>,
}

const NEW: many::Into = many::Into {
    table: "wraps",
    columns: "id, token, generation, hash, sealed, created_at, created_by, expires_at",
    conflict: "",
};
const GET: &str = "SELECT * FROM wraps WHERE id = $1";
const DUE: &str = "SELECT * FROM wraps WHERE ended_at IS NULL AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
const OPEN: &str = "UPDATE wraps SET sealed = NULL, ended_at = $2, opened_at = $2, opened_from = $3 \
     WHERE id = $1 AND ended_at IS NULL";
const END: &str = "UPDATE wraps SET sealed = NULL, ended_at = $2 WHERE id = $1 AND ended_at IS NULL";
const END_OF_TOKEN: &str = "UPDATE wraps SET sealed = NULL, ended_at = $2 WHERE token = $1 AND ended_at IS NULL";
const REFUSE: &str = "UPDATE wraps SET refused = refused + 1 WHERE id = $1";
const FORGET: &str = "DELETE FROM wraps WHERE token IN (SELECT id FROM tokens WHERE revoked_at < $1)";

/// Adds some.
///
/// # Errors
/// [`StoreError::Taken`] when a generation of a token has one.
pub async fn insert_all(conn: &mut Conn, new: &[NewWrap]) -> Result<(), StoreError> {
    let bind = |query: Statement<'static>, NewWrap { wrap, hash, sealed }: &NewWrap| {
        let query = query.bind(wrap.id.to_string()).bind(wrap.token.to_string()).bind(i64::from(wrap.generation));
        let query = query.bind(hash.clone()).bind(sealed.clone());
        Ok(query.bind(wrap.created_at).bind(wrap.created_by.clone()).bind(wrap.expires_at))
    };
    many::insert(conn, NEW, new, bind).await.map(drop)
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: WrapId) -> Result<Option<StoredWrap>, StoreError> {
    let row = conn.maybe(sqlx::query(GET).bind(id.to_string())).await?;
    row.map(|row| Ok(StoredWrap { wrap: wrap(&row)?, hash: row.bytes("hash")?, sealed: row.plain("sealed")? }))
        .transpose()
}

/// Those of some tokens, of each the one of the newest generation; tokens without one are missing from the answer.
///
/// # Errors
/// Those of the database.
pub async fn of_tokens(conn: &mut Conn, tokens: &[TokenId]) -> Result<BTreeMap<TokenId, Wrap>, StoreError> {
    let mut found = BTreeMap::new();
    for chunk in tokens.chunks(many::ROWS_MAX) {
        let arguments = many::arguments(0, chunk.len());
        let text = format!("SELECT * FROM wraps WHERE token IN ({arguments}) ORDER BY generation");
        // One token is what most ask for, always with the same text.
        let query = many::passing(conn, &text).persistent(chunk.len() == 1);
        let query = chunk.iter().fold(query, |query, id| query.bind(id.to_string()));
        for row in conn.all(query).await? {
            let wrap = wrap(&row)?;
            found.insert(wrap.token, wrap);
        }
    }
    Ok(found)
}

/// Those that nobody has opened although their time has passed, the oldest first, `most` of them.
///
/// # Errors
/// Those of the database.
pub async fn due(conn: &mut Conn, now: Millis, most: u32) -> Result<Vec<Wrap>, StoreError> {
    conn.all(sqlx::query(DUE).bind(now).bind(i64::from(most))).await?.iter().map(wrap).collect()
}

/// Notes who opened one, and erases the value.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none, or its end has come.
pub async fn open(conn: &mut Conn, id: WrapId, now: Millis, from: &str) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(OPEN).bind(id.to_string()).bind(now).bind(from.to_owned())).await
}

/// Erases a value that nobody has opened; whether it was there.
///
/// # Errors
/// Those of the database.
pub async fn end(conn: &mut Conn, id: WrapId, now: Millis) -> Result<bool, StoreError> {
    Ok(conn.run(sqlx::query(END).bind(id.to_string()).bind(now)).await? == 1)
}

/// Erases the values of a token that nobody has opened; how many.
///
/// # Errors
/// Those of the database.
pub(crate) async fn end_of_token(conn: &mut Conn, token: TokenId, now: Millis) -> Result<u64, StoreError> {
    conn.run(sqlx::query(END_OF_TOKEN).bind(token.to_string()).bind(now)).await
}

/// Counts an attempt of somebody who has the code, after its end.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn refuse(conn: &mut Conn, id: WrapId) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(REFUSE).bind(id.to_string())).await
}

/// Forgets those of tokens that were revoked before this time; how many.
///
/// # Errors
/// Those of the database.
pub async fn forget(conn: &mut Conn, before: Millis) -> Result<u64, StoreError> {
    conn.run(sqlx::query(FORGET).bind(before)).await
}

fn wrap(row: &AnyRow) -> Result<Wrap, StoreError> {
    Ok(Wrap {
        id: row.word("id")?,
        token: row.word("token")?,
        generation: row.number("generation")?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
        expires_at: row.time("expires_at")?,
        ended_at: row.maybe_number("ended_at")?,
        opened_at: row.maybe_number("opened_at")?,
        opened_from: row.plain("opened_from")?,
        refused: row.number("refused")?,
    })
}
