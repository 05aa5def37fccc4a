//! `legation task`: ls, show, cancel, logs. `run` has a file of its own.

use clap::Subcommand;
use legation_api::{
    output::OutputQuery,
    tasks::{Task, TasksQuery},
};
use legation_model::{
    Scope,
    ids::{DelegateId, TaskId},
    task::TaskState,
};

use crate::{
    Context, Failure,
    args::Paging,
    ask::Care,
    exit_codes,
    task_run::{Run, watch::Watch},
    ui::{self, Row, Show},
    values::{show_length, show_time, show_when},
};

/// What to do with tasks.
#[derive(Debug, Subcommand)]
pub enum Tasks {
    /// Run a command, a script or an HTTP request on a delegate, and show its output
    Run(Box<Run>),
    /// List tasks
    Ls {
        /// Only those of this scope and below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// Only those in this state
        #[arg(long, value_parser = state)]
        state: Option<TaskState>,
        /// Only those on this delegate
        #[arg(long, value_name = "ID")]
        delegate: Option<DelegateId>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a task
    Show {
        /// Id
        task: TaskId,
    },
    /// Ask for a task to be cancelled
    Cancel {
        /// Id
        task: TaskId,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
    /// Print a task's output
    Logs {
        /// Id
        task: TaskId,
        /// Stay until the task ends; then exit as it did
        #[arg(long, short)]
        follow: bool,
    },
}

fn state(text: &str) -> Result<TaskState, String> {
    let words = TaskState::ALL.map(TaskState::as_str).join(", ");
    text.parse().map_err(|_| format!("use one of {words}"))
}

impl Tasks {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Run(run) => return run.run(context).await,
            Self::Ls { scope, state, delegate, paging } => {
                let page = async |limit, cursor| {
                    client.tasks(&TasksQuery { scope: scope.clone(), state, delegate, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
                ui.next(&["legation task show TASK".to_owned(), "legation task logs TASK".to_owned()]);
            }
            Self::Show { task } => {
                let task = client.task(task).await?;
                ui.show(&task)?;
                ui.next(&[format!("legation task logs {}", task.id)]);
            }
            Self::Cancel { task, care } => return cancel(context, task, care).await,
            Self::Logs { task, follow } => {
                let code = Watch::new(context, task).with(OutputQuery { follow }).run().await?;
                return Ok(if follow { code } else { exit_codes::OK });
            }
        }
        Ok(exit_codes::OK)
    }
}

async fn cancel(context: &Context, id: TaskId, care: Care) -> Result<u8, Failure> {
    let (client, ui) = (&context.client, &context.ui);
    let preview = client.preview_cancel(id).await?;
    if care.dry_run {
        ui.note(&format!("would cancel task {id}, which is {}", preview.task.state));
        ui.show(&preview.task)?;
        return Ok(exit_codes::OK);
    }
    care.confirm(&format!("cancel task {id}"), &format!("it is {}", preview.task.state))?;
    let cancelled = client.cancel_task(id).await?;
    ui.show(&cancelled.task)?;
    ui.next(&[format!("legation task logs --follow {id}")]);
    Ok(exit_codes::OK)
}

impl Show for Task {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let attempt = self.attempt.as_ref();
        let wish = if self.cancel_requested && !self.state.is_final() { " (to be cancelled)" } else { "" };
        vec![
            ("task", self.id.to_string()),
            ("kind", self.kind.to_string()),
            ("scope", self.scope.to_string()),
            ("state", format!("{}{wish}", self.state)),
            ("reason", self.reason.clone()),
            ("exit code", self.exit_code.map(|code| code.to_string()).unwrap_or_default()),
            ("selectors", ui::joined(&self.selectors)),
            ("delegate", attempt.map(|attempt| attempt.delegate.to_string()).unwrap_or_default()),
            ("attempt", attempt.map(|attempt| attempt.id.to_string()).unwrap_or_default()),
            ("timeout", show_length(self.timeout_ms)),
            ("created", format!("{} by {}", show_time(self.created_at), self.created_by)),
            ("started", show_when(self.started_at)),
            ("finished", show_when(self.finished_at)),
        ]
    }
}

impl Row for Task {
    const COLUMNS: &'static [&'static str] = &["id", "kind", "state", "exit", "scope", "created", "took", "delegate"];

    fn row(&self) -> Vec<String> {
        let took = self.started_at.zip(self.finished_at).map(|(from, to)| show_length(to.saturating_sub(from)));
        vec![
            self.id.to_string(),
            self.kind.to_string(),
            self.state.to_string(),
            self.exit_code.map(|code| code.to_string()).unwrap_or_default(),
            self.scope.to_string(),
            show_time(self.created_at),
            took.unwrap_or_default(),
            self.attempt.as_ref().map(|attempt| attempt.delegate.to_string()).unwrap_or_default(),
        ]
    }
}
