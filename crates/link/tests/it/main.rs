//! The link over real loopback sockets, and over pipes on a clock that only the test moves.

mod dial;
mod pipe;
mod proxy;
mod support;
mod tls;
