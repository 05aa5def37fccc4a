//! What the Manager says.

use legation_model::{
    Scope,
    ids::{AttemptId, DelegateId, ReceiptId, SessionId, TaskId},
    scope::IDENTIFIER_MAX,
    task::SECRETS_MAX,
};
use minicbor::{Decode, Encode};

use crate::{
    close::GoodbyeReason,
    codec,
    work::{SecretVar, Work},
};

/// What the Manager says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum ToDelegate {
    /// Answers Hello: the session is open.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// Ends the session, or refuses it, or answers Stopped. Nothing follows it.
    #[n(1)]
    Goodbye(#[n(0)] Goodbye),
    /// Renews the lease.
    #[n(2)]
    HeartbeatAck {
        /// The number of the heartbeat that it answers.
        #[n(0)]
        sent: u64,
        /// Milliseconds until the token expires, once that is near enough to warn of; for a person, nothing depends on it.
        #[n(1)]
        expires_in: Option<u64>,
    },
    /// Gives an attempt to the delegate.
    #[n(3)]
    Assign(#[n(0)] Box<Assignment>),
    /// Asks for an attempt to end.
    #[n(4)]
    Cancel {
        /// Which one.
        #[n(0)]
        #[cbor(with = "codec::id")]
        attempt: AttemptId,
        /// Milliseconds between SIGTERM and SIGKILL.
        #[n(1)]
        grace: u64,
    },
    /// Output before this offset is durable.
    #[n(5)]
    OutputAck {
        /// Which attempt's.
        #[n(0)]
        #[cbor(with = "codec::id")]
        attempt: AttemptId,
        /// Bytes from the start.
        #[n(1)]
        offset: u64,
    },
    /// The result is durable; the delegate may forget it.
    #[n(6)]
    FinishedAck {
        /// Which attempt's.
        #[n(0)]
        #[cbor(with = "codec::id")]
        attempt: AttemptId,
    },
}

/// What a delegate needs to know about its session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The account it belongs to.
    #[n(0)]
    #[cbor(decode_with = "codec::label::<_, IDENTIFIER_MAX>")]
    pub account: String,
    /// The scope of its token.
    #[n(1)]
    #[cbor(with = "codec::word")]
    pub scope: Scope,
    /// Its id.
    #[n(2)]
    #[cbor(with = "codec::id")]
    pub delegate: DelegateId,
    /// The generation of its token that it proved.
    #[n(3)]
    pub generation: u32,
    /// This session.
    #[n(4)]
    #[cbor(with = "codec::id")]
    pub session: SessionId,
    /// Milliseconds between heartbeats, 1 to [`INTERVAL_MAX`](crate::message::INTERVAL_MAX).
    #[n(5)]
    #[cbor(decode_with = "codec::interval")]
    pub heartbeat: u64,
    /// Milliseconds that an answered heartbeat is worth, 1 to [`INTERVAL_MAX`](crate::message::INTERVAL_MAX).
    #[n(6)]
    #[cbor(decode_with = "codec::interval")]
    pub lease: u64,
    /// Milliseconds within which the first retry after a lost link is drawn.
    #[n(7)]
    #[cbor(decode_with = "codec::delay")]
    pub first_retry: u64,
    /// The Manager's wall clock, milliseconds since 1970; for telling a person that clocks differ.
    #[n(8)]
    pub server_time: i64,
}

/// The Manager's last word.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Goodbye {
    /// Why; it alone decides between stopping and trying again.
    #[n(0)]
    pub reason: GoodbyeReason,
    /// The revocation behind it, to be named in Stopped.
    #[n(1)]
    #[cbor(with = "codec::opt_id", has_nil)]
    pub receipt: Option<ReceiptId>,
    /// Milliseconds to wait before trying again.
    #[n(2)]
    pub retry_after: Option<u64>,
    /// The reason in a sentence, for a person.
    #[n(3)]
    #[cbor(with = "codec::reason")]
    pub text: String,
}

impl Goodbye {
    /// A Goodbye with this reason, said in a sentence.
    pub fn new(reason: GoodbyeReason, text: impl Into<String>) -> Self {
        Self { reason, receipt: None, retry_after: None, text: text.into() }
    }
}

/// One attempt of a task, for this delegate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Assignment {
    /// This attempt.
    #[n(0)]
    #[cbor(with = "codec::id")]
    pub attempt: AttemptId,
    /// Its task.
    #[n(1)]
    #[cbor(with = "codec::id")]
    pub task: TaskId,
    /// Milliseconds that it may run.
    #[n(2)]
    pub timeout: u64,
    /// Output bytes to keep.
    #[n(3)]
    pub output_limit: u64,
    /// What to do.
    #[n(4)]
    pub work: Work,
    /// Environment variables that must not be shown, at most [`SECRETS_MAX`].
    #[n(5)]
    #[cbor(decode_with = "codec::list::<_, _, SECRETS_MAX>")]
    pub secrets: Vec<SecretVar>,
}
