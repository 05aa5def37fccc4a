//! The virtual delegates.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use legation_link::{Backoff, Connection, Ended};
use legation_manager::system::{SystemClock, SystemEntropy};
use legation_model::{Clock as _, Millis, Name, delegate::Isolation, ids::BootId, token::Token};
use legation_wire::{
    DelegateEnd, DelegateEvent, KeyPair, Opening,
    message::{Hello, ToDelegate},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, futures::Notified},
    task::JoinHandle,
};

use super::{
    dial::{DIALS, Route},
    meter::histogram,
    work::Work,
};
use crate::{World, world::Issued};

/// The window of the first retry until a Manager has named one, in milliseconds.
const FIRST_WINDOW: i64 = 1_000;

/// All virtual delegates of one token.
pub(super) struct Fleet {
    shared: Arc<Shared>,
    /// Where its delegates live.
    runtime: Handle,
    delegates: Vec<JoinHandle<()>>,
}

/// What the delegates of a fleet share.
pub(super) struct Shared {
    route: Route,
    token: Token,
    /// What tasks name to come to this fleet.
    tag: Name,
    dials: Semaphore,
    /// Whether one that lost its session comes back.
    returning: AtomicBool,
    connected: AtomicUsize,
    changed: Notify,
    pub(super) renewals: AtomicU64,
    pub(super) goodbyes: AtomicU64,
    /// Connections that did not come about, and sessions that ended without a Goodbye.
    pub(super) errors: AtomicU64,
    pub(super) first_error: Mutex<Option<String>>,
    pub(super) connects: Mutex<Histogram<u64>>,
    pub(super) last_closed: Mutex<Option<Instant>>,
    pub(super) work: Work,
}

impl Fleet {
    /// A fleet without delegates, whose own tag will be this.
    pub(super) fn new(world: &World, token: &Issued, tag: &str) -> anyhow::Result<Self> {
        let tag: Name = tag.parse().context("a tag")?;
        let shared = Shared {
            route: Route::to(world)?,
            token: token.value.expose().parse().context("the Manager's own token")?,
            tag: tag.clone(),
            dials: Semaphore::new(DIALS),
            returning: AtomicBool::new(false),
            connected: AtomicUsize::new(0),
            changed: Notify::new(),
            renewals: AtomicU64::new(0),
            goodbyes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            first_error: Mutex::new(None),
            connects: Mutex::new(histogram()),
            last_closed: Mutex::new(None),
            work: Work::new(&tag),
        };
        Ok(Self { shared: Arc::new(shared), runtime: Handle::current(), delegates: Vec::new() })
    }

    /// The same on another runtime.
    pub(super) fn on(mut self, runtime: &Handle) -> Self {
        self.runtime = runtime.clone();
        self
    }

    /// Starts further delegates; says nothing of when they are connected.
    pub(super) fn grow(&mut self, count: usize) {
        let begin = self.delegates.len();
        for number in begin..begin + count {
            let delegate = Virtual::new(number, &self.shared.tag);
            self.delegates.push(self.runtime.spawn(delegate.live(Arc::clone(&self.shared))));
        }
    }

    /// Takes that many of the oldest away, without a word to the Manager.
    pub(super) fn shrink(&mut self, count: usize) {
        for delegate in self.delegates.drain(..count.min(self.delegates.len())) {
            delegate.abort();
        }
    }

    /// Waits until exactly that many are connected.
    pub(super) async fn connected(&self, count: usize, patience: Duration) -> anyhow::Result<()> {
        let reached = self.until(|shared| shared.connected.load(Ordering::Relaxed) == count);
        if tokio::time::timeout(patience, reached).await.is_err() {
            let now = self.shared.connected.load(Ordering::Relaxed);
            let why = lock(&self.shared.first_error).clone().unwrap_or_default();
            anyhow::bail!("{now} of {count} delegates are connected after {patience:?}; the first error: {why}");
        }
        Ok(())
    }

    async fn until(&self, reached: impl Fn(&Shared) -> bool) {
        loop {
            let changed: Notified<'_> = self.shared.changed.notified();
            if reached(&self.shared) {
                return;
            }
            changed.await;
        }
    }

