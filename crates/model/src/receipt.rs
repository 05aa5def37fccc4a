//! The record of one revocation: what is known, by whom, and since when.

use crate::{
    Millis, Scope,
    ids::{BootId, DelegateId, ReceiptId, TokenId},
};

/// One revocation, with a line for every delegate that may have held a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Identity.
    pub id: ReceiptId,
    /// The token that was revoked.
    pub token: TokenId,
    /// Its scope.
    pub scope: Scope,
    /// `kill` or `expired`.
    pub cause: Cause,
    /// Why, in the words of the person who revoked.
    pub reason: String,
    /// Who revoked.
    pub actor: String,
    /// When the revocation became durable.
    pub revoked_at: Millis,
    /// When the last live session was seen closed and the lines were written; empty while the call is under way, and for
    /// a moment after a crash in it.
    pub completed_at: Option<Millis>,
    /// Attempts that were lost with it.
    pub attempts_lost: u32,
    /// One per delegate, once it is complete.
    pub lines: Vec<ReceiptLine>,
    /// The signed statements, the opening one first.
    pub statements: Vec<Statement>,
}

/// What is known of one delegate of a revoked token. The three times come from three different witnesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptLine {
    /// Which delegate.
    pub delegate: DelegateId,
    /// Which start of it.
    pub boot: BootId,
    /// Its name at that time, for people.
    pub name: String,
    /// Whether it had a live session.
    pub connected: bool,
    /// The Manager saw its session closed.
    pub cut_at: Option<Millis>,
    /// The delegate said, proven by its key, that it had killed its tasks.
    pub stopped_reported_at: Option<Millis>,
    /// How many tasks it said it killed.
    pub tasks_killed: Option<u32>,
    /// The time by which a correct delegate has stopped even if it never hears of the revocation.
    pub lease_ends_by: Millis,
}

/// One signed statement: Ed25519 over the exact bytes of `body`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Position, from 0.
    pub number: u32,
    /// The signed JSON text.
    pub body: String,
    /// Ed25519 signature (RFC 8032).
    pub signature: Vec<u8>,
    /// Public key of the signature.
    pub key: [u8; 32],
}

/// What ended the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A person revoked it.
    Kill,
    /// Its time came.
    Expired,
    /// A person let it drain, and the time for that was over.
    Drained,
    /// A person had set this time for it.
    Scheduled,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Expired, Self::Drained, Self::Scheduled];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Expired => "expired",
            Self::Drained => "drained",
            Self::Scheduled => "scheduled",
        }
    }
}

crate::word::words!(Cause);
