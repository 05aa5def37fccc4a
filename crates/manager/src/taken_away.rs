//! What was taken away after a backup: read from audit exports and receipts, and taken away again in what was restored.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use anyhow::Context;
use legation_api::{audit::AuditRecord, audit_export::ExportLine, proof::hex, receipts::Receipt};
use legation_model::{
    Entropy, Millis,
    audit::Outcome,
    delegate::{DelegateStatus, Standing},
    ids::{ApiKeyId, DelegateId, GrantId, PrincipalId, ReceiptId, TokenId},
    receipt::Cause,
    token::{Schedule, TokenStatus},
};
use legation_store::{StoreError, Tx, api_keys, delegates, grants, principals, principals::Principal, tokens};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    audit::{Actor, Change, append},
    revoke::{End, end_in},
};

/// What is to be taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Token,
    /// A token that drained, or was to end, until this time.
    TokenAt(Millis, TokenStatus),
    Delegate(DelegateStatus),
    ApiKey,
    Grant,
    Disabled,
    Deleted,
}

/// What a record says of its object: the end, or that an end was taken back (`None` within). Nothing of most actions.
fn said(record: &AuditRecord) -> Option<Option<Taken>> {
    let end = match record.action.as_str() {
        "token.revoke" | "token.delete" => Taken::Token,
        "token.drain" => scheduled(record, TokenStatus::Draining),
        "token.revoke_at" => scheduled(record, TokenStatus::Active),
        "delegate.stop" | "delegate.refuse" => Taken::Delegate(DelegateStatus::Stopped),
        "delegate.quarantine" => Taken::Delegate(DelegateStatus::Quarantined),
        "api_key.revoke" => Taken::ApiKey,
        "grant.delete" => Taken::Grant,
        "principal.disable" => Taken::Disabled,
        "principal.delete" => Taken::Deleted,
        "token.keep" | "delegate.allow" | "delegate.approve" | "principal.enable" => return Some(None),
        _ => return None,
    };
    Some(Some(end))
}

/// A token whose time is not to be read ends now.
fn scheduled(record: &AuditRecord, status: TokenStatus) -> Taken {
    let at = record.after.as_ref().and_then(|after| after.get("revoke_at")).and_then(Value::as_i64);
    at.map_or(Taken::Token, |at| Taken::TokenAt(at, status))
}

/// The last thing that was said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    end: Option<Taken>,
    action: String,
    /// Its place in the chain, which goes by what happened and not by the clock. A receipt is the last word of its token.
    number: u64,
    at: Millis,
    why: String,
}

/// A record of an export, as far as it proves what comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    previous: String,
    hash: String,
    at: Millis,
}

/// What was taken away, by object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenAway {
    words: BTreeMap<String, Word>,
    chain: BTreeMap<u64, Link>,
}

/// How much was taken away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Tokens that were revoked, or are again to be.
    pub tokens: u64,
    /// Delegates that were stopped.
    pub delegates: u64,
    /// API keys that were removed.
    pub api_keys: u64,
    /// Users and service accounts that were disabled or deleted.
    pub principals: u64,
    /// Grants that were removed.
    pub grants: u64,
}

