//! The transaction of reports, which they share: what delegates say of their attempts at the same time costs a
//! statement for all starts and one for all ends.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use legation_model::{
    Millis,
    ids::{AttemptId, DelegateId, TaskId, TokenId},
    task::{Task, TaskState},
};
use legation_store::{
    StoreError, Tx,
    attempts::{self, End, Finish},
    output, tokens,
};
use legation_wire::message::{Finished, FromDelegate, Stream, ToDelegate};

/// Room for the mark that a delegate writes where it began to drop output.
const MARK_MAX: u64 = 256;

/// What one delegate reported, oldest first.
#[derive(Clone)]
pub(crate) struct Reported {
    pub(crate) token: TokenId,
    pub(crate) delegate: DelegateId,
    pub(crate) reports: Arc<[FromDelegate]>,
}

/// What became of it.
#[derive(Default)]
pub(crate) struct Recorded {
    /// Tasks that changed.
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) answers: Vec<ToDelegate>,
    /// Some of them wait in the queue again.
    pub(crate) requeued: bool,
}

/// Records what several delegates reported, within one transaction.
///
/// # Errors
/// Those of the store.
pub(crate) async fn record_all(tx: &mut Tx, reported: &[Reported], now: Millis) -> Result<Vec<Recorded>, StoreError> {
    let tokens: BTreeSet<TokenId> = reported.iter().map(|one| one.token).collect();
    let statuses = tokens::lock_shared_all(tx, &tokens).await?;
    let mut recorder = Recorder::read(tx, reported, now).await?;
    let mut recorded = Vec::with_capacity(reported.len());
    for one in reported {
        let live = statuses.get(&one.token).is_some_and(|status| status.is_live());
        recorded.push(if live { recorder.record_all_of(one).await? } else { Recorded::default() });
    }
    recorder.write().await?;
    Ok(recorded)
}

/// What is known of the attempts, and what is still to be written of them.
struct Recorder<'t> {
    tx: &'t mut Tx,
    now: Millis,
    /// Tasks by their newest attempt, as they are in the store.
    known: HashMap<AttemptId, Task>,
    started: Vec<AttemptId>,
    ended: Vec<(AttemptId, Ended)>,
    /// The attempts of both.
    unwritten: HashSet<AttemptId>,
}

/// An end that is still to be written.
struct Ended {
    state: TaskState,
    exit_code: Option<i32>,
    reason: String,
    started: bool,
}

impl Ended {
    fn end(&self) -> End<'_> {
        End { state: self.state, exit_code: self.exit_code, reason: &self.reason, started: self.started }
    }
}

impl<'t> Recorder<'t> {
    async fn read(tx: &'t mut Tx, reported: &[Reported], now: Millis) -> Result<Self, StoreError> {
        let wanted: BTreeSet<_> = reported.iter().flat_map(|one| one.reports.iter().map(attempt_of)).collect();
        let found = attempts::by_attempts(tx, &wanted.into_iter().collect::<Vec<_>>()).await?;
        let known = found.into_iter().filter_map(|task| Some((task.attempt.as_ref()?.id, task))).collect();
        Ok(Self { tx, now, known, started: Vec::new(), ended: Vec::new(), unwritten: HashSet::new() })
    }

    async fn record_all_of(&mut self, reported: &Reported) -> Result<Recorded, StoreError> {
        let mut recorded = Recorded::default();
        let mut started = BTreeSet::new();
        for (at, report) in reported.reports.iter().enumerate() {
            let attempt = attempt_of(report);
            if matches!(report, FromDelegate::Started { .. }) && ends_within(&reported.reports[at..], attempt) {
                // The end notes the start as well.
                started.insert(attempt);
                continue;
            }
            match self.owned(attempt, reported.delegate).await? {
                Owned::Newest(task) => {
                    recorded.tasks.push(task.id);
                    recorded.requeued |= self.record(&task, report, started.contains(&attempt)).await?;
                    if !matches!(report, FromDelegate::Output { .. }) {
                        // It has changed: whatever comes after is held against the row.
                        self.known.remove(&attempt);
                    }
                }
                Owned::Former => self.record_late(report).await?,
                Owned::Not => {}
            }
            recorded.answers.extend(answer(report));
        }
        Ok(recorded)
    }

    async fn owned(&mut self, attempt: AttemptId, delegate: DelegateId) -> Result<Owned, StoreError> {
        if self.unwritten.contains(&attempt) {
            self.write().await?;
        }
        let task = match self.known.get(&attempt) {
            Some(task) => Some(task.clone()),
            None => attempts::by_attempt(self.tx, attempt).await?,
        };
        let Some(task) = task else { return Ok(Owned::Not) };
        let own = match task.attempt.as_ref().filter(|newest| newest.id == attempt) {
            Some(newest) if newest.delegate == delegate => return Ok(Owned::Newest(Box::new(task))),
            Some(_) => false,
            None => attempts::former_delegate(self.tx, attempt).await? == Some(delegate),
        };
        Ok(if own { Owned::Former } else { Owned::Not })
    }

