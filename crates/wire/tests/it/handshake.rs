//! The handshake under attack: nothing but the right token, key and bytes ever makes a session.

use std::sync::{Arc, atomic::Ordering};

use legation_model::{Entropy, Millis, Secret, ids::TokenId, token::Token};
use legation_wire::{Close, DelegateEnd, End, KeyPair, ManagerEnd, handshake};

use crate::support::{World, drain, shuttle};

const NOW: Millis = 5_000;

/// Runs a handshake in which message `number` (0 to 2) is altered on its way; answers which side closed.
fn altered(world: &World, number: usize, alter: &dyn Fn(&mut Vec<u8>)) -> Result<(), Close> {
    let (mut delegate, mut manager) = (world.delegate_end(NOW), world.manager_end(NOW));
    let ran = pass(&mut delegate, &mut manager, number, alter);
    assert_eq!(drain(&mut delegate), [], "no session on the delegate's side");
    assert_eq!(drain(&mut manager), [], "no session on the Manager's side");
    ran
}

fn pass(
    delegate: &mut DelegateEnd,
    manager: &mut ManagerEnd,
    number: usize,
    alter: &dyn Fn(&mut Vec<u8>),
) -> Result<(), Close> {
    for turn in 0..3 {
        let sent = if turn == 1 { manager.poll_transmit() } else { delegate.poll_transmit() };
        let mut message = sent.expect("each turn has a message");
        if turn == number {
            alter(&mut message);
        }
        if turn == 1 { delegate.receive(&message, NOW)? } else { manager.receive(&message, NOW)? }
    }
    Ok(())
}

const LENGTHS: [usize; 3] = [handshake::FIRST_LEN, handshake::SECOND_LEN, handshake::THIRD_LEN];

#[test]
fn every_byte_of_every_message_counts() {
    let world = World::new(11);
    for (number, length) in LENGTHS.into_iter().enumerate() {
        for at in 0..length {
            for bit in [1, 0x80] {
                let closed = altered(&world, number, &|message| message[at] ^= bit);
                assert!(closed.is_err(), "message {number}, byte {at}");
            }
        }
    }
}

#[test]
fn every_shorter_or_longer_message_is_refused() {
    let world = World::new(12);
    for (number, length) in LENGTHS.into_iter().enumerate() {
        for cut in 0..length {
            let closed = altered(&world, number, &|message| message.truncate(cut));
            assert!(closed.is_err(), "message {number} cut to {cut}");
        }
        for more in [1, 16, 65_535 - length] {
            let closed = altered(&world, number, &|message| message.resize(length + more, 0));
            assert!(closed.is_err(), "message {number} and {more} more");
        }
    }
}

#[test]
fn messages_have_the_lengths_that_are_documented() {
    let world = World::new(13);
    let (mut delegate, mut manager) = (world.delegate_end(NOW), world.manager_end(NOW));
    let first = delegate.poll_transmit().expect("the first message");
    manager.receive(&first, NOW).expect("a preamble");
    let second = manager.poll_transmit().expect("the second message");
    delegate.receive(&second, NOW).expect("the Manager");
    let third = delegate.poll_transmit().expect("the third message");
    assert_eq!([first.len(), second.len(), third.len()], LENGTHS);
    assert_eq!(LENGTHS, [84, 49, 64]);
}

/// What a delegate without the right secret can observe: lengths of what it gets, how it ends, and how often
/// the Manager looked for a key.
fn observe(world: &World, token: &Token) -> (Vec<usize>, Close, u64) {
    let lookup = world.lookup();
    let keys = Arc::from([world.manager.clone()]);
    let mut manager = ManagerEnd::new(keys, lookup.clone(), NOW, &world.entropy);
    let opening = legation_wire::Opening::Hello(Box::new(crate::support::hello()));
    let mut delegate = world.delegate_with(token, opening, NOW);
    manager.receive(&delegate.poll_transmit().expect("first"), NOW).expect("a known key");
    let second = manager.poll_transmit().expect("second");
    delegate.receive(&second, NOW).expect("the Manager is the Manager");
    let ended = manager.receive(&delegate.poll_transmit().expect("third"), NOW).expect_err("not proven");
    assert_eq!(manager.poll_transmit(), None);
    assert_eq!(drain(&mut manager), []);
    (vec![second.len()], ended, lookup.asked.load(Ordering::Relaxed))
}

