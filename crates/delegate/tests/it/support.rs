//! What the tests share: awaiting a condition, and finding processes by a mark in their environment.

use std::time::{Duration, Instant};

use legation_delegate::{system::SystemEntropy, tree};
use legation_model::{Clock, Millis, ids::AttemptId};
use rustix::event::{Timespec, poll};

/// The longest that a condition is awaited; only a failing test takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits a condition.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "never came true: {what}");
}

/// Whether a condition comes true in time.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    }
    true
}

/// A variable that no other process has.
pub(crate) struct Mark {
    pub(crate) value: String,
}

impl Mark {
    pub(crate) fn new() -> Self {
        Self { value: AttemptId::random(&SystemEntropy).to_string() }
    }

    pub(crate) fn variable(&self) -> (String, String) {
        ("TEST_MARK".to_owned(), self.value.clone())
    }

    /// How many living processes carry it.
    pub(crate) fn alive(&self) -> usize {
        tree::marked(&format!("TEST_MARK={}", self.value)).expect("/proc").len()
    }
}

/// Milliseconds of the boot clock from now on.
pub(crate) fn in_ms(ms: Millis) -> Millis {
    legation_delegate::system::SystemClock.boot() + ms
}
