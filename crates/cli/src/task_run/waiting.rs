//! What is said about a task that waits in the queue, where no spinner says it.

use std::time::Duration;

use legation_api::tasks::Task;
use legation_model::task::TaskState;
use tokio::time::Instant;

/// Time in the queue after which silence looks like a fault: a task that finds a delegate starts well within it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Notes about one task: the reason counts delegates, so it may change as often as they come and go.
const NOTES_MAX: u8 = 5;

/// What was said about one task so far.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    told: String,
    left: u8,
}

impl Waiting {
    /// Nothing was said yet.
    pub(super) fn new(since: Instant) -> Self {
        Self { since, told: String::new(), left: NOTES_MAX }
    }

    /// Whether to ask the Manager why the task waits.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.left > 0 && now.saturating_duration_since(self.since) >= PATIENCE
    }

    /// The note about a waiting task, if its reason is another than the one told last. A task that no longer waits
    /// ends the notes.
    pub(super) fn note(&mut self, task: &Task) -> Option<String> {
        if task.state != TaskState::Queued {
            self.left = 0;
            return None;
        }
        if self.left == 0 || task.reason == self.told {
            return None;
        }
        self.told.clone_from(&task.reason);
        self.left -= 1;
        let last = if self.left == 0 {
            format!(" (for later reasons: legation task show {})", task.id)
        } else {
            String::new()
        };
        Some(format!("task {} waits for a delegate: {}{last}", task.id, task.reason))
    }
}

#[cfg(test)]
mod tests {
    use legation_model::task::TaskKind;

    use super::*;
    use crate::task_run::watch::tests::task;

    fn queued(reason: &str) -> Task {
        Task { reason: reason.to_owned(), ..task(TaskState::Queued, TaskKind::Shell, None) }
    }

    #[test]
    fn a_reason_is_told_once_and_again_only_when_it_is_another() {
        let mut waiting = Waiting::new(Instant::now());
        assert!(waiting.note(&queued("nobody is there")).is_some_and(|note| note.ends_with(": nobody is there")));
        assert_eq!(waiting.note(&queued("nobody is there")), None);
        assert!(waiting.note(&queued("1 had no room")).is_some());
        assert!(waiting.note(&queued("nobody is there")).is_some());
    }

    #[test]
    fn reasons_that_change_without_end_are_told_a_few_times() {
        let mut waiting = Waiting::new(Instant::now());
        let told: Vec<_> =
            (0..100).filter_map(|count| waiting.note(&queued(&format!("{count} had no room")))).collect();
        assert_eq!(told.len(), usize::from(NOTES_MAX));
        assert!(told.last().is_some_and(|last| last.contains("legation task show")));
        assert!(!waiting.is_due(Instant::now() + PATIENCE), "nobody is asked for what is not told");
    }

    #[test]
    fn a_task_that_starts_soon_or_has_started_is_not_asked_about() {
        let start = Instant::now();
        let mut waiting = Waiting::new(start);
        assert!(!waiting.is_due(start) && waiting.is_due(start + PATIENCE));
        assert_eq!(waiting.note(&task(TaskState::Running, TaskKind::Shell, None)), None);
        assert!(!waiting.is_due(start + PATIENCE));
    }
}
