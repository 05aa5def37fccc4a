//! The audit chain: one record per change and per refusal that matters, each bound to the one before it.

use crate::{Millis, Scope};

/// The way of hashing that new records have. Each record names its own, so that older ones still verify.
pub const FORMAT_NEWEST: u32 = 2;

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Position, from 1, without gaps.
    pub number: u64,
    /// How its hash is made: 1, or [`FORMAT_NEWEST`].
    pub format: u32,
    /// When.
    pub at: Millis,
    /// Who.
    pub actor: String,
    /// The network address from which they asked; empty for the Manager itself and for its host.
    pub address: String,
    /// What, such as `token.revoke`.
    pub action: String,
    /// To what, by id.
    pub object: String,
    /// Where; `None` for what belongs to no scope.
    pub scope: Option<Scope>,
    /// The changed fields as they were: a JSON object with sorted keys, or empty.
    pub before: String,
    /// The changed fields as they are now, spelled the same way.
    pub after: String,
    /// The reason or a remark, as text that holds no secret.
    pub detail: String,
    /// Whether it was done.
    pub outcome: Outcome,
    /// The API request that caused it, or empty.
    pub request: String,
    /// The hash of the record before; empty for the first.
    pub previous: Vec<u8>,
    /// The hash of this one.
    pub hash: Vec<u8>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, in the same transaction.
    Done,
    /// It was refused and nothing changed.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 2] = [Self::Done, Self::Refused];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

crate::word::words!(Outcome);

/// A signed place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the record.
    pub number: u64,
    /// Its hash.
    pub hash: Vec<u8>,
    /// When it was signed.
    pub at: Millis,
    /// The number of the one before it; 0 for the first.
    pub previous: u64,
    /// Ed25519 signature (RFC 8032).
    pub signature: Vec<u8>,
    /// Public key of the signature.
    pub key: [u8; 32],
}
