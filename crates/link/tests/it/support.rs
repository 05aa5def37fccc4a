//! A delegate, a Manager of one connection, and servers that are something else.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use legation_link::{
    Connection, DialConfig, DialError, Dialer, Io, LINK_PATH, Proxies, SUBPROTOCOL, Socket, accept_key,
};
use legation_model::{
    Entropy, Millis, Secret,
    delegate::Isolation,
    ids::{BootId, DelegateId, SessionId, TokenId},
    token::Token,
};
use legation_wire::{
    DelegateEnd, KeyPair, ManagerEnd, Opening, TokenHint, TokenKeys,
    message::{Hello, Welcome},
    psk,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Entropy that is different each time and nothing more.
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        bytes.iter_mut().zip(number.to_le_bytes().into_iter().cycle()).for_each(|(byte, fill)| *byte = fill);
    }
}

pub(crate) static ENTROPY: Counting = Counting(AtomicU64::new(1));

/// A clock that counts from the first look.
pub(crate) fn now() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as Millis
}

fn manager_key() -> KeyPair {
    KeyPair::from_private(Secret::new([1; 32]))
}

fn token() -> Token {
    let manager_key = manager_key().public;
    Token { id: TokenId([3; 16]), generation: 1, secret: Secret::new([4; 32]), manager_key }
}

struct Lookup;

impl TokenKeys for Lookup {
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>> {
        Some(psk::derive(&token().secret, hint.token, hint.generation))
    }
}

pub(crate) fn hello() -> Hello {
    let name = || "d".parse().expect("a name");
    Hello {
        delegate: None,
        account: None,
        boot: BootId([6; 16]),
        counter: 1,
        name: name(),
        host: name(),
        tags: Vec::new(),
        description: "".parse().expect("a text"),
        version: "0".to_owned(),
        capabilities: Vec::new(),
        capacity: 1,
        isolation: Isolation::None,
        attempts: Vec::new(),
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        account: "acme".to_owned(),
        scope: "acme".parse().expect("a scope"),
        delegate: DelegateId([3; 16]),
        generation: 1,
        session: SessionId([5; 16]),
        heartbeat: 10_000,
        lease: 300_000,
        first_retry: 1_000,
        server_time: 0,
    }
}

/// The delegate's side of a socket.
pub(crate) fn delegate(socket: Socket, now: fn() -> Millis) -> Connection<DelegateEnd> {
    let identity = KeyPair::generate(&ENTROPY);
    let opening = Opening::Hello(Box::new(hello()));
    Connection::new(socket, DelegateEnd::new(&token(), &identity, opening, now(), &ENTROPY), now)
}

/// The Manager's side of a socket.
pub(crate) fn manager(socket: Socket, now: fn() -> Millis) -> Connection<ManagerEnd> {
    let end = ManagerEnd::new(Arc::from([manager_key()]), Arc::new(Lookup), now(), &ENTROPY);
    Connection::new(socket, end, now)
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Reads an HTTP head and nothing after it.
pub(crate) async fn head(io: &mut impl Io) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("a head is ASCII")
}

/// The value of a header in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|h| h.1)
}

/// Upgrades one connection as a Manager would.
pub(crate) async fn upgrade(mut io: impl Io + 'static) -> Socket {
    let head = head(&mut io).await;
    assert!(head.starts_with(&format!("GET {LINK_PATH} HTTP/1.1\r\n")), "{head}");
    assert_eq!(header(&head, "sec-websocket-protocol"), Some(SUBPROTOCOL));
    let accept = accept_key(header(&head, "sec-websocket-key").expect("a key"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    );
    io.write_all(answer.as_bytes()).await.expect("the delegate listens");
    Socket::server(io)
}

/// A server that takes one connection, waits for its first bytes and says this.
pub(crate) async fn answering(answer: &'static str) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.expect("a connection");
        let _ = io.read(&mut [0; 4_096]).await;
        let _ = io.write_all(answer.as_bytes()).await;
        let _ = io.shutdown().await;
        while io.read(&mut [0; 4_096]).await.is_ok_and(|length| length > 0) {}
    });
    address
}

/// A configuration that looks at no environment.
pub(crate) fn config(url: impl Into<String>) -> DialConfig {
    DialConfig { url: url.into(), ca_file: None, proxies: Proxies::default(), connect_timeout: Duration::from_secs(10) }
}

pub(crate) async fn dial(config: &DialConfig) -> Result<Socket, DialError> {
    Dialer::new(config)?.dial().await
}

/// Dials what cannot work; answers the error and its sentence.
pub(crate) async fn refused(config: &DialConfig) -> (DialError, String) {
    let error = dial(config).await.err().expect("not a Manager");
    let text = error.to_string();
    (error, text)
}
