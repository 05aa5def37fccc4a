//! The audit chain: who changed what, in records of which each names the hash of the one before.

use legation_model::{
    Millis, Scope,
    audit::{self as model, Outcome},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::proof::{hex, sha256, unhex};

/// Fields of a changed object by name.
pub type Fields = Map<String, Value>;

/// One record of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// Position, from 1, without gaps.
    pub number: u64,
    /// How the hash is made: 1 or 2.
    pub format: u32,
    /// When.
    pub at: Millis,
    /// Who.
    pub actor: String,
    /// The network address from which they asked; `null` for the Manager itself and for its host.
    pub address: Option<String>,
    /// What, such as `token.revoke`.
    pub action: String,
    /// To what, by id.
    pub object: String,
    /// Where; `null` for what belongs to no scope.
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// The changed fields as they were.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Fields>,
    /// The changed fields as they are now.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Fields>,
    /// The reason or a remark.
    pub detail: String,
    /// Whether it was done.
    #[serde(with = "crate::spelled::one")]
    #[schema(schema_with = crate::schema::outcome)]
    pub outcome: Outcome,
    /// The request that caused it, as its answer's `x-request-id` has it.
    pub request: Option<String>,
    /// The hash of the record before, in hexadecimal; empty for the first.
    pub previous: String,
    /// SHA-256 of this record, in hexadecimal.
    pub hash: String,
}

/// Which audit records to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only what this one did: the name, the id, or both as a record has them.
    pub actor: Option<String>,
    /// Only this action, such as `token.revoke`, or all of a noun, such as `token`.
    pub action: Option<String>,
    /// Only what was done to this object, by its id.
    pub object: Option<String>,
    /// Only `done` or only `refused`.
    #[serde(default, with = "crate::spelled::maybe")]
    #[param(schema_with = crate::schema::outcome)]
    pub outcome: Option<Outcome>,
    /// Only from this time on.
    pub from_at: Option<Millis>,
    /// Only before this time.
    pub until_at: Option<Millis>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Where the live tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TailQuery {
    /// Behind this number; with what is new when absent. `Last-Event-ID` wins over it.
    pub after: Option<u64>,
    /// Whether to stay for what is still to come; `false` sends what there is.
    #[serde(default = "follow")]
    #[param(default = true)]
    pub follow: bool,
}

const fn follow() -> bool {
    true
}

