//! The delegate protocol, both ends of it, without any input or output.

pub mod close;
pub mod key;
pub mod message;
pub mod psk;
pub mod shape;
pub mod work;

mod codec;

pub use close::{Action, Close, GoodbyeReason};
pub use key::{KeyPair, key_id};
