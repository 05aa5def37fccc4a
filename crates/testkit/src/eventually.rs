//! Waiting for a condition, with a bound and without guessing how long it takes.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long a condition may take that has no bound of its own: ample on two busy cores, short enough that a
/// hung test is noticed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at. Programs under test are other processes, so nothing can wake us.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until the condition yields a value.
///
/// # Panics
/// After [`PATIENCE`], naming what was awaited.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition).await
}

/// Waits until the condition yields a value, for at most `bound`.
///
/// # Panics
/// After `bound`, naming what was awaited.
pub async fn within<T>(bound: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Looked at once more after the deadline: a busy machine may have kept us from looking before.
        let late = Instant::now() >= deadline;
        if let Some(value) = condition().await {
            return value;
        }
        assert!(!late, "waited {bound:?} in vain until {what}");
    }
}
