//! Idempotency keys: a repeated POST answers what the first one did, and does nothing.

use legation_api::{Code, Problem};
use legation_model::Millis;
use legation_store::{
    StoreError, Tx,
    idempotency::{self, Answered},
};

use crate::{audit::Actor, error::Refusal, seal::Sealer};

/// The longest key, in bytes.
pub const KEY_MAX: usize = 255;

/// A caller's promise that requests with this key are one request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    key: String,
    body: Vec<u8>,
}

impl Idempotency {
    /// The key together with what it was used for: a keyed hash, because a body may hold a task's secrets.
    ///
    /// # Errors
    /// `invalid_request` for a key that is empty, too long or not printable ASCII.
    pub fn new(key: &str, route: &str, body: &[u8], sealer: &Sealer) -> Result<Self, Refusal> {
        if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                Problem::invalid("Idempotency-Key", "not a key", "use 1 to 255 printable ASCII characters").into()
            );
        }
        let mut used_for = route.as_bytes().to_vec();
        used_for.push(0);
        used_for.extend_from_slice(body);
        Ok(Self { key: key.to_owned(), body: sealer.keyed_hash(&used_for) })
    }
}

/// A new object, or the id of the one that the first request made.
#[derive(Debug)]
pub enum Made<T> {
    /// Made now.
    Fresh(T),
    /// Made before; its id.
    Replayed(String),
}

/// The id that an earlier request with this key made, if there was one.
///
/// # Errors
/// Inside: `idempotency_mismatch` when that request had another body.
pub async fn replay(
    tx: &mut Tx,
    actor: &Actor,
    once: Option<&Idempotency>,
) -> Result<Option<Result<String, Refusal>>, StoreError> {
    let Some(once) = once else { return Ok(None) };
    let Some(before) = idempotency::get(tx, &actor.name, &once.key).await? else { return Ok(None) };
    if before.body_hash != once.body {
        let detail = "this Idempotency-Key was used for another request";
        return Ok(Some(Err(Refusal::new(Code::IdempotencyMismatch, detail))));
    }
    let id = String::from_utf8(before.response).map_err(|_| StoreError::Corrupt("an idempotency record".to_owned()))?;
    Ok(Some(Ok(id)))
}

/// Remembers what a request made.
///
/// # Errors
/// Those of the store.
pub async fn keep(
    tx: &mut Tx,
    actor: &Actor,
    once: Option<&Idempotency>,
    id: &str,
    now: Millis,
) -> Result<(), StoreError> {
    match once {
        Some(once) => {
            let answered = Answered { body_hash: once.body.clone(), response: id.as_bytes().to_vec() };
            idempotency::put(tx, &actor.name, &once.key, &answered, now).await
        }
        None => Ok(()),
    }
}
