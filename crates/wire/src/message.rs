//! What the two sides say to each other once the session is up.
//!
//! A message is a CBOR array: its number, then its fields in the order of theirs. Fields at the end that a
//! reader does not know are skipped; a message number that it does not know ends the link. Everything has
//! a bound, checked while reading.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::{close::Close, shape};

pub use crate::{
    from_delegate::{Finished, FromDelegate, HeldAttempt, Hello, Phase, Stopped, Stream},
    to_delegate::{Assignment, Goodbye, ToDelegate, Welcome},
    work::{SecretVar, Work, WorkError},
};

/// The longest program version, in bytes.
pub const VERSION_MAX: usize = 64;
/// Kinds of work that one delegate may announce.
pub const CAPABILITIES_MAX: usize = 16;
/// The most attempts that one delegate runs at once: each has a supervisor process of a few megabytes. A Manager
/// counts a larger capacity as this one.
pub const CAPACITY_MAX: u32 = 256;
/// Attempts that a delegate may report in its Hello; with every tag a delegate may claim it still fits one part.
pub const HELD_ATTEMPTS_MAX: usize = 1024;
/// The most output bytes in one message: small enough for one encrypted message, so that output of one task
/// never holds up another's for long.
pub const OUTPUT_CHUNK_MAX: usize = 32 << 10;
/// The longest interval, lease or delay that a Manager may ask for, in milliseconds: 7 days.
pub const INTERVAL_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

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
