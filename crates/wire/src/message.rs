//! What the two sides say to each other once the session is up.
//!
//! A message is a CBOR array: its number, then its fields in the order of theirs. Fields at the end that a
//! reader does not know are skipped; a message number that it does not know ends the link. Everything has
//! a bound, checked while reading.

use legation_model::{
    Name, Scope, Text,
    delegate::{Isolation, TAGS_MAX},
    ids::{AttemptId, BootId, DelegateId, ReceiptId, SessionId, TaskId},
    scope::IDENTIFIER_MAX,
    task::{SECRETS_MAX, TaskState},
};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::{
    close::{Close, GoodbyeReason},
    codec, shape,
};

pub use crate::work::{SecretVar, Work, WorkError};

/// The longest program version, in bytes.
pub const VERSION_MAX: usize = 64;
/// Kinds of work that one delegate may announce.
pub const CAPABILITIES_MAX: usize = 16;
/// Attempts that a delegate may report in its Hello; with [`TAGS_MAX`] tags it still fits one part.
pub const HELD_ATTEMPTS_MAX: usize = 1024;
/// The most output bytes in one message: small enough for one encrypted message, so that output of one task
/// never holds up another's for long.
pub const OUTPUT_CHUNK_MAX: usize = 32 << 10;
/// The longest interval, lease or delay that a Manager may ask for, in milliseconds: 7 days.
pub const INTERVAL_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

/// What a delegate says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum FromDelegate {
    /// Opens a session: who and what it is. Always and only the first frame.
    #[n(0)]
    Hello(#[n(0)] Box<Hello>),
    /// It is alive; asks for its lease to be renewed.
    #[n(1)]
    Heartbeat {
        /// A number that the answer repeats.
        #[n(0)]
        sent: u64,
        /// How many attempts it runs right now.
        #[n(1)]
        running: u32,
    },
    /// An attempt began.
    #[n(2)]
    Started {
        /// Which one.
        #[n(0)]
        #[cbor(with = "codec::id")]
        attempt: AttemptId,
    },
    /// A piece of an attempt's output.
    #[n(3)]
    Output {
        /// Which attempt.
        #[n(0)]
        #[cbor(with = "codec::id")]
        attempt: AttemptId,
        /// Where the piece belongs: bytes of this attempt's output before it, both streams together.
        #[n(1)]
        offset: u64,
        /// Where the task wrote it.
        #[n(2)]
        stream: Stream,
        /// The piece, 1 to [`OUTPUT_CHUNK_MAX`] bytes.
        #[n(3)]
        #[cbor(encode_with = "codec::put_bytes", decode_with = "codec::bytes::<_, OUTPUT_CHUNK_MAX>")]
        bytes: Vec<u8>,
    },
    /// An attempt ended; repeated until it is acknowledged.
    #[n(4)]
    Finished(#[n(0)] Finished),
    /// An attempt was not started and will not be.
    #[n(5)]
    Refused {
        /// Which one.
        #[n(0)]
        #[cbor(with = "codec::id")]
        attempt: AttemptId,
        /// Why, for a person.
        #[n(1)]
        #[cbor(with = "codec::reason")]
        reason: String,
    },
    /// It is going down: no new assignments, please.
    #[n(6)]
    Draining,
    /// It has stopped as it was told to. Always and only the first frame of a last session.
    #[n(7)]
    Stopped(#[n(0)] Stopped),
}

/// Who a delegate is and what it holds. Its identity is its key, proven by the handshake; everything here
/// is a claim.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Its id, if it was ever told one.
    #[n(0)]
    #[cbor(with = "codec::opt_id", has_nil)]
    pub delegate: Option<DelegateId>,
    /// The account it expects, if it was configured to check.
    #[n(1)]
    #[cbor(decode_with = "codec::opt_text::<_, IDENTIFIER_MAX>", nil = "codec::opt_id::nil")]
    pub account: Option<String>,
    /// This start of the process.
    #[n(2)]
    #[cbor(with = "codec::id")]
    pub boot: BootId,
    /// Counts the sessions of this start, from 1.
    #[n(3)]
    pub counter: u64,
    /// `DELEGATE_NAME`.
    #[n(4)]
    #[cbor(with = "codec::word")]
    pub name: Name,
    /// Its machine's name.
    #[n(5)]
    #[cbor(with = "codec::word")]
    pub host: Name,
    /// Claimed tags, at most [`TAGS_MAX`].
    #[n(6)]
    #[cbor(encode_with = "codec::words::encode", decode_with = "codec::words::decode::<_, _, TAGS_MAX>")]
    pub tags: Vec<Name>,
    /// Free text.
    #[n(7)]
    #[cbor(with = "codec::word")]
    pub description: Text,
    /// Version of its program, at most [`VERSION_MAX`] bytes.
    #[n(8)]
    #[cbor(decode_with = "codec::label::<_, VERSION_MAX>")]
    pub version: String,
    /// Kinds of work it can do, such as `shell` and `http`.
    #[n(9)]
    #[cbor(decode_with = "codec::labels::<_, CAPABILITIES_MAX, VERSION_MAX>")]
    pub capabilities: Vec<String>,
    /// How many attempts it runs at once.
    #[n(10)]
    pub capacity: u32,
    /// How well it keeps tasks from its credential.
    #[n(11)]
    #[cbor(with = "codec::word")]
    pub isolation: Isolation,
    /// Attempts it still knows of, at most [`HELD_ATTEMPTS_MAX`].
    #[n(12)]
    #[cbor(decode_with = "codec::list::<_, _, HELD_ATTEMPTS_MAX>")]
    pub attempts: Vec<HeldAttempt>,
}

/// One attempt that a delegate holds when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldAttempt {
    /// Which one.
    #[n(0)]
    #[cbor(with = "codec::id")]
    pub attempt: AttemptId,
    /// How far it is.
    #[n(1)]
    pub phase: Phase,
}

