//! A session recorded once, from keys and entropy that are written beside it. It is a promise: what version 1
//! sent, every later version understands. The file is also the test vector of `docs/protocol.md`.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use legation_model::{
    Entropy, Secret,
    ids::{AttemptId, ReceiptId, TaskId, TokenId},
    secret::SecretText,
    token::Token,
};
use legation_wire::{
    DelegateEnd, End, GoodbyeReason, KeyPair, ManagerEnd, Opening, TokenHint, TokenKeys,
    message::{Assignment, Frame, FromDelegate, Goodbye, SecretVar, Stream, ToDelegate, Work},
    psk,
};

use crate::support::{drain, hello, welcome};

const RECORDED: &str = include_str!("../fixtures/transcript-v1.txt");

/// Gives out these bytes and no others.
struct Fixed(Mutex<VecDeque<u8>>);

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        let mut left = self.0.lock().expect("nobody panicked");
        bytes.fill_with(|| left.pop_front().expect("no more is drawn than was recorded"));
    }
}

/// `N` bytes that count up from `start`.
fn count<const N: usize>(start: u8) -> [u8; N] {
    std::array::from_fn(|at| start + at as u8)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn manager_key() -> KeyPair {
    KeyPair::from_private(Secret::new(count(0x01)))
}

fn delegate_key() -> KeyPair {
    KeyPair::from_private(Secret::new(count(0x21)))
}

fn token() -> Token {
    let manager_key = manager_key().public;
    Token { id: TokenId(count(0x61)), generation: 1, secret: Secret::new(count(0x41)), manager_key }
}

struct Lookup;

impl TokenKeys for Lookup {
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>> {
        (hint.token == token().id).then(|| psk::derive(&token().secret, hint.token, hint.generation))
    }
}

fn delegate_end() -> DelegateEnd {
    let drawn = count::<32>(0x81).into_iter().chain([0; 8]).collect();
    let opening = Opening::Hello(Box::new(hello()));
    DelegateEnd::new(&token(), &delegate_key(), opening, 0, &Fixed(Mutex::new(drawn)))
}

fn manager_end() -> ManagerEnd {
    let drawn = count::<32>(0xa1).into_iter().chain([0; 32]).collect();
    ManagerEnd::new(Arc::from([manager_key()]), Arc::new(Lookup), 0, &Fixed(Mutex::new(drawn)))
}

fn manager_says() -> [ToDelegate; 5] {
    let (attempt, task) = (AttemptId(count(0xb1)), TaskId(count(0xc1)));
    let secret = SecretVar { name: "KEY".to_owned(), value: SecretText::new("s3cret".to_owned()) };
    let work = Work::Shell {
        script: "echo $GREETING".to_owned(),
        interpreter: vec!["/bin/sh".to_owned()],
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        cwd: None,
        stdin: Vec::new(),
    };
    let assignment = Assignment { attempt, task, timeout: 600_000, output_limit: 1 << 20, work, secrets: vec![secret] };
    let goodbye = Goodbye {
        reason: GoodbyeReason::TokenRevoked,
        receipt: Some(ReceiptId(count(0xd1))),
        retry_after: None,
        text: "revoked".to_owned(),
    };
    [
        ToDelegate::Welcome(welcome()),
        ToDelegate::HeartbeatAck { sent: 1, expires_in: None },
        ToDelegate::Assign(Box::new(assignment)),
        ToDelegate::FinishedAck { attempt },
        ToDelegate::Goodbye(goodbye),
    ]
}

fn delegate_says() -> [FromDelegate; 3] {
    let attempt = AttemptId(count(0xb1));
    [
        FromDelegate::Started { attempt },
        FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes: b"hello\n".to_vec() },
        FromDelegate::Draining,
    ]
}