impl TakenAway {
    /// Reads an audit export, or receipts, as `legation` writes them.
    ///
    /// # Errors
    /// When it cannot be read or is something else.
    pub(crate) fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
        for value in serde_json::Deserializer::from_reader(BufReader::new(file)).into_iter::<Value>() {
            let value = value.with_context(|| format!("{shown} is not JSON"))?;
            self.take_in(value).with_context(|| {
                format!("{shown} is neither `legation audit export` nor `legation receipt show -o json`")
            })?;
        }
        Ok(())
    }

    fn take_in(&mut self, value: Value) -> anyhow::Result<()> {
        if value.get("line").is_some() {
            if let ExportLine::Record(record) = serde_json::from_value(value)? {
                self.hear(&record);
                let AuditRecord { number, previous, hash, at, .. } = *record;
                self.chain.insert(number, Link { previous, hash, at });
            }
        } else if let Some(items) = value.get("items").and_then(Value::as_array) {
            items.iter().cloned().try_for_each(|item| self.take_in(item))?;
        } else if value.get("action").is_some() {
            self.hear(&serde_json::from_value::<AuditRecord>(value)?);
        } else {
            let receipt: Receipt = serde_json::from_value(value)?;
            let why = format!("{} by {}", receipt.reason, receipt.actor);
            let (end, action) = (Some(Taken::Token), "token.revoke".to_owned());
            self.note(receipt.token.to_string(), Word { end, action, number: u64::MAX, at: receipt.revoked_at, why });
        }
        Ok(())
    }

    fn hear(&mut self, record: &AuditRecord) {
        if record.outcome != Outcome::Done {
            return;
        }
        if let Some(end) = said(record) {
            let why = format!("{} by {}", record.detail, record.actor);
            let AuditRecord { action, number, at, .. } = record.clone();
            self.note(record.object.clone(), Word { end, action, number, at, why });
        }
    }

    /// The last word counts.
    fn note(&mut self, object: String, word: Word) {
        if self.words.get(&object).is_none_or(|known| known.number <= word.number) {
            self.words.insert(object, word);
        }
    }

    /// Up to when the exports tell everything that happened after this record, the last one of a backup: as far as they go
    /// on from it without a gap. `None` when they do not, as those of another Manager do not. Records that were picked out
    /// of a chain, and receipts, say nothing of what else there was.
    pub(crate) fn known_until(&self, last: Option<(u64, Vec<u8>)>) -> Option<Millis> {
        let (mut number, hash) = last.unwrap_or_default();
        let mut hash = hex(&hash);
        let mut until = self.chain.get(&number).filter(|link| link.hash == hash).map(|link| link.at);
        while let Some(link) = self.chain.get(&(number + 1)).filter(|link| link.previous == hash) {
            (number, hash, until) = (number + 1, link.hash.clone(), Some(link.at));
        }
        until
    }

    /// Takes it away again, within the transaction of the restore; what is not there, or is as it should be, is passed
    /// over.
    pub(crate) async fn apply(&self, tx: &mut Tx, now: Millis, entropy: &dyn Entropy) -> Result<Applied, StoreError> {
        let mut applied = Applied::default();
        for (object, word) in &self.words {
            let Some(end) = word.end else { continue };
            let why = format!("{} before the restore, at {}: {}", word.action, word.at, word.why);
            let (count, done) = match end {
                Taken::TokenAt(at, status) if now < at => {
                    (&mut applied.tokens, schedule(tx, object, at, status, &why, now).await?)
                }
                Taken::Token | Taken::TokenAt(..) => {
                    (&mut applied.tokens, revoke(tx, object, &why, now, entropy).await?)
                }
                Taken::Delegate(status) => (&mut applied.delegates, stop(tx, object, status, &why, now).await?),
                Taken::ApiKey => (&mut applied.api_keys, remove_key(tx, object, &why, now).await?),
                Taken::Grant => (&mut applied.grants, remove_grant(tx, object, &why, now).await?),
                Taken::Disabled => (&mut applied.principals, disable(tx, object, &why, now).await?),
                Taken::Deleted => (&mut applied.principals, delete(tx, object, &why, now).await?),
            };
            *count += u64::from(done);
        }
        Ok(applied)
    }
}

/// Revokes every token that has a value.
pub(crate) async fn revoke_all(tx: &mut Tx, now: Millis, entropy: &dyn Entropy) -> Result<u64, StoreError> {
    let mut revoked = 0;
    for (id, status, _) in tokens::states(tx).await? {
        if status.is_live() {
            let why = "all tokens of a restored backup were to be revoked";
            revoked += u64::from(revoke(tx, &id.to_string(), why, now, entropy).await?);
        }
    }
    Ok(revoked)
}

