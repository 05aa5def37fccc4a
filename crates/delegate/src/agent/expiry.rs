//! Warnings in the delegate's log before its token expires.

use legation_model::{Millis, token::expiry_warning};

/// Which warning was given last, so that each is given once and not at every heartbeat.
#[derive(Default)]
pub(super) struct ExpiryWarnings(Option<Millis>);

impl ExpiryWarnings {
    /// Warns if another time than the last is due for a token with this many milliseconds left.
    pub(super) fn warn(&mut self, left: Millis) {
        if let Some(within) = self.due(left) {
            tracing::warn!(
                left_ms = left,
                "the token expires within {within}, and this delegate stops then: ask whoever runs the Manager to move the \
                 expiry or for another token"
            );
        }
    }

    fn due(&mut self, left: Millis) -> Option<&'static str> {
        let (before, within) = expiry_warning(left).unzip();
        let given = std::mem::replace(&mut self.0, before);
        within.filter(|_| given != before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    #[test]
    fn each_time_is_warned_of_once_and_again_when_the_expiry_moves() {
        let mut warnings = ExpiryWarnings::default();
        let heard = [340, 330, 160, 24, 23, 1, 1, 30, 0, 1].map(|hours| warnings.due(hours * HOUR));
        let none = None;
        assert_eq!(
            heard,
            [none, Some("14 d"), Some("7 d"), Some("1 d"), none, Some("1 h"), none, Some("7 d"), none, Some("1 h")]
        );
    }
}
