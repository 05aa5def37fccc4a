//! The registry of live sessions, and the cut that ends those of a token.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
};

use legation_model::{
    Millis,
    ids::{DelegateId, SessionId, TokenId},
};
use legation_wire::{close::GoodbyeReason, message::Goodbye};

use crate::{Manager, lock::lock, parted::PartedLinks, session::Session};

/// How many that suit are compared before one is picked: enough to pass by busy ones, and independent of how many
/// there are.
const CHOICES: usize = 8;

/// Sessions that are cut before the thread lets others have its processor, if any want it: half a millisecond's worth.
const CUT_TOGETHER: usize = 32;

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

    /// Tells every session of a token to stop, without waiting.
    pub fn signal_token(&self, token: TokenId, goodbye: Option<Goodbye>) -> Vec<Arc<Session>> {
        let (sessions, goodbye) = (self.of_token(token), goodbye.map(Arc::new));
        for session in &sessions {
            session.stop_with(goodbye.clone());
        }
        sessions
    }

    /// Says goodbye to every session of a token and closes it, one after the other, on this thread: ten thousand take
    /// about two tenths of a second. Those that cannot be closed here are told to stop.
    pub(crate) fn cut_token(
        &self,
        token: TokenId,
        goodbye: &Arc<Goodbye>,
        parted: &PartedLinks,
        now: Millis,
    ) -> Vec<Arc<Session>> {
        let sessions = self.of_token(token);
        for portion in sessions.chunks(CUT_TOGETHER) {
            for session in portion.iter().filter(|session| session.cut(goodbye, parted, now)) {
                self.unregister(session);
                session.mark_closed();
            }
            std::thread::yield_now();
        }
        // Only now: whoever is woken takes a processor from the cut.
        sessions.iter().for_each(|session| session.wake());
        sessions
    }
}

/// A session on the books. When this is dropped, also by a panic, it is stopped, off the books and closed: a revocation
/// waits for that.
pub struct Registered {
    /// Whose books.
    pub manager: Arc<Manager>,
    /// Which session.
    pub session: Arc<Session>,
}

impl Registered {
    /// Puts a session on the books, where a revocation finds it from now on.
    pub(crate) fn new(manager: Arc<Manager>, session: Session) -> Self {
        let session = Arc::new(session);
        manager.sessions.register(&session);
        Self { manager, session }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // A recording that is still under way ends with its session.
        self.session.stop(None);
        drop(self.session.detach());
        self.manager.sessions.unregister(&self.session);
        self.session.mark_closed();
    }
}

fn superseded() -> Goodbye {
    Goodbye::new(GoodbyeReason::Superseded, "a newer connection of this delegate took over")
}
