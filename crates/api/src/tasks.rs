//! Tasks: units of work, submitted, watched, cancelled.

use std::collections::BTreeMap;

use legation_model::{
    Millis, Scope,
    delegate::Selector,
    ids::{AttemptId, BootId, DelegateId, TaskId, TokenId},
    secret::SecretText,
    task::{self as model, TaskKind, TaskState},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A task as the Manager knows it, without its work and its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Identity.
    #[schema(value_type = String, example = "tsk_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: TaskId,
    /// The scope it runs in.
    #[schema(value_type = String, example = "default")]
    pub scope: Scope,
    /// What kind of work.
    #[schema(schema_with = crate::schema::task_kind)]
    pub kind: TaskKind,
    /// Conditions on the delegate; all must match.
    #[serde(with = "crate::spelled::list")]
    #[schema(value_type = Vec<String>)]
    pub selectors: Vec<Selector>,
    /// Where it stands.
    #[schema(schema_with = crate::schema::task_state)]
    pub state: TaskState,
    /// Why it stands there; empty while all is well.
    pub reason: String,
    /// Exit code of a shell task, status of an HTTP task.
    pub exit_code: Option<i32>,
    /// How long it may run.
    pub timeout_ms: Millis,
    /// When it is rejected if still queued.
    pub queue_deadline_at: Millis,
    /// Output bytes kept.
    pub output_limit: u64,
    /// Further attempts allowed.
    pub retries_left: u32,
    /// Whether a person asked it to end; its delegate is told, also after a reconnect.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Who submitted it.
    pub created_by: String,
    /// When it was submitted.
    pub created_at: Millis,
    /// When its current attempt was reported as started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub finished_at: Option<Millis>,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
}

/// One try of a task on one start of one delegate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Identity.
    #[schema(value_type = String)]
    pub id: AttemptId,
    /// On which delegate.
    #[schema(value_type = String)]
    pub delegate: DelegateId,
    /// On which start of it.
    #[schema(value_type = String)]
    pub boot: BootId,
    /// Under which token.
    #[schema(value_type = String)]
    pub token: TokenId,
}

impl From<&model::Task> for Task {
    fn from(task: &model::Task) -> Self {
        Self {
            id: task.id,
            scope: task.scope.clone(),
            kind: task.kind,
            selectors: task.selectors.clone(),
            state: task.state,
            reason: task.reason.clone(),
            exit_code: task.exit_code,
            timeout_ms: task.timeout,
            queue_deadline_at: task.queue_deadline,
            output_limit: task.output_limit,
            retries_left: task.retries_left,
            cancel_requested: task.cancel_requested,
            created_by: task.created_by.clone(),
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            attempt: task.attempt.as_ref().map(Attempt::from),
        }
    }
}

impl From<&model::Attempt> for Attempt {
    fn from(attempt: &model::Attempt) -> Self {
        Self { id: attempt.id, delegate: attempt.delegate, boot: attempt.boot, token: attempt.token }
    }
}

/// Submits a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTask {
    /// The scope it runs in.
    #[schema(value_type = String, example = "default")]
    pub scope: Scope,
    /// What to do.
    pub work: Work,
    /// Conditions on the delegate (a tag, name or host, or `pinned:tag`); all must match.
    #[serde(default, with = "crate::spelled::list")]
    #[schema(value_type = Vec<String>)]
    pub selectors: Vec<Selector>,
    /// How long it may run; 10 minutes when absent, at most 24 hours.
    #[serde(default)]
    pub timeout_ms: Option<Millis>,
    /// How long it may wait for a delegate; 10 minutes when absent.
    #[serde(default)]
    pub queue_timeout_ms: Option<Millis>,
    /// Output bytes kept; 1 MiB when absent, at most 64 MiB.
    #[serde(default)]
    pub output_limit: Option<u64>,
    /// Secrets by environment name: write-only, sealed at rest, masked in the output.
    #[serde(default, with = "crate::spelled::secrets")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub secrets: BTreeMap<String, SecretText>,
    /// Whether running it twice does no harm.
    #[serde(default)]
    pub idempotent: bool,
    /// Further attempts after a lost one, at most 10; only for an idempotent task.
    #[serde(default)]
    pub retries: u32,
}

/// What a task does: an object with exactly one of `shell` and `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A script.
    Shell(Shell),
    /// One HTTP request.
    Http(Http),
}

/// A script and its surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// The text of the script, at most 256 KiB.
    #[schema(example = "uname -a")]
    pub script: String,
    /// Program and arguments that run it; `["/bin/sh"]` when empty.
    #[serde(default)]
    pub interpreter: Vec<String>,
    /// Environment beside what the delegate sets; not for secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; one of its own when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Standard input, at most 256 KiB.
    #[serde(default)]
    pub stdin: String,
}

/// One HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Method.
    #[schema(example = "GET")]
    pub method: String,
    /// Address, `http://` or `https://`.
    #[schema(example = "https://example.com/")]
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body, at most 256 KiB.
    #[serde(default)]
    pub body: String,
}

impl SubmitTask {
    /// A task of that scope with every other setting at its default.
    pub const fn new(scope: Scope, work: Work) -> Self {
        Self {
            scope,
            work,
            selectors: Vec::new(),
            timeout_ms: None,
            queue_timeout_ms: None,
            output_limit: None,
            secrets: BTreeMap::new(),
            idempotent: false,
            retries: 0,
        }
    }
}

/// What cancelling would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelledTask {
    /// The task: a queued one is cancelled at once, a running one when its delegate has stopped it.
    pub task: Task,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only those in this state.
    #[param(value_type = Option<String>)]
    pub state: Option<TaskState>,
    /// Only those whose newest attempt is on this delegate.
    #[param(value_type = Option<String>)]
    pub delegate: Option<DelegateId>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
