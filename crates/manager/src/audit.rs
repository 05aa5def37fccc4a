//! The audit chain: one record per change, in the same transaction, each naming the hash of the one before.

use legation_model::{Millis, Scope};
use legation_store::{
    StoreError, Tx,
    audit::{self, AuditRecord},
};

use crate::seal::sha256;

/// Who does something, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// A key's name and id, `system`, or `host` for break-glass.
    pub name: String,
    /// The request's id, or empty.
    pub request: String,
}

impl Actor {
    /// The Manager itself.
    pub fn system() -> Self {
        Self { name: "system".to_owned(), request: String::new() }
    }
}

/// One change, without its place in the chain. `detail` never holds secret material.
pub struct Change {
    /// What was done, such as `token.revoke`.
    pub action: &'static str,
    /// On which object, by id.
    pub object: String,
    /// In which scope.
    pub scope: Scope,
    /// Before and after, or the reason.
    pub detail: String,
}

/// Appends a change to the chain within the caller's transaction.
///
/// # Errors
/// Those of the store; the change must then not happen either.
pub async fn append(tx: &mut Tx, actor: &Actor, now: Millis, change: Change) -> Result<(), StoreError> {
    append_all(tx, now, vec![(actor.clone(), change)]).await
}

/// Appends changes to the chain, in this order, within the caller's transaction.
///
/// # Errors
/// Those of the store; the changes must then not happen either.
pub async fn append_all(tx: &mut Tx, now: Millis, changes: Vec<(Actor, Change)>) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let (last, mut previous) = audit::last(tx).await?.unwrap_or_default();
    let mut records = Vec::with_capacity(changes.len());
    for (number, (actor, change)) in (last + 1..).zip(changes) {
        let mut record = AuditRecord {
            number,
            at: now,
            actor: actor.name,
            action: change.action.to_owned(),
            object: change.object,
            scope: change.scope,
            detail: change.detail,
            request: actor.request,
            previous,
            hash: Vec::new(),
        };
        record.hash = chained_hash(&record);
        previous = record.hash.clone();
        records.push(record);
    }
    audit::append(tx, &records).await
}

/// The hash that binds a record to its predecessor: SHA-256 over length-prefixed fields, so that no two records
/// share an encoding.
pub fn chained_hash(record: &AuditRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    let fields: [&[u8]; 9] = [
        &record.previous,
        &record.number.to_be_bytes(),
        &record.at.to_be_bytes(),
        record.actor.as_bytes(),
        record.action.as_bytes(),
        record.object.as_bytes(),
        record.scope.as_str().as_bytes(),
        record.detail.as_bytes(),
        record.request.as_bytes(),
    ];
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    sha256(&bytes).to_vec()
}
