//! Heartbeats and the lease, on a clock that only the test moves.

use legation_model::Millis;
use legation_wire::{
    Close, DelegateEnd, DelegateEvent, End, ManagerEnd, ManagerEvent,
    message::{FromDelegate, ToDelegate, Welcome},
};
use proptest::prelude::*;

use crate::support::{World, drain, lease, shuttle, welcome};

/// Lets the next heartbeat happen; answers when, and its number.
fn beat(delegate: &mut DelegateEnd, manager: &mut ManagerEnd) -> (Millis, u64) {
    let due = delegate.next_deadline().expect("an open session has a rhythm");
    delegate.on_deadline(due).expect("answered so far");
    shuttle(delegate, manager, due).expect("a heartbeat");
    match &drain(manager)[..] {
        [ManagerEvent::Message(FromDelegate::Heartbeat { sent, .. })] => (due, *sent),
        other => panic!("{other:?}"),
    }
}

fn answer(delegate: &mut DelegateEnd, manager: &mut ManagerEnd, sent: u64, now: Millis) -> Vec<DelegateEvent> {
    manager.send(&ToDelegate::HeartbeatAck { sent, expires_in: None }).expect("open");
    shuttle(delegate, manager, now).expect("an answer");
    drain(delegate)
}

#[test]
fn the_lease_counts_from_the_sending_of_what_was_answered() {
    let (mut delegate, mut manager) = World::new(31).session(0);
    let (sent_at, number) = beat(&mut delegate, &mut manager);
    let events = answer(&mut delegate, &mut manager, number, sent_at + 9_000);
    assert_eq!(lease(&events), Some(sent_at + 300_000), "however late the answer comes");
}

#[test]
fn an_old_answer_gives_nothing_new_and_a_made_up_one_closes() {
    let (mut delegate, mut manager) = World::new(32).session(0);
    let (_, first) = beat(&mut delegate, &mut manager);
    let (second_at, second) = beat(&mut delegate, &mut manager);
    assert_eq!(lease(&answer(&mut delegate, &mut manager, second, second_at)), Some(second_at + 300_000));
    assert_eq!(answer(&mut delegate, &mut manager, first, second_at), []);
    assert_eq!(answer(&mut delegate, &mut manager, second, second_at), []);
    manager.send(&ToDelegate::HeartbeatAck { sent: second + 1, expires_in: None }).expect("open");
    assert_eq!(shuttle(&mut delegate, &mut manager, second_at), Err(Close::OutOfPlace));
}

#[test]
fn the_answer_may_say_when_the_token_expires_and_renews_the_lease_all_the_same() {
    let (mut delegate, mut manager) = World::new(34).session(0);
    let (sent_at, sent) = beat(&mut delegate, &mut manager);
    for (expires_in, left) in [(3_600_000, 3_600_000), (u64::MAX, Millis::MAX / 4)] {
        manager.send(&ToDelegate::HeartbeatAck { sent, expires_in: Some(expires_in) }).expect("open");
        shuttle(&mut delegate, &mut manager, sent_at).expect("an answer");
        let events = drain(&mut delegate);
        assert_eq!(events.last(), Some(&DelegateEvent::TokenExpires { left }));
        assert_eq!(lease(&events), (expires_in == 3_600_000).then_some(sent_at + 300_000), "once");
    }
}

#[test]
fn silence_after_three_heartbeats_ends_the_link() {
    let (mut delegate, mut manager) = World::new(33).session(0);
    for _ in 0..3 {
        beat(&mut delegate, &mut manager);
    }
    let due = delegate.next_deadline().expect("a deadline");
    assert_eq!(delegate.on_deadline(due), Err(Close::Silent));
    assert_eq!(delegate.next_deadline(), None);
}

#[test]
fn a_heartbeat_overtakes_output_that_waits() {
    let (mut delegate, mut manager) = World::new(34).session(0);
    for _ in 0..100 {
        delegate.send(&FromDelegate::Draining).expect("open");
    }
    delegate.set_running(7);
    let due = delegate.next_deadline().expect("a deadline");
    delegate.on_deadline(due).expect("a heartbeat");
    manager.receive(&delegate.poll_transmit().expect("a message"), due).expect("a heartbeat");
    let expected = ManagerEvent::Message(FromDelegate::Heartbeat { sent: 1, running: 7 });
    assert_eq!(drain(&mut manager), [expected]);
}

#[test]
fn too_early_a_call_does_nothing() {
    let (mut delegate, _) = World::new(35).session(0);
    let due = delegate.next_deadline().expect("a deadline");
    delegate.on_deadline(due - 1).expect("nothing is due");
    assert_eq!((delegate.poll_transmit(), delegate.next_deadline()), (None, Some(due)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn heartbeats_come_within_a_third_of_the_lease(seed: u64, heartbeat in 1_u64..100_000, lease in 1_u64..1_000_000) {
        let world = World::new(seed);
        let (mut delegate, mut manager) = (world.delegate_end(0), world.manager_end(0));
        shuttle(&mut delegate, &mut manager, 0).expect("a handshake");
        manager.send(&ToDelegate::Welcome(Welcome { heartbeat, lease, ..welcome() })).expect("open");
        shuttle(&mut delegate, &mut manager, 0).expect("a welcome");
        drain(&mut manager);
        let longest = (lease.cast_signed() / 3).min(heartbeat.cast_signed() * 11 / 10).max(1);
        let mut last = 0;
        for _ in 0..5 {
            let (at, number) = beat(&mut delegate, &mut manager);
            prop_assert!(at > last && at - last <= longest, "{} of {longest}", at - last);
            answer(&mut delegate, &mut manager, number, at);
            last = at;
        }
    }
}
