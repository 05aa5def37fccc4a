//! The protocol from outside, both ends in one process.

mod messages;
mod session;
mod support;
