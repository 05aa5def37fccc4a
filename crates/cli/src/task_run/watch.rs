//! Watching a task: its output as it comes, Ctrl-C, and the exit code in the end.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use indicatif::ProgressBar;
use legation_api::{
    client::{Chunk, ClientError, OutputItem, OutputStream},
    output::{OutputQuery, Stream},
    tasks::Task,
};
use legation_model::{
    ids::TaskId,
    task::{TaskKind, TaskState},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, interval},
};

use super::waiting::Waiting;
use crate::{Context, Failure, exit_codes, ui::print};

/// How often a waiting person is told where the task stands.
const NEWS: Duration = Duration::from_secs(1);

/// One task on its way to its end.
#[derive(Debug)]
pub struct Watch<'a> {
    context: &'a Context,
    task: TaskId,
    query: OutputQuery,
    with_result: bool,
    asked_to_cancel: bool,
}

enum Step {
    Item(Option<OutputItem>),
    News,
    Interrupt,
}

/// What moves a watch on besides the stream. Kept over its whole time, so that no Ctrl-C is missed.
struct Nudges {
    news: Interval,
    interrupts: Signal,
}

impl Nudges {
    async fn step(&mut self, stream: &mut OutputStream) -> Result<Step, ClientError> {
        tokio::select! {
            item = stream.next() => item.map(Step::Item),
            _ = self.news.tick() => Ok(Step::News),
            _ = self.interrupts.recv() => Ok(Step::Interrupt),
        }
    }
}

impl<'a> Watch<'a> {
    /// Watches until the task ends.
    pub fn new(context: &'a Context, task: TaskId) -> Self {
        Self { context, task, query: OutputQuery::default(), with_result: false, asked_to_cancel: false }
    }

    /// Watches in another way.
    #[must_use]
    pub fn with(mut self, query: OutputQuery) -> Self {
        self.query = query;
        self
    }

    /// Ends with the task itself on standard output, where a format other than the table is asked for; the
    /// task's output goes to standard error then. Ctrl-C cancels.
    #[must_use]
    pub fn with_result(mut self) -> Self {
        self.with_result = true;
        self
    }

    /// Watches; the exit code that the task's end stands for.
    ///
    /// # Errors
    /// As the Manager refuses, or once the connection is lost for good.
    pub async fn run(mut self) -> Result<u8, Failure> {
        let mut stream = self.context.client.output(self.task, self.query);
        let spinner = self.context.ui.spinner(&format!("task {}", self.task));
        let mut waiting = Waiting::new(Instant::now());
        let mut nudges = Nudges { news: interval(NEWS), interrupts: signal(SignalKind::interrupt())? };
        loop {
            let step = nudges.step(&mut stream).await;
            match step? {
                Step::Item(Some(OutputItem::Chunk(chunk))) => {
                    // A moving line and a program's output would write over each other.
                    spinner.finish_and_clear();
                    self.write(&chunk)?;
                }
                Step::Item(Some(OutputItem::End(task))) => {
                    spinner.finish_and_clear();
                    return self.end(&task);
                }
                Step::Item(None) => return Ok(exit_codes::OK),
                Step::News => self.tell(&spinner, &mut waiting).await,
                Step::Interrupt => {
                    if let Some(code) = self.interrupt().await? {
                        return Ok(code);
                    }
                }
            }
        }
    }

    fn write(&self, chunk: &Chunk) -> io::Result<()> {
        let aside = self.with_result && !self.context.ui.for_people();
        if chunk.stream == Stream::Stderr || aside {
            io::stderr().write_all(&chunk.bytes)
        } else {
            let mut out = io::stdout().lock();
            out.write_all(&chunk.bytes)?;
            out.flush()
        }
    }

    /// A spinner says where the task stands all the time; without one, notes say why it waits.
    async fn tell(&self, spinner: &ProgressBar, waiting: &mut Waiting) {
        let wanted = match spinner.is_hidden() {
            true => self.context.ui.for_people() && waiting.is_due(Instant::now()),
            false => !spinner.is_finished(),
        };
        if !wanted {
            return;
        }
        let Ok(task) = self.context.client.task(self.task).await else { return };
        if spinner.is_hidden() {
            waiting.note(&task).into_iter().for_each(|note| self.context.ui.note(&note));
        } else {
            let reason = if task.reason.is_empty() { String::new() } else { format!(": {}", task.reason) };
            spinner.set_message(crate::ui::clean(&format!("task {} is {}{reason}", task.id, task.state)));
        }
    }

