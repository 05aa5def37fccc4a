//! Single operations to be measured, each described once: `benches/micro.rs` takes their times, and
//! `benches/instructions.rs` counts their instructions.
//!
//! Whatever an operation needs is made before it is measured, from one seed, on a clock that stands still. It runs on
//! one thread, so that it takes the same instructions each time.

pub mod counts;

mod dispatch;
mod fixture;
mod frames;
mod gate;
mod handshake;
mod sessions;
mod tokens;

use std::fmt;

/// One operation.
pub struct Operation {
    /// As tables and the baseline name it.
    pub name: &'static str,
    /// How often it runs for one count: enough that hash tables, whose order is random, come out even.
    pub runs: u32,
    /// Makes what it needs.
    pub setup: fn() -> Box<dyn Measured>,
}

/// An operation with all that it needs.
pub trait Measured {
    /// Makes ready for one more run; not measured. As many runs follow as there were calls.
    fn prepare(&mut self) {}

    /// The operation itself. It ends as it began, and what it computes goes into a black box.
    fn run(&mut self);
}

impl<F: FnMut()> Measured for F {
    fn run(&mut self) {
        self();
    }
}

/// All of them, in the order of a delegate's life.
pub const ALL: [Operation; 13] = [
    Operation { name: "handshake/delegate", runs: 50, setup: handshake::delegate },
    Operation { name: "handshake/manager", runs: 50, setup: handshake::manager },
    Operation { name: "token-lookup/1", runs: 20_000, setup: tokens::lookup::<1> },
    Operation { name: "token-lookup/100", runs: 20_000, setup: tokens::lookup::<100> },
    Operation { name: "token-lookup/10000", runs: 20_000, setup: tokens::lookup::<10_000> },
    Operation { name: "sessions/register-and-unregister", runs: 20_002, setup: sessions::churn },
    Operation { name: "gate/enter-and-leave", runs: 1_000, setup: gate::enter_and_leave },
    Operation { name: "frame/open-heartbeat", runs: 1_000, setup: frames::open_heartbeat },
    Operation { name: "frame/seal-heartbeat-answer", runs: 1_000, setup: frames::seal_heartbeat_answer },
    Operation { name: "frame/seal-64KiB", runs: 20, setup: frames::seal_large },
    Operation { name: "frame/open-64KiB", runs: 20, setup: frames::open_large },
    Operation { name: "dispatch/match-256-of-100000", runs: 20, setup: dispatch::matching },
    Operation { name: "dispatch/in-vain", runs: 2, setup: dispatch::in_vain },
];

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
