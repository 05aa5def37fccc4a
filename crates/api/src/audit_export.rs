//! The audit chain as a file that proves itself: one JSON object a line, checked with nothing but a public key.
//!
//! A line is a record, or a checkpoint: the Manager's signature over number and hash of the record before it. Each
//! checkpoint names the one before, and a whole export ends with one, so that no line can be taken away unnoticed. When
//! old records were deleted the first line is a base: the signed number and hash of the last one that is gone.

use legation_model::{Millis, audit as model};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    audit::{AuditRecord, Misspelled},
    proof::{hex, unhex},
};

/// The media type of an export.
pub const JSON_LINES: &str = "application/jsonl";
/// The name of an event of the live tail that carries a record.
pub const EVENT_RECORD: &str = "record";
/// The name of an event that tells a slow reader how far behind it is; nothing is left out.
pub const EVENT_BEHIND: &str = "behind";

/// One line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum ExportLine {
    /// What was deleted before the first record.
    Base(Checkpoint),
    /// A record.
    Record(Box<AuditRecord>),
    /// A signature over everything up to here.
    Checkpoint(Checkpoint),
}

/// A signed place in the chain: Ed25519 (RFC 8032) over the text that [`statement`] makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The number of the record.
    pub number: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// When it was signed.
    pub at: Millis,
    /// The number of the checkpoint, or base, before it; 0 for the first.
    pub previous: u64,
    /// The signature in base64.
    #[serde(with = "crate::spelled::bytes")]
    #[schema(value_type = String, format = Byte)]
    pub signature: Vec<u8>,
    /// The public key in base64.
    #[serde(with = "crate::spelled::bytes")]
    #[schema(value_type = String, format = Byte)]
    pub key: Vec<u8>,
}

/// What a signature stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The chain was so up to here.
    Checkpoint,
    /// The records up to here were deleted by the rule of retention.
    Base,
}

/// The text that is signed. No receipt's statement begins like this, so that neither passes for the other.
pub fn statement(signed: Signed, place: &model::Checkpoint) -> String {
    let what = match signed {
        Signed::Checkpoint => "checkpoint",
        Signed::Base => "base",
    };
    let model::Checkpoint { number, hash, at, previous, .. } = place;
    format!("legation audit {what} 1\nnumber {number}\nhash {}\nat {at}\nprevious {previous}\n", hex(hash))
}

impl From<&model::Checkpoint> for Checkpoint {
    fn from(place: &model::Checkpoint) -> Self {
        Self {
            number: place.number,
            hash: hex(&place.hash),
            at: place.at,
            previous: place.previous,
            signature: place.signature.clone(),
            key: place.key.to_vec(),
        }
    }
}

impl TryFrom<&Checkpoint> for model::Checkpoint {
    type Error = Misspelled;

    fn try_from(place: &Checkpoint) -> Result<Self, Misspelled> {
        Ok(Self {
            number: place.number,
            hash: unhex(&place.hash).ok_or(Misspelled("hash"))?,
            at: place.at,
            previous: place.previous,
            signature: place.signature.clone(),
            key: place.key.clone().try_into().map_err(|_| Misspelled("key"))?,
        })
    }
}

/// Which part of the chain to export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// Only what comes behind this number: the last one of an export that is to be continued.
    #[serde(default)]
    pub after: u64,
}

/// How far behind a reader of the live tail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Behind {
    /// Records that it has not been sent yet. They follow.
    pub records: u64,
}