/// A record that has no place in a chain as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {0} is not spelled as the Manager spells it")]
pub struct Misspelled(pub(crate) &'static str);

impl From<&model::AuditRecord> for AuditRecord {
    fn from(record: &model::AuditRecord) -> Self {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Self {
            number: record.number,
            format: record.format,
            at: record.at,
            actor: record.actor.clone(),
            address: some(&record.address),
            action: record.action.clone(),
            object: record.object.clone(),
            scope: record.scope.clone(),
            before: serde_json::from_str(&record.before).ok(),
            after: serde_json::from_str(&record.after).ok(),
            detail: record.detail.clone(),
            outcome: record.outcome,
            request: some(&record.request),
            previous: hex(&record.previous),
            hash: hex(&record.hash),
        }
    }
}

impl TryFrom<&AuditRecord> for model::AuditRecord {
    type Error = Misspelled;

    fn try_from(record: &AuditRecord) -> Result<Self, Misspelled> {
        Ok(Self {
            number: record.number,
            format: record.format,
            at: record.at,
            actor: record.actor.clone(),
            address: record.address.clone().unwrap_or_default(),
            action: record.action.clone(),
            object: record.object.clone(),
            scope: record.scope.clone(),
            before: spell(record.before.as_ref()),
            after: spell(record.after.as_ref()),
            detail: record.detail.clone(),
            outcome: record.outcome,
            request: record.request.clone().unwrap_or_default(),
            previous: unhex(&record.previous).ok_or(Misspelled("previous"))?,
            hash: unhex(&record.hash).ok_or(Misspelled("hash"))?,
        })
    }
}

/// Fields as a record keeps and hashes them: JSON without blanks and with sorted keys; nothing for none.
pub fn spell(fields: Option<&Fields>) -> String {
    fields.map(|fields| Value::Object(fields.clone()).to_string()).unwrap_or_default()
}

/// The hash that binds a record to its predecessor, in the way that the record's format names: SHA-256 over
/// length-prefixed fields, so that no two records share an encoding. `None` for a format that is not known.
pub fn hash(record: &model::AuditRecord) -> Option<[u8; 32]> {
    match record.format {
        1 => first_format(record),
        2 => Some(second_format(record)),
        _ => None,
    }
}

/// Without the fields that came later: a record that claims to be so old must not have them.
fn first_format(record: &model::AuditRecord) -> Option<[u8; 32]> {
    let later = [&record.address, &record.before, &record.after];
    let plain = later.iter().all(|field| field.is_empty()) && record.outcome == Outcome::Done;
    let scope = record.scope.as_ref()?;
    plain.then(|| {
        prefixed(&[
            &record.previous,
            &record.number.to_be_bytes(),
            &record.at.to_be_bytes(),
            record.actor.as_bytes(),
            record.action.as_bytes(),
            record.object.as_bytes(),
            scope.as_str().as_bytes(),
            record.detail.as_bytes(),
            record.request.as_bytes(),
        ])
    })
}

fn second_format(record: &model::AuditRecord) -> [u8; 32] {
    prefixed(&[
        // Tells the formats apart: the first one begins with a hash of 32 bytes or with nothing.
        b"legation audit record 2",
        &record.previous,
        &record.number.to_be_bytes(),
        &record.at.to_be_bytes(),
        record.actor.as_bytes(),
        record.address.as_bytes(),
        record.action.as_bytes(),
        record.object.as_bytes(),
        record.scope.as_ref().map(Scope::as_str).unwrap_or_default().as_bytes(),
        record.before.as_bytes(),
        record.after.as_bytes(),
        record.detail.as_bytes(),
        record.outcome.as_str().as_bytes(),
        record.request.as_bytes(),
    ])
}

fn prefixed(fields: &[&[u8]]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    sha256(&bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(format: u32) -> model::AuditRecord {
        model::AuditRecord {
            number: 7,
            format,
            at: 1_800_000_000_000,
            actor: "someone".to_owned(),
            address: String::new(),
            action: "token.revoke".to_owned(),
            object: "it".to_owned(),
            scope: "acme".parse().ok(),
            before: String::new(),
            after: String::new(),
            detail: "why".to_owned(),
            outcome: Outcome::Done,
            request: "r1".to_owned(),
            previous: vec![1; 32],
            hash: Vec::new(),
        }
    }

    #[test]
    fn each_format_hashes_as_it_always_did() {
        let hashed = |format| hash(&record(format)).map(|hash| hex(&hash));
        assert_eq!(hashed(1).as_deref(), Some("2feb57ea22a9e58b83193e6152c125404d288b3b98c10c631997e7eebbefe362"));
        assert_eq!(hashed(2).as_deref(), Some("242bfb9cefdf447b6f2f40aa5d9d91075763cad22e8646666635a973e952a55c"));
        assert_eq!(hashed(3), None);
    }

    #[test]
    fn every_field_is_bound_in_the_newest_format() {
        let changes: [fn(&mut model::AuditRecord); 14] = [
            |record| record.number = 8,
            |record| record.format = 1,
            |record| record.at += 1,
            |record| record.actor.push('x'),
            |record| record.address.push('x'),
            |record| record.action.push('x'),
            |record| record.object.push('x'),
            |record| record.scope = None,
            |record| record.before.push('x'),
            |record| record.after.push('x'),
            |record| record.detail.push('x'),
            |record| record.outcome = Outcome::Refused,
            |record| record.request.push('x'),
            |record| record.previous[0] ^= 1,
        ];
        let whole = hash(&record(2));
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = record(2);
            change(&mut changed);
            assert_ne!(hash(&changed), whole, "change {number}");
        }
    }

    #[test]
    fn an_old_record_cannot_be_given_the_fields_that_came_later() {
        let changes: [fn(&mut model::AuditRecord); 5] = [
            |record| record.address.push('x'),
            |record| record.before.push('x'),
            |record| record.after.push('x'),
            |record| record.outcome = Outcome::Refused,
            |record| record.scope = None,
        ];
        for change in changes {
            let mut changed = record(1);
            change(&mut changed);
            assert_eq!(hash(&changed), None);
        }
    }

    #[test]
    fn a_record_comes_back_from_its_document_with_the_same_hash() {
        let fields = json!({"z": [1, {"b": null, "a": "é\u{1}"}], "a": true});
        let mut before = record(2);
        before.before = spell(fields.as_object());
        assert_eq!(before.before, "{\"a\":true,\"z\":[1,{\"a\":\"é\\u0001\",\"b\":null}]}", "keys are sorted");
        let document = serde_json::to_string(&AuditRecord::from(&before)).expect("JSON");
        let after: AuditRecord = serde_json::from_str(&document).expect("a record");
        assert_eq!(model::AuditRecord::try_from(&after), Ok(before));
        let shouting = AuditRecord { hash: "AB".to_owned(), ..after };
        assert_eq!(model::AuditRecord::try_from(&shouting), Err(Misspelled("hash")));
    }
}
