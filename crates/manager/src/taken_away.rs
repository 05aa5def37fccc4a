//! What was taken away after a backup: read from audit exports and receipts, and taken away again in what was restored.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use anyhow::Context;
use legation_api::{audit::AuditRecord, audit_export::ExportLine, receipts::Receipt};
use legation_model::{
    Entropy, Millis,
    audit::Outcome,
    delegate::{DelegateStatus, Standing},
    ids::{ApiKeyId, DelegateId, GrantId, PrincipalId, ReceiptId, TokenId},
    receipt::Cause,
    token::TokenStatus,
};
use legation_store::{StoreError, Tx, api_keys, delegates, grants, principals, tokens};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    audit::{Actor, Change, append},
    revoke::{End, end_in},
};

/// What ended by this action, if something did; what began again is not.
fn ends(action: &str) -> Option<bool> {
    match action {
        "token.revoke"
        | "token.delete"
        | "delegate.stop"
        | "delegate.refuse"
        | "delegate.quarantine"
        | "api_key.revoke"
        | "grant.delete"
        | "principal.disable"
        | "principal.delete" => Some(true),
        "delegate.allow" | "delegate.approve" | "principal.enable" => Some(false),
        _ => None,
    }
}

/// The last thing that was said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    action: String,
    at: Millis,
    why: String,
}

/// What was taken away, by object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenAway {
    words: BTreeMap<String, Word>,
    /// The newest time that was read: of what came later nothing is known.
    pub(crate) known_until: Option<Millis>,
}

/// How much was taken away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Tokens that were revoked.
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
            }
        } else if let Some(items) = value.get("items").and_then(Value::as_array) {
            items.iter().cloned().try_for_each(|item| self.take_in(item))?;
        } else if value.get("action").is_some() {
            self.hear(&serde_json::from_value::<AuditRecord>(value)?);
        } else {
            let receipt: Receipt = serde_json::from_value(value)?;
            let why = format!("{} by {}", receipt.reason, receipt.actor);
            self.note(
                receipt.token.to_string(),
                Word { action: "token.revoke".to_owned(), at: receipt.revoked_at, why },
            );
        }
        Ok(())
    }

    fn hear(&mut self, record: &AuditRecord) {
        self.known_until = self.known_until.max(Some(record.at));
        if record.outcome == Outcome::Done && ends(&record.action).is_some() {
            let why = format!("{} by {}", record.detail, record.actor);
            self.note(record.object.clone(), Word { action: record.action.clone(), at: record.at, why });
        }
    }

    /// The last word counts, and an end of a token is one whatever is said later.
    fn note(&mut self, object: String, word: Word) {
        self.known_until = self.known_until.max(Some(word.at));
        let newer = self.words.get(&object).is_none_or(|known| known.at <= word.at);
        if newer {
            self.words.insert(object, word);
        }
    }

    /// Takes it away again, within the transaction of the restore; what is not there, or is as it should be, is passed
    /// over.
    pub(crate) async fn apply(&self, tx: &mut Tx, now: Millis, entropy: &dyn Entropy) -> Result<Applied, StoreError> {
        let mut applied = Applied::default();
        for (object, word) in self.words.iter().filter(|(_, word)| ends(&word.action) == Some(true)) {
            let why = format!("{} before the restore, at {}: {}", word.action, word.at, word.why);
            match word.action.split('.').next() {
                Some("token") => applied.tokens += u64::from(revoke(tx, object, &why, now, entropy).await?),
                Some("delegate") => applied.delegates += u64::from(stop(tx, object, word, &why, now).await?),
                Some("api_key") => applied.api_keys += u64::from(remove_key(tx, object, &why, now).await?),
                Some("grant") => applied.grants += u64::from(remove_grant(tx, object, &why, now).await?),
                _ => applied.principals += u64::from(end_principal(tx, object, word, &why, now).await?),
            }
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

async fn stop(tx: &mut Tx, object: &str, word: &Word, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<DelegateId>() else { return Ok(false) };
    let Some(delegate) = delegates::get(tx, id).await? else { return Ok(false) };
    let quarantined = word.action == "delegate.quarantine";
    let status = if quarantined { DelegateStatus::Quarantined } else { DelegateStatus::Stopped };
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

async fn end_principal(tx: &mut Tx, object: &str, word: &Word, why: &str, now: Millis) -> Result<bool, StoreError> {
    let Ok(id) = object.parse::<PrincipalId>() else { return Ok(false) };
    let Some(principal) = principals::get(tx, id).await?.filter(|_| id != principals::BREAK_GLASS) else {
        return Ok(false);
    };
    let change = if word.action == "principal.delete" {
        principals::delete(tx, id).await?;
        Change::new("principal.delete", id, principal.scope.clone()).before(json!({"name": principal.name}))
    } else if principal.disabled_at.is_none() {
        principals::set_disabled(tx, id, Some(now)).await?;
        Change::new("principal.disable", id, principal.scope.clone()).after(json!({"disabled_at": now}))
    } else {
        return Ok(false);
    };
    append(tx, &Actor::host(), now, change.detail(why)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(action: &str, at: Millis) -> Word {
        Word { action: action.to_owned(), at, why: String::new() }
    }

    #[test]
    fn the_last_word_about_an_object_counts() {
        let mut all = TakenAway::default();
        all.note("dlg_1".to_owned(), word("delegate.stop", 1));
        all.note("dlg_1".to_owned(), word("delegate.allow", 2));
        all.note("dlg_2".to_owned(), word("delegate.allow", 3));
        all.note("dlg_2".to_owned(), word("delegate.stop", 4));
        all.note("dlg_2".to_owned(), word("delegate.allow", 1));
        let ended: Vec<_> = all.words.iter().filter(|(_, word)| ends(&word.action) == Some(true)).collect();
        assert_eq!((ended.len(), ended[0].0.as_str(), all.known_until), (1, "dlg_2", Some(4)));
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
