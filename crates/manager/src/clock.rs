//! The wall clock, and the doubt whether it can be believed.

use std::sync::Arc;

use legation_model::{Clock, Millis};

/// How far the wall clock may drift from the boot clock before expiring tokens are refused: 60 s.
pub const CLOCK_JUMP_MAX: Millis = 60_000;

/// The wall clock together with the doubt whether it can be believed.
pub struct JumpGuard {
    clock: Arc<dyn Clock>,
    offset: Millis,
}

impl JumpGuard {
    /// Takes the distance between the clocks at start as the true one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let offset = clock.wall() - clock.boot();
        Self { clock, offset }
    }

    /// Wall clock.
    pub fn wall(&self) -> Millis {
        self.clock.wall()
    }

    /// Boot clock.
    pub fn boot(&self) -> Millis {
        self.clock.boot()
    }

    /// A wall time that is never too late, whichever way the clock may have jumped: what ends for good by the clock
    /// waits rather than ends by a mistake.
    pub fn earliest(&self) -> Millis {
        self.clock.wall().min(self.clock.boot() + self.offset)
    }

    /// A wall time that is never too early, whichever way the clock may have jumped: what lets somebody in ends at its time
    /// all the same when the clock is set back.
    pub fn latest(&self) -> Millis {
        self.clock.wall().max(self.clock.boot() + self.offset)
    }

    /// Whether the wall clock moved by more than [`CLOCK_JUMP_MAX`] against the boot clock.
    pub fn jumped(&self) -> bool {
        (self.clock.wall() - self.clock.boot() - self.offset).abs() > CLOCK_JUMP_MAX
    }
}
