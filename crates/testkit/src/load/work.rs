//! Tasks under way: who waits for which, and what a virtual delegate says of it.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use legation_api::{
    client::Client,
    tasks::{Shell, SubmitTask, Work as Kind},
};
use legation_model::{
    Millis, Name,
    delegate::Selector,
    ids::{AttemptId, TaskId},
    task::TaskState,
};
use legation_wire::message::{Assignment, Finished, FromDelegate};
use tokio::sync::oneshot;

use super::{fleet::lock, meter::histogram};
use crate::world::scope;

/// How long one task may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a task may wait for a delegate, in milliseconds: one whose delegates are gone is not in the way for long.
const QUEUE_TIMEOUT: Millis = 5_000;

/// Attempts that are with a delegate, and tasks that somebody waits for.
pub(super) struct Work {
    request: SubmitTask,
    attempts: Mutex<HashMap<AttemptId, TaskId>>,
    ended: Mutex<HashMap<TaskId, Ended>>,
}

/// A result may be acknowledged before the call that submitted its task has returned.
enum Ended {
    Already,
    Awaited(oneshot::Sender<()>),
}

/// When a task was submitted, and when its result was stored.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) begun: Instant,
    pub(super) ended: Instant,
}

impl Span {
    /// How long it took, in microseconds.
    pub(super) fn micros(self) -> u64 {
        self.ended.duration_since(self.begun).as_micros() as u64
    }
}

impl Work {
    /// No work yet; all that comes is for delegates of this tag.
    pub(super) fn new(tag: &Name) -> Self {
        let work = Kind::Shell(Shell { script: "true".to_owned(), ..Shell::default() });
        let mut request = SubmitTask::new(scope(), work);
        request.selectors = vec![Selector::Claimed(tag.clone())];
        request.queue_timeout_ms = Some(QUEUE_TIMEOUT);
        Self { request, attempts: Mutex::default(), ended: Mutex::default() }
    }

    /// What a delegate answers to an assignment.
    pub(super) fn assigned(&self, assignment: &Assignment) -> [FromDelegate; 2] {
        let attempt = assignment.attempt;
        lock(&self.attempts).insert(attempt, assignment.task);
        let finished = Finished {
            attempt,
            state: TaskState::Succeeded,
            exit_code: Some(0),
            reason: String::new(),
            output_bytes: 0,
            dropped_bytes: 0,
        };
        [FromDelegate::Started { attempt }, FromDelegate::Finished(finished)]
    }

    /// The Manager has stored the result.
    pub(super) fn acknowledged(&self, attempt: AttemptId) {
        let Some(task) = lock(&self.attempts).remove(&attempt) else { return };
        let mut ended = lock(&self.ended);
        if let Some(Ended::Awaited(waiter)) = ended.insert(task, Ended::Already) {
            ended.remove(&task);
            // Whoever waited may have given up.
            let _ = waiter.send(());
        }
    }

    /// Submits one task.
    pub(super) async fn submit(&self, client: &Client) -> anyhow::Result<TaskId> {
        Ok(client.submit_task(&self.request).await?.id)
    }

    /// Waits until its result is stored.
    pub(super) async fn end(&self, task: TaskId) -> anyhow::Result<()> {
        let waiting = {
            let mut ended = lock(&self.ended);
            if ended.remove(&task).is_some() {
                return Ok(());
            }
            let (sender, waiting) = oneshot::channel();
            ended.insert(task, Ended::Awaited(sender));
            waiting
        };
        Ok(tokio::time::timeout(PATIENCE, waiting).await??)
    }

    /// Submits one task and waits until its result is stored.
    pub(super) async fn one(&self, client: &Client) -> anyhow::Result<Span> {
        let begun = Instant::now();
        let task = self.submit(client).await?;
        self.end(task).await?;
        Ok(Span { begun, ended: Instant::now() })
    }

    /// Submits tasks one after the other until the deadline; how long each took from its submission to its stored
    /// result.
    pub(super) async fn submit_until(&self, client: &Client, deadline: Instant) -> anyhow::Result<Histogram<u64>> {
        let mut took = histogram();
        while Instant::now() < deadline {
            took.saturating_record(self.one(client).await?.micros());
        }
        Ok(took)
    }
}
