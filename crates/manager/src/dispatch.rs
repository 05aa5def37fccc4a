//! The dispatcher: queued tasks meet delegates with room.
//!
//! One loop that takes no input: it looks at the queue and at the live sessions, assigns what it can, and is both
//! nudged and timed. An assignment is durable before it is sent.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use legation_model::{
    Millis,
    ids::{TaskId, TokenId},
    task::{Attempt, Task, TaskState},
    token::TokenStatus,
};
use legation_store::{
    StoreError,
    attempts::{self, Assign, Assigned, Work},
    job, tasks, tokens,
};
use legation_wire::message::ToDelegate;

use crate::{
    Manager,
    queue::{BATCH_MAX, Match, rests, selects},
    tasks::CANCEL_GRACE,
};

/// How often the dispatcher looks even if nobody nudged it.
const EVERY: Duration = Duration::from_millis(500);
/// How long a session is assigned nothing after it refused work for a reason that is not the task, in
/// milliseconds: what hinders it may last, and the same task would come back to it at once.
pub(crate) const REST: Millis = 5_000;

impl Manager {
    /// Dispatches until the Manager stops.
    pub(crate) async fn dispatch_loop(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.queue.nudged() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            self.take_back().await;
            while self.dispatch().await == BATCH_MAX {}
        }
    }

    /// Takes tasks that were put back in the store into the queue.
    async fn take_back(&self) {
        if !self.queue.take_stale() {
            return;
        }
        match self.store.read(|conn| Box::pin(tasks::queued(conn))).await {
            Ok(queued) => queued.into_iter().for_each(|task| self.queue.add(task)),
            Err(_) => self.queue.set_stale(),
        }
    }

    /// Assigns what can be assigned now, at most a batch; says how many it could. An effect of each session's token.
    async fn dispatch(&self) -> usize {
        if self.store.failing() {
            // What cannot be stored is not tried on every session; the sweep's own writes find out when it is over.
            return 0;
        }
        let (mut matches, mut entered) = (Vec::new(), Vec::new());
        for matched in self.queue.match_tasks(&self.sessions, &self.clock, &*self.entropy) {
            match matched.session.token.enter(&self.clock) {
                Ok(inside) => {
                    entered.push(inside);
                    matches.push(matched);
                }
                Err(_) => matched.release(),
            }
        }
        if matches.is_empty() {
            return 0;
        }
        match self.store_assignments(&matches).await {
            Ok(assigned) => {
                self.metrics.assigned.inc_by(assigned.len() as u64);
                self.send_assignments(matches, assigned).await
            }
            Err(error) => {
                tracing::warn!(tasks = matches.len(), %error, "it is not known whether assignments were stored");
                for matched in matches {
                    // The delegate's next Hello is compared with the store, which settles it either way.
                    matched.session.stop(None);
                    matched.release();
                }
                self.queue.reload();
                0
            }
        }
    }
}

impl Manager {
    async fn store_assignments(&self, matches: &[Match]) -> Result<Vec<Assigned>, StoreError> {
        let now = self.clock.wall();
        let wanted: Vec<(TaskId, Attempt, u64)> =
            matches.iter().map(|matched| (matched.task.id, matched.attempt.clone(), matched.session.counter)).collect();
        let work = job(move |tx| {
            Box::pin(async move {
                let tokens: BTreeSet<TokenId> = wanted.iter().map(|(_, attempt, _)| attempt.token).collect();
                let statuses = tokens::lock_shared_all(tx, &tokens).await?;
                let live = |token: &TokenId| statuses.get(token) == Some(&TokenStatus::Active);
                let wanted: Vec<_> = wanted
                    .iter()
                    .filter(|(_, attempt, _)| live(&attempt.token))
                    .map(|(task, attempt, counter)| Assign { task: *task, attempt, counter: *counter })
                    .collect();
                attempts::assign(tx, &wanted, now).await
            })
        });
        self.store.write(work).await
    }

    /// Sends what is durable, and gives back what the store would not assign; says how many were sent.
    async fn send_assignments(&self, matches: Vec<Match>, assigned: Vec<Assigned>) -> usize {
        let mut stored: HashMap<TaskId, Work> = assigned.into_iter().map(|one| (one.task, one.work)).collect();
        let mut sent = Vec::new();
        for matched in matches {
            let Some(work) = stored.remove(&matched.task.id) else {
                matched.release();
                self.store_moved_on(&matched.task).await;
                continue;
            };
            self.queue.remove(&matched.task);
            match self.assignment(&matched.task, matched.attempt.id, &work) {
                Ok(assignment) => matched.session.assign(assignment),
                Err(error) => self.cannot_send(&matched.session, matched.task.id, &error),
            }
            self.announce(matched.task.id);
            sent.push(matched);
        }
        self.repeat_cancels(&sent).await;
        sent.len()
    }

    /// A cancel that came between the transaction and the sending found no attempt to end.
    async fn repeat_cancels(&self, sent: &[Match]) {
        let ids: Vec<TaskId> = sent.iter().map(|matched| matched.task.id).collect();
        let find = job(move |conn| Box::pin(async move { tasks::cancel_requested(conn, &ids).await }));
        let Ok(wanted) = self.store.read(find).await else { return };
        for matched in sent.iter().filter(|matched| wanted.contains(&matched.task.id)) {
            matched.session.send(ToDelegate::Cancel { attempt: matched.attempt.id, grace: CANCEL_GRACE });
        }
    }

    /// The store would not assign: drop the task from the queue unless it still waits there.
    async fn store_moved_on(&self, task: &Task) {
        let id = task.id;
        let stored = self.store.read(move |conn| Box::pin(tasks::get(conn, id))).await;
        if let Ok(stored) = stored
            && stored.is_none_or(|stored| stored.state != TaskState::Queued)
        {
            self.queue.remove(task);
        }
    }

    /// Why a task still waits: which condition excludes whom. For its rejection and for people.
    pub(crate) fn explain_waiting(&self, task: &Task) -> String {
        let sessions = self.sessions.current();
        let in_scope: Vec<_> = sessions.iter().filter(|session| session.token.scope.contains(&task.scope)).collect();
        if in_scope.is_empty() {
            return format!("no delegate that serves scope {} is connected", task.scope);
        }
        let mut excluded = Vec::new();
        for selector in &task.selectors {
            let without = in_scope.iter().filter(|session| !selects(session, selector)).count();
            if without > 0 {
                excluded.push(format!("selector {selector} excludes {without} of {}", in_scope.len()));
            }
        }
        let incapable = in_scope.iter().filter(|session| !session.can(task.kind)).count();
        if incapable > 0 {
            excluded.push(format!("{incapable} cannot run {} tasks", task.kind));
        }
        let full = in_scope.iter().filter(|session| session.free() == 0).count();
        if full > 0 {
            excluded.push(format!("{full} had no room"));
        }
        let resting = in_scope.iter().filter(|session| rests(session, &self.clock)).count();
        if resting > 0 {
            excluded.push(format!("{resting} could not start a task a moment ago"));
        }
        if excluded.is_empty() {
            return "delegates matched only in passing or were draining".to_owned();
        }
        excluded.join("; ")
    }
}