/// How far an attempt is, as its delegate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Phase {
    /// Taken, not started.
    #[n(0)]
    Accepted,
    /// Started.
    #[n(1)]
    Running,
    /// Ended, the result still to be delivered.
    #[n(2)]
    Finished,
}

/// Where a task wrote its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Stream {
    /// Standard output, or the body of an HTTP answer.
    #[n(0)]
    Stdout,
    /// Standard error.
    #[n(1)]
    Stderr,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Finished {
    /// Which one.
    #[n(0)]
    #[cbor(with = "codec::id")]
    pub attempt: AttemptId,
    /// `succeeded`, `failed`, `timed_out`, `cancelled` or `lost`.
    #[n(1)]
    #[cbor(encode_with = "codec::word::encode", decode_with = "codec::ended")]
    pub state: TaskState,
    /// Exit code of a shell task, status of an HTTP task.
    #[n(2)]
    pub exit_code: Option<i32>,
    /// Why, for a person; empty when all is well.
    #[n(3)]
    #[cbor(with = "codec::reason")]
    pub reason: String,
    /// Output bytes that were kept, both streams together.
    #[n(4)]
    pub output_bytes: u64,
    /// Output bytes above the limit, which were thrown away.
    #[n(5)]
    pub dropped_bytes: u64,
}

/// A delegate's own word that it has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stopped {
    /// The revocation that it was told of.
    #[n(0)]
    #[cbor(with = "codec::id")]
    pub receipt: ReceiptId,
    /// How many tasks it killed.
    #[n(1)]
    pub tasks_killed: u32,
}

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
    /// The newest generation of its token.
    #[n(3)]
    pub generation: u32,
    /// This session.
    #[n(4)]
    #[cbor(with = "codec::id")]
    pub session: SessionId,
    /// Milliseconds between heartbeats, 1 to [`INTERVAL_MAX`].
    #[n(5)]
    #[cbor(decode_with = "codec::interval")]
    pub heartbeat: u64,
    /// Milliseconds that an answered heartbeat is worth, 1 to [`INTERVAL_MAX`].
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

/// A message as a frame: encoded before it is sealed, decoded after it was opened.
pub trait Frame: Sized {
    /// The message in CBOR, wiped when dropped because it may hold a task's secrets.
    fn encode(&self) -> Zeroizing<Vec<u8>>;

    /// Reads a message back.
    ///
    /// # Errors
    /// [`Close::BadFrame`] for anything that is not exactly one known message within all bounds.
    fn decode(frame: &[u8]) -> Result<Self, Close>;
}

macro_rules! frames {
    ($($name:ident),*) => {$(
        impl Frame for $name {
            fn encode(&self) -> Zeroizing<Vec<u8>> {
                to_vec(self)
            }

            fn decode(frame: &[u8]) -> Result<Self, Close> {
                from_slice(frame)
            }
        }
    )*};
}

frames!(FromDelegate, ToDelegate);

pub(crate) fn to_vec<T: Encode<()>>(value: &T) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(minicbor::to_vec(value).expect("writing to memory does not fail"))
}

pub(crate) fn from_slice<T: for<'b> Decode<'b, ()>>(frame: &[u8]) -> Result<T, Close> {
    shape::check(frame)?;
    minicbor::decode(frame).map_err(|_| Close::BadFrame)
}