    /// The first Ctrl-C cancels, the second leaves.
    async fn interrupt(&mut self) -> Result<Option<u8>, Failure> {
        let ui = &self.context.ui;
        if !self.with_result || self.asked_to_cancel {
            ui.note(&format!("left; the task goes on: legation task logs --follow {}", self.task));
            return Ok(Some(exit_codes::INTERRUPTED));
        }
        self.asked_to_cancel = true;
        ui.note("asking for the task to be cancelled; Ctrl-C again to leave");
        if let Err(error) = self.context.client.cancel_task(self.task).await {
            ui.note(&format!("the task cannot be cancelled: {error}"));
        }
        Ok(None)
    }

    fn end(&self, task: &Task) -> Result<u8, Failure> {
        let ui = &self.context.ui;
        if self.with_result && !ui.for_people() {
            print(&crate::ui::show(ui.format, task)?)?;
        }
        if task.state != TaskState::Succeeded && ui.for_people() {
            ui.note(&sentence(task));
        }
        if self.with_result {
            ui.next(&[format!("legation task show {}", task.id)]);
        }
        Ok(exit_code(task))
    }
}

fn sentence(task: &Task) -> String {
    let code = match (task.exit_code, task.kind) {
        (Some(code), TaskKind::Shell) => format!(" with exit code {code}"),
        (Some(code), TaskKind::Http) => format!(" with HTTP status {code}"),
        (None, _) => String::new(),
    };
    let known = task.reason.is_empty() || code.ends_with(&task.reason);
    let reason = if known { String::new() } else { format!(": {}", task.reason) };
    format!("task {} {}{code}{reason}", task.id, task.state)
}

/// What the process exits with for a task's end; the table is in [`exit_codes`].
fn exit_code(task: &Task) -> u8 {
    match task.state {
        TaskState::Succeeded => exit_codes::OK,
        TaskState::Failed => failed(task),
        TaskState::TimedOut => exit_codes::TASK_TIMED_OUT,
        TaskState::Cancelled => exit_codes::TASK_CANCELLED,
        TaskState::Lost => exit_codes::TASK_LOST,
        TaskState::Rejected => exit_codes::TASK_REJECTED,
        // Only `logs` without --follow ends before the task does.
        TaskState::Queued | TaskState::Assigned | TaskState::Running => exit_codes::OK,
    }
}

fn failed(task: &Task) -> u8 {
    let own = task.exit_code.filter(|_| task.kind == TaskKind::Shell).and_then(|code| u8::try_from(code).ok());
    own.filter(|code| *code != 0).unwrap_or(exit_codes::TASK_FAILED)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::task_run) fn task(state: TaskState, kind: TaskKind, code: Option<i32>) -> Task {
        Task {
            id: TaskId([1; 16]),
            scope: crate::args::default_scope(),
            kind,
            selectors: Vec::new(),
            state,
            reason: String::new(),
            exit_code: code,
            timeout_ms: 1,
            queue_deadline_at: 1,
            output_limit: 1,
            retries_left: 0,
            cancel_requested: false,
            created_by: "x".to_owned(),
            created_at: 1,
            started_at: None,
            finished_at: None,
            attempt: None,
        }
    }

    #[test]
    fn a_task_that_did_not_succeed_never_exits_with_0() {
        for state in TaskState::ALL.into_iter().filter(|state| state.is_final() && *state != TaskState::Succeeded) {
            for kind in TaskKind::ALL {
                for code in [None, Some(0), Some(256), Some(-1), Some(512)] {
                    assert_ne!(exit_code(&task(state, kind, code)), 0, "{state} {code:?}");
                }
            }
        }
    }

    #[test]
    fn a_programs_own_code_is_handed_through() {
        assert_eq!(exit_code(&task(TaskState::Failed, TaskKind::Shell, Some(3))), 3);
        assert_eq!(exit_code(&task(TaskState::Failed, TaskKind::Http, Some(404))), exit_codes::TASK_FAILED);
        assert_eq!(exit_code(&task(TaskState::Succeeded, TaskKind::Http, Some(200))), 0);
        let mut failed = task(TaskState::Failed, TaskKind::Shell, Some(3));
        failed.reason = "exit code 3".to_owned();
        assert!(sentence(&failed).ends_with("failed with exit code 3"));
    }
}
