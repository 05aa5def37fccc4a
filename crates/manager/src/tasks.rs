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
    Page, Paged, StoreError, Tx, attempts, job,
    tasks::{self, New, TaskFilter},
};
use legation_wire::message::{Assignment, SecretVar, ToDelegate, Work};
use serde_json::json;

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor, Change},
    error::Refusal,
    idempotency::{self, Idempotency},
    queue::QUEUED_MAX,
    scopes::KnownScopes,
    session::Session,
};

/// How long a cancelled task may clean up before it is killed: 10 s.
pub const CANCEL_GRACE: u64 = 10_000;

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

/// Submissions in one transaction. Each has a call that waits for it, which bounds them.
const SUBMISSIONS_MAX: usize = 128;

/// A task on its way into the store.
#[derive(Clone)]
pub(crate) struct Submission {
    new: Arc<New>,
    actor: Actor,
    once: Option<Idempotency>,
}

/// What became of it: it is new, or was submitted before under the same key.
pub(crate) type Submitted = Result<idempotency::Made<()>, Refusal>;

async fn submit_all(tx: &mut Tx, submissions: Vec<Submission>) -> Result<Vec<Submitted>, StoreError> {
    let known = KnownScopes::read(tx, submissions.iter().map(|one| one.new.task.scope.clone()).collect()).await?;
    let (mut fresh, mut submitted) = (Vec::new(), Vec::new());
    for Submission { new, actor, once } in submissions {
        if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
            submitted.push(before.map(idempotency::Made::Replayed));
            continue;
        }
        if let Err(refusal) = known.require(&new.task.scope) {
            submitted.push(Err(refusal));
            continue;
        }
        idempotency::keep(tx, &actor, once.as_ref(), &new.task.id.to_string(), new.task.created_at).await?;
        submitted.push(Ok(idempotency::Made::Fresh(())));
        fresh.push(Arc::unwrap_or_clone(new));
    }
    tasks::insert(tx, &fresh).await?;
    Ok(submitted)
}

impl Manager {
    /// Accepts a task; it is durable when this returns.
    ///
    /// # Errors
    /// `not_found` for an unknown scope, `idempotency_mismatch`, `store_unavailable`.
    pub async fn submit_task(&self, caller: &Caller, new: NewTask, once: Option<Idempotency>) -> Result<Task, Refusal> {
        caller.require_sight(&new.scope, "scope")?;
        let task = self.queued(&new, caller);
        if self.queue.len() >= QUEUED_MAX {
            let detail = format!("{QUEUED_MAX} tasks wait for a delegate, and no more may");
            return Err(Refusal::new(Code::Overloaded, detail));
        }
        let work = new.work.encode().map_err(|error| Problem::invalid("work", &error.to_string(), "send less"))?;
        let sealed = self.seal_secrets(task.id, &new.secrets);
        let new = New { task: task.clone(), work, sealed_secrets: sealed };
        let submission = Submission { new: Arc::new(new), actor: caller.actor(), once };
        match self.submissions.ask(submission).await?? {
            idempotency::Made::Fresh(()) => Ok(task),
            idempotency::Made::Replayed(id) => {
                self.stored_task(id.parse().map_err(|_| Refusal::not_found("task"))?).await
            }
        }
    }

    /// Writes submissions until the Manager stops.
    pub(crate) async fn submission_loop(self: Arc<Self>) {
        let write = |submissions: Vec<Submission>| {
            let this = Arc::clone(&self);
            async move { this.write_submissions(submissions).await }
        };
        self.submissions.serve(&self.stopping, SUBMISSIONS_MAX, |_| 1, write).await;
    }

    /// What is stored waits in the queue from here on, also when whoever submitted it has gone.
    async fn write_submissions(&self, submissions: Vec<Submission>) -> Result<Vec<Submitted>, StoreError> {
        let new: Vec<_> = submissions.iter().map(|submission| Arc::clone(&submission.new)).collect();
        let work = job(move |tx| Box::pin(async move { submit_all(tx, submissions).await }));
        let submitted = self.store.write(work).await.inspect_err(|_| {
            // The store may have taken them all the same; then they must not be forgotten here.
            self.queue.reload();
        })?;
        for (new, submitted) in new.iter().zip(&submitted) {
            if matches!(submitted, Ok(idempotency::Made::Fresh(()))) {
                self.queue.add(new.task.clone());
            }
        }
        Ok(submitted)
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
        scope: Option<Scope>,
        filter: TaskFilter,
        page: Page,
    ) -> Result<Paged<Task>, Refusal> {
        let within = caller.confine(scope)?;
        Ok(self
            .store
            .read(move |conn| Box::pin(async move { tasks::list(conn, &within, &filter, &page).await }))
            .await?)
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
                let cancelled = tasks::get(tx, id).await?.ok_or(StoreError::NotFound)?;
                let shown =
                    |task: &Task| json!({"state": task.state.as_str(), "cancel_requested": task.cancel_requested});
                let change = Change::new("task.cancel", id, task.scope.clone());
                audit::append(tx, &actor, now, change.between(shown(&task), shown(&cancelled))).await?;
                Ok(Ok(cancelled))
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
        match self.stored_assignment(task).await {
            Ok(assignment) => {
                let attempt = assignment.attempt;
                session.assign(assignment);
                // A cancel that came between the assignment's transaction and here found no attempt to end.
                if self.stored_task(task.id).await.is_ok_and(|task| task.cancel_requested) {
                    session.send(ToDelegate::Cancel { attempt, grace: CANCEL_GRACE });
                }
            }
            Err(error) => self.cannot_send(session, task.id, &error),
        }
    }

    /// A stored assignment that cannot be read is sent when the delegate connects anew.
    pub(crate) fn cannot_send(&self, session: &Session, task: TaskId, error: &anyhow::Error) {
        tracing::warn!(%task, %error, "an assignment cannot be read back; it is sent after a reconnect");
        session.stop(None);
    }

    async fn stored_assignment(&self, task: &Task) -> anyhow::Result<Assignment> {
        let id = task.id;
        let attempt = task.attempt.as_ref().map(|attempt| attempt.id).ok_or(StoreError::NotFound)?;
        let work = self.store.read(move |conn| Box::pin(attempts::work(conn, id))).await?;
        self.assignment(task, attempt, &work)
    }

    /// What the delegate is sent.
    pub(crate) fn assignment(
        &self,
        task: &Task,
        attempt: AttemptId,
        (work, sealed): &attempts::Work,
    ) -> anyhow::Result<Assignment> {
        let secrets = match sealed {
            Some(sealed) => SecretVar::decode_all(&self.keys.sealer.open(&secrets_place(task.id), sealed)?)?,
            None => Vec::new(),
        };
        Ok(Assignment {
            attempt,
            task: task.id,
            timeout: task.timeout as u64,
            output_limit: task.output_limit,
            work: Work::decode(work)?,
            secrets,
        })
    }
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
