//! Peers that are proven and then misbehave: each side against the sealed rubbish of the other.

use std::sync::Arc;

use legation_model::{
    Entropy, Secret,
    ids::{ReceiptId, TokenId},
    token::Token,
};
use zeroize::Zeroizing;

use crate::{
    Close, DelegateEnd, End, FRAME_MAX, KeyPair, MESSAGE_MAX, ManagerEnd, ManagerEvent, Opening, Role, TokenHint,
    TokenKeys,
    cipher::Transport,
    end::EVENTS_MAX,
    frame::PART_MAX,
    handshake::{Initiator, Responder, draw},
    message::{Frame, FromDelegate, Stopped, ToDelegate, Welcome},
};

struct Counting;

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
    }
}

struct Any;

impl TokenKeys for Any {
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>> {
        Some(crate::psk::derive(&token().secret, hint.token, hint.generation))
    }
}

fn manager_key() -> KeyPair {
    KeyPair::from_private(Secret::new([1; 32]))
}

fn delegate_key() -> KeyPair {
    KeyPair::from_private(Secret::new([2; 32]))
}

fn token() -> Token {
    let manager_key = manager_key().public;
    Token { id: TokenId([3; 16]), generation: 1, secret: Secret::new([4; 32]), manager_key }
}

/// A Manager's end, proven to, and the bare transport of a delegate that may now say anything.
fn against_manager() -> (Transport, ManagerEnd) {
    let mut manager = ManagerEnd::new(Arc::from([manager_key()]), Arc::new(Any), 0, &Counting);
    let (initiator, first) = Initiator::start(&token(), &delegate_key(), Role::Delegate, &Counting);
    manager.receive(&first, 0).expect("a first message");
    let second = manager.poll_transmit().expect("a second message");
    let (third, transport) = initiator.finish(&second).expect("the Manager");
    manager.receive(&third, 0).expect("a proof");
    assert!(matches!(manager.poll_event(), Some(ManagerEvent::Proven(_))));
    (transport, manager)
}

/// A delegate's end, and the bare transport of a Manager that may now say anything.
fn against_delegate() -> (Transport, DelegateEnd) {
    let opening = Opening::Stopped(Stopped { receipt: ReceiptId([5; 16]), tasks_killed: 0 });
    let mut delegate = DelegateEnd::new(&token(), &delegate_key(), opening, 0, &Counting);
    let first = delegate.poll_transmit().expect("a first message");
    let answer = Responder::answer(&[manager_key()], &first, draw(&Counting), draw(&Counting)).expect("readable");
    delegate.receive(&answer.second, 0).expect("the Manager");
    let third = delegate.poll_transmit().expect("a third message");
    let (_, mut transport) = answer.next.expect("a version").prove(&third, &Any).expect("a proof");
    transport.open(&delegate.poll_transmit().expect("the opening frame")).expect("in order");
    (transport, delegate)
}

/// Lets the delegate's session open, with the smallest Hello that is one.
fn opened() -> (Transport, ManagerEnd) {
    let (mut transport, mut manager) = against_manager();
    let frame = hello_frame();
    manager.receive(&transport.seal(&whole(&frame)), 0).expect("a Hello");
    assert!(matches!(manager.poll_event(), Some(ManagerEvent::Hello(_))));
    (transport, manager)
}

fn hello_frame() -> Zeroizing<Vec<u8>> {
    use legation_model::{delegate::Isolation, ids::BootId};
    let name = || "d".parse().expect("a name");
    FromDelegate::Hello(Box::new(crate::message::Hello {
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
    }))
    .encode()
}

/// A frame as its last part.
fn whole(frame: &[u8]) -> Vec<u8> {
    [&[0], frame].concat()
}

/// A part that says that more follows.
fn part(length: usize) -> Vec<u8> {
    let mut part = vec![0xa5; 1 + length];
    part[0] = 1;
    part
}

#[test]
fn sealed_rubbish_closes() {
    let deep = whole(&[vec![0x82, 0x07], vec![0x81; 100_000], vec![0x00]].concat());
    let huge = whole(&[&[0x82, 0x07, 0x9b][..], &[0x7f; 8]].concat());
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing at all", Vec::new()),
        ("a flag alone", whole(&[])),
        ("an unknown flag", vec![2, 0x81, 0x06]),
        ("a short part that says more follows", part(PART_MAX - 1)),
        ("an unknown message", whole(&[0x81, 0x18, 0x63])),
        ("half a message", whole(&[0x82, 0x07])),
        ("bytes after the message", whole(&[0x81, 0x06, 0x00])),
        ("nested 100,000 deep", deep),
        ("a list of 2^62", huge),
    ];
    for (what, plain) in cases {
        let (mut transport, mut manager) = opened();
        let closed = pieces(&plain).into_iter().try_for_each(|piece| manager.receive(&transport.seal(&piece), 0));
        assert_eq!(closed, Err(Close::BadFrame), "{what}");
        assert_eq!(manager.poll_event(), None, "{what}");
    }
}

