//! The delegate's one loop: events in, and what follows from each.

mod expiry;
mod link;
mod session;
mod stop;
mod successor;
mod tasks;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use legation_link::{Backoff, DialConfig, Dialer, Proxies};
use legation_model::{
    Millis,
    delegate::Isolation,
    ids::{AttemptId, BootId, DelegateId},
    token::Token,
};
use legation_wire::{KeyPair, message::FromDelegate};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

use self::{
    expiry::ExpiryWarnings,
    link::{Link, Moved},
    successor::Successor,
};
use crate::{
    config::{CAPACITY_MAX, Config},
    exit,
    health::{self, Status},
    runner::{MARKER, Running, Teller, Told},
    spool::Spool,
    state::StateDir,
    supervisor::clear_room,
    system::{BootTimer, SystemEntropy, raise_open_files},
    tree::{self, Process},
};

/// The first window for a retry before any Welcome named one.
const FIRST_WINDOW: Millis = 1_000;
/// How long tasks may take to end after SIGTERM: less than the 30 s after which most service managers kill.
const DRAIN: Duration = Duration::from_secs(25);
/// How long last words may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Output of one attempt that may be on its way unacknowledged.
const WINDOW: u64 = 256 << 10;
/// Messages of attempts that may wait for the loop; then attempts wait.
const TOLD_MAX: usize = 64;
/// Rounds of killing, 2 ms apart, after which the loop goes on though something is not dead: 5 s. Only a
/// process in uninterruptible sleep takes so long, and that cannot act either.
const KILL_ROUNDS: usize = 2_500;
/// What to do about a machine on which it cannot be told whether processes are dead.
const UNSEEN: &str = "make /proc readable for the delegate, and raise its limit of open files";
/// Refusals that may wait for the session to take them: more than a Manager that knows the capacity can cause.
const REFUSALS_MAX: usize = CAPACITY_MAX as usize;
/// Attempts remembered after they were acknowledged, and as many after they were erased, so that a repeated assignment
/// does not run twice: more than the spool holds.
const FORMER_MAX: usize = 1_024;

/// Why the delegate could not even begin, with its exit code.
#[derive(Debug)]
pub struct Fatal {
    /// See [`crate::exit`].
    pub code: u8,
    /// A sentence.
    pub reason: String,
}

impl Fatal {
    fn new(code: u8, reason: impl std::fmt::Display) -> Self {
        Self { code, reason: reason.to_string() }
    }
}

/// Lives until it is told to stop; answers the exit code.
///
/// # Errors
/// What keeps it from beginning.
pub async fn run(config: Config, state: StateDir, token: Token) -> Result<u8, Fatal> {
    let mut agent = Agent::new(config, state, token)?;
    agent.kill_leftovers()?;
    if let Some(address) = agent.config.health_addr {
        let bound = health::serve(address, Arc::clone(&agent.status)).await;
        let bound = bound.map_err(|error| {
            Fatal::new(exit::UNAVAILABLE, format!("cannot serve DELEGATE_HEALTH_ADDR {address}: {error}"))
        })?;
        tracing::info!(address = %bound, "health checks are answered");
    }
    Ok(agent.live().await)
}

/// Everything that can happen.
enum Event {
    /// Something on the link in use.
    Link(Moved),
    /// Something on the link that is to take over.
    Successor(Moved),
    /// An attempt said something.
    Attempt(AttemptId, Told),
    /// The lease may have ended.
    Lease,
    /// SIGTERM or SIGINT.
    Signal,
    /// Tasks had their time to end.
    Drained,
}

struct Agent {
    config: Config,
    state: StateDir,
    identity: KeyPair,
    token: Token,
    /// Whether the Manager's wall clock was another at the last Welcome.
    skewed: bool,
    dialer: Arc<Dialer>,
    link: Link,
    successor: Successor,
    backoff: Backoff,
    /// Whether the session is open.
    welcomed: bool,
    isolation: Isolation,
    /// The limit of open files that this process was started with, which tasks get.
    open_files: Option<u64>,
    boot: BootId,
    counter: u64,
    delegate: Option<DelegateId>,
    spool: Spool,
    running: BTreeMap<AttemptId, Running>,
    /// Supervisors whose end has not been seen yet.
    supervisors: BTreeMap<AttemptId, Process>,
    former: VecDeque<AttemptId>,
    /// Attempts that the Manager was not told the end of when this delegate was stopped.
    erased: VecDeque<AttemptId>,
    /// Refusals that the session has not taken yet.
    refusals: VecDeque<FromDelegate>,
    teller: Teller,
    told: mpsc::Receiver<(AttemptId, Told)>,
    lease: Option<Millis>,
    timer: AsyncFd<BootTimer>,
    draining: Option<Instant>,
    terminate: Signal,
    interrupt: Signal,
    status: Arc<Status>,
    expiry: ExpiryWarnings,
    /// The last trouble that was logged, so that each is logged once and not at every retry.
    trouble: String,
}

