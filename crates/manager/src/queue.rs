//! Tasks that wait, and which session each could go to.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use legation_model::{
    Entropy, Millis,
    delegate::Selector,
    ids::{AttemptId, TaskId},
    task::{Attempt, Task},
};
use tokio::sync::Notify;

use crate::{clock::JumpGuard, lock::lock, session::Session, sessions::Sessions};

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
        self.set_stale();
        self.nudge();
    }

    /// As [`Queue::reload`], at the next look.
    pub(crate) fn set_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Whether the store must be looked at; whoever asks does that.
    pub(crate) fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::AcqRel)
    }

    /// Waits for the next nudge.
    pub(crate) async fn nudged(&self) {
        self.nudged.notified().await;
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

fn takes_work(session: &Session, clock: &JumpGuard) -> bool {
    session.stopped().is_none()
        && session.token.gate.is_open()
        && !session.token.is_draining()
        && !session.draining.load(Ordering::Relaxed)
        && !rests(session, clock)
}

pub(crate) fn rests(session: &Session, clock: &JumpGuard) -> bool {
    clock.boot() < session.resting_until.load(Ordering::Relaxed)
}

pub(crate) fn fits(session: &Session, task: &Task) -> bool {
    session.token.scope.contains(&task.scope)
        && session.can(task.kind)
        && task.selectors.iter().all(|selector| selects(session, selector))
}

pub(crate) fn selects(session: &Session, selector: &Selector) -> bool {
    selector.claimed_by(&session.name, &session.host, &session.tags) || session.token.pins(selector.tag())
}
