//! The registry of live sessions, and the cut that ends them.
//!
//! A session owns no channel, timer or key object of its own: what others hand it waits in a queue behind its
//! mutex, and a stop reaches it through a signal that overtakes that queue.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use legation_model::{
    Millis, Name,
    ids::{AttemptId, BootId, DelegateId, SessionId, TokenId},
};
use legation_wire::{
    close::GoodbyeReason,
    message::{CAPACITY_MAX, Goodbye, ToDelegate},
};
use tokio::sync::Notify;

use crate::live::{LiveToken, lock};

/// Messages that may wait for one session: more than any capacity of assignments and cancels together.
pub const OUTBOX_MAX: usize = 4096;

/// One authenticated, encrypted connection whose delegate was admitted.
pub struct Session {
    /// Identity.
    pub id: SessionId,
    /// The token it proved.
    pub token: Arc<LiveToken>,
    /// Which delegate.
    pub delegate: DelegateId,
    /// Which start of it.
    pub boot: BootId,
    /// Which connection of that start.
    pub counter: u64,
    /// `DELEGATE_NAME`.
    pub name: Name,
    /// Its machine.
    pub host: Name,
    /// Claimed tags.
    pub tags: Vec<Name>,
    /// Kinds of work it can do.
    pub capabilities: Vec<String>,
    /// Tasks it runs at once.
    pub capacity: usize,
    /// Where it comes from.
    pub address: String,
    /// Position in the order of admissions; of two sessions of one delegate the later one counts.
    pub admission: u64,
    /// Boot-clock time of the last answered heartbeat.
    pub last_answered: AtomicI64,
    /// It takes no further work.
    pub draining: AtomicBool,
    /// Boot-clock time until which it is assigned nothing, because it could not start what it was assigned.
    pub resting_until: AtomicI64,
    /// Attempts it holds, as far as the Manager knows.
    pub attempts: Mutex<BTreeSet<AttemptId>>,
    outbox: Mutex<VecDeque<ToDelegate>>,
    signal: Notify,
    stop: OnceLock<Option<Goodbye>>,
    closed: AtomicBool,
    /// Told when a stop is set and when the socket is closed.
    changed: Notify,
}

/// Everything about a session that admission decides.
pub struct NewSession {
    /// See [`Session`].
    pub id: SessionId,
    /// See [`Session`].
    pub token: Arc<LiveToken>,
    /// See [`Session`].
    pub delegate: DelegateId,
    /// The first frame.
    pub hello: legation_wire::message::Hello,
    /// See [`Session`].
    pub address: String,
    /// See [`Session`].
    pub admission: u64,
    /// Boot-clock time of the admission, which counts as the first answered heartbeat.
    pub now: Millis,
}