    /// Records one report of a task's newest attempt; whether the task waits in the queue again.
    async fn record(&mut self, task: &Task, report: &FromDelegate, started: bool) -> Result<bool, StoreError> {
        match report {
            FromDelegate::Started { attempt } => {
                self.unwritten.insert(*attempt);
                self.started.push(*attempt);
                Ok(false)
            }
            FromDelegate::Output { attempt, offset, stream, bytes } => {
                let end = offset.saturating_add(bytes.len() as u64);
                if !task.state.is_final() && end <= task.output_limit + MARK_MAX {
                    output::append(self.tx, *attempt, *offset, stream_word(*stream), bytes).await?;
                }
                Ok(false)
            }
            FromDelegate::Refused { attempt, reason, again } => {
                self.record_refusal(task, *attempt, bounded(reason), *again).await
            }
            FromDelegate::Finished(finished) => self.record_end(task, finished, started).await,
            _ => Ok(false),
        }
    }

    /// A verdict about the task ends it. A delegate that could not start anything says nothing about the task, and
    /// nothing of it ran: it waits again, and no retry is spent.
    async fn record_refusal(
        &mut self,
        task: &Task,
        attempt: AttemptId,
        reason: String,
        again: bool,
    ) -> Result<bool, StoreError> {
        if again && task.state == TaskState::Assigned && !task.cancel_requested {
            tracing::info!(task = %task.id, reason, "a delegate could not start a task; it waits again");
            return attempts::requeue(self.tx, attempt, false, self.now).await;
        }
        let state = if again && task.cancel_requested { TaskState::Cancelled } else { TaskState::Rejected };
        self.end(task, attempt, Ended { state, exit_code: None, reason, started: false }).await.map(|()| false)
    }

    async fn record_end(&mut self, task: &Task, finished: &Finished, started: bool) -> Result<bool, StoreError> {
        let again = matches!(finished.state, TaskState::Failed | TaskState::Lost | TaskState::TimedOut);
        if again && task.retries_left > 0 && !task.cancel_requested && !task.state.is_final() {
            return attempts::requeue(self.tx, finished.attempt, true, self.now).await;
        }
        self.end(task, finished.attempt, ended(finished, started)).await.map(|()| false)
    }

    /// Ends an open task with the others; whatever else it is, it is looked at by itself.
    async fn end(&mut self, task: &Task, attempt: AttemptId, ended: Ended) -> Result<(), StoreError> {
        if !task.state.is_final() {
            self.unwritten.insert(attempt);
            self.ended.push((attempt, ended));
            return Ok(());
        }
        self.end_alone(attempt, &ended).await
    }

    async fn end_alone(&mut self, attempt: AttemptId, ended: &Ended) -> Result<(), StoreError> {
        if let Finish::Late(task) = attempts::finish(self.tx, attempt, ended.end(), self.now).await? {
            tracing::info!(%task, "a result came too late and changes nothing");
        }
        Ok(())
    }

    /// Records the result of a former attempt as late; whatever else it says is dropped.
    async fn record_late(&mut self, report: &FromDelegate) -> Result<(), StoreError> {
        let FromDelegate::Finished(finished) = report else { return Ok(()) };
        self.end_alone(finished.attempt, &ended(finished, false)).await
    }

    /// Writes what is still to be written.
    async fn write(&mut self) -> Result<(), StoreError> {
        attempts::started(self.tx, &std::mem::take(&mut self.started), self.now).await?;
        let ended = std::mem::take(&mut self.ended);
        let ends: Vec<_> = ended.iter().map(|(attempt, ended)| (*attempt, ended.end())).collect();
        let open: HashSet<_> = attempts::finish_open(self.tx, &ends, self.now).await?.into_iter().collect();
        for (attempt, ended) in ended.iter().filter(|(attempt, _)| !open.contains(attempt)) {
            self.end_alone(*attempt, ended).await?;
        }
        self.unwritten.clear();
        Ok(())
    }
}

fn ended(finished: &Finished, started: bool) -> Ended {
    Ended { state: finished.state, exit_code: finished.exit_code, reason: bounded(&finished.reason), started }
}

/// Which attempt a report is about.
pub(crate) fn attempt_of(report: &FromDelegate) -> AttemptId {
    match report {
        FromDelegate::Started { attempt }
        | FromDelegate::Output { attempt, .. }
        | FromDelegate::Refused { attempt, .. } => *attempt,
        FromDelegate::Finished(finished) => finished.attempt,
        // The session keeps every other message to itself; an id of zeros names no attempt.
        _ => AttemptId([0; 16]),
    }
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

const fn stream_word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// A reason of a delegate, cut to a length that a person reads and freed of control characters.
fn bounded(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(500).collect()
}