    /// Whether those that lose their session come back.
    pub(super) fn set_returning(&self, returning: bool) {
        self.shared.returning.store(returning, Ordering::Relaxed);
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.delegates.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn failed(&self, why: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        lock(&self.first_error).get_or_insert(why);
    }
}

/// One of them.
struct Virtual {
    number: usize,
    identity: KeyPair,
    hello: Hello,
}

/// Counts one as connected while it lives.
struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.0.last_closed) = Some(Instant::now());
        self.0.changed.notify_waiters();
    }
}

impl Virtual {
    fn new(number: usize, tag: &Name) -> Self {
        Self { number, identity: KeyPair::generate(&SystemEntropy), hello: hello(number, tag) }
    }

    /// Connects, works, and comes back if the fleet does.
    async fn live(mut self, shared: Arc<Shared>) {
        let mut backoff = Backoff::new(FIRST_WINDOW, Arc::new(SystemEntropy));
        loop {
            let told = self.session(&shared, &mut backoff).await;
            if !shared.returning.load(Ordering::Relaxed) {
                return told.err().into_iter().for_each(|why| shared.failed(why));
            }
            // While the Manager is away nobody can connect, which is what a restart is about.
            let wait = backoff.wait(told.unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        }
    }

    /// One connection to its end; after how many milliseconds the Manager said to come again, if it did.
    async fn session(&mut self, shared: &Shared, backoff: &mut Backoff) -> Result<Option<Millis>, String> {
        let permit = shared.dials.acquire().await.map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let mut link = self.open(shared).await?;
        let _counted = loop {
            match link.next().await.map_err(|ended| ended.to_string())? {
                DelegateEvent::Welcome(welcome) => {
                    backoff.reset(welcome.first_retry as i64);
                    break shared.welcome(begun);
                }
                DelegateEvent::Goodbye(goodbye) => return Err(format!("refused: {}", goodbye.text)),
                _ => {}
            }
        };
        drop(permit);
        self.hear(&mut link, shared).await.map_err(|ended| ended.to_string())
    }

    async fn open(&mut self, shared: &Shared) -> Result<Connection<DelegateEnd>, String> {
        let socket = shared.route.dial(self.number).await.map_err(|error| error.to_string())?;
        self.hello.counter += 1;
        let opening = Opening::Hello(Box::new(self.hello.clone()));
        let end = DelegateEnd::new(&shared.token, &self.identity, opening, SystemClock.boot(), &SystemEntropy);
        Ok(Connection::new(socket, end, || SystemClock.boot()))
    }

    /// Beats, and answers each assignment with its start and its result at once.
    async fn hear(&self, link: &mut Connection<DelegateEnd>, shared: &Shared) -> Result<Option<Millis>, Ended> {
        loop {
            match link.next().await? {
                DelegateEvent::LeaseRenewed { .. } => {
                    shared.renewals.fetch_add(1, Ordering::Relaxed);
                }
                DelegateEvent::Message(ToDelegate::Assign(assignment)) => {
                    for report in shared.work.assigned(&assignment) {
                        link.end_mut().send(&report).map_err(|_| Ended::Stalled)?;
                    }
                    link.flush().await?;
                }
                DelegateEvent::Message(ToDelegate::FinishedAck { attempt }) => shared.work.acknowledged(attempt),
                DelegateEvent::Goodbye(goodbye) => {
                    shared.goodbyes.fetch_add(1, Ordering::Relaxed);
                    return Ok(goodbye.retry_after.and_then(|after| after.try_into().ok()));
                }
                _ => {}
            }
        }
    }
}

/// What the virtual delegate of this number says of itself at its first connection.
pub(super) fn hello(number: usize, tag: &Name) -> Hello {
    Hello {
        delegate: None,
        account: None,
        boot: BootId::random(&SystemEntropy),
        counter: 0,
        name: format!("load-{number}").parse().expect("a legal name"),
        host: "load".parse().expect("a legal name"),
        tags: vec![tag.clone()],
        description: Default::default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: vec!["shell".to_owned(), "http".to_owned()],
        capacity: 4,
        isolation: Isolation::None,
        attempts: Vec::new(),
    }
}

impl Shared {
    fn welcome(&self, begun: Instant) -> Counted<'_> {
        lock(&self.connects).saturating_record(begun.elapsed().as_micros() as u64);
        self.connected.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
        Counted(self)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
