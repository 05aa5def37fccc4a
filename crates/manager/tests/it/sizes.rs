//! What each session holds, printed and bounded: ten thousand of them lie in one Manager.
//!
//! These are the values alone, whatever they own on the heap besides. `crates/wire/tests/it/sizes.rs` measures the
//! protocol's part with all that it owns, and `crates/manager/src/link.rs` the task.

use std::mem::size_of;

use legation_link::{Connection, Socket};
use legation_manager::{backlog::Backlog, live::LiveToken, session::Session};
use legation_wire::ManagerEnd;

/// The link of one session: socket, end of the protocol, timers.
const CONNECTION_MAX: usize = 648;
/// The socket within the link.
const SOCKET_MAX: usize = 320;
/// The end of the protocol within the link.
const END_MAX: usize = 288;
/// What others know a session by.
const SESSION_MAX: usize = 336;
/// Reports that wait for the store, within the task.
const BACKLOG_MAX: usize = 40;
/// One for each token, not for each session; still there may be ten thousand.
const TOKEN_MAX: usize = 288;

#[test]
fn a_session_stays_small() {
    let sizes = [
        ("Connection<ManagerEnd>", size_of::<Connection<ManagerEnd>>(), CONNECTION_MAX),
        ("Socket", size_of::<Socket>(), SOCKET_MAX),
        ("ManagerEnd", size_of::<ManagerEnd>(), END_MAX),
        ("Session", size_of::<Session>(), SESSION_MAX),
        ("Backlog", size_of::<Backlog>(), BACKLOG_MAX),
        ("LiveToken", size_of::<LiveToken>(), TOKEN_MAX),
    ];
    for (name, bytes, most) in sizes {
        println!("{name:<24}{bytes:>6} B, at most {most}");
    }
    for (name, bytes, most) in sizes {
        assert!(bytes <= most, "{name} grew to {bytes} B: ten thousand sessions pay for that; make it smaller");
    }
}