impl Session {
    /// A session that nobody knows yet.
    pub fn new(new: NewSession) -> Self {
        let hello = new.hello;
        Self {
            id: new.id,
            token: new.token,
            delegate: new.delegate,
            boot: hello.boot,
            counter: hello.counter,
            name: hello.name,
            host: hello.host,
            tags: hello.tags,
            capabilities: hello.capabilities,
            capacity: hello.capacity.min(CAPACITY_MAX) as usize,
            address: new.address,
            admission: new.admission,
            last_answered: AtomicI64::new(new.now),
            draining: AtomicBool::new(false),
            resting_until: AtomicI64::new(Millis::MIN),
            attempts: Mutex::new(hello.attempts.iter().map(|held| held.attempt).collect()),
            outbox: Mutex::default(),
            signal: Notify::new(),
            stop: OnceLock::new(),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Queues a message; a session that is so far behind is stopped instead and may come back.
    pub fn send(&self, message: ToDelegate) {
        let mut outbox = lock(&self.outbox);
        if outbox.len() >= OUTBOX_MAX {
            drop(outbox);
            return self.stop(None);
        }
        outbox.push_back(message);
        drop(outbox);
        self.signal.notify_one();
    }

    /// The next queued message.
    pub fn next_outgoing(&self) -> Option<ToDelegate> {
        lock(&self.outbox).pop_front()
    }

    /// Waits until there may be something in the queue, or a stop.
    pub async fn signalled(&self) {
        self.signal.notified().await;
    }

    /// Tells the session to say this and close. The first stop counts; `None` closes without a word.
    pub fn stop(&self, goodbye: Option<Goodbye>) {
        let _ = self.stop.set(goodbye);
        self.signal.notify_one();
        self.changed.notify_waiters();
    }

    /// What it was told to say, once it was told to stop.
    pub fn stopped(&self) -> Option<&Option<Goodbye>> {
        self.stop.get()
    }

    /// Waits for the stop; ready at once when it came already.
    pub async fn stopping(&self) -> &Option<Goodbye> {
        loop {
            let notified = self.changed.notified();
            if let Some(goodbye) = self.stop.get() {
                return goodbye;
            }
            notified.await;
        }
    }

    /// Marks the socket as closed; called by the session's own task, last.
    pub fn mark_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until the socket is closed.
    pub async fn closed(&self) {
        loop {
            let notified = self.changed.notified();
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    /// Room for further attempts.
    pub fn free(&self) -> usize {
        self.capacity.saturating_sub(lock(&self.attempts).len())
    }
}

/// All live sessions.
#[derive(Default)]
pub struct Sessions(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    all: HashMap<SessionId, Arc<Session>>,
    newest: HashMap<DelegateId, Arc<Session>>,
    /// Boot-clock time of the last answer each delegate had, which outlives its session.
    answered: HashMap<DelegateId, Millis>,
}

impl Sessions {
    /// Registers a session and stops an older one of the same delegate.
    pub fn register(&self, session: &Arc<Session>) {
        let mut registry = lock(&self.0);
        registry.all.insert(session.id, Arc::clone(session));
        registry.answered.insert(session.delegate, session.last_answered.load(Ordering::Relaxed));
        let older = match registry.newest.get(&session.delegate) {
            Some(newest) if newest.admission > session.admission => Some(Arc::clone(session)),
            _ => registry.newest.insert(session.delegate, Arc::clone(session)),
        };
        drop(registry);
        if let Some(older) = older {
            older.stop(Some(superseded()));
        }
    }

    /// Forgets a closed session; its last answer is kept.
    pub fn unregister(&self, session: &Session) {
        let mut registry = lock(&self.0);
        registry.all.remove(&session.id);
        let answered = session.last_answered.load(Ordering::Relaxed);
        registry.answered.entry(session.delegate).and_modify(|at| *at = answered.max(*at)).or_insert(answered);
        if registry.newest.get(&session.delegate).is_some_and(|newest| newest.id == session.id) {
            registry.newest.remove(&session.delegate);
        }
    }

    /// The session that counts for a delegate.
    pub fn newest(&self, delegate: DelegateId) -> Option<Arc<Session>> {
        lock(&self.0).newest.get(&delegate).cloned()
    }

    /// The sessions that count.
    pub fn current(&self) -> Vec<Arc<Session>> {
        lock(&self.0).newest.values().cloned().collect()
    }

    /// Every live session, superseded ones that are not closed yet included.
    pub fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.0).all.values().cloned().collect()
    }

    /// Every live session of a token.
    pub fn of_token(&self, token: TokenId) -> Vec<Arc<Session>> {
        lock(&self.0).all.values().filter(|session| session.token.id == token).cloned().collect()
    }

    /// When a delegate's last heartbeat was answered, in this process's life.
    pub fn last_answered(&self, delegate: DelegateId) -> Option<Millis> {
        let registry = lock(&self.0);
        let live = registry.newest.get(&delegate).map(|session| session.last_answered.load(Ordering::Relaxed));
        live.into_iter().chain(registry.answered.get(&delegate).copied()).max()
    }

    /// Forgets answers older than `before`, whose leases have long ended.
    pub fn forget_answers(&self, before: Millis) {
        lock(&self.0).answered.retain(|_, at| *at >= before);
    }

    /// Signals every session of a token to stop, without waiting.
    pub fn signal_token(&self, token: TokenId, goodbye: Option<&Goodbye>) -> Vec<Arc<Session>> {
        let sessions = self.of_token(token);
        for session in &sessions {
            session.stop(goodbye.cloned());
        }
        sessions
    }
}

fn superseded() -> Goodbye {
    Goodbye::new(GoodbyeReason::Superseded, "a newer connection of this delegate took over")
}
