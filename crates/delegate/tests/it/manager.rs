//! A Manager for tests: one token, one session at a time, and it says what the test wants.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use legation_delegate::system::{SystemClock, SystemEntropy};
use legation_link::{Connection, Ended, Socket, accept_key};
use legation_model::{
    Clock, Secret,
    ids::{DelegateId, ReceiptId, SessionId, TokenId},
    token::Token,
};
use legation_wire::{
    GoodbyeReason, KeyPair, ManagerEnd, ManagerEvent, TokenHint, TokenKeys,
    message::{Assignment, Finished, FromDelegate, Goodbye, Hello, Stopped, ToDelegate, Welcome},
    psk,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::support::PATIENCE;

/// Awaits a condition, which is looked at every few milliseconds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, looking).await;
}

/// Awaits something, and says what it was if it does not happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

struct Keys(Token);

impl TokenKeys for Keys {
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>> {
        let known = hint.token == self.0.id && hint.generation == self.0.generation;
        known.then(|| psk::derive(&self.0.secret, self.0.id, self.0.generation))
    }
}

pub(crate) struct Manager {
    pub(crate) listener: TcpListener,
    pub(crate) keys: Arc<[KeyPair]>,
    pub(crate) token: Token,
    pub(crate) lease: u64,
    /// How far its wall clock is ahead of this machine's, in milliseconds.
    pub(crate) ahead: i64,
    /// What its answers to heartbeats say of the token's expiry.
    pub(crate) expires_in: Option<u64>,
}

impl Manager {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate(&SystemEntropy);
        let (id, secret) = (TokenId::random(&SystemEntropy), Secret::random(&SystemEntropy));
        let token = Token { id, generation: 1, secret, manager_key: key.public };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self { listener, keys: [key].into(), token, lease: 60_000, ahead: 0, expires_in: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("bound"))
    }

    /// The next connection, upgraded but not yet proven.
    pub(crate) async fn socket(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        let head = String::from_utf8(head).expect("text");
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-protocol: legation.v1\r\nsec-websocket-accept: {}\r\n\r\n",
            accept_key(key)
        );
        stream.write_all(answer.as_bytes()).await.expect("it reads");
        stream
    }

    async fn proven(&self, token: &Token) -> (Session, ManagerEvent) {
        let socket = Socket::server(self.socket().await);
        let end =
            ManagerEnd::new(Arc::clone(&self.keys), Arc::new(Keys(token.clone())), SystemClock.boot(), &SystemEntropy);
        let connection = Connection::new(socket, end, || SystemClock.boot());
        let mut session = Session { connection, answers: Arc::new(AtomicBool::new(true)), expires_in: self.expires_in };
        assert!(matches!(session.event().await, Ok(ManagerEvent::Proven(_))));
        let opening = session.event().await.expect("an opening");
        (session, opening)
    }

    /// The next delegate, welcomed.
    pub(crate) async fn session(&self) -> (Session, Hello) {
        let (mut session, hello) = self.hello(&self.token).await;
        session.welcome(self);
        (session, hello)
    }

    fn words(&self) -> Welcome {
        Welcome {
            account: "default".into(),
            scope: "default".parse().expect("a scope"),
            delegate: DelegateId([7; 16]),
            generation: 1,
            session: SessionId::random(&SystemEntropy),
            // Three unanswered ones end the link: long enough for a busy machine.
            heartbeat: 1_000.min(self.lease / 8),
            lease: self.lease,
            first_retry: 20,
            server_time: SystemClock.wall() + self.ahead,
        }
    }

    /// The next delegate, that holds this token, before any answer.
    pub(crate) async fn hello(&self, token: &Token) -> (Session, Hello) {
        match within("a delegate says hello", self.proven(token)).await {
            (session, ManagerEvent::Hello(hello)) => (session, *hello),
            (_, other) => panic!("{other:?} instead of Hello"),
        }
    }

    /// Poses as the Manager with another key, and says how far that went.
    pub(crate) async fn pose(&self) -> Result<ManagerEvent, Ended> {
        let socket = Socket::server(self.socket().await);
        let keys = [KeyPair::generate(&SystemEntropy)].into();
        let lookup = Arc::new(Keys(self.token.clone()));
        let end = ManagerEnd::new(keys, lookup, SystemClock.boot(), &SystemEntropy);
        Connection::new(socket, end, || SystemClock.boot()).next().await
    }

    /// The last report of a delegate that was stopped.
    pub(crate) async fn stopped(&self) -> Stopped {
        match within("a delegate reports its stop", self.proven(&self.token)).await {
            (mut session, ManagerEvent::Stopped(stopped)) => {
                session.goodbye(GoodbyeReason::TokenRevoked, None).await;
                stopped
            }
            (_, other) => panic!("{other:?} instead of Stopped"),
        }
    }
}

