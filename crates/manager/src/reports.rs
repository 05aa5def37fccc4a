//! What delegates report of their attempts: starts, output, results, and what is lost without a report.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use legation_model::{
    Millis,
    ids::{AttemptId, DelegateId, TaskId, TokenId},
    task::{Task, TaskState},
};
use legation_store::{
    StoreError, Tx, job, output,
    tasks::{self, End, Finish},
    tokens,
};
use legation_wire::message::{Finished, FromDelegate, Stream, ToDelegate};

use crate::{Manager, dispatch::REST, live::lock, session::Session};

/// Reports in one transaction, of as many delegates as that are: each may be a statement, and a revocation waits for
/// the transaction.
const REPORTS_TOGETHER_MAX: usize = 256;

impl Manager {
    /// Records what a delegate reported of its attempts, and returns the acknowledgements.
    ///
    /// Each report concerns only attempts of the reporting delegate: identity comes from the session.
    ///
    /// # Errors
    /// Those of the store; nothing is recorded then, and the same reports may be recorded again.
    pub(crate) async fn record_reports(
        &self,
        session: &Arc<Session>,
        reports: Arc<[FromDelegate]>,
    ) -> Result<Vec<ToDelegate>, StoreError> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        if reports.iter().any(|report| matches!(report, FromDelegate::Refused { again: true, .. })) {
            // Before the tasks are back in the queue, so that none goes there again at once.
            session.resting_until.store(self.clock.boot() + REST, Ordering::Relaxed);
        }
        let reported = Reported { token: session.token.id, delegate: session.delegate, reports };
        let Recorded { tasks, answers, requeued } = self.reports.ask(reported).await?;
        for answer in &answers {
            if let ToDelegate::FinishedAck { attempt } = answer {
                lock(&session.attempts).remove(attempt);
                self.queue.nudge();
            }
        }
        if requeued {
            self.queue.reload();
        }
        tasks.into_iter().for_each(|task| self.announce(task));
        Ok(answers)
    }

    /// Writes reports until the Manager stops.
    pub(crate) async fn report_loop(self: Arc<Self>) {
        let write = |reported: Vec<Reported>| {
            let (store, now) = (self.store.clone(), self.clock.wall());
            let work = job(move |tx| Box::pin(async move { record_all(tx, &reported, now).await }));
            async move { store.write(work).await }
        };
        self.reports.serve(&self.stopping, REPORTS_TOGETHER_MAX, |one| one.reports.len(), write).await;
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

/// What one delegate reported, oldest first.
#[derive(Clone)]
pub(crate) struct Reported {
    token: TokenId,
    delegate: DelegateId,
    reports: Arc<[FromDelegate]>,
}

/// What became of it.
#[derive(Default)]
pub(crate) struct Recorded {
    /// Tasks that changed.
    tasks: Vec<TaskId>,
    answers: Vec<ToDelegate>,
    /// Some of them wait in the queue again.
    requeued: bool,
}

/// Records what several delegates reported, within one transaction.
async fn record_all(tx: &mut Tx, reported: &[Reported], now: Millis) -> Result<Vec<Recorded>, StoreError> {
    let tokens: BTreeSet<TokenId> = reported.iter().map(|one| one.token).collect();
    let statuses = tokens::lock_shared_all(tx, &tokens).await?;
    let attempts: BTreeSet<AttemptId> = reported.iter().flat_map(|one| one.reports.iter().map(attempt_of)).collect();
    let attempts: Vec<AttemptId> = attempts.into_iter().collect();
    let found = tasks::by_attempts(tx, &attempts).await?;
    let mut known = found.into_iter().filter_map(|task| Some((task.attempt.as_ref()?.id, task))).collect();
    let mut recorded = Vec::with_capacity(reported.len());
    for one in reported {
        let live = statuses.get(&one.token).is_some_and(|status| status.is_live());
        recorded.push(if live { record_one(tx, &mut known, one, now).await? } else { Recorded::default() });
    }
    Ok(recorded)
}

async fn record_one(
    tx: &mut Tx,
    known: &mut HashMap<AttemptId, Task>,
    reported: &Reported,
    now: Millis,
) -> Result<Recorded, StoreError> {
    let mut recorded = Recorded::default();
    let mut started = BTreeSet::new();
    for (at, report) in reported.reports.iter().enumerate() {
        let attempt = attempt_of(report);
        if matches!(report, FromDelegate::Started { .. }) && ends_within(&reported.reports[at..], attempt) {
            // The end notes the start as well.
            started.insert(attempt);
            continue;
        }
        let task = match owned(tx, known, attempt, reported.delegate).await? {
            Owned::Newest(task) => Some(task),
            Owned::Former => {
                record_late(tx, report, now).await?;
                None
            }
            Owned::Not => None,
        };
        if let Some(task) = task {
            recorded.tasks.push(task.id);
            recorded.requeued |= record(tx, &task, report, started.contains(&attempt), now).await?;
            if !matches!(report, FromDelegate::Output { .. }) {
                // It has changed: whatever comes after is held against the row.
                known.remove(&attempt);
            }
        }
        recorded.answers.extend(answer(report));
    }
    Ok(recorded)
}

fn ends_within(reports: &[FromDelegate], attempt: AttemptId) -> bool {
    reports.iter().any(|report| matches!(report, FromDelegate::Finished(finished) if finished.attempt == attempt))
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

async fn owned(
    tx: &mut Tx,
    known: &HashMap<AttemptId, Task>,
    attempt: AttemptId,
    delegate: DelegateId,
) -> Result<Owned, StoreError> {
    let task = match known.get(&attempt) {
        Some(task) => Some(task.clone()),
        None => tasks::by_attempt(tx, attempt).await?,
    };
    let Some(task) = task else { return Ok(Owned::Not) };
    let own = match task.attempt.as_ref().filter(|newest| newest.id == attempt) {
        Some(newest) if newest.delegate == delegate => return Ok(Owned::Newest(Box::new(task))),
        Some(_) => false,
        None => tasks::former_delegate(tx, attempt).await? == Some(delegate),
    };
    Ok(if own { Owned::Former } else { Owned::Not })
}

/// Records the result of a former attempt as late; whatever else it says is dropped.
async fn record_late(tx: &mut Tx, report: &FromDelegate, now: Millis) -> Result<(), StoreError> {
    let FromDelegate::Finished(finished) = report else { return Ok(()) };
    let reason = bounded(&finished.reason);
    let end = End { state: finished.state, exit_code: finished.exit_code, reason: &reason, started: false };
    tasks::finish(tx, finished.attempt, end, now).await.map(drop)
}

/// The acknowledgement of a report, of an attempt that is not this delegate's too: it would be repeated for ever.
fn answer(report: &FromDelegate) -> Option<ToDelegate> {
    match report {
        FromDelegate::Output { attempt, offset, bytes, .. } => {
            Some(ToDelegate::OutputAck { attempt: *attempt, offset: offset.saturating_add(bytes.len() as u64) })
        }
        FromDelegate::Refused { attempt, .. } => Some(ToDelegate::FinishedAck { attempt: *attempt }),
        FromDelegate::Finished(finished) => Some(ToDelegate::FinishedAck { attempt: finished.attempt }),
        _ => None,
    }
}

/// Records one report of a task's newest attempt; whether the task waits in the queue again.
async fn record(
    tx: &mut Tx,
    task: &Task,
    report: &FromDelegate,
    started: bool,
    now: Millis,
) -> Result<bool, StoreError> {
    match report {
        FromDelegate::Started { attempt } => tasks::started(tx, *attempt, now).await.map(|_| false),
        FromDelegate::Output { attempt, offset, stream, bytes } => {
            let end = offset.saturating_add(bytes.len() as u64);
            if !task.state.is_final() && end <= task.output_limit + MARK_MAX {
                output::append(tx, *attempt, *offset, stream_word(*stream), bytes).await?;
            }
            Ok(false)
        }
        FromDelegate::Refused { attempt, reason, again } => {
            record_refusal(tx, task, *attempt, &bounded(reason), *again, now).await
        }
        FromDelegate::Finished(finished) => record_end(tx, task, finished, started, now).await,
        _ => Ok(false),
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
) -> Result<bool, StoreError> {
    if again && task.state == TaskState::Assigned && !task.cancel_requested {
        tracing::info!(task = %task.id, reason, "a delegate could not start a task; it waits again");
        return tasks::requeue(tx, attempt, false, now).await;
    }
    let state = if again && task.cancel_requested { TaskState::Cancelled } else { TaskState::Rejected };
    tasks::finish(tx, attempt, End { state, exit_code: None, reason, started: false }, now).await.map(|_| false)
}

/// Room for the mark that a delegate writes where it began to drop output.
const MARK_MAX: u64 = 256;

async fn record_end(
    tx: &mut Tx,
    task: &Task,
    finished: &Finished,
    started: bool,
    now: Millis,
) -> Result<bool, StoreError> {
    let again = matches!(finished.state, TaskState::Failed | TaskState::Lost | TaskState::TimedOut);
    if again && task.retries_left > 0 && !task.cancel_requested && !task.state.is_final() {
        return tasks::requeue(tx, finished.attempt, true, now).await;
    }
    let reason = bounded(&finished.reason);
    let end = End { state: finished.state, exit_code: finished.exit_code, reason: &reason, started };
    if matches!(tasks::finish(tx, finished.attempt, end, now).await?, Finish::Late(_)) {
        tracing::info!(task = %task.id, "a result came too late and changes nothing");
    }
    Ok(false)
}

/// A reason of a delegate, cut to a length that a person reads and freed of control characters.
fn bounded(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(500).collect()
}