/// As a revocation does; the Manager's sweep writes the lines of the receipt and signs it.
async fn revoke(tx: &mut Tx, object: &str, why: &str, now: Millis, entropy: &dyn Entropy) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<TokenId>() else { return Ok(false) };
    let Some(token) = tokens::get(tx, id).await? else { return Ok(false) };
    if token.receipt.is_some() || token.status == TokenStatus::Deleted {
        return Ok(false);
    }
    let (reason, receipt) = (why.to_owned(), ReceiptId::random(entropy));
    end_in(tx, &token, End { cause: Cause::Kill, reason, actor: Actor::host(), receipt, now }).await?;
    Ok(true)
}

/// Sets the end that was set before, for a token whose time is still to come.
async fn schedule(
    tx: &mut Tx,
    object: &str,
    at: Millis,
    status: TokenStatus,
    why: &str,
    now: Millis,
) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<TokenId>() else { return Ok(false) };
    let Some(token) = tokens::get(tx, id).await? else { return Ok(false) };
    if token.receipt.is_some() || token.status == TokenStatus::Deleted {
        return Ok(false);
    }
    // One without a value has nobody to drain, and one that drains already goes on draining.
    let status = if token.status == TokenStatus::Active { status } else { token.status };
    let actor = Actor::host();
    let wanted = Schedule { at, by: actor.name.clone(), reason: why.to_owned() };
    tokens::schedule(tx, id, status, Some(&wanted)).await?;
    let action = if status == TokenStatus::Draining { "token.drain" } else { "token.revoke_at" };
    let change = Change::new(action, id, token.scope.clone())
        .before(json!({"status": token.status.as_str()}))
        .after(json!({"status": status.as_str(), "revoke_at": at}));
    append(tx, &actor, now, change.detail(why)).await?;
    Ok(true)
}

async fn stop(tx: &mut Tx, object: &str, status: DelegateStatus, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<DelegateId>() else { return Ok(false) };
    let Some(delegate) = delegates::get(tx, id).await? else { return Ok(false) };
    if matches!(delegate.status, DelegateStatus::Stopped | DelegateStatus::Quarantined) {
        return Ok(false);
    }
    let standing = Standing { reason: why.to_owned(), by: Actor::host().name, at: now };
    delegates::set_status(tx, id, status, &standing).await?;
    let change = Change::new("delegate.stop", id, delegate.scope.clone())
        .before(json!({"status": delegate.status.as_str()}))
        .after(json!({"status": status.as_str()}));
    append(tx, &Actor::host(), now, change.detail(why)).await?;
    Ok(true)
}

async fn remove_key(tx: &mut Tx, object: &str, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<ApiKeyId>() else { return Ok(false) };
    let Some(key) = api_keys::get(tx, id).await? else { return Ok(false) };
    api_keys::delete(tx, id).await?;
    let change =
        Change::new("api_key.revoke", id, key.scope.clone()).before(json!({"name": key.name, "owner": key.owner}));
    append(tx, &Actor::host(), now, change.detail(why)).await?;
    Ok(true)
}

async fn remove_grant(tx: &mut Tx, object: &str, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<GrantId>() else { return Ok(false) };
    let Some(grant) = grants::get(tx, id).await? else { return Ok(false) };
    grants::delete(tx, id).await?;
    let change = Change::new("grant.delete", id, grant.scope.clone())
        .before(json!({"principal": grant.principal, "role": grant.role}));
    append(tx, &Actor::host(), now, change.detail(why)).await?;
    Ok(true)
}

async fn disable(tx: &mut Tx, object: &str, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Some(principal) = principal(tx, object).await?.filter(|principal| principal.disabled_at.is_none()) else {
        return Ok(false);
    };
    principals::set_disabled(tx, principal.id, Some(now)).await?;
    let change =
        Change::new("principal.disable", principal.id, principal.scope.clone()).after(json!({"disabled_at": now}));
    append(tx, &Actor::host(), now, change.detail(why)).await?;
    Ok(true)
}

async fn delete(tx: &mut Tx, object: &str, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Some(principal) = principal(tx, object).await? else { return Ok(false) };
    principals::delete(tx, principal.id).await?;
    let change =
        Change::new("principal.delete", principal.id, principal.scope.clone()).before(json!({"name": principal.name}));
    append(tx, &Actor::host(), now, change.detail(why)).await?;
    Ok(true)
}

