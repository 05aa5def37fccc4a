//! A token, both keys, entropy from a seed, and a wire that is two vectors.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use legation_model::{
    Entropy, Millis, Secret,
    delegate::Isolation,
    ids::{BootId, DelegateId, SessionId, TokenId},
    token::Token,
};
use legation_wire::{
    Close, DelegateEnd, DelegateEvent, End, KeyPair, ManagerEnd, Opening, TokenHint, TokenKeys,
    message::{Hello, ToDelegate, Welcome},
    psk,
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

/// Entropy that repeats from its seed.
pub(crate) struct Seeded(Mutex<ChaCha20Rng>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().expect("no test panics while drawing").fill_bytes(bytes);
    }
}

/// A Manager's and a delegate's secrets, as they would lie on both sides.
pub(crate) struct World {
    pub(crate) manager: KeyPair,
    pub(crate) delegate: KeyPair,
    pub(crate) token: Token,
    pub(crate) entropy: Seeded,
}

/// A lookup that knows one token, and counts how often it is asked.
pub(crate) struct OneToken {
    hint: TokenHint,
    psk: Secret<32>,
    pub(crate) asked: AtomicU64,
}

impl TokenKeys for OneToken {
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        (hint == self.hint).then(|| self.psk.clone())
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let entropy = Seeded::new(seed);
        let manager = KeyPair::generate(&entropy);
        let delegate = KeyPair::generate(&entropy);
        let secret = Secret::random(&entropy);
        let token = Token { id: TokenId::random(&entropy), generation: 1, secret, manager_key: manager.public };
        Self { manager, delegate, token, entropy }
    }

    pub(crate) fn hint(&self) -> TokenHint {
        TokenHint { token: self.token.id, generation: self.token.generation }
    }

    pub(crate) fn lookup(&self) -> Arc<OneToken> {
        let psk = psk::derive(&self.token.secret, self.token.id, self.token.generation);
        Arc::new(OneToken { hint: self.hint(), psk, asked: AtomicU64::new(0) })
    }

    pub(crate) fn delegate_end(&self, now: Millis) -> DelegateEnd {
        self.delegate_with(&self.token, Opening::Hello(Box::new(hello())), now)
    }

    pub(crate) fn delegate_with(&self, token: &Token, opening: Opening, now: Millis) -> DelegateEnd {
        DelegateEnd::new(token, &self.delegate, opening, now, &self.entropy)
    }

    pub(crate) fn manager_end(&self, now: Millis) -> ManagerEnd {
        ManagerEnd::new(Arc::from([self.manager.clone()]), self.lookup(), now, &self.entropy)
    }

    /// Both ends with an open session, all events taken.
    pub(crate) fn session(&self, now: Millis) -> (DelegateEnd, ManagerEnd) {
        let (mut delegate, mut manager) = (self.delegate_end(now), self.manager_end(now));
        shuttle(&mut delegate, &mut manager, now).expect("a handshake");
        manager.send(&ToDelegate::Welcome(welcome())).expect("open");
        shuttle(&mut delegate, &mut manager, now).expect("a welcome");
        assert_eq!(drain(&mut manager).len(), 2);
        assert_eq!(drain(&mut delegate).len(), 2);
        (delegate, manager)
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        delegate: Some(DelegateId([3; 16])),
        account: Some("acme".to_owned()),
        boot: BootId([4; 16]),
        counter: 1,
        name: "build-7".parse().expect("a name"),
        host: "host.example".parse().expect("a name"),
        tags: vec!["linux".parse().expect("a name"), "zone=a".parse().expect("a name")],
        description: "Räume auf".parse().expect("a text"),
        version: "0.1.0".to_owned(),
        capabilities: vec!["shell".to_owned(), "http".to_owned()],
        capacity: 4,
        isolation: Isolation::User,
        attempts: Vec::new(),
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        account: "acme".to_owned(),
        scope: "acme/eng".parse().expect("a scope"),
        delegate: DelegateId([3; 16]),
        generation: 1,
        session: SessionId([5; 16]),
        heartbeat: 10_000,
        lease: 300_000,
        first_retry: 1_000,
        server_time: 1_700_000_000_000,
    }
}

/// Carries messages both ways until both are silent.
pub(crate) fn shuttle(delegate: &mut DelegateEnd, manager: &mut ManagerEnd, now: Millis) -> Result<(), Close> {
    loop {
        let (up, down) = (delegate.poll_transmit(), manager.poll_transmit());
        if up.is_none() && down.is_none() {
            return Ok(());
        }
        up.map_or(Ok(()), |up| manager.receive(&up, now))?;
        down.map_or(Ok(()), |down| delegate.receive(&down, now))?;
    }
}

/// All events that wait.
pub(crate) fn drain<E: End>(end: &mut E) -> Vec<E::Event> {
    std::iter::from_fn(|| end.poll_event()).collect()
}

/// Until when the delegate believes its lease to run, from its last events.
pub(crate) fn lease(events: &[DelegateEvent]) -> Option<Millis> {
    events.iter().rev().find_map(|event| match event {
        DelegateEvent::LeaseRenewed { until } => Some(*until),
        _ => None,
    })
}
