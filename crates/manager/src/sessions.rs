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
    task::Waker,
};

use futures_util::task::AtomicWaker;

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
/// How many that suit are compared before one is picked: enough to pass by busy ones, and independent of how many
/// there are.
const CHOICES: usize = 8;

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
    /// Something was put into the outbox since the session's task looked.
    signal: AtomicBool,
    stop: OnceLock<Option<Goodbye>>,
    /// Wakes the session's task, for a signal or a stop.
    waker: AtomicWaker,
    closed: AtomicBool,
    /// Told when the socket is closed.
    gone: Notify,
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
            admission: new.admission,
            last_answered: AtomicI64::new(new.now),
            draining: AtomicBool::new(false),
            resting_until: AtomicI64::new(Millis::MIN),
            attempts: Mutex::new(hello.attempts.iter().map(|held| held.attempt).collect()),
            outbox: Mutex::default(),
            signal: AtomicBool::new(false),
            stop: OnceLock::new(),
            waker: AtomicWaker::new(),
            closed: AtomicBool::new(false),
            gone: Notify::new(),
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
        self.signal.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The next queued message.
    pub fn next_outgoing(&self) -> Option<ToDelegate> {
        lock(&self.outbox).pop_front()
    }

    /// Has the session's task, and no other, woken by the next signal or stop. It must look at both afterwards.
    pub fn wake_on_signal(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether there may be something in the queue that was not there when this was asked last.
    pub fn take_signal(&self) -> bool {
        self.signal.swap(false, Ordering::AcqRel)
    }

    /// Tells the session to say this and close. The first stop counts; `None` closes without a word.
    pub fn stop(&self, goodbye: Option<Goodbye>) {
        let _ = self.stop.set(goodbye);
        self.waker.wake();
    }

    /// What it was told to say, once it was told to stop.
    pub fn stopped(&self) -> Option<&Option<Goodbye>> {
        self.stop.get()
    }

    /// Marks the socket as closed; called by the session's own task, last.
    pub fn mark_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.gone.notify_waiters();
    }

    /// Waits until the socket is closed.
    pub async fn closed(&self) {
        loop {
            let notified = self.gone.notified();
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
    /// The sessions that count, one for each delegate, in no order.
    current: Vec<Arc<Session>>,
    /// Where in `current` a delegate's is.
    newest: HashMap<DelegateId, usize>,
    /// Boot-clock time of the last answer each delegate had, which outlives its session.
    answered: HashMap<DelegateId, Millis>,
}

impl Registry {
    fn of(&self, delegate: DelegateId) -> Option<&Arc<Session>> {
        self.newest.get(&delegate).map(|at| &self.current[*at])
    }
}

impl Sessions {
    /// Registers a session and stops an older one of the same delegate.
    pub fn register(&self, session: &Arc<Session>) {
        let mut registry = lock(&self.0);
        registry.all.insert(session.id, Arc::clone(session));
        registry.answered.insert(session.delegate, session.last_answered.load(Ordering::Relaxed));
        let older = match registry.newest.get(&session.delegate).copied() {
            Some(at) if registry.current[at].admission > session.admission => Some(Arc::clone(session)),
            Some(at) => Some(std::mem::replace(&mut registry.current[at], Arc::clone(session))),
            None => {
                let at = registry.current.len();
                registry.newest.insert(session.delegate, at);
                registry.current.push(Arc::clone(session));
                None
            }
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
        if let Some(at) = registry.newest.get(&session.delegate).copied()
            && registry.current[at].id == session.id
        {
            registry.newest.remove(&session.delegate);
            registry.current.swap_remove(at);
            if let Some(moved) = registry.current.get(at).map(|moved| moved.delegate) {
                registry.newest.insert(moved, at);
            }
        }
    }

    /// The session that counts for a delegate.
    pub fn newest(&self, delegate: DelegateId) -> Option<Arc<Session>> {
        lock(&self.0).of(delegate).cloned()
    }

    /// The sessions that count.
    pub fn current(&self) -> Vec<Arc<Session>> {
        lock(&self.0).current.clone()
    }

    /// How many count.
    pub fn len(&self) -> usize {
        lock(&self.0).current.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of the first few that suit and have room, the one with the most room; the search begins at another place each
    /// `turn`, so that all have theirs.
    pub fn pick(&self, turn: usize, suits: impl Fn(&Session) -> bool) -> Option<Arc<Session>> {
        let registry = lock(&self.0);
        let (behind, before) = registry.current.split_at(turn % registry.current.len().max(1));
        let suiting = before.iter().chain(behind).filter(|session| suits(session));
        let roomy = suiting.map(|session| (session.free(), session)).filter(|(free, _)| *free > 0);
        roomy.take(CHOICES).max_by_key(|(free, _)| *free).map(|(_, session)| Arc::clone(session))
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
        let live = registry.of(delegate).map(|session| session.last_answered.load(Ordering::Relaxed));
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