pub(crate) struct Session {
    connection: Connection<ManagerEnd>,
    /// Whether heartbeats are answered.
    answers: Arc<AtomicBool>,
    expires_in: Option<u64>,
}

impl Session {
    pub(crate) async fn event(&mut self) -> Result<ManagerEvent, Ended> {
        loop {
            match self.connection.next().await? {
                ManagerEvent::Message(FromDelegate::Heartbeat { sent, .. }) => {
                    if self.answers.load(Relaxed) {
                        self.say(ToDelegate::HeartbeatAck { sent, expires_in: self.expires_in });
                    }
                }
                event => return Ok(event),
            }
        }
    }

    pub(crate) fn welcome(&mut self, manager: &Manager) {
        self.say(ToDelegate::Welcome(manager.words()));
    }

    pub(crate) fn fall_silent(&self) {
        self.answers.store(false, Relaxed);
    }

    pub(crate) fn say(&mut self, message: ToDelegate) {
        self.connection.end_mut().send(&message).expect("the session takes it");
    }

    pub(crate) fn assign(&mut self, assignment: &Assignment) {
        self.say(ToDelegate::Assign(Box::new(assignment.clone())));
    }

    pub(crate) async fn message(&mut self) -> FromDelegate {
        match within("a message", self.event()).await {
            Ok(ManagerEvent::Message(message)) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Acknowledges output until it contains the text.
    pub(crate) async fn await_output(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.message().await {
                FromDelegate::Output { attempt, offset, bytes, .. } => {
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                    self.say(ToDelegate::OutputAck { attempt, offset: offset + bytes.len() as u64 });
                }
                FromDelegate::Started { .. } => {}
                other => panic!("{other:?} before {text:?}"),
            }
        }
    }

    /// Reads on to the end of an attempt without acknowledging it.
    pub(crate) async fn finished(&mut self) -> Finished {
        loop {
            if let FromDelegate::Finished(finished) = self.message().await {
                return finished;
            }
        }
    }

    pub(crate) async fn goodbye(&mut self, reason: GoodbyeReason, receipt: Option<ReceiptId>) {
        let goodbye = Goodbye { reason, receipt, retry_after: None, text: "by the test".into() };
        self.connection.end_mut().goodbye(goodbye).expect("proven");
        let _ = self.connection.flush().await;
    }
}

/// A delegate process with a state directory of its own.
pub(crate) struct Delegate {
    pub(crate) child: Child,
    pub(crate) directory: tempfile::TempDir,
}

/// The program with everything that it needs, and nothing of this test's environment.
pub(crate) fn program(manager: &Manager, directory: &std::path::Path) -> Command {
    prepared(Command::new(env!("CARGO_BIN_EXE_legation-delegate")), manager, directory)
}

/// The same as a program that renews its session every few hundred milliseconds.
fn restless(manager: &Manager, directory: &std::path::Path) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_legation-delegate"));
    prepared(Command::new(program.with_file_name("examples/short_sessions")), manager, directory)
}

pub(crate) fn prepared(mut command: Command, manager: &Manager, directory: &std::path::Path) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).expect("a log");
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DELEGATE_TOKEN", manager.token.reveal().expose())
        .env("MANAGER_HOST_AND_PORT", manager.url())
        .env("DELEGATE_STATE_DIR", directory.join("state"))
        .env("DELEGATE_NAME", "one")
        .env("DELEGATE_LOG", "trace")
        .stderr(log)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Delegate {
    pub(crate) fn start(manager: &Manager) -> Self {
        Self::start_with(manager, |_| {})
    }

    pub(crate) fn start_with(manager: &Manager, change: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = program(manager, directory.path());
        change(&mut command);
        Self { child: command.spawn().expect("the program starts"), directory }
    }

    /// One whose sessions last a moment.
    pub(crate) fn start_restless(manager: &Manager) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { child: restless(manager, directory.path()).spawn().expect("the program starts"), directory }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).expect("it runs");
        rustix::process::kill_process(pid, signal).expect("ours");
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let status = within("the delegate ends", self.child.wait()).await.expect("a child");
        status.code()
    }

    pub(crate) async fn ends_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.child.wait()).await.is_ok()
    }
}
