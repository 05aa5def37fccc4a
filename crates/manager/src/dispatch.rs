//! The dispatcher: queued tasks meet delegates with room.
//!
//! One loop that takes no input: it looks at the queue and at the live sessions, assigns what it can, and is both
//! nudged and timed. An assignment is durable before it is sent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use legation_model::{
    Millis,
    ids::{AttemptId, SessionId, TaskId},
    task::{Attempt, Task, TaskState},
    token::TokenStatus,
};
use legation_store::{StoreError, job, tasks, tokens};
use tokio::sync::Notify;

use crate::{Manager, admission::serves, live::lock, sessions::Session};

/// How often the dispatcher looks even if nobody nudged it.
const EVERY: Duration = Duration::from_millis(500);
/// How long a session is assigned nothing after it refused work for a reason that is not the task, in
/// milliseconds: what hinders it may last, and the same task would come back to it at once.
pub(crate) const REST: Millis = 5_000;
/// Assignments written at once; more wait for the next pass.
const BATCH_MAX: usize = 256;

/// Tasks that wait, oldest first; a copy of the store's queued tasks.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<BTreeMap<(Millis, TaskId), Arc<Task>>>,
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
struct Match {
    task: Arc<Task>,
    session: Arc<Session>,
    attempt: Attempt,
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

    /// Assigns what can be assigned now, at most a batch; says how many it could.
    async fn dispatch(&self) -> usize {
        let matches = self.match_tasks();
        let assigned = futures_util::future::join_all(matches.into_iter().map(|matched| self.assign(matched))).await;
        let count = assigned.into_iter().filter(|assigned| *assigned).count();
        self.metrics.assigned.inc_by(count as u64);
        count
    }

    /// Pairs waiting tasks with the least busy delegate that matches, and takes up its room.
    fn match_tasks(&self) -> Vec<Match> {
        let waiting = self.queue.snapshot();
        if waiting.is_empty() {
            return Vec::new();
        }
        let mut rooms: HashMap<SessionId, (Arc<Session>, usize)> = HashMap::new();
        for session in self.sessions.current().into_iter().filter(|session| self.takes_work(session)) {
            let free = session.free();
            rooms.insert(session.id, (session, free));
        }
        let mut matches = Vec::new();
        for task in waiting {
            let candidates = rooms.values_mut().filter(|(session, free)| *free > 0 && fits(session, &task));
            let Some((session, free)) = candidates.max_by_key(|(session, free)| (*free, session.id)) else { continue };
            *free -= 1;
            let attempt = Attempt {
                id: AttemptId::random(&*self.entropy),
                delegate: session.delegate,
                boot: session.boot,
                token: session.token.id,
            };
            lock(&session.attempts).insert(attempt.id);
            matches.push(Match { task, session: Arc::clone(session), attempt });
            if matches.len() == BATCH_MAX {
                break;
            }
        }
        matches
    }

    fn takes_work(&self, session: &Session) -> bool {
        session.stopped().is_none()
            && session.token.gate.is_open()
            && !session.draining.load(Ordering::Relaxed)
            && !self.rests(session)
    }

    fn rests(&self, session: &Session) -> bool {
        self.clock.boot() < session.resting_until.load(Ordering::Relaxed)
    }

    /// Makes one assignment durable, then sends it. An effect of the session's token.
    async fn assign(&self, matched: Match) -> bool {
        let Match { task, session, attempt } = matched;
        let attempt_id = attempt.id;
        let assigned = match session.token.enter(&self.clock) {
            Ok(_entered) => match self.store_assignment(&task, &attempt, session.counter).await {
                Ok(true) => {
                    self.queue.remove(&task);
                    let task = Task { state: TaskState::Assigned, attempt: Some(attempt), ..(*task).clone() };
                    self.send_assignment(&session, &task).await;
                    self.announce(task.id);
                    return true;
                }
                Ok(false) => self.store_moved_on(&task).await,
                Err(StoreError::Refused(_)) => self.store_moved_on(&task).await,
                Err(error) => {
                    tracing::warn!(task = %task.id, %error, "it is not known whether an assignment was stored");
                    // The delegate's next Hello is compared with the store, which settles it either way.
                    session.stop(None);
                    self.queue.reload();
                    false
                }
            },
            Err(_) => false,
        };
        lock(&session.attempts).remove(&attempt_id);
        assigned
    }

    async fn store_assignment(&self, task: &Task, attempt: &Attempt, counter: u64) -> Result<bool, StoreError> {
        let (id, attempt, now) = (task.id, attempt.clone(), self.clock.wall());
        let work = job(move |tx| {
            Box::pin(async move {
                if tokens::lock_shared(tx, attempt.token).await? != Some(TokenStatus::Active) {
                    return Ok(false);
                }
                tasks::assign(tx, id, &attempt, counter, now).await.map(|()| true)
            })
        });
        self.store.write(work).await
    }

    /// The store would not assign: drop the task from the queue unless it still waits there.
    async fn store_moved_on(&self, task: &Task) -> bool {
        let id = task.id;
        let stored = self.store.read(move |conn| Box::pin(tasks::get(conn, id))).await;
        if let Ok(stored) = stored
            && stored.is_none_or(|stored| stored.state != TaskState::Queued)
        {
            self.queue.remove(task);
        }
        false
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
        let resting = in_scope.iter().filter(|session| self.rests(session)).count();
        if resting > 0 {
            excluded.push(format!("{resting} could not start a task a moment ago"));
        }
        if excluded.is_empty() {
            return "delegates matched only in passing or were draining".to_owned();
        }
        excluded.join("; ")
    }
}

fn fits(session: &Session, task: &Task) -> bool {
    serves(&session.token.scope, &task.scope)
        && capable(session, task)
        && task.selectors.iter().all(|selector| selects(session, selector))
}

fn capable(session: &Session, task: &Task) -> bool {
    session.capabilities.iter().any(|kind| kind == task.kind.as_str())
}

fn selects(session: &Session, selector: &legation_model::delegate::Selector) -> bool {
    selector.matches(&session.name, &session.host, &session.tags, &session.token.limits.pinned_tags)
}
