//! A Manager within the test's own process, on a clock of the test's, and delegates that do exactly what they
//! are told: for the moments that real programs pass too quickly.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use legation_api::{client::Client, tokens::CreateToken};
use legation_link::{Connection, DialConfig, Dialer, Ended, Socket};
use legation_manager::{
    Manager, Running,
    admin::{self, Reset},
    config::{Config, Settings, Timing},
    system::{SystemClock, SystemEntropy},
};
use legation_model::{Clock, Millis, Secret, delegate::Isolation, ids::BootId, secret::SecretText, token::Token};
use legation_wire::{
    DelegateEnd, DelegateEvent, KeyPair, Opening,
    message::{FromDelegate, Goodbye, HeldAttempt, Hello, Stopped, ToDelegate, Welcome},
};
use tempfile::TempDir;

use crate::{
    Engine, TestEntropy,
    eventually::{PATIENCE, eventually},
    world::Issued,
};

/// The machine's clocks, moved forward as a test likes.
#[derive(Default)]
pub struct TestClock {
    wall: AtomicI64,
    boot: AtomicI64,
}

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, by: Millis) {
        self.wall.fetch_add(by, Ordering::SeqCst);
        self.boot.fetch_add(by, Ordering::SeqCst);
    }

    /// Sets the wall clock forward or back without time passing.
    pub fn jump(&self, by: Millis) {
        self.wall.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Millis {
        SystemClock.wall() + self.wall.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Millis {
        SystemClock.boot() + self.boot.load(Ordering::SeqCst)
    }
}

/// A Manager in this process.
pub struct Inside {
    /// The Manager itself.
    pub manager: Arc<Manager>,
    /// Its clock.
    pub clock: Arc<TestClock>,
    /// Its entropy.
    pub entropy: Arc<TestEntropy>,
    /// An admin's client.
    pub client: Client,
    /// The admin's key, for requests that the client would not send.
    pub key: SecretText,
    /// Where it listens.
    pub url: String,
    /// What its database is.
    pub engine: Engine,
    config: Config,
    running: Option<Running>,
    directory: TempDir,
}

impl Inside {
    /// Starts one on an empty database.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(engine: Engine) -> Self {
        Self::with(engine, Settings::default()).await
    }

    /// Starts one with settings beside its own directories and addresses.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with(engine: Engine, settings: Settings) -> Self {
        let directory = tempfile::Builder::new().prefix("legation-inside.").tempdir().expect("a temporary directory");
        let settings = Settings {
            data_dir: Some(directory.path().to_owned()),
            config_dir: Some(directory.path().join("config")),
            database_url: Some(engine.create(directory.path()).await),
            listen: "127.0.0.1:0".parse().ok(),
            ..settings
        };
        let config = Config::new(settings).expect("settings that fit");
        let clock = Arc::new(TestClock::default());
        let key_file = directory.path().join("key");
        let reset = Reset { name: "test".to_owned(), key_file: Some(key_file.clone()), create: true };
        admin::reset(&config, reset, &*clock, &SystemEntropy).await.expect("an admin key");
        let key = SecretText::new(std::fs::read_to_string(key_file).expect("a key file"));
        let entropy = Arc::new(TestEntropy::default());
        let running = start(&config, &clock, &entropy).await;
        let url = format!("http://{}", running.api);
        let client = Client::new(&url, Some(&key), None).expect("a client");
        let manager = Arc::clone(&running.manager);
        Self { manager, clock, entropy, client, key, url, engine, config, running: Some(running), directory }
    }

    /// Stops the Manager and starts it again on the same data with other settings.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.restart().await;
    }

    /// Stops the Manager and starts it again on the same data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(std::future::pending()).await;
        }
        self.manager.store.close().await;
        let running = start(&self.config, &self.clock, &self.entropy).await;
        self.url = format!("http://{}", running.api);
        self.client = Client::new(&self.url, Some(&self.key), None).expect("a client");
        self.manager = Arc::clone(&running.manager);
        self.running = Some(running);
    }

    /// Stops the Manager, has something done with its settings while it stands still, and starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart_around(&mut self, work: impl AsyncFnOnce(&Config)) {
        if let Some(running) = self.running.take() {
            running.stop(std::future::pending()).await;
        }
        self.manager.store.close().await;
        work(&self.config).await;
        self.restart().await;
    }

    /// Creates a token of the default account.
    ///
    /// # Panics
    /// When the Manager refuses.
    pub async fn token(&self, name: &str) -> Issued {
        self.token_with(name, |_| {}).await
    }

    /// Creates a token with limits.
    ///
    /// # Panics
    /// When the Manager refuses.
    pub async fn token_with(&self, name: &str, change: impl FnOnce(&mut CreateToken)) -> Issued {
        let mut request = CreateToken::new("default".parse().expect("a scope"), name.parse().expect("a name"));
        change(&mut request);
        let issued = self.client.create_token(&request).await.expect("a token");
        Issued { id: issued.token.id, value: issued.value.expect("a value, once") }
    }

    /// A delegate that is not connected yet.
    pub fn puppet(&self, name: &str, token: &Issued) -> Puppet {
        Puppet::new(&self.url, name, token)
    }

    /// Where delegates connect, which is the API's address unless there is a listener of its own.
    ///
    /// # Panics
    /// When it is not running.
    pub fn link_url(&self) -> String {
        format!("http://{}", self.running.as_ref().expect("running").link)
    }

    /// Tries to start another Manager on the same data.
    ///
    /// # Errors
    /// What that Manager says before it ends.
    pub async fn start_second(&self) -> anyhow::Result<Running> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        legation_manager::start(self.config.clone(), clock, Arc::new(SystemEntropy)).await
    }

    /// Directory of the Manager's files.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Waits until a token has this many live sessions.
    ///
    /// # Panics
    /// When it never has.
    pub async fn sessions(&self, token: &Issued, count: usize) {
        eventually("the token has that many sessions", async || {
            (self.manager.sessions.of_token(token.id).len() == count).then_some(())
        })
        .await;
    }
}