/// One that can be taken away: not that of the host, which nobody can change.
async fn principal(tx: &mut Tx, object: &str) -> Result<Option<Principal>, StoreError> {
    let Ok(id) = object.parse::<PrincipalId>() else { return Ok(None) };
    Ok(principals::get(tx, id).await?.filter(|_| id != principals::BREAK_GLASS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, action: &str, object: &str, at: Millis) -> AuditRecord {
        let hash = |number: u64| if number == 0 { String::new() } else { format!("{number:02x}") };
        let record = json!({
            "number": number, "format": 2, "at": at, "actor": "a", "address": null, "action": action, "object": object,
            "scope": null, "before": null, "after": null, "detail": "", "outcome": "done", "request": null,
            "previous": hash(number - 1), "hash": hash(number),
        });
        serde_json::from_value(record).expect("a record")
    }

    fn exported(records: &[AuditRecord]) -> TakenAway {
        let mut all = TakenAway::default();
        for record in records {
            let line = ExportLine::Record(Box::new(record.clone()));
            all.take_in(serde_json::to_value(line).expect("JSON")).expect("a line");
        }
        all
    }

    #[test]
    fn the_last_word_about_an_object_counts_whatever_the_clock_said() {
        let all = exported(&[
            record(1, "delegate.stop", "one", 9),
            record(2, "delegate.allow", "one", 8),
            record(3, "delegate.allow", "two", 7),
            record(4, "delegate.stop", "two", 6),
        ]);
        let ends: Vec<_> = all.words.values().map(|word| word.end).collect();
        assert_eq!(ends, [None, Some(Taken::Delegate(DelegateStatus::Stopped))]);
    }

    #[test]
    fn a_token_that_was_to_end_ends() {
        let mut drain = record(1, "token.drain", "drains", 1);
        drain.after = json!({"status": "draining", "revoke_at": 7}).as_object().cloned();
        let unread = record(2, "token.revoke_at", "unread", 1);
        let all =
            exported(&[drain, unread, record(3, "token.revoke_at", "kept", 1), record(4, "token.keep", "kept", 1)]);
        let ends: Vec<_> = all.words.values().map(|word| word.end).collect();
        assert_eq!(ends, [Some(Taken::TokenAt(7, TokenStatus::Draining)), None, Some(Taken::Token)]);
    }

    #[test]
    fn only_what_goes_on_from_the_backup_is_known() {
        let records: Vec<_> =
            (1..=5).map(|number| record(number, "token.create", "x", number as Millis * 10)).collect();
        let last = |number: u8| Some((u64::from(number), vec![number]));
        assert_eq!(exported(&records).known_until(last(2)), Some(50));
        assert_eq!(exported(&records).known_until(last(5)), Some(50), "nothing happened since");
        assert_eq!(exported(&records[2..]).known_until(last(2)), Some(50), "continued");
        assert_eq!(exported(&records).known_until(None), Some(50));
        assert_eq!(exported(&records).known_until(Some((2, vec![9]))), None, "of another Manager");
        assert_eq!(exported(&records[3..]).known_until(last(2)), None, "a gap");
        assert_eq!(exported(&records[..2]).known_until(last(3)), None, "older than the backup");
        assert_eq!(exported(&[&records[..3], &records[4..]].concat()).known_until(last(2)), Some(30), "up to the gap");
        assert_eq!(TakenAway::default().known_until(last(2)), None);
        let mut picked = TakenAway::default();
        picked.take_in(json!({"items": records})).expect("a page of a list");
        assert_eq!(picked.known_until(last(2)), None, "a page is no chain");
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        for (text, ok) in [
            ("", true),
            (r#"{"line":"checkpoint","number":1,"hash":"00","at":5,"previous":0,"signature":"","key":""}"#, true),
            (r#"{"items":[]}"#, true),
            ("[]", false),
            (r#"{"token":"x"}"#, false),
            ("no JSON", false),
        ] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(TakenAway::default().read(&path).is_ok(), ok, "{text}");
        }
    }
}
