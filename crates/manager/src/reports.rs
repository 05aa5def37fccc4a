//! What delegates report of their attempts: starts, output, results, and what is lost without a report.

use std::sync::{Arc, atomic::Ordering};

use legation_model::{
    Millis,
    ids::{AttemptId, DelegateId, TaskId},
    task::{Task, TaskState},
};
use legation_store::{
    StoreError, Tx, job, output,
    tasks::{self, Finish},
    tokens,
};
use legation_wire::message::{Finished, FromDelegate, Stream, ToDelegate};

use crate::{Manager, dispatch::REST, live::lock, sessions::Session};

impl Manager {
    /// Records what a delegate reported of its attempts, in one transaction, and returns the acknowledgements.
    ///
    /// Each report concerns only attempts of the reporting delegate: identity comes from the session.
    ///
    /// # Errors
    /// Those of the store; nothing is recorded then, and the same reports may be recorded again.
    pub(crate) async fn record_reports(
        &self,
        session: &Arc<Session>,
        reports: &[FromDelegate],
    ) -> Result<Vec<ToDelegate>, StoreError> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        if reports.iter().any(|report| matches!(report, FromDelegate::Refused { again: true, .. })) {
            // Before the tasks are back in the queue, so that none goes there again at once.
            session.resting_until.store(self.clock.boot() + REST, Ordering::Relaxed);
        }
        let (reports, now) = (reports.to_vec(), self.clock.wall());
        let (token, delegate) = (session.token.id, session.delegate);
        let work = job(move |tx| {
            Box::pin(async move {
                let mut recorded = Vec::new();
                if !tokens::lock_shared(tx, token).await?.is_some_and(|status| status.is_live()) {
                    return Ok(recorded);
                }
                for report in reports {
                    recorded.push(match owned(tx, attempt_of(&report), delegate).await? {
                        Owned::Newest(task) => (Some(task.id), record(tx, Some(*task), report, now).await?),
                        Owned::Former => (None, record_late(tx, report, now).await?),
                        Owned::Not => (None, record(tx, None, report, now).await?),
                    });
                }
                Ok(recorded)
            })
        });
        let recorded: Vec<(Option<TaskId>, Option<ToDelegate>)> = self.store.write(work).await?;
        let mut answers = Vec::new();
        for (task, answer) in recorded {
            if let Some(ToDelegate::FinishedAck { attempt }) = &answer {
                lock(&session.attempts).remove(attempt);
                self.queue.reload();
            }
            task.into_iter().for_each(|task| self.announce(task));
            answers.extend(answer);
        }
        Ok(answers)
    }

    /// Ends attempts whose outcome nobody will know; retries those that may be.
    pub(crate) async fn lose_attempts(&self, attempts: Vec<AttemptId>, why: &'static str) {
        if attempts.is_empty() {
            return;
        }
        let now = self.clock.wall();
        let work = job(move |tx| {
            Box::pin(async move {
                let mut open = Vec::new();
                for attempt in attempts {
                    open.extend(tasks::by_attempt(tx, attempt).await?.filter(|task| !task.state.is_final()));
                }
                lose_or_requeue(tx, &open, why, now).await?;
                Ok(open)
            })
        });
        match self.store.write(work).await {
            Ok(open) => {
                for task in &open {
                    self.announce(task.id);
                }
                self.queue.reload();
            }
            Err(error) => tracing::warn!(%error, "lost attempts could not be recorded; the sweep will try again"),
        }
    }
}

/// Ends open tasks as lost, except those that declared themselves idempotent and have attempts left.
///
/// # Errors
/// Those of the store.
pub(crate) async fn lose_or_requeue(tx: &mut Tx, open: &[Task], why: &str, now: Millis) -> Result<(), StoreError> {
    let mut lost = Vec::new();
    for task in open {
        let Some(attempt) = &task.attempt else { continue };
        if task.retries_left > 0 && !task.cancel_requested {
            tasks::requeue(tx, attempt.id, true, now).await?;
        } else {
            lost.push(attempt.id);
        }
    }
    tasks::lose(tx, &lost, why, now).await.map(drop)
}

fn attempt_of(report: &FromDelegate) -> AttemptId {
    match report {
        FromDelegate::Started { attempt }
        | FromDelegate::Output { attempt, .. }
        | FromDelegate::Refused { attempt, .. } => *attempt,
        FromDelegate::Finished(finished) => finished.attempt,
        // The session keeps every other message to itself; an id of zeros names no attempt.
        _ => AttemptId([0; 16]),
    }
}

