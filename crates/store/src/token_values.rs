//! Values of tokens that an account wants to see again, sealed by the caller. There are none unless its policy says so.

use legation_model::{Scope, Within, ids::TokenId};
use sqlx::any::AnyRow;

use crate::{Conn, StoreError, conn::Statement, many, page, row::Columns};

/// The value of one generation.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenValue {
    /// Whose.
    pub token: TokenId,
    /// Of which generation.
    pub generation: u32,
    /// Sealed by the caller; the store cannot read it.
    pub sealed: Vec<u8>,
}

const NEW: many::Into = many::Into { table: "token_values", columns: "token, generation, sealed", conflict: "" };
const NEWEST: &str = "SELECT * FROM token_values WHERE token = $1 ORDER BY generation DESC LIMIT 1";
const FORGET: &str = "DELETE FROM token_values WHERE token = $1";
const FORGET_BELOW: &str = "DELETE FROM token_values WHERE token IN (SELECT id FROM tokens WHERE {within})";

/// Keeps some.
///
/// # Errors
/// [`StoreError::Taken`] when the value of a generation is kept already.
pub async fn insert_all(conn: &mut Conn, new: &[TokenValue]) -> Result<(), StoreError> {
    let bind = |query: Statement<'static>, value: &TokenValue| {
        Ok(query.bind(value.token.to_string()).bind(i64::from(value.generation)).bind(value.sealed.clone()))
    };
    many::insert(conn, NEW, new, bind).await.map(drop)
}

/// That of a token's newest generation, if it is kept.
///
/// # Errors
/// Those of the database.
pub async fn newest(conn: &mut Conn, token: TokenId) -> Result<Option<TokenValue>, StoreError> {
    conn.maybe(sqlx::query(NEWEST).bind(token.to_string())).await?.as_ref().map(value).transpose()
}

/// Erases those of a token; how many.
///
/// # Errors
/// Those of the database.
pub(crate) async fn forget(conn: &mut Conn, token: TokenId) -> Result<u64, StoreError> {
    conn.run(sqlx::query(FORGET).bind(token.to_string())).await
}

/// Erases those of all tokens of a scope and below; how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_below(conn: &mut Conn, scope: &Scope) -> Result<u64, StoreError> {
    let within = Within::below([scope.clone()]);
    conn.run(page::scopes(page::confined(FORGET_BELOW, 0, &within), &within)).await
}

fn value(row: &AnyRow) -> Result<TokenValue, StoreError> {
    Ok(TokenValue { token: row.word("token")?, generation: row.number("generation")?, sealed: row.bytes("sealed")? })
}
