//! One session: what admission decided, what waits to be said to it, its connection, and its end.
//!
//! A session owns no channel, timer or key object of its own: what others hand it waits in a queue behind its mutex, a
//! stop overtakes that queue, and whoever revokes takes the connection out of it and says the last word by himself.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use legation_link::{Connection, Parted};
use legation_model::{
    Millis, Name,
    ids::{AttemptId, BootId, DelegateId, SessionId},
    task::TaskKind,
};
use legation_wire::{
    ManagerEnd,
    message::{Assignment, CAPACITY_MAX, Goodbye, ToDelegate},
};
use tokio::sync::Notify;

use crate::{live::LiveToken, lock::lock, parted::PartedLinks};

/// Messages that may wait for one session: more than any capacity of assignments and cancels together.
pub const OUTBOX_MAX: usize = 4096;

/// The encrypted connection, on the heap because it moves.
pub(crate) type Link = Box<Connection<ManagerEnd>>;

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
    /// From where it connected.
    pub address: IpAddr,
    /// Claimed tags.
    pub tags: Box<[Name]>,
    /// Whether it can do each of [`TaskKind::ALL`]; kinds that this Manager does not know are of no use to it.
    kinds: [bool; TaskKind::ALL.len()],
    /// Tasks it runs at once, up to [`CAPACITY_MAX`].
    pub capacity: u16,
    /// Position in the order of admissions; of two sessions of one delegate the later one counts.
    pub admission: u64,
    /// Boot-clock time of the last answered heartbeat.
    pub last_answered: AtomicI64,
    /// It takes no further work.
    pub draining: AtomicBool,
    /// Boot-clock time until which it is assigned nothing, because it could not start what it was assigned.
    pub resting_until: AtomicI64,
    /// Attempts it holds, as far as the Manager knows, and since when the delegate owes the first answer to each.
    pub attempts: Mutex<BTreeMap<AttemptId, Option<Instant>>>,
    outbox: Mutex<VecDeque<ToDelegate>>,
    /// Its connection; whoever takes it out closes it.
    link: Mutex<Option<Link>>,
    /// Shared, because ten thousand may be told the same.
    stop: OnceLock<Option<Arc<Goodbye>>>,
    /// Wakes the session's task, for something in the outbox or a stop.
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
    pub address: IpAddr,
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
            address: new.address,
            tags: hello.tags.into(),
            kinds: TaskKind::ALL.map(|kind| hello.capabilities.iter().any(|word| word == kind.as_str())),
            capacity: hello.capacity.min(CAPACITY_MAX) as u16,
            admission: new.admission,
            last_answered: AtomicI64::new(new.now),
            draining: AtomicBool::new(false),
            resting_until: AtomicI64::new(Millis::MIN),
            attempts: Mutex::new(hello.attempts.iter().map(|held| (held.attempt, None)).collect()),
            outbox: Mutex::default(),
            link: Mutex::default(),
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
        self.waker.wake();
    }

    /// Says an assignment on the thread of whoever made it, who is in the token's gate, and notes that its answer is
    /// owed from now on. Where the socket does not take it at once, or other messages are before it, it is queued.
    pub(crate) fn assign(&self, assignment: Assignment) {
        lock(&self.attempts).insert(assignment.attempt, Some(Instant::now()));
        let message = ToDelegate::Assign(Box::new(assignment));
        if !self.say(&message) {
            self.send(message);
        }
    }

    /// Whether the link took a message. What the socket has not taken of it, the session's task sends on.
    fn say(&self, message: &ToDelegate) -> bool {
        if !self.has_nothing_to_send() || self.stop.get().is_some() {
            return false;
        }
        let mut nobody = Context::from_waker(Waker::noop());
        let said = self.with_link(|link| {
            link.end_mut().send(message).map(|()| matches!(link.poll_flush(&mut nobody), Poll::Ready(Ok(()))))
        });
        if let Some(Ok(false)) = said {
            self.wake();
        }
        matches!(said, Some(Ok(_)))
    }

    /// How long the first answer to an assignment took; nothing for any later one.
    pub(crate) fn answered(&self, attempt: AttemptId) -> Option<Duration> {
        lock(&self.attempts).get_mut(&attempt)?.take().map(|since| since.elapsed())
    }

    /// Whether nothing is queued.
    pub(crate) fn has_nothing_to_send(&self) -> bool {
        lock(&self.outbox).is_empty()
    }

    /// Hands over queued messages, oldest first, until one is not taken.
    pub(crate) fn hand_over<E>(&self, mut take: impl FnMut(&ToDelegate) -> Result<(), E>) -> Result<(), E> {
        let mut outbox = lock(&self.outbox);
        while let Some(message) = outbox.front() {
            take(message)?;
            outbox.pop_front();
        }
        // An idle session has no room for messages.
        *outbox = VecDeque::new();
        Ok(())
    }

    /// Has the session's task, and no other, woken by the next message or stop. It must look for both afterwards.
    pub(crate) fn wake_on_signal(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Gives it its connection.
    pub(crate) fn attach(&self, link: Link) {
        *lock(&self.link) = Some(link);
    }

    /// Takes its connection out.
    pub(crate) fn detach(&self) -> Option<Link> {
        lock(&self.link).take()
    }

    /// Does something with its connection, unless that was taken out.
    pub(crate) fn with_link<T>(&self, act: impl FnOnce(&mut Link) -> T) -> Option<T> {
        lock(&self.link).as_mut().map(act)
    }

    /// Says goodbye and closes, here and now, on the thread of whoever asks for it; whether that was done. Where it
    /// cannot be, because another stop came first, or the connection is not made or not of plain TCP, its own task does
    /// it. That task is not woken yet; see [`Session::wake`].
    pub(crate) fn cut(&self, goodbye: &Arc<Goodbye>, parted: &PartedLinks, now: Millis) -> bool {
        if self.stop.set(Some(Arc::clone(goodbye))).is_err() {
            return false;
        }
        // Taken out only where it can be closed here: its own task may look for it at the same moment.
        let Some(link) = lock(&self.link).take_if(|link| link.can_part()) else { return false };
        let last = part(link, goodbye).ok().flatten();
        last.into_iter().for_each(|last| parted.keep(last, now));
        true
    }

    /// Tells the session to say this and close. The first stop counts; `None` closes without a word.
    pub fn stop(&self, goodbye: Option<Goodbye>) {
        self.stop_with(goodbye.map(Arc::new));
    }

    /// The same, with a word that is said to others too.
    pub(crate) fn stop_with(&self, goodbye: Option<Arc<Goodbye>>) {
        let _ = self.stop.set(goodbye);
        self.wake();
    }

    /// Wakes its task.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// What it was told to say, once it was told to stop.
    pub fn stopped(&self) -> Option<&Option<Arc<Goodbye>>> {
        self.stop.get()
    }

    /// Marks the socket as closed, by whoever closed it: its own task or the thread that revokes.
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

    /// Whether it can do this kind of work.
    pub fn can(&self, kind: TaskKind) -> bool {
        TaskKind::ALL.into_iter().zip(self.kinds).any(|(of, can)| of == kind && can)
    }

    /// Room for further attempts.
    pub fn free(&self) -> usize {
        usize::from(self.capacity).saturating_sub(lock(&self.attempts).len())
    }
}

/// Says the last word and ends this side's direction, at once. `None` when the peer does not take it: then it is closed
/// without, and the delegate hears the reason at its next connection.
///
/// # Errors
/// The connection, over anything but plain TCP: its goodbye takes a while.
pub(crate) fn part(mut link: Link, goodbye: &Goodbye) -> Result<Option<Parted>, Link> {
    let (code, reason) = (goodbye.reason.code(), goodbye.reason.as_str());
    match link.end_mut().goodbye(goodbye.clone()) {
        Ok(()) => link.part(code, reason),
        Err(_) => Ok(None),
    }
}