/// The whole session as text: what was put in, each frame in clear, each message as it travels.
fn record() -> String {
    let mut text = String::new();
    let mut line = |name: &str, bytes: &[u8]| writeln!(text, "{name} {}", hex(bytes)).expect("memory");
    line("manager_private", manager_key().private.expose());
    line("manager_public", &manager_key().public);
    line("delegate_private", delegate_key().private.expose());
    line("delegate_public", &delegate_key().public);
    line("token_id", &token().id.0);
    line("token_secret", token().secret.expose());
    line("token_string_in_ascii", token().reveal().expose().as_bytes());
    line("psk", psk::derive(&token().secret, token().id, 1).expose());
    line("delegate_ephemeral_private", &count::<32>(0x81));
    line("manager_ephemeral_private", &count::<32>(0xa1));

    let (mut delegate, mut manager) = (delegate_end(), manager_end());
    let first = delegate.poll_transmit().expect("the first message");
    line("delegate_1_handshake", &first);
    manager.receive(&first, 0).expect("a first message");
    let second = manager.poll_transmit().expect("the second message");
    line("manager_1_handshake", &second);
    delegate.receive(&second, 0).expect("a second message");
    let third = delegate.poll_transmit().expect("the third message");
    line("delegate_2_handshake", &third);
    manager.receive(&third, 0).expect("a third message");

    let mut up = 2;
    let mut say = |delegate: &mut DelegateEnd, manager: &mut ManagerEnd, frame: FromDelegate| {
        up += 1;
        let sealed = delegate.poll_transmit().expect("something to say");
        line(&format!("delegate_{up}_frame"), &frame.encode());
        line(&format!("delegate_{up}_sealed"), &sealed);
        manager.receive(&sealed, 0).expect("in order");
        drain(manager);
    };
    say(&mut delegate, &mut manager, FromDelegate::Hello(Box::new(hello())));
    let mut answers = Vec::new();
    for (number, message) in (2..).zip(manager_says()) {
        match &message {
            ToDelegate::Goodbye(goodbye) => manager.goodbye(goodbye.clone()),
            message => manager.send(message),
        }
        .expect("open");
        let sealed = manager.poll_transmit().expect("something to say");
        delegate.receive(&sealed, 0).expect("in order");
        answers.push((number, message.encode(), sealed));
        match message {
            ToDelegate::Welcome(_) => {
                delegate.on_deadline(delegate.next_deadline().expect("a rhythm")).expect("a heartbeat");
                say(&mut delegate, &mut manager, FromDelegate::Heartbeat { sent: 1, running: 0 });
            }
            ToDelegate::Assign(_) => {
                for message in delegate_says() {
                    delegate.send(&message).expect("open");
                    say(&mut delegate, &mut manager, message);
                }
            }
            _ => {}
        }
    }
    for (number, frame, sealed) in answers {
        line(&format!("manager_{number}_frame"), &frame);
        line(&format!("manager_{number}_sealed"), &sealed);
    }
    text
}

fn recorded() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = RECORDED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(' ').expect("a name and bytes")).map(|(name, text)| (name, unhex(text))).collect()
}

/// The recorded messages of one side that travel after the handshake.
fn sealed(side: &str) -> Vec<Vec<u8>> {
    let recorded = recorded();
    (1..)
        .map_while(|number| {
            let name = |kind: &str| format!("{side}_{number}_{kind}");
            recorded.get(&*name("sealed")).or_else(|| recorded.get(&*name("handshake"))).cloned()
        })
        .collect()
}

#[test]
fn the_same_keys_and_entropy_give_the_same_bytes() {
    let facts: String =
        RECORDED.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let now = record();
    assert!(now == facts, "version 1 has changed, which it must not; it would now be\n{now}");
}

#[test]
fn a_recorded_delegate_is_understood() {
    let mut manager = manager_end();
    for message in sealed("delegate") {
        manager.receive(&message, 0).expect("as it was recorded");
    }
    assert_eq!(drain(&mut manager).len(), 6, "a proof, Hello, a heartbeat and three more");
}

#[test]
fn a_recorded_manager_is_understood() {
    let mut delegate = delegate_end();
    for message in sealed("manager") {
        delegate.receive(&message, 0).expect("as it was recorded");
        // Right after Welcome the heartbeat is due whose answer was recorded.
        delegate.on_deadline(9_999).expect("in time");
    }
    assert_eq!(drain(&mut delegate).len(), 6, "Welcome, two leases, Assign, an acknowledgement, Goodbye");
}
