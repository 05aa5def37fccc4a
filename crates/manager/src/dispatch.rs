//! The dispatcher: queued tasks meet delegates with room.
//!
//! One loop that takes no input: it looks at the queue and at the live sessions, assigns what it can, and is both
//! nudged and timed. An assignment is durable before it is sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use legation_model::{
    Entropy, Millis,
    ids::{AttemptId, TaskId, TokenId},
    task::{Attempt, Task, TaskState},
    token::TokenStatus,
};
use legation_store::{
    StoreError,
    attempts::{self, Assign, Assigned, Work},
    job, tasks, tokens,
};
use legation_wire::message::ToDelegate;
use tokio::sync::Notify;

use crate::{
    Manager, admission::serves, clock::JumpGuard, live::lock, session::Session, sessions::Sessions, tasks::CANCEL_GRACE,
};

/// How often the dispatcher looks even if nobody nudged it.
const EVERY: Duration = Duration::from_millis(500);
/// How long a session is assigned nothing after it refused work for a reason that is not the task, in
/// milliseconds: what hinders it may last, and the same task would come back to it at once.
pub(crate) const REST: Millis = 5_000;
/// Assignments written at once; more wait for the next pass.
pub const BATCH_MAX: usize = 256;
/// Kinds of tasks for which one pass looks in vain through all sessions: with ten thousand of them, tens of
/// milliseconds.
pub const VAIN_MAX: usize = 256;
/// Tasks that may wait: beyond it submissions are refused until some have gone.
pub const QUEUED_MAX: usize = 100_000;

/// Tasks that wait, oldest first; a copy of the store's queued tasks.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<BTreeMap<(Millis, TaskId), Arc<Task>>>,
    /// Where the next search among the sessions begins.
    turn: AtomicUsize,
    /// Where the next pass over the tasks begins, when the last one did not come to their end.
    resume: Mutex<Option<(Millis, TaskId)>>,
    nudged: Notify,
    /// The store may have queued tasks that are not here: some were put back.
    stale: AtomicBool,
}

impl Queue {
    /// Adds a task that is durable.
    pub fn add(&self, task: Task) {
        lock(&self.waiting).insert((task.created_at, task.id), Arc::new(task));
        self.nudge();
    }

    /// Removes a task, if it waits.
    pub fn remove(&self, task: &Task) {
        lock(&self.waiting).remove(&(task.created_at, task.id));
    }

    /// Something changed that may let a task go: room, a delegate, a task.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Tasks may have been put back in the store: look there before the next assignment.
    pub fn reload(&self) {
        self.stale.store(true, Ordering::Release);
        self.nudge();
    }

    /// What waits.
    pub fn snapshot(&self) -> Vec<Arc<Task>> {
        lock(&self.waiting).values().cloned().collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One task and the session that will run it.
pub struct Match {
    /// What is to be done.
    pub task: Arc<Task>,
    /// By whom.
    pub session: Arc<Session>,
    /// The try that it would be.
    pub attempt: Attempt,
}

impl Match {
    /// Gives back the room that it took up.
    pub fn release(&self) {
        lock(&self.session.attempts).remove(&self.attempt.id);
    }
}

impl Manager {
    /// Dispatches until the Manager stops.
    pub(crate) async fn dispatch_loop(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.queue.nudged.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            self.take_back().await;
            while self.dispatch().await == BATCH_MAX {}
        }
    }

    /// Takes tasks that were put back in the store into the queue.
    async fn take_back(&self) {
        if !self.queue.stale.swap(false, Ordering::AcqRel) {
            return;
        }
        match self.store.read(|conn| Box::pin(tasks::queued(conn))).await {
            Ok(queued) => queued.into_iter().for_each(|task| self.queue.add(task)),
            Err(_) => self.queue.stale.store(true, Ordering::Release),
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

impl Queue {
    /// Pairs waiting tasks, oldest first, with a delegate that matches, and takes up its room.
    pub fn match_tasks(&self, sessions: &Sessions, clock: &JumpGuard, entropy: &dyn Entropy) -> Vec<Match> {
        let waiting = lock(&self.waiting);
        let (mut matches, mut in_vain) = (Vec::new(), HashSet::new());
        let from = lock(&self.resume).take().unwrap_or((Millis::MIN, TaskId([0; 16])));
        for (key, task) in waiting.range(from..).chain(waiting.range(..from)) {
            // What nobody has room for now, nobody has for another of the same kind.
            let shape = (&task.scope, task.kind, &task.selectors);
            if in_vain.contains(&shape) {
                continue;
            }
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let picked = sessions.pick(turn, |session| takes_work(session, clock) && fits(session, task));
            let Some(session) = picked else {
                in_vain.insert(shape);
                if in_vain.len() == VAIN_MAX {
                    // The next pass goes on from here, so that those behind have their turn; not at once, or a queue of
                    // tasks that nobody takes would keep a processor busy.
                    *lock(&self.resume) = Some(*key);
                    break;
                }
                continue;
            };
            let attempt = Attempt {
                id: AttemptId::random(entropy),
                delegate: session.delegate,
                boot: session.boot,
                token: session.token.id,
            };
            lock(&session.attempts).insert(attempt.id, None);
            matches.push(Match { task: Arc::clone(task), session, attempt });
            if matches.len() == BATCH_MAX {
                break;
            }
        }
        matches
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
        let in_scope: Vec<_> = sessions.iter().filter(|session| serves(&session.token.scope, &task.scope)).collect();
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
        let incapable = in_scope.iter().filter(|session| !capable(session, task)).count();
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

fn takes_work(session: &Session, clock: &JumpGuard) -> bool {
    session.stopped().is_none()
        && session.token.gate.is_open()
        && !session.draining.load(Ordering::Relaxed)
        && !rests(session, clock)
}

fn rests(session: &Session, clock: &JumpGuard) -> bool {
    clock.boot() < session.resting_until.load(Ordering::Relaxed)
}

fn fits(session: &Session, task: &Task) -> bool {
    serves(&session.token.scope, &task.scope)
        && capable(session, task)
        && task.selectors.iter().all(|selector| selects(session, selector))
}

fn capable(session: &Session, task: &Task) -> bool {
    session.can(task.kind)
}

fn selects(session: &Session, selector: &legation_model::delegate::Selector) -> bool {
    selector.matches(&session.name, &session.host, &session.tags, &session.token.limits.pinned_tags)
}
