//! The link over real loopback sockets.
