//! What a handshake costs each side.
//!
//! Both sides draw the same keys each time, so that one recorded answer of the other side fits every repetition.

use std::{hint::black_box, sync::Arc};

use legation_manager::live::LiveTokens;
use legation_model::{Millis, Secret, ids::TokenId, token::Token};
use legation_wire::{
    DelegateEnd, DelegateEvent, End, KeyPair, ManagerEnd, ManagerEvent, Opening,
    message::{Hello, ToDelegate},
    psk,
};

use super::{
    Measured,
    fixture::{self, Filled},
};

/// When every link begins.
pub(super) const START: Millis = 0;

/// From nothing to the third message, with Hello waiting behind it.
pub(super) fn delegate() -> Box<dyn Measured> {
    let parties = Parties::new();
    let (_, _, [_, second, _]) = parties.handshake();
    Box::new(move || {
        let mut end = parties.delegate_end();
        black_box(end.poll_transmit());
        end.receive(&second, START).expect("the answer to this very message");
        black_box(end.poll_transmit());
    })
}

/// From the first message to a proven delegate.
pub(super) fn manager() -> Box<dyn Measured> {
    let parties = Parties::new();
    let (_, _, [first, _, third]) = parties.handshake();
    Box::new(move || {
        let mut end = parties.manager_end();
        end.receive(&first, START).expect("a first message");
        black_box(end.poll_transmit());
        end.receive(&third, START).expect("a proof");
        black_box(end.poll_event());
    })
}

/// Both sides before they meet.
pub(super) struct Parties {
    token: Token,
    identity: KeyPair,
    hello: Hello,
    keys: Arc<[KeyPair]>,
    lookup: Arc<LiveTokens>,
}

impl Parties {
    pub(super) fn new() -> Self {
        let manager = KeyPair::generate(&Filled(1));
        let (id, secret) = (TokenId([3; 16]), Secret::new([4; 32]));
        let lookup = LiveTokens::default();
        lookup.insert(fixture::token(id, psk::derive(&secret, id, 1)));
        Self {
            token: Token { id, generation: 1, secret, manager_key: manager.public },
            identity: KeyPair::generate(&Filled(2)),
            hello: fixture::hello(0, &Filled(5)),
            keys: Arc::from([manager]),
            lookup: Arc::new(lookup),
        }
    }

    fn delegate_end(&self) -> DelegateEnd {
        let opening = Opening::Hello(Box::new(self.hello.clone()));
        DelegateEnd::new(&self.token, &self.identity, opening, START, &Filled(6))
    }

    fn manager_end(&self) -> ManagerEnd {
        ManagerEnd::new(Arc::clone(&self.keys), Arc::clone(&self.lookup) as _, START, &Filled(7))
    }

    /// Both ends after the handshake, and its three messages.
    fn handshake(&self) -> (DelegateEnd, ManagerEnd, [Vec<u8>; 3]) {
        let (mut delegate, mut manager) = (self.delegate_end(), self.manager_end());
        let first = hand_over(&mut delegate, &mut manager);
        let second = hand_over(&mut manager, &mut delegate);
        let third = hand_over(&mut delegate, &mut manager);
        assert!(matches!(manager.poll_event(), Some(ManagerEvent::Proven(_))), "a handshake that proves");
        (delegate, manager, [first, second, third])
    }

    /// Both ends of an open session.
    pub(super) fn session(&self) -> (DelegateEnd, ManagerEnd) {
        let (mut delegate, mut manager, _) = self.handshake();
        hand_over(&mut delegate, &mut manager);
        assert!(matches!(manager.poll_event(), Some(ManagerEvent::Hello(_))), "the first frame");
        manager.send(&ToDelegate::Welcome(fixture::welcome())).expect("an open session");
        hand_over(&mut manager, &mut delegate);
        assert!(matches!(delegate.poll_event(), Some(DelegateEvent::Welcome(_))), "an open session");
        while delegate.poll_event().is_some() {}
        (delegate, manager)
    }
}

/// Carries one message; answers it.
pub(super) fn hand_over(from: &mut impl End, to: &mut impl End) -> Vec<u8> {
    let message = from.poll_transmit().expect("its turn");
    to.receive(&message, START).expect("a message that fits");
    message
}
