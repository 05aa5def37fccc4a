//! The life of a task and of its attempts.

use serde::{Deserialize, Serialize};

use crate::{
    Millis, Scope,
    delegate::Selector,
    ids::{AttemptId, BootId, DelegateId, TaskId, TokenId},
};

/// Where a task stands. Every task ends in exactly one of the terminal states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waiting for a delegate that matches and has room.
    Queued,
    /// Given to a delegate; the assignment is durable, the start is not yet known.
    Assigned,
    /// Started.
    Running,
    /// Ended with exit code 0, or an HTTP status below 400.
    Succeeded,
    /// Ended otherwise by its own doing.
    Failed,
    /// Ran longer than its timeout and was killed.
    TimedOut,
    /// Ended because a person asked.
    Cancelled,
    /// Its delegate is gone, was cut off or restarted; what it did is not known.
    Lost,
    /// Never ran: no delegate in time, or the delegate's own policy refused it.
    Rejected,
}

impl TaskState {
    /// Every state, in the order of life.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Lost,
        Self::Rejected,
    ];

    /// Whether nothing changes the task any more.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Assigned | Self::Running)
    }

    /// Whether life may step from this state to `next`. An assigned task goes back to the queue only when it
    /// is certain that it did not start, or when it declared itself idempotent.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(next, Self::Assigned | Self::Cancelled | Self::Rejected),
            Self::Assigned => !matches!(next, Self::Assigned),
            Self::Running => !matches!(next, Self::Assigned | Self::Running | Self::Rejected),
            _ => false,
        }
    }

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Rejected => "rejected",
        }
    }
}

crate::word::words!(TaskState);

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A script under an interpreter.
    Shell,
    /// One HTTP request.
    Http,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Shell, Self::Http];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Http => "http",
        }
    }
}

crate::word::words!(TaskKind);

/// A task as the Manager knows it, without its work (which only the delegate needs) and its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Identity.
    pub id: TaskId,
    /// The scope it runs in; a delegate of this scope or of one above may take it.
    pub scope: Scope,
    /// What kind of work.
    pub kind: TaskKind,
    /// Conditions on the delegate.
    pub selectors: Vec<Selector>,
    /// Where it stands.
    pub state: TaskState,
    /// Why it stands there, for a person; empty while all is well.
    pub reason: String,
    /// Exit code of a shell task, status of an HTTP task.
    pub exit_code: Option<i32>,
    /// How long it may run.
    pub timeout: Millis,
    /// When it is rejected if still queued.
    pub queue_deadline: Millis,
    /// Output bytes kept.
    pub output_limit: u64,
    /// Further attempts allowed; only for work that declared itself idempotent.
    pub retries_left: u32,
    /// A person asked it to end; its delegate is told, also after a reconnect.
    pub cancel_requested: bool,
    /// Who submitted it.
    pub created_by: String,
    /// When it was submitted.
    pub created_at: Millis,
    /// When its current attempt was reported as started.
    pub started_at: Option<Millis>,
    /// When it reached a terminal state.
    pub finished_at: Option<Millis>,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
}

/// One try of a task on one start of one delegate, started at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Identity.
    pub id: AttemptId,
    /// On which delegate.
    pub delegate: DelegateId,
    /// On which start of it.
    pub boot: BootId,
    /// Under which token: when that is revoked, the attempt is lost.
    pub token: TokenId,
}

/// Execution time when a task names none: 10 minutes.
pub const TIMEOUT_DEFAULT: Millis = 10 * 60 * 1000;
/// The longest execution time: 24 hours.
pub const TIMEOUT_MAX: Millis = 24 * 60 * 60 * 1000;
/// Time in the queue when a task names none: 10 minutes.
pub const QUEUE_TIMEOUT_DEFAULT: Millis = 10 * 60 * 1000;
/// Output kept when a task names no limit: 1 MiB.
pub const OUTPUT_LIMIT_DEFAULT: u64 = 1 << 20;
/// The largest output limit: 64 MiB.
pub const OUTPUT_LIMIT_MAX: u64 = 64 << 20;
/// The largest script, standard input or body, in bytes: 256 KiB.
pub const WORK_MAX: usize = 256 << 10;
/// Bytes of all texts of one task's work together, without its secrets: a script and half of it again as input.
pub const WORK_TOTAL_MAX: usize = 376 << 10;
/// Words of an interpreter, the program included.
pub const INTERPRETER_MAX: usize = 16;
/// Variables in a task's environment.
pub const ENV_MAX: usize = 256;
/// Headers of an HTTP request.
pub const HEADERS_MAX: usize = 128;
/// The longest name of a variable, a header or a method, in bytes.
pub const KEY_MAX: usize = 256;
/// The longest value of a variable or a header, path, word of an interpreter or URL, in bytes: 32 KiB.
pub const VALUE_MAX: usize = 32 << 10;
/// Secrets on one task.
pub const SECRETS_MAX: usize = 32;
/// The longest secret, in bytes: 16 KiB.
pub const SECRET_MAX: usize = 16 << 10;
/// Further attempts an idempotent task may ask for.
pub const RETRIES_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_task_never_moves_again() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                assert!(!(from.is_final() && from.may_become(to)), "{from} to {to}");
            }
        }
        assert!(!TaskState::Running.may_become(TaskState::Rejected));
        assert!(!TaskState::Queued.may_become(TaskState::Succeeded));
    }

    #[test]
    fn every_word_comes_back() {
        for state in TaskState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("done".parse::<TaskState>().is_err());
    }
}