/// What an attempt is to the delegate that reports it.
enum Owned {
    /// The newest of this task, and its own.
    Newest(Box<Task>),
    /// Its own, but its task went on without it.
    Former,
    /// Not its own, or of no task.
    Not,
}

async fn owned(tx: &mut Tx, attempt: AttemptId, delegate: DelegateId) -> Result<Owned, StoreError> {
    let Some(task) = tasks::by_attempt(tx, attempt).await? else { return Ok(Owned::Not) };
    let own = match task.attempt.as_ref().filter(|newest| newest.id == attempt) {
        Some(newest) if newest.delegate == delegate => return Ok(Owned::Newest(Box::new(task))),
        Some(_) => false,
        None => tasks::former_delegate(tx, attempt).await? == Some(delegate),
    };
    Ok(if own { Owned::Former } else { Owned::Not })
}

/// Records the result of a former attempt as late; whatever else it says is acknowledged and dropped.
async fn record_late(tx: &mut Tx, report: FromDelegate, now: Millis) -> Result<Option<ToDelegate>, StoreError> {
    if let FromDelegate::Finished(finished) = &report {
        let reason = bounded(&finished.reason);
        tasks::finish(tx, finished.attempt, finished.state, finished.exit_code, &reason, now).await?;
    }
    record(tx, None, report, now).await
}

/// Records one report. An attempt that is not this delegate's is acknowledged and changes nothing, so that the
/// delegate does not repeat it for ever.
async fn record(
    tx: &mut Tx,
    task: Option<Task>,
    report: FromDelegate,
    now: Millis,
) -> Result<Option<ToDelegate>, StoreError> {
    match report {
        FromDelegate::Started { attempt } => {
            if task.is_some() {
                tasks::started(tx, attempt, now).await?;
            }
            Ok(None)
        }
        FromDelegate::Output { attempt, offset, stream, bytes } => {
            let end = offset.saturating_add(bytes.len() as u64);
            if task.is_some_and(|task| !task.state.is_final() && end <= task.output_limit + MARK_MAX) {
                output::append(tx, attempt, offset, stream_word(stream), &bytes).await?;
            }
            Ok(Some(ToDelegate::OutputAck { attempt, offset: end }))
        }
        FromDelegate::Refused { attempt, reason, again } => {
            if let Some(task) = task {
                record_refusal(tx, &task, attempt, &bounded(&reason), again, now).await?;
            }
            Ok(Some(ToDelegate::FinishedAck { attempt }))
        }
        FromDelegate::Finished(finished) => {
            let attempt = finished.attempt;
            if let Some(task) = task {
                record_end(tx, &task, finished, now).await?;
            }
            Ok(Some(ToDelegate::FinishedAck { attempt }))
        }
        _ => Ok(None),
    }
}

const fn stream_word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A verdict about the task ends it. A delegate that could not start anything says nothing about the task, and
/// nothing of it ran: it waits again, and no retry is spent.
async fn record_refusal(
    tx: &mut Tx,
    task: &Task,
    attempt: AttemptId,
    reason: &str,
    again: bool,
    now: Millis,
) -> Result<(), StoreError> {
    let newest = task.attempt.as_ref().is_some_and(|newest| newest.id == attempt);
    if again && newest && task.state == TaskState::Assigned && !task.cancel_requested {
        tracing::info!(task = %task.id, reason, "a delegate could not start a task; it waits again");
        return tasks::requeue(tx, attempt, false, now).await.map(drop);
    }
    let state = if again && task.cancel_requested { TaskState::Cancelled } else { TaskState::Rejected };
    tasks::finish(tx, attempt, state, None, reason, now).await.map(drop)
}

/// Room for the mark that a delegate writes where it began to drop output.
const MARK_MAX: u64 = 256;

async fn record_end(tx: &mut Tx, task: &Task, finished: Finished, now: Millis) -> Result<(), StoreError> {
    let again = matches!(finished.state, TaskState::Failed | TaskState::Lost | TaskState::TimedOut);
    if again && task.retries_left > 0 && !task.cancel_requested && !task.state.is_final() {
        tasks::requeue(tx, finished.attempt, true, now).await?;
        return Ok(());
    }
    let reason = bounded(&finished.reason);
    let end = tasks::finish(tx, finished.attempt, finished.state, finished.exit_code, &reason, now).await?;
    if matches!(end, Finish::Late(_)) {
        tracing::info!(task = %task.id, "a result came too late and changes nothing");
    }
    Ok(())
}

/// A reason of a delegate, cut to a length that a person reads and freed of control characters.
fn bounded(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(500).collect()
}
