//! What time and processor a phase took, on both sides.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::procfs;

/// Latencies in microseconds, from 1 µs to 10 minutes, three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds fit three digits")
}

/// Counts from its start.
pub(super) struct Meter {
    server: u32,
    begun: Instant,
    server_cpu: Duration,
    own_cpu: Duration,
}

/// What a phase took.
#[derive(Clone, Copy)]
pub(super) struct Spent {
    pub(super) wall: Duration,
    pub(super) server_cpu: Duration,
    pub(super) own_cpu: Duration,
}

impl Meter {
    pub(super) fn start(server: u32) -> Self {
        let (server_cpu, own_cpu) = (procfs::cpu(server), procfs::cpu(std::process::id()));
        Self { server, begun: Instant::now(), server_cpu, own_cpu }
    }

    pub(super) fn read(&self) -> Spent {
        Spent {
            wall: self.begun.elapsed(),
            server_cpu: procfs::cpu(self.server).saturating_sub(self.server_cpu),
            own_cpu: procfs::cpu(std::process::id()).saturating_sub(self.own_cpu),
        }
    }
}
