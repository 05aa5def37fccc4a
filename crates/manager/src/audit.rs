//! The audit chain: one record per change, in the same transaction, each naming the hash of the one before.

use std::{fmt::Display, net::IpAddr};

use legation_api::audit::{AuditQuery, Fields, hash, spell};
use legation_model::{
    Millis, Scope,
    audit::{AuditRecord, FORMAT_NEWEST, Outcome},
};
use legation_store::{
    Page, Paged, StoreError, Tx,
    audit::{self, AuditFilter},
    job,
};
use serde::Serialize;
use serde_json::Value;

use crate::{Manager, access::Caller, error::Refusal, handshakes::source};

/// Who does something, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// A key's name and id, `system`, `host` for break-glass, or `nobody` for who needs no key.
    pub name: String,
    /// The request's id, or empty.
    pub request: String,
    /// The network address of the request, if it came over a network.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// The Manager itself.
    pub fn system() -> Self {
        Self { name: "system".to_owned(), request: String::new(), address: None }
    }

    /// Whoever may run commands on the Manager's host.
    pub fn host() -> Self {
        Self { name: "host".to_owned(), ..Self::system() }
    }

    /// Somebody without a key, from this address.
    pub fn nobody(address: impl Into<Option<IpAddr>>, request: String) -> Self {
        Self { name: "nobody".to_owned(), request, address: address.into() }
    }

    /// The Manager itself, for what came to it from this address.
    pub fn system_for(address: IpAddr) -> Self {
        Self { address: Some(address), ..Self::system() }
    }

    /// Where somebody comes from who has no key, and whose name therefore says nothing.
    pub(crate) fn stranger_from(&self) -> Option<IpAddr> {
        self.address.filter(|_| ["nobody", "system"].contains(&self.name.as_str())).map(source)
    }
}

/// One change, or a refusal of one, without its place in the chain. Nothing in it is ever secret material: what is
/// written down here cannot be taken back.
#[derive(Clone, Debug)]
pub struct Change {
    action: &'static str,
    object: String,
    scope: Option<Scope>,
    before: String,
    after: String,
    detail: String,
    outcome: Outcome,
}

impl Change {
    /// Something that is done: `action`, such as `token.revoke`, to an object by its id, in its scope if it has one.
    pub fn new(action: &'static str, object: impl Display, scope: impl Into<Option<Scope>>) -> Self {
        Self {
            action,
            object: object.to_string(),
            scope: scope.into(),
            before: String::new(),
            after: String::new(),
            detail: String::new(),
            outcome: Outcome::Done,
        }
    }

    /// The changed fields as they were: anything that is written as a JSON object.
    #[must_use]
    pub fn before(self, fields: impl Serialize) -> Self {
        Self { before: spell(Some(&present(fields))), ..self }
    }

    /// The changed fields as they are now.
    #[must_use]
    pub fn after(self, fields: impl Serialize) -> Self {
        Self { after: spell(Some(&present(fields))), ..self }
    }

    /// Of an object before and after, the fields that differ.
    #[must_use]
    pub fn between<T: Serialize>(self, before: T, after: T) -> Self {
        let (mut before, mut after) = (fields(before), fields(after));
        let same: Vec<String> = before
            .iter()
            .filter(|(name, value)| after.get(*name) == Some(*value))
            .map(|(name, _)| name.clone())
            .collect();
        for name in same {
            before.remove(&name);
            after.remove(&name);
        }
        Self { before: spell(Some(&before)), after: spell(Some(&after)), ..self }
    }

    /// The reason or a remark.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// It was not done: the refusal is what is recorded.
    #[must_use]
    pub fn refused(self) -> Self {
        Self { outcome: Outcome::Refused, ..self }
    }
}

fn fields(value: impl Serialize) -> Fields {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        // Only a type that is no struct and no map comes here; what it says is kept all the same.
        Ok(other) => Fields::from_iter([("value".to_owned(), other)]),
        Err(error) => Fields::from_iter([("unreadable".to_owned(), Value::String(error.to_string()))]),
    }
}

/// The fields that say something. The record has the object's id and scope in places of their own.
fn present(value: impl Serialize) -> Fields {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    fields(value).into_iter().filter(|(name, value)| says(value) && name != "id" && name != "scope").collect()
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
        let record = chained(number, now, actor, change, previous);
        previous = record.hash.clone();
        records.push(record);
    }
    audit::append(tx, &records).await
}

fn chained(number: u64, at: Millis, actor: Actor, change: Change, previous: Vec<u8>) -> AuditRecord {
    let mut record = AuditRecord {
        number,
        format: FORMAT_NEWEST,
        at,
        actor: actor.name,
        address: actor.address.map(|address| address.to_canonical().to_string()).unwrap_or_default(),
        action: change.action.to_owned(),
        object: change.object,
        scope: change.scope,
        before: change.before,
        after: change.after,
        detail: change.detail,
        outcome: change.outcome,
        request: actor.request,
        previous,
        hash: Vec::new(),
    };
    record.hash = hash(&record).expect("the newest format is known").to_vec();
    record
}

impl Manager {
    /// Audit records, newest first.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_audit(
        &self,
        caller: &Caller,
        query: AuditQuery,
        page: Page,
    ) -> Result<Paged<AuditRecord>, Refusal> {
        let filter = AuditFilter {
            within: caller.confine(query.scope)?,
            actor: query.actor.unwrap_or_default(),
            action: query.action.unwrap_or_default(),
            object: query.object.unwrap_or_default(),
            outcome: query.outcome,
            from: query.from_at.unwrap_or(Millis::MIN),
            until: query.until_at.unwrap_or(Millis::MAX),
        };
        let list = job(move |conn| Box::pin(async move { audit::list(conn, &filter, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// One audit record.
    ///
    /// # Errors
    /// `not_found` for one that the caller may not see.
    pub async fn audit_record(&self, caller: &Caller, number: u64) -> Result<AuditRecord, Refusal> {
        let found = self.store.read(move |conn| Box::pin(audit::get(conn, number))).await?;
        found.filter(|record| caller.sees_record(record)).ok_or_else(|| Refusal::not_found("audit record"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_written_down() {
        let (before, after) = (json!({"a": 1, "b": null, "c": [1]}), json!({"a": 1, "b": 2, "c": []}));
        let change = Change::new("it.change", "it", None).between(before, after);
        assert_eq!((change.before.as_str(), change.after.as_str()), (r#"{"b":null,"c":[1]}"#, r#"{"b":2,"c":[]}"#));
    }

    #[test]
    fn of_something_new_only_what_it_says_is_written_down() {
        let new = json!({"id": "it", "scope": "acme", "name": "n", "limit": null, "tags": [], "text": "", "zero": 0});
        let change = Change::new("it.create", "it", None).after(new);
        assert_eq!((change.before.as_str(), change.after.as_str()), ("", r#"{"name":"n","zero":0}"#));
    }
}