/// Cuts a last part that is too long for one message into several.
fn pieces(plain: &[u8]) -> Vec<Vec<u8>> {
    if plain.len() <= 1 + PART_MAX {
        return vec![plain.to_vec()];
    }
    let parts: Vec<&[u8]> = plain[1..].chunks(PART_MAX).collect();
    let flag = |at: usize| u8::from(at + 1 < parts.len());
    parts.iter().enumerate().map(|(at, part)| [&[flag(at)], *part].concat()).collect()
}

#[test]
fn a_frame_without_end_is_cut_off_at_its_bound() {
    let (mut transport, mut manager) = opened();
    let parts = FRAME_MAX / PART_MAX;
    for _ in 0..parts {
        manager.receive(&transport.seal(&part(PART_MAX)), 0).expect("still within a frame");
    }
    assert_eq!(manager.receive(&transport.seal(&part(PART_MAX)), 0), Err(Close::TooLarge));
}

#[test]
fn the_first_frame_must_fit_one_message() {
    let (mut transport, mut manager) = against_manager();
    assert_eq!(manager.receive(&transport.seal(&part(PART_MAX)), 0), Err(Close::TooLarge));
    let (mut transport, mut delegate) = against_delegate();
    assert_eq!(delegate.receive(&transport.seal(&part(PART_MAX)), 0), Err(Close::TooLarge));
}

#[test]
fn only_hello_or_stopped_opens_and_neither_comes_again() {
    let (mut transport, mut manager) = against_manager();
    let draining = FromDelegate::Draining.encode();
    assert_eq!(manager.receive(&transport.seal(&whole(&draining)), 0), Err(Close::OutOfPlace));

    let stopped = FromDelegate::Stopped(Stopped { receipt: ReceiptId([5; 16]), tasks_killed: 0 }).encode();
    for again in [hello_frame(), stopped.clone()] {
        let (mut transport, mut manager) = opened();
        assert_eq!(manager.receive(&transport.seal(&whole(&again)), 0), Err(Close::OutOfPlace));
    }

    let (mut transport, mut manager) = against_manager();
    manager.receive(&transport.seal(&whole(&stopped)), 0).expect("a last session");
    assert!(matches!(manager.poll_event(), Some(ManagerEvent::Stopped(_))));
    manager.receive(&transport.seal(&whole(&hello_frame())), 0).expect("not even listened to");
    assert_eq!(manager.poll_event(), None, "no session grows out of a report that it ended");
}

#[test]
fn repeated_reordered_and_dropped_messages_close() {
    let draining = whole(&FromDelegate::Draining.encode());
    let (mut transport, mut manager) = opened();
    let message = transport.seal(&draining);
    manager.receive(&message, 0).expect("once");
    assert_eq!(manager.receive(&message, 0), Err(Close::Undecipherable));
    assert_eq!(manager.receive(&transport.seal(&draining), 0), Err(Close::OutOfPlace), "nothing after an error");

    let (mut transport, mut manager) = opened();
    let _dropped = transport.seal(&draining);
    assert_eq!(manager.receive(&transport.seal(&draining), 0), Err(Close::Undecipherable));
}

#[test]
fn every_altered_byte_of_a_sealed_message_closes() {
    let sealed = opened().0.seal(&whole(&FromDelegate::Draining.encode()));
    for at in 0..sealed.len() {
        let (_, mut manager) = opened();
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert_eq!(manager.receive(&altered, 0), Err(Close::Undecipherable));
        assert_eq!(opened().1.receive(&sealed[..at], 0), Err(Close::Undecipherable));
    }
    assert_eq!(opened().1.receive(&[0; MESSAGE_MAX + 1], 0), Err(Close::Undecipherable));
}

#[test]
fn messages_that_nobody_takes_are_bounded() {
    let (mut transport, mut manager) = opened();
    let mut say = || manager.receive(&transport.seal(&whole(&FromDelegate::Draining.encode())), 0);
    for _ in 0..EVENTS_MAX {
        say().expect("room for it");
    }
    assert_eq!(say(), Err(Close::Flooded));
}

#[test]
fn a_manager_that_welcomes_a_stopped_delegate_is_closed() {
    use legation_model::ids::{DelegateId, SessionId};
    let welcome = ToDelegate::Welcome(Welcome {
        account: "default".to_owned(),
        scope: "default".parse().expect("a scope"),
        delegate: DelegateId([7; 16]),
        generation: 1,
        session: SessionId([8; 16]),
        heartbeat: 1_000,
        lease: 10_000,
        first_retry: 1_000,
        server_time: 0,
    });
    let (mut transport, mut delegate) = against_delegate();
    assert_eq!(delegate.receive(&transport.seal(&whole(&welcome.encode())), 0), Err(Close::OutOfPlace));
}
