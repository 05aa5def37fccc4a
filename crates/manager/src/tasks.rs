//! Tasks: submit, cancel, and what delegates report of their attempts.

use std::sync::Arc;

use legation_api::{Code, Problem};
use legation_model::{
    Millis, Scope,
    delegate::Selector,
    ids::{AttemptId, TaskId},
    task::{Task, TaskState},
};
use legation_store::{
    Page, Paged, StoreError, Tx, accounts, job, output,
    tasks::{self, Finish, TaskFilter},
    tokens,
};
use legation_wire::message::{Assignment, Finished, FromDelegate, SecretVar, Stream, ToDelegate, Work};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Change},
    error::Refusal,
    idempotency::{self, Idempotency},
    live::lock,
    sessions::Session,
};

/// How long a cancelled task may clean up before it is killed: 10 s.
pub const CANCEL_GRACE: u64 = 10_000;
/// Bytes of output read for a stream at once.
pub const OUTPUT_READ: usize = 256 << 10;

/// What a new task is to do.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Where it runs.
    pub scope: Scope,
    /// The work itself.
    pub work: Work,
    /// Conditions on the delegate.
    pub selectors: Vec<Selector>,
    /// Execution time, milliseconds.
    pub timeout: Millis,
    /// Time in the queue, milliseconds.
    pub queue_timeout: Millis,
    /// Output bytes kept.
    pub output_limit: u64,
    /// Delivered as environment, masked in output, never shown again.
    pub secrets: Vec<SecretVar>,
    /// Further attempts, for idempotent work only.
    pub retries: u32,
}

