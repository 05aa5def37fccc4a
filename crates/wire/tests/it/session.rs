//! A session from the first message to the last: what opens it, what may be said when, what ends it.

use legation_model::ids::{AttemptId, ReceiptId};
use legation_wire::{
    Close, DelegateEvent, End, GoodbyeReason, ManagerEvent, Opening, Role, SendError,
    message::{FromDelegate, Goodbye, Stopped, ToDelegate},
};

use crate::support::{World, drain, hello, lease, shuttle, welcome};

fn goodbye() -> Goodbye {
    let text = "revoked by a person".to_owned();
    Goodbye { reason: GoodbyeReason::TokenRevoked, receipt: Some(ReceiptId([6; 16])), retry_after: None, text }
}

#[test]
fn a_delegate_proves_itself_says_hello_and_is_welcome() {
    let world = World::new(1);
    let (mut delegate, mut manager) = (world.delegate_end(1_000), world.manager_end(1_000));
    shuttle(&mut delegate, &mut manager, 1_040).expect("a handshake");
    let events = drain(&mut manager);
    let [ManagerEvent::Proven(proof), ManagerEvent::Hello(said)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((proof.hint, proof.identity, proof.role), (world.hint(), world.delegate.public, Role::Delegate));
    assert_eq!(**said, hello());

    manager.send(&ToDelegate::Welcome(welcome())).expect("open");
    shuttle(&mut delegate, &mut manager, 1_100).expect("a welcome");
    let events = drain(&mut delegate);
    assert_eq!(events[0], DelegateEvent::Welcome(welcome()));
    assert_eq!(lease(&events), Some(1_040 + 300_000), "the first lease counts from the sending of Hello");
}

#[test]
fn nothing_but_hello_or_stopped_opens_and_neither_comes_twice() {
    let world = World::new(2);
    let (mut delegate, mut manager) = (world.delegate_end(0), world.manager_end(0));
    assert_eq!(delegate.send(&FromDelegate::Draining), Err(SendError::NotOpen));
    assert_eq!(manager.send(&ToDelegate::Welcome(welcome())), Err(SendError::NotOpen));
    shuttle(&mut delegate, &mut manager, 0).expect("a handshake");
    assert_eq!(delegate.send(&FromDelegate::Draining), Err(SendError::NotOpen), "not before Welcome");

    let (mut delegate, _) = world.session(0);
    assert_eq!(delegate.send(&FromDelegate::Hello(Box::new(hello()))), Err(SendError::NotOpen));
}

#[test]
fn a_manager_that_speaks_before_welcome_is_closed() {
    let world = World::new(3);
    let (mut delegate, mut manager) = (world.delegate_end(0), world.manager_end(0));
    shuttle(&mut delegate, &mut manager, 0).expect("a handshake");
    manager.send(&ToDelegate::FinishedAck { attempt: AttemptId([1; 16]) }).expect("open");
    assert_eq!(shuttle(&mut delegate, &mut manager, 0), Err(Close::OutOfPlace));
}

#[test]
fn a_second_welcome_closes() {
    let world = World::new(4);
    let (mut delegate, mut manager) = world.session(0);
    manager.send(&ToDelegate::Welcome(welcome())).expect("open");
    assert_eq!(shuttle(&mut delegate, &mut manager, 0), Err(Close::OutOfPlace));
}

#[test]
fn goodbye_overtakes_what_waits_and_is_the_last_word() {
    let world = World::new(5);
    let (mut delegate, mut manager) = world.session(0);
    manager.send(&ToDelegate::FinishedAck { attempt: AttemptId([1; 16]) }).expect("open");
    manager.goodbye(goodbye()).expect("nothing is half sent");
    assert_eq!(manager.send(&ToDelegate::HeartbeatAck { sent: 1, expires_in: None }), Err(SendError::NotOpen));
    delegate.send(&FromDelegate::Draining).expect("open");
    shuttle(&mut delegate, &mut manager, 0).expect("both leave in peace");
    assert_eq!(drain(&mut delegate), [DelegateEvent::Goodbye(goodbye())]);
    assert_eq!(drain(&mut manager), [], "nothing said after Goodbye becomes an event");
    assert_eq!((delegate.next_deadline(), manager.next_deadline()), (None, None));
}

#[test]
fn a_stopped_delegate_reports_it_and_gets_only_goodbye() {
    let world = World::new(6);
    let stopped = Stopped { receipt: ReceiptId([6; 16]), tasks_killed: 2 };
    let mut delegate = world.delegate_with(&world.token, Opening::Stopped(stopped), 0);
    let mut manager = world.manager_end(0);
    shuttle(&mut delegate, &mut manager, 0).expect("a handshake");
    assert_eq!(drain(&mut manager)[1], ManagerEvent::Stopped(stopped));
    assert_eq!(manager.send(&ToDelegate::Welcome(welcome())), Err(SendError::NotOpen));
    manager.goodbye(goodbye()).expect("open for this");
    shuttle(&mut delegate, &mut manager, 0).expect("a goodbye");
    assert_eq!(drain(&mut delegate), [DelegateEvent::Goodbye(goodbye())]);
}

#[test]
fn an_unfinished_handshake_ends_by_itself_on_both_sides() {
    let world = World::new(7);
    let (mut delegate, mut manager) = (world.delegate_end(0), world.manager_end(0));
    assert_eq!((delegate.on_deadline(9_999), manager.on_deadline(9_999)), (Ok(()), Ok(())));
    assert_eq!(manager.on_deadline(10_000), Err(Close::HandshakeTimeout));
    assert_eq!(delegate.on_deadline(10_000), Err(Close::HandshakeTimeout));
    assert_eq!((delegate.next_deadline(), manager.next_deadline()), (None, None));
}