#[test]
fn an_unknown_token_cannot_be_told_from_a_wrong_secret() {
    let world = World::new(14);
    let unknown = Token { id: TokenId([0xee; 16]), ..world.token.clone() };
    let retired = Token { generation: 2, ..world.token.clone() };
    let wrong = Token { secret: Secret::new([0xee; 32]), ..world.token.clone() };
    let seen = observe(&world, &wrong);
    assert_eq!(seen, (vec![49], Close::Unproven, 1));
    assert_eq!(observe(&world, &unknown), seen);
    assert_eq!(observe(&world, &retired), seen);
}

#[test]
fn a_manager_without_the_key_says_so_and_another_one_cannot_pose_as_it() {
    let world = World::new(15);
    let stranger = KeyPair::generate(&world.entropy);
    let mut manager = ManagerEnd::new(Arc::from([stranger]), world.lookup(), NOW, &world.entropy);
    let mut delegate = world.delegate_end(NOW);
    let first = delegate.poll_transmit().expect("first");
    assert_eq!(manager.receive(&first, NOW), Err(Close::UnknownManagerKey));
    let answer = manager.poll_transmit().expect("last words");
    assert_eq!(answer, handshake::UNKNOWN_KEY_ANSWER);
    assert_eq!(delegate.receive(&answer, NOW), Err(Close::UnknownManagerKey));

    // A liar that takes the first message as its own cannot open it.
    let liar = World::new(16);
    let mut forged = first.clone();
    forged[8..16].copy_from_slice(&liar.manager.id());
    assert_eq!(liar.manager_end(NOW).receive(&forged, NOW), Err(Close::BadHandshake));
}

#[test]
fn a_manager_picks_the_key_that_the_token_names() {
    let world = World::new(17);
    let keys = Arc::from([KeyPair::generate(&world.entropy), world.manager.clone()]);
    let mut manager = ManagerEnd::new(keys, world.lookup(), NOW, &world.entropy);
    let mut delegate = world.delegate_end(NOW);
    shuttle(&mut delegate, &mut manager, NOW).expect("a handshake");
    assert_eq!(drain(&mut manager).len(), 2);
}

#[test]
fn messages_recorded_once_prove_nothing_later() {
    let world = World::new(18);
    let (mut delegate, mut manager) = (world.delegate_end(NOW), world.manager_end(NOW));
    let first = delegate.poll_transmit().expect("first");
    manager.receive(&first, NOW).expect("a preamble");
    delegate.receive(&manager.poll_transmit().expect("second"), NOW).expect("the Manager");
    let third = delegate.poll_transmit().expect("third");

    let mut later = world.manager_end(NOW);
    later.receive(&first, NOW).expect("a first message may be repeated by anyone");
    assert_eq!(later.receive(&third, NOW), Err(Close::Unproven));
    assert_eq!(drain(&mut later), []);
}

#[test]
fn a_key_of_small_order_is_refused() {
    let world = World::new(19);
    let closed = altered(&world, 0, &|message| message[16..48].fill(0));
    assert_eq!(closed, Err(Close::BadHandshake));
    let closed = altered(&world, 1, &|message| message[..32].fill(0));
    assert_eq!(closed, Err(Close::BadHandshake));
}

#[test]
fn random_bytes_never_get_anywhere() {
    let world = World::new(20);
    for length in (0..200).chain([1_000, 65_535]) {
        let mut noise = vec![0; length];
        world.entropy.fill(&mut noise);
        assert!(world.manager_end(NOW).receive(&noise, NOW).is_err());
        assert!(world.delegate_end(NOW).receive(&noise, NOW).is_err());
    }
}