impl Manager {
    /// Accepts a task; it is durable when this returns.
    ///
    /// # Errors
    /// `not_found` for an unknown scope, `idempotency_mismatch`, `store_unavailable`.
    pub async fn submit_task(&self, caller: &Caller, new: NewTask, once: Option<Idempotency>) -> Result<Task, Refusal> {
        caller.require_sight(&new.scope, "scope")?;
        let task = self.queued(&new, caller);
        let work = new.work.encode().map_err(|error| Problem::invalid("work", &error.to_string(), "send less"))?;
        let sealed = self.seal_secrets(task.id, &new.secrets);
        let (actor, stored) = (caller.actor(), task.clone());
        let work = job(move |tx| {
            Box::pin(async move {
                if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                    return Ok(before.map(idempotency::Made::Replayed));
                }
                if accounts::get(tx, &stored.scope.top()).await?.is_none() {
                    return Ok(Err(Refusal::not_found("account")));
                }
                tasks::insert(tx, &stored, &work, sealed.as_deref()).await?;
                idempotency::keep(tx, &actor, once.as_ref(), &stored.id.to_string(), stored.created_at).await?;
                Ok(Ok(idempotency::Made::Fresh(())))
            })
        });
        match self.store.write(work).await?? {
            idempotency::Made::Fresh(()) => {
                self.queue.add(task.clone());
                Ok(task)
            }
            idempotency::Made::Replayed(id) => {
                self.stored_task(id.parse().map_err(|_| Refusal::not_found("task"))?).await
            }
        }
    }

    fn queued(&self, new: &NewTask, caller: &Caller) -> Task {
        let now = self.clock.wall();
        Task {
            id: TaskId::random(&*self.entropy),
            scope: new.scope.clone(),
            kind: new.work.kind(),
            selectors: new.selectors.clone(),
            state: TaskState::Queued,
            reason: String::new(),
            exit_code: None,
            timeout: new.timeout,
            queue_deadline: now + new.queue_timeout,
            output_limit: new.output_limit,
            retries_left: new.retries,
            cancel_requested: false,
            created_by: caller.actor().name,
            created_at: now,
            started_at: None,
            finished_at: None,
            attempt: None,
        }
    }

    fn seal_secrets(&self, task: TaskId, secrets: &[SecretVar]) -> Option<Vec<u8>> {
        let encoded = (!secrets.is_empty()).then(|| zeroize::Zeroizing::new(SecretVar::encode_all(secrets)))?;
        Some(self.keys.sealer.seal(&secrets_place(task), &encoded, &*self.entropy))
    }

    /// One task.
    ///
    /// # Errors
    /// `not_found` for a task that the caller may not see.
    pub async fn task(&self, caller: &Caller, id: TaskId) -> Result<Task, Refusal> {
        let task = self.stored_task(id).await?;
        caller.require_sight(&task.scope, "task")?;
        Ok(task)
    }

    /// One task; while it waits, its reason says what excludes whom.
    ///
    /// # Errors
    /// `not_found` for a task that the caller may not see.
    pub async fn explained_task(&self, caller: &Caller, id: TaskId) -> Result<Task, Refusal> {
        let mut task = self.task(caller, id).await?;
        if task.state == TaskState::Queued {
            task.reason = self.explain_waiting(&task);
        }
        Ok(task)
    }

    pub(crate) async fn stored_task(&self, id: TaskId) -> Result<Task, Refusal> {
        let found = self.store.read(move |conn| Box::pin(tasks::get(conn, id))).await?;
        found.ok_or_else(|| Refusal::not_found("task"))
    }

    /// Tasks.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_tasks(
        &self,
        caller: &Caller,
        mut filter: TaskFilter,
        page: Page,
    ) -> Result<Paged<Task>, Refusal> {
        filter.scope = caller.confine(filter.scope)?;
        Ok(self.store.read(move |conn| Box::pin(async move { tasks::list(conn, &filter, &page).await })).await?)
    }

    /// Asks a task to end. A queued one is cancelled at once; a running one is told to stop, then killed.
    ///
    /// # Errors
    /// `task_ended` when there is nothing left to cancel.
    pub async fn cancel_task(&self, caller: &Caller, id: TaskId, dry_run: bool) -> Result<Task, Refusal> {
        let task = self.task(caller, id).await?;
        cancellable(&task)?;
        if dry_run {
            return Ok(task);
        }
        let (now, actor) = (self.clock.wall(), caller.actor());
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(task) = tasks::get(tx, id).await? else { return Ok(Err(Refusal::not_found("task"))) };
                if let Err(refusal) = cancellable(&task) {
                    return Ok(Err(refusal));
                }
                if task.state == TaskState::Queued {
                    tasks::end_unassigned(tx, id, TaskState::Cancelled, "cancelled before it was assigned", now)
                        .await?;
                } else {
                    tasks::request_cancel(tx, id).await?;
                }
                let (object, scope) = (id.to_string(), task.scope.clone());
                let change = Change { action: "task.cancel", object, scope, detail: task.state.to_string() };
                audit::append(tx, &actor, now, change).await?;
                Ok(Ok(tasks::get(tx, id).await?.ok_or(StoreError::NotFound)?))
            })
        });
        let task = self.store.write(work).await??;
        self.queue.remove(&task);
        if let Some(attempt) = &task.attempt
            && let Some(session) = self.sessions.newest(attempt.delegate)
        {
            session.send(ToDelegate::Cancel { attempt: attempt.id, grace: CANCEL_GRACE });
        }
        self.announce(id);
        Ok(task)
    }

    /// Tells live streams that there is something new of a task.
    pub(crate) fn announce(&self, task: TaskId) {
        // Nobody may be listening, and that is all right.
        let _ = self.changes.send(task);
    }

    /// Sends a durable assignment to the session's queue.
    pub(crate) async fn send_assignment(&self, session: &Arc<Session>, task: &Task) {
        match self.assignment(task).await {
            Ok(assignment) => {
                lock(&session.attempts).insert(assignment.attempt);
                session.send(ToDelegate::Assign(Box::new(assignment)));
            }
            Err(error) => {
                tracing::error!(task = %task.id, %error, "an assignment cannot be read back; it will be lost")
            }
        }
    }

    async fn assignment(&self, task: &Task) -> anyhow::Result<Assignment> {
        let id = task.id;
        let attempt = task.attempt.as_ref().map(|attempt| attempt.id).ok_or(StoreError::NotFound)?;
        let (work, sealed) = self.store.read(move |conn| Box::pin(tasks::work(conn, id))).await?;
        let secrets = match sealed {
            Some(sealed) => SecretVar::decode_all(&self.keys.sealer.open(&secrets_place(id), &sealed)?)?,
            None => Vec::new(),
        };
        Ok(Assignment {
            attempt,
            task: id,
            timeout: task.timeout as u64,
            output_limit: task.output_limit,
            work: Work::decode(&work)?,
            secrets,
        })
    }

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
        let (reports, now) = (reports.to_vec(), self.clock.wall());
        let (token, delegate) = (session.token.id, session.delegate);
        let work = job(move |tx| {
            Box::pin(async move {
                let mut recorded = Vec::new();
                if !tokens::lock_shared(tx, token).await?.is_some_and(|status| status.is_live()) {
                    return Ok(recorded);
                }
                for report in reports {
                    let owner = tasks::by_attempt(tx, attempt_of(&report)).await?;
                    let own = |task: &Task| task.attempt.as_ref().is_some_and(|attempt| attempt.delegate == delegate);
                    let task = owner.filter(own);
                    recorded.push((task.as_ref().map(|task| task.id), record(tx, task, report, now).await?));
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
            let end = offset + bytes.len() as u64;
            if task.is_some_and(|task| !task.state.is_final() && end <= task.output_limit + MARK_MAX) {
                output::append(tx, attempt, offset, stream_word(stream), &bytes).await?;
            }
            Ok(Some(ToDelegate::OutputAck { attempt, offset: end }))
        }
        FromDelegate::Refused { attempt, reason } => {
            if task.is_some() {
                tasks::finish(tx, attempt, TaskState::Rejected, None, &bounded(&reason), now).await?;
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

fn secrets_place(task: TaskId) -> String {
    format!("tasks.sealed_secrets.{task}")
}

fn cancellable(task: &Task) -> Result<(), Refusal> {
    if task.state.is_final() {
        let detail = format!("the task has already ended as {}; there is nothing to cancel", task.state);
        return Err(Refusal::new(Code::TaskEnded, detail));
    }
    Ok(())
}