impl Agent {
    fn new(config: Config, state: StateDir, token: Token) -> Result<Self, Fatal> {
        let unavailable = |error: &dyn std::fmt::Display| Fatal::new(exit::UNAVAILABLE, error);
        // Orphans of a supervisor that was killed fall to this process.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| unavailable(&error))?;
        let open_files = raise_open_files().map_err(|error| unavailable(&error))?;
        let dial = DialConfig {
            ca_file: config.ca_file.clone(),
            proxies: Proxies::from_env(),
            ..DialConfig::new(&config.manager)
        };
        let dialer = Dialer::new(&dial).map_err(|error| Fatal::new(exit::USAGE, error))?;
        let identity = state.identity(&SystemEntropy).map_err(|error| unavailable(&error))?;
        let spool = Spool::open(state.attempts()).map_err(|error| unavailable(&error))?;
        let isolation = tasks::isolation(&config);
        let (teller, told) = mpsc::channel(TOLD_MAX);
        let listen = |kind| signal(kind).map_err(|error| unavailable(&error));
        Ok(Self {
            delegate: state.read("delegate").and_then(|text| text.trim().parse().ok()),
            config,
            state,
            identity,
            successor: Successor::new(token.clone()),
            token,
            skewed: false,
            dialer: Arc::new(dialer),
            link: Link::Due,
            backoff: Backoff::new(FIRST_WINDOW, Arc::new(SystemEntropy)),
            welcomed: false,
            isolation,
            open_files,
            boot: BootId::random(&SystemEntropy),
            counter: 0,
            spool,
            running: BTreeMap::new(),
            supervisors: BTreeMap::new(),
            former: VecDeque::new(),
            erased: VecDeque::new(),
            refusals: VecDeque::new(),
            teller,
            told,
            lease: None,
            timer: lease_timer().map_err(|error| unavailable(&error))?,
            draining: None,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            status: Arc::new(Status::default()),
            expiry: ExpiryWarnings::default(),
            trouble: String::new(),
        })
    }

    async fn live(&mut self) -> u8 {
        loop {
            let event = self.next().await;
            if let Some(code) = self.handle(event).await {
                return code;
            }
            self.speak();
            if self.draining.is_some() && self.is_drained() {
                return self.leave().await;
            }
        }
    }

    async fn next(&mut self) -> Event {
        let drained = async {
            match self.draining {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Event::Signal,
            Some(()) = self.interrupt.recv() => Event::Signal,
            Ok(mut rang) = self.timer.readable() => {
                rang.clear_ready();
                Event::Lease
            }
            () = drained => Event::Drained,
            moved = self.link.moved() => Event::Link(moved),
            moved = self.successor.link.moved() => Event::Successor(moved),
            Some((attempt, told)) = self.told.recv() => Event::Attempt(attempt, told),
        }
    }

    /// Does what follows from an event; answers the exit code if that is the end.
    async fn handle(&mut self, event: Event) -> Option<u8> {
        match event {
            Event::Link(moved) => return self.moved(moved).await,
            Event::Successor(moved) => return self.succeed(moved).await,
            Event::Attempt(attempt, told) => self.attempt(attempt, told),
            Event::Lease => self.fence(),
            Event::Signal if self.draining.is_none() => self.drain(),
            Event::Signal | Event::Drained => return Some(self.leave().await),
        }
        None
    }

    fn drain(&mut self) {
        tracing::info!(running = self.running.len(), "draining: no new tasks; a second signal ends it at once");
        self.draining = Some(Instant::now() + DRAIN);
        self.say(&FromDelegate::Draining);
    }

    /// Nothing runs, and the Manager has every result or cannot be told now.
    fn is_drained(&self) -> bool {
        self.supervisors.is_empty() && self.running.is_empty() && (self.spool.is_empty() || !self.welcomed)
    }

    /// What an earlier process of this delegate left running is ended before the Manager hears of this one.
    fn kill_leftovers(&self) -> Result<(), Fatal> {
        let entry = format!("{MARKER}={}", self.marker());
        let list = || {
            let mut found = tree::marked(&entry)?;
            for supervisor in self.spool.supervisors() {
                if supervisor.is_alive()? {
                    found.extend(tree::descendants(supervisor.pid)?);
                    found.insert(*supervisor);
                }
            }
            Ok(found)
        };
        let emptied = tree::kill_all(KILL_ROUNDS, list).map_err(|error| {
            let doubt = "cannot tell whether processes of earlier tasks are dead";
            Fatal::new(exit::UNAVAILABLE, format!("{doubt}: {error}: {UNSEEN}"))
        })?;
        if !emptied {
            tracing::warn!("processes of earlier tasks do not die");
        }
        for held in self.spool.held() {
            clear_room(&tasks::room(held.attempt));
        }
        Ok(())
    }
}

#[expect(deprecated, reason = "its replacement is unsafe; a `BootTimer` keeps one descriptor for life, as it demands")]
fn lease_timer() -> std::io::Result<AsyncFd<BootTimer>> {
    AsyncFd::new(BootTimer::new()?)
}