async fn start(config: &Config, clock: &Arc<TestClock>, entropy: &Arc<TestEntropy>) -> Running {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    legation_manager::start(config.clone(), clock, Arc::clone(entropy) as _).await.expect("a Manager that starts")
}

/// A delegate made of the protocol alone.
pub struct Puppet {
    /// What it says of itself.
    pub hello: Hello,
    /// Its static key.
    pub identity: Arc<KeyPair>,
    token: Token,
    dialer: Arc<Dialer>,
    link: Option<Connection<DelegateEnd>>,
    /// How far its clock has been put on, in milliseconds.
    ahead: Arc<AtomicI64>,
}

/// What came of a connection attempt.
#[derive(Debug)]
pub enum Attempted {
    /// It is in.
    Welcome(Welcome),
    /// It was told why not.
    Goodbye(Goodbye),
    /// The link ended without an authenticated word.
    Ended(Ended),
}

impl Puppet {
    fn new(url: &str, name: &str, token: &Issued) -> Self {
        let hello = Hello {
            delegate: None,
            account: None,
            boot: BootId::random(&SystemEntropy),
            counter: 0,
            name: name.parse().expect("a name"),
            host: "puppet".parse().expect("a host"),
            tags: Vec::new(),
            description: Default::default(),
            version: "0".to_owned(),
            capabilities: vec!["shell".to_owned(), "http".to_owned()],
            capacity: 4,
            isolation: Isolation::None,
            attempts: Vec::new(),
        };
        Self {
            hello,
            identity: Arc::new(KeyPair::generate(&SystemEntropy)),
            token: token.value.expose().parse().expect("a token"),
            dialer: Arc::new(Dialer::new(&DialConfig::new(url)).expect("a dialer")),
            link: None,
            ahead: Arc::default(),
        }
    }

    /// The same delegate process seen through another handle, not connected: for clones and races.
    pub fn twin(&self) -> Self {
        Self {
            hello: self.hello.clone(),
            identity: Arc::clone(&self.identity),
            token: self.token.clone(),
            dialer: Arc::clone(&self.dialer),
            link: None,
            ahead: Arc::default(),
        }
    }

    /// Becomes a new start of the same delegate.
    pub fn reboot(&mut self) {
        self.link = None;
        self.hello.boot = BootId::random(&SystemEntropy);
        self.hello.counter = 0;
        self.hello.attempts.clear();
    }

    /// Uses another secret under the same id.
    pub fn forge_secret(&mut self) {
        self.token.secret = Secret::random(&SystemEntropy);
    }

    /// Takes another token, as when its owner exchanges the file; the process stays the same.
    pub fn switch(&mut self, token: &Issued) {
        self.token = token.value.expose().parse().expect("a token");
    }

    /// Uses an id that nobody knows.
    pub fn forge_id(&mut self) {
        self.token.id = legation_model::ids::TokenId::random(&SystemEntropy);
    }

    /// Goes where another one goes.
    pub fn follow(&mut self, other: &Self) {
        self.dialer = Arc::clone(&other.dialer);
    }

