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
    ids::{AttemptId, TaskId},
    task::TaskState,
};
use legation_wire::message::{Assignment, Finished, FromDelegate};
use tokio::sync::oneshot;

use super::{fleet::lock, meter::histogram};
use crate::world::scope;

/// How long one task may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Attempts that are with a delegate, and tasks that somebody waits for.
#[derive(Default)]
pub(super) struct Work {
    attempts: Mutex<HashMap<AttemptId, TaskId>>,
    ended: Mutex<HashMap<TaskId, Ended>>,
}

/// A result may be acknowledged before the call that submitted its task has returned.
enum Ended {
    Already,
    Awaited(oneshot::Sender<()>),
}

impl Work {
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

    async fn end(&self, task: TaskId) -> anyhow::Result<()> {
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

    /// Submits tasks one after the other until the deadline; how long each took from its submission to its stored
    /// result.
    pub(super) async fn submit_until(&self, client: &Client, deadline: Instant) -> anyhow::Result<Histogram<u64>> {
        let work = Kind::Shell(Shell { script: "true".to_owned(), ..Shell::default() });
        let mut request = SubmitTask::new(scope(), work);
        request.selectors = vec!["load".parse().expect("a legal selector")];
        let mut took = histogram();
        while Instant::now() < deadline {
            let begun = Instant::now();
            let task = client.submit_task(&request).await?;
            self.end(task.id).await?;
            took.saturating_record(begun.elapsed().as_micros() as u64);
        }
        Ok(took)
    }
}
