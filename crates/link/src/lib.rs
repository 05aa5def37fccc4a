//! Moves a session of [`legation_wire`] over a socket: dial or accept, pump, retry.
//!
//! [`Socket`] is WebSocket framing with small buffers over any stream, [`Connection`] the one loop that joins
//! it to an end of the protocol and to the clock, [`Dialer`] gets through proxies and TLS to the Manager, and
//! [`Backoff`] says when to try again.

mod backoff;
mod connection;
mod dial;
mod dial_error;
mod socket;
mod tcp;

pub use backoff::{BACKOFF_MAX, Backoff};
pub use connection::{Connection, WRITE_TIMEOUT};
pub use dial::{CONNECT_TIMEOUT, DialConfig, Dialer, Proxies};
pub use dial_error::DialError;
pub use socket::{Ended, Io, Parted, Socket, accept_key};

/// The WebSocket subprotocol, offered by the delegate and repeated by the Manager.
pub const SUBPROTOCOL: &str = "legation.v1";
/// Where the Manager takes delegates.
pub const LINK_PATH: &str = "/api/v1/link";
