//! The delegate protocol, both ends of it, without any input or output.
//!
//! A connection is a row of WebSocket binary messages: three of a Noise handshake, then sealed ones that
//! carry frames of numbered CBOR. [`DelegateEnd`] and [`ManagerEnd`] take such messages and the time, and
//! give back messages, events and the next deadline ([`End`]). The clock and the entropy are arguments, so
//! that a test can run both ends for a virtual hour in a moment.

pub mod close;
pub mod delegate;
pub mod end;
pub mod frame;
pub mod handshake;
pub mod key;
pub mod manager;
pub mod message;
pub mod preamble;
pub mod psk;
pub mod pulse;
pub mod shape;
pub mod work;

mod cipher;
mod codec;
mod from_delegate;
mod to_delegate;

pub use cipher::{MESSAGE_MAX, TAG_LEN};
pub use close::{Action, Close, GoodbyeReason};
pub use delegate::{DelegateEnd, DelegateEvent, Opening};
pub use end::{End, HANDSHAKE_TIMEOUT};
pub use frame::{FRAME_MAX, SendError};
pub use handshake::{Proof, TokenHint, TokenKeys};
pub use key::{KeyPair, key_id};
pub use manager::{ManagerEnd, ManagerEvent};
pub use preamble::Role;

#[cfg(test)]
mod hostile;
