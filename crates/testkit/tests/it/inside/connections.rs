//! What arrives on the Manager's port and is no request of ours: refused or dropped, and nobody else notices.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use legation_api::{Code, routes};
use legation_link::SUBPROTOCOL;
use legation_manager::{config::Settings, handshakes::HANDSHAKES_MAX};
use legation_testkit::{Engine, Inside};
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::raw::{Raw, answer};

super::on_both!(
    upgrades_that_are_not_ours,
    bytes_that_are_no_http,
    half_open_connections_stop_nobody,
    links_that_say_nothing_leave_room_for_others,
    links_that_never_stop_talking_leave_time_for_others,
    plain_and_encrypted_callers_at_the_wrong_door,
    a_body_that_never_ends_is_not_waited_for_when_it_is_too_large,
);

/// The Manager's bound for the head of a request is 10 s; a busy machine may add a little.
const HEAD_BOUND: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(20));
/// How long an answer may take that needs no waiting.
const SOON: Duration = Duration::from_secs(8);

fn address(inside: &Inside) -> SocketAddr {
    inside.url.trim_start_matches("http://").parse().expect("an address")
}

async fn dial(inside: &Inside) -> TcpStream {
    TcpStream::connect(address(inside)).await.expect("a connection")
}

/// Sends bytes and nothing after them, and reads until the Manager closes.
async fn say(inside: &Inside, bytes: &[u8]) -> String {
    let mut stream = dial(inside).await;
    // The Manager may have closed before all of it was sent, which is an answer too.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    rest(stream).await
}

/// What the Manager sends until it closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the Manager closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A delegate still comes in and an admin is still answered.
async fn all_is_well(inside: &Inside, name: &str) {
    let token = inside.token(name).await;
    inside.puppet(name, &token).join().await;
}

async fn upgrades_that_are_not_ours(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let whole = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", SUBPROTOCOL),
    ];
    let spoilt = [
        ("connection", Some("keep-alive")),
        ("connection", None),
        ("upgrade", Some("h2c")),
        ("upgrade", None),
        ("sec-websocket-version", Some("8")),
        ("sec-websocket-version", None),
        ("sec-websocket-key", None),
        ("sec-websocket-protocol", Some("legation.v0")),
        ("sec-websocket-protocol", Some("chat, superchat")),
        ("sec-websocket-protocol", None),
    ];
    for (field, value) in spoilt {
        let mut request = raw.bare(Method::GET, routes::LINK);
        for (name, usual) in whole {
            if let Some(value) = if name == field { value } else { Some(usual) } {
                request = request.header(name, value);
            }
        }
        let problem = answer(request).await.problem();
        assert_eq!(problem.code, Code::InvalidRequest, "{field} {value:?}");
        assert!(problem.detail.starts_with("upgrade: "), "{problem}");
    }
    let right = whole
        .into_iter()
        .fold(raw.bare(Method::GET, routes::LINK), |request, (name, value)| request.header(name, value));
    assert_eq!(right.send().await.expect("an answer").status().as_u16(), 101);
    all_is_well(&inside, "afterwards").await;
}

async fn bytes_that_are_no_http(engine: Engine) {
    let inside = Inside::start(engine).await;
    let noise: Vec<u8> = (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(200_000));
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let refused: [&[u8]; 9] = [
        &noise,
        b"\r\n\r\n\0\0\0",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
        b"POST /api/v1/tokens HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        long.as_bytes(),
        headers.as_bytes(),
    ];
    for bytes in refused {
        let answer = say(&inside, bytes).await;
        let told = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{told}: {answer}");
    }
    // A second request smuggled into the body of the first is body, and not a request.
    let smuggled = b"POST /api/v1/tokens HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 36\r\n\r\n\
        GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n\r\n";
    let mut stream = dial(&inside).await;
    // Left open: a client that closes its side is taken to have given up.
    stream.write_all(smuggled).await.expect("written");
    let answer = rest(stream).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    all_is_well(&inside, "afterwards").await;
}

