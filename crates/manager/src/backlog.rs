//! Reports of one session that wait for the store.
//!
//! While the store is away a delegate goes on reporting. What has no room here is let go, and everything after it,
//! so that nothing is recorded out of order; the delegate keeps whatever was not acknowledged, and repeats it in
//! its next session. That one is asked for only once the store takes reports again: until then the delegate stays
//! connected, because its lease does not depend on the store.

use legation_wire::message::FromDelegate;

/// Reports that wait.
pub const REPORTS_MAX: usize = 512;
/// Bytes that they hold, apart from the reports themselves.
pub const REPORT_BYTES_MAX: usize = 4 << 20;

/// The reports that wait, oldest first.
#[derive(Default)]
pub struct Backlog {
    waiting: Vec<FromDelegate>,
    bytes: usize,
    overflowed: bool,
}

impl Backlog {
    /// Takes a report in, unless it has no room or one before it had none.
    pub fn push(&mut self, report: FromDelegate) {
        let bytes = self.bytes + payload(&report);
        self.overflowed |= self.waiting.len() >= REPORTS_MAX || bytes > REPORT_BYTES_MAX;
        if !self.overflowed {
            self.bytes = bytes;
            self.waiting.push(report);
        }
    }

    /// Takes out all that wait.
    pub fn take(&mut self) -> Vec<FromDelegate> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether some were let go: the session can record nothing any more.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }
}

fn payload(report: &FromDelegate) -> usize {
    match report {
        FromDelegate::Output { bytes, .. } => bytes.len(),
        FromDelegate::Refused { reason, .. } => reason.len(),
        FromDelegate::Finished(finished) => finished.reason.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use legation_model::ids::AttemptId;
    use legation_wire::message::Stream;

    use super::*;

    fn output(length: usize) -> FromDelegate {
        FromDelegate::Output { attempt: AttemptId([1; 16]), offset: 0, stream: Stream::Stdout, bytes: vec![0; length] }
    }

    #[test]
    fn after_one_that_had_no_room_nothing_is_taken_in() {
        let mut backlog = Backlog::default();
        (0..4).for_each(|_| backlog.push(output(REPORT_BYTES_MAX / 4)));
        assert!(!backlog.overflowed());
        backlog.push(output(1));
        assert!(backlog.overflowed());
        assert_eq!(backlog.take().len(), 4);
        backlog.push(output(1));
        assert!(backlog.is_empty(), "it would be out of order");
    }

    #[test]
    fn small_ones_are_counted() {
        let mut backlog = Backlog::default();
        (0..=REPORTS_MAX).for_each(|_| backlog.push(output(1)));
        assert_eq!(backlog.take().len(), REPORTS_MAX);
        assert!(backlog.overflowed());
    }
}
