//! When to connect again.

use std::sync::Arc;

use legation_model::{Entropy, Millis};

/// The longest window for a retry, and the longest wait that a peer can ask for: 5 minutes.
pub const BACKOFF_MAX: Millis = 5 * 60 * 1000;

/// The smallest window from the second retry on: 1 s.
const WINDOW_MIN: Millis = 1_000;
/// Doublings after which any window has reached its maximum.
const DOUBLINGS_MAX: u32 = 20;

/// Full jitter: each wait is drawn evenly from the whole window, and the window doubles with each failure.
///
/// So ten thousand delegates that lost the same Manager come back spread over the window that it chose, and
/// a Manager in trouble sees fewer of them each time.
pub struct Backoff {
    first: Millis,
    failures: u32,
    entropy: Arc<dyn Entropy>,
}

impl Backoff {
    /// Starts with a first window, in milliseconds, as the last Welcome named it.
    pub fn new(first_window: Millis, entropy: Arc<dyn Entropy>) -> Self {
        Self { first: first_window.clamp(0, BACKOFF_MAX), failures: 0, entropy }
    }

    /// After a Welcome: the next loss is the first again, within this window.
    pub fn reset(&mut self, first_window: Millis) {
        (self.first, self.failures) = (first_window.clamp(0, BACKOFF_MAX), 0);
    }

    /// How many milliseconds to wait now. A peer's `retry_after` comes before the drawn wait; it is cut to
    /// [`BACKOFF_MAX`], because anyone on the path can forge it.
    pub fn wait(&mut self, retry_after: Option<Millis>) -> Millis {
        let window = self.window();
        self.failures = self.failures.saturating_add(1);
        retry_after.unwrap_or(0).clamp(0, BACKOFF_MAX) + self.draw(window)
    }

    fn window(&self) -> Millis {
        match self.failures {
            0 => self.first,
            failures => (self.first.max(WINDOW_MIN) << failures.min(DOUBLINGS_MAX)).min(BACKOFF_MAX),
        }
    }

    /// A number from 0 to `window`. The bias of the remainder is far below a part in a million.
    fn draw(&self, window: Millis) -> Millis {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        let span = window.unsigned_abs() + 1;
        (u64::from_le_bytes(bytes) % span).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// Counts up in large odd steps, which covers windows evenly.
    struct Steps(AtomicU64);

    impl Entropy for Steps {
        fn fill(&self, bytes: &mut [u8]) {
            let step = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            bytes.copy_from_slice(&(step ^ (step >> 29)).to_le_bytes()[..bytes.len()]);
        }
    }

    fn backoff(first: Millis, seed: u64) -> Backoff {
        Backoff::new(first, Arc::new(Steps(AtomicU64::new(seed))))
    }

    proptest! {
        #[test]
        fn every_wait_lies_in_its_window(first in -1_000_i64..10_000_000, seed: u64, failures in 0_usize..50) {
            let mut backoff = backoff(first, seed);
            let mut window = first.clamp(0, BACKOFF_MAX);
            for _ in 0..failures {
                let wait = backoff.wait(None);
                prop_assert!((0..=window).contains(&wait), "{wait} of {window}");
                window = (window.max(WINDOW_MIN) * 2).min(BACKOFF_MAX);
            }
            backoff.reset(first);
            prop_assert!(backoff.wait(None) <= first.clamp(0, BACKOFF_MAX));
        }

        #[test]
        fn a_wish_to_wait_is_honoured_up_to_the_bound(asked in -1_000_i64..i64::MAX, seed: u64) {
            let wait = backoff(1_000, seed).wait(Some(asked));
            let least = asked.clamp(0, BACKOFF_MAX);
            prop_assert!((least..=least + 1_000).contains(&wait));
        }
    }

    #[test]
    fn waits_use_the_whole_window() {
        let mut counts = [0_u32; 10];
        for seed in 0..10_000_u64 {
            let wait = backoff(9_999, seed.wrapping_mul(0x1234_5678_9abc_def1)).wait(None);
            counts[(wait / 1_000) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1_200).contains(&count)), "{counts:?}");
    }
}