async fn half_open_connections_stop_nobody(engine: Engine) {
    const HALF_OPEN: usize = 200;
    let inside = Inside::start(engine).await;
    let mut open = Vec::new();
    for number in 0..HALF_OPEN {
        let mut stream = dial(&inside).await;
        let half = ["", "GET /api", "GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: "][number % 3];
        stream.write_all(half.as_bytes()).await.expect("written");
        open.push(stream);
    }
    timeout(SOON, all_is_well(&inside, "meanwhile")).await.expect("the good ones are not held up");
    // They were open all the time: none has been given an answer or an end.
    for stream in &open {
        let mut byte = [0];
        let error = stream.try_read(&mut byte).expect_err("nothing to read");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

async fn a_body_that_never_ends_is_not_waited_for_when_it_is_too_large(engine: Engine) {
    let inside = Inside::start(engine).await;
    let mut stream = dial(&inside).await;
    let head = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 1000000000000\r\n\r\n",
        inside.key.expose()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("answered at once").expect("answered");
    assert_eq!(answer, b"HTTP/1.1 413");
    all_is_well(&inside, "afterwards").await;
}

/// More than there are handshakes at once; each waits for the peer's first message and holds none of them.
async fn links_that_say_nothing_leave_room_for_others(engine: Engine) {
    let inside = Inside::start(engine).await;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).expect("the limit may be raised");
    let mut silent = Vec::new();
    for _ in 0..=HANDSHAKES_MAX {
        silent.push(upgraded(&inside).await);
    }
    all_is_well(&inside, "afterwards").await;
    drop(silent);
}

/// A link that is open and on which nothing was said.
async fn upgraded(inside: &Inside) -> TcpStream {
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n",
        routes::LINK
    );
    let mut stream = dial(inside).await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 101");
    stream
}

/// More of them than the Manager has threads, each on a thread of its own that sends pings as fast as it can.
async fn links_that_never_stop_talking_leave_time_for_others(engine: Engine) {
    const MASKED_PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
    let inside = Inside::start(engine).await;
    let mut talkers = Vec::new();
    for _ in 0..4 {
        let stream = upgraded(&inside).await.into_std().expect("a socket");
        stream.set_nonblocking(false).expect("a mode");
        let ends = stream.try_clone().expect("a second handle");
        let talks = std::thread::spawn(move || {
            let pings = MASKED_PING.repeat(4_096);
            while std::io::Write::write_all(&mut &stream, &pings).is_ok() {}
        });
        talkers.push((ends, talks));
    }
    all_is_well(&inside, "meanwhile").await;
    for (ends, talks) in talkers {
        // The Manager may have closed it first.
        let _ = ends.shutdown(std::net::Shutdown::Both);
        talks.join().expect("no panic");
    }
}

async fn plain_and_encrypted_callers_at_the_wrong_door(engine: Engine) {
    /// A TLS 1.2 record that begins a ClientHello and never completes it.
    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let plain = Inside::start(engine).await;
    let answer = say(&plain, HELLO).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    all_is_well(&plain, "afterwards").await;

    let encrypted = Inside::with(engine, Settings { tls_self_signed: Some(true), ..Settings::default() }).await;
    let answer = say(&encrypted, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1 2"), "served without TLS: {answer}");
    say(&encrypted, HELLO).await;
    let pem = std::fs::read(encrypted.directory().join("config/manager.crt")).expect("a certificate");
    let certificate = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().expect("a client");
    let url = format!("https://{}{}", address(&encrypted), routes::HEALTHZ);
    assert_eq!(client.get(url).send().await.expect("an answer").status().as_u16(), 200);
}

/// On one engine, because the database has no part in it and the bound is waited for.
#[tokio::test]
async fn a_head_that_drips_in_is_dropped_within_the_bound() {
    let inside = Inside::start(Engine::Sqlite).await;
    let mut stream = dial(&inside).await;
    let begun = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("written");
    let mut drip = tokio::time::interval(Duration::from_millis(250));
    let mut answer = Vec::new();
    let closed = async {
        loop {
            tokio::select! {
                read = stream.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
                _ = drip.tick() => if stream.write_all(b"a").await.is_err() { break },
            }
        }
    };
    timeout(HEAD_BOUND.1, closed).await.expect("dropped within the bound");
    assert!(begun.elapsed() >= HEAD_BOUND.0, "an honest slow client has some time");
    all_is_well(&inside, "afterwards").await;
}
