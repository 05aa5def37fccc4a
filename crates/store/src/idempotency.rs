//! Answers that were given to requests with an `Idempotency-Key`, so that a repeat gets the same one.

use legation_model::Millis;

use crate::{Conn, StoreError, row::Columns};

/// What the first request said and was answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Answered {
    /// Hash of the request's body: another body under the same key is an error.
    pub body_hash: Vec<u8>,
    /// The answer, without anything that is shown only once.
    pub response: Vec<u8>,
}

const GET: &str = "SELECT body_hash, response FROM idempotency WHERE actor = $1 AND request = $2";
const PUT: &str =
    "INSERT INTO idempotency (actor, request, body_hash, response, created_at) VALUES ($1, $2, $3, $4, $5)";
const PRUNE: &str = "DELETE FROM idempotency WHERE created_at < $1";

/// What this actor's request with this key was answered, if there was one.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, actor: &str, key: &str) -> Result<Option<Answered>, StoreError> {
    let row = conn.maybe(sqlx::query(GET).bind(actor.to_owned()).bind(key.to_owned())).await?;
    row.map(|row| Ok(Answered { body_hash: row.bytes("body_hash")?, response: row.bytes("response")? })).transpose()
}

/// Keeps an answer.
///
/// # Errors
/// [`StoreError::Taken`] when another request with the key was first.
pub async fn put(conn: &mut Conn, actor: &str, key: &str, answered: &Answered, now: Millis) -> Result<(), StoreError> {
    let query = sqlx::query(PUT).bind(actor.to_owned()).bind(key.to_owned());
    let query = query.bind(answered.body_hash.clone()).bind(answered.response.clone()).bind(now);
    conn.run_one(query).await
}

/// Forgets answers given before a time; how many.
///
/// # Errors
/// Those of the database.
pub async fn prune(conn: &mut Conn, before: Millis) -> Result<u64, StoreError> {
    conn.run(sqlx::query(PRUNE).bind(before)).await
}
