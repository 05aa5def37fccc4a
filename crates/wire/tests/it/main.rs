//! The protocol from outside, both ends in one process.

mod boxed;
mod handshake;
mod lease;
mod messages;
mod properties;
mod session;
mod sizes;
mod support;
mod transcript;