    /// Goes to another address, as after a restart of the Manager.
    pub fn redirect(&mut self, url: &str) {
        self.dialer = Arc::new(Dialer::new(&DialConfig::new(url)).expect("a dialer"));
    }

    /// Connects with Hello.
    pub async fn connect(&mut self) -> Attempted {
        self.hello.counter += 1;
        self.open(Opening::Hello(Box::new(self.hello.clone()))).await
    }

    /// Connects, holding these attempts.
    pub async fn connect_holding(&mut self, attempts: Vec<HeldAttempt>) -> Attempted {
        self.hello.attempts = attempts;
        self.connect().await
    }

    /// Connects and must be let in.
    ///
    /// # Panics
    /// When it is not.
    pub async fn join(&mut self) -> Welcome {
        match self.connect().await {
            Attempted::Welcome(welcome) => welcome,
            other => panic!("not let in: {other:?}"),
        }
    }

    /// Connects only to report that it has stopped.
    pub async fn report_stop(&mut self, stopped: Stopped) -> Attempted {
        self.open(Opening::Stopped(stopped)).await
    }

    async fn open(&mut self, opening: Opening) -> Attempted {
        self.link = None;
        let Ok(socket) = self.dialer.dial().await else { return Attempted::Ended(Ended::Stalled) };
        self.link = Some(self.over(socket, opening));
        loop {
            match self.next().await {
                Ok(DelegateEvent::Welcome(welcome)) => return Attempted::Welcome(welcome),
                Ok(DelegateEvent::Goodbye(goodbye)) => return Attempted::Goodbye(goodbye),
                Ok(_) => {}
                Err(ended) => return Attempted::Ended(ended),
            }
        }
    }

    fn over(&self, socket: Socket, opening: Opening) -> Connection<DelegateEnd> {
        let ahead = Arc::clone(&self.ahead);
        let now = move || SystemClock.boot() + ahead.load(Ordering::Relaxed);
        let end = DelegateEnd::new(&self.token, &self.identity, opening, now(), &SystemEntropy);
        Connection::new(socket, end, now)
    }

    /// Whether it has a connection, as far as it knows.
    pub const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Puts its clock on, so that a heartbeat is due now, and says whether that one was answered.
    pub async fn beat(&mut self, timing: Timing) -> bool {
        self.ahead.fetch_add(timing.heartbeat + timing.heartbeat / 2, Ordering::Relaxed);
        let now = SystemClock.boot() + self.ahead.load(Ordering::Relaxed);
        while self.link.is_some() {
            match self.next().await {
                // An answer to an earlier one may have been on its way.
                Ok(DelegateEvent::LeaseRenewed { until }) if until >= now + timing.lease => return true,
                Ok(DelegateEvent::Goodbye(_)) | Err(_) => self.link = None,
                Ok(_) => {}
            }
        }
        false
    }

    /// The next event of the link.
    ///
    /// # Errors
    /// How the link ended.
    pub async fn next(&mut self) -> Result<DelegateEvent, Ended> {
        let next = self.link.as_mut().expect("connected").next();
        tokio::time::timeout(PATIENCE, next).await.expect("an event of the link, in time")
    }

    /// The next message, renewed leases passed over.
    ///
    /// # Panics
    /// When the link ends first.
    pub async fn message(&mut self) -> ToDelegate {
        loop {
            match self.next().await {
                Ok(DelegateEvent::Message(message)) => return message,
                Ok(DelegateEvent::LeaseRenewed { .. } | DelegateEvent::TokenExpires { .. }) => {}
                other => panic!("no message but {other:?}"),
            }
        }
    }

    /// The Goodbye that must come, messages before it passed over.
    ///
    /// # Panics
    /// When the link ends without one.
    pub async fn goodbye(&mut self) -> Goodbye {
        loop {
            match self.next().await {
                Ok(DelegateEvent::Goodbye(goodbye)) => return goodbye,
                Ok(_) => {}
                Err(ended) => panic!("no Goodbye but {ended:?}"),
            }
        }
    }

    /// Says something and hands it to the socket.
    ///
    /// # Errors
    /// How the link ended.
    pub async fn say(&mut self, message: FromDelegate) -> Result<(), Ended> {
        let link = self.link.as_mut().expect("connected");
        link.end_mut().send(&message).map_err(|_| Ended::Stalled)?;
        link.flush().await
    }

    /// Drops the connection without a word.
    pub fn cut(&mut self) {
        self.link = None;
    }
}
