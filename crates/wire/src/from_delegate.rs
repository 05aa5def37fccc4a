//! What a delegate says.

use legation_model::{
    Name, Text,
    delegate::{Isolation, TAGS_MAX},
    ids::{AttemptId, BootId, DelegateId, ReceiptId},
    scope::IDENTIFIER_MAX,
    task::TaskState,
};
use minicbor::{Decode, Encode};

use crate::{
    codec,
    message::{CAPABILITIES_MAX, HELD_ATTEMPTS_MAX, OUTPUT_CHUNK_MAX, VERSION_MAX},
};

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
        /// Whether another attempt may run the task: the reason is the delegate's state and not the task. Left
        /// off, it is the delegate's verdict about the task.
        #[n(2)]
        #[cbor(default)]
        again: bool,
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
    /// How many attempts it runs at once; more than [`CAPACITY_MAX`](crate::message::CAPACITY_MAX) count as that
    /// many.
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
