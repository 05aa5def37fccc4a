//! What operations are made from: chance from a seed, a clock that stands still, tokens, sessions.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use legation_manager::{
    clock::JumpGuard,
    config::Timing,
    live::{LiveToken, LiveTokens},
    session::{NewSession, Session},
};
use legation_model::{
    Clock, Entropy, Millis, Secret,
    delegate::Isolation,
    ids::{BootId, DelegateId, SessionId, TokenId},
    token::{DelegateToken, TokenStatus},
};
use legation_wire::{
    TokenHint,
    message::{Hello, Welcome},
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

/// Where every delegate and task is.
pub(super) const SCOPE: &str = "default";
/// Zones among which delegates are spread; a tag says which.
pub(super) const ZONES: usize = 20;
/// When everything happens.
const NOW: Millis = 1_700_000_000_000;
const TIMING: Timing = Timing { lease: 300_000, heartbeat: 10_000, first_retry: 1_000 };

/// Entropy that is the same in each run.
pub(super) struct Seeded(Mutex<ChaCha20Rng>);

impl Default for Seeded {
    fn default() -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(1)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

/// Entropy that is the same each time it is asked, so that recorded answers fit a handshake that is repeated.
pub(super) struct Filled(pub(super) u8);

impl Entropy for Filled {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

struct Standing;

impl Clock for Standing {
    fn wall(&self) -> Millis {
        NOW
    }

    fn boot(&self) -> Millis {
        NOW
    }
}

/// The Manager's clock.
pub(super) fn clock() -> JumpGuard {
    JumpGuard::new(Arc::new(Standing))
}

/// A token that is accepted, with the key of its first generation.
pub(super) fn token(id: TokenId, key: Secret<32>) -> LiveToken {
    let (scope, name) = (SCOPE.parse().expect("a scope"), "bench".parse().expect("a name"));
    let unissued = DelegateToken::unissued(id, scope, name, NOW, "bench".to_owned());
    LiveToken::new(&DelegateToken { status: TokenStatus::Active, ..unissued }, vec![(1, key)], TIMING)
}

/// That many tokens, and what proves each.
pub(super) fn tokens(count: usize) -> (LiveTokens, Vec<TokenHint>) {
    let (entropy, tokens) = (Seeded::default(), LiveTokens::default());
    let add = |_| {
        let id = tokens.insert(token(TokenId::random(&entropy), Secret::random(&entropy))).id;
        TokenHint { token: id, generation: 1 }
    };
    let hints = (0..count).map(add).collect();
    (tokens, hints)
}

/// That many sessions of one token, spread over the zones.
pub(super) fn sessions(count: usize) -> Vec<Arc<Session>> {
    let entropy = Seeded::default();
    let token = Arc::new(token(TokenId::random(&entropy), Secret::random(&entropy)));
    let session = |number: usize| {
        Arc::new(Session::new(NewSession {
            id: SessionId::random(&entropy),
            token: Arc::clone(&token),
            delegate: DelegateId::random(&entropy),
            hello: hello(number, &entropy),
            address: Ipv4Addr::LOCALHOST.into(),
            admission: number as u64,
            now: NOW,
        }))
    };
    (0..count).map(session).collect()
}

/// What a delegate says of itself.
pub(super) fn hello(number: usize, entropy: &dyn Entropy) -> Hello {
    Hello {
        delegate: None,
        account: None,
        boot: BootId::random(entropy),
        counter: 1,
        name: format!("delegate-{number}").parse().expect("a name"),
        host: format!("host-{number}").parse().expect("a name"),
        tags: vec![zone(number).parse().expect("a tag")],
        description: Default::default(),
        version: "0.1.0".to_owned(),
        capabilities: vec!["http".to_owned(), "shell".to_owned()],
        capacity: 4,
        isolation: Isolation::None,
        attempts: Vec::new(),
    }
}

/// What the Manager answers.
pub(super) fn welcome() -> Welcome {
    Welcome {
        account: SCOPE.to_owned(),
        scope: SCOPE.parse().expect("a scope"),
        delegate: DelegateId([8; 16]),
        generation: 1,
        session: SessionId([9; 16]),
        heartbeat: TIMING.heartbeat as u64,
        lease: TIMING.lease as u64,
        first_retry: TIMING.first_retry as u64,
        server_time: NOW,
    }
}

/// The tag of the zone that this one of many lies in.
pub(super) fn zone(number: usize) -> String {
    format!("zone={}", number % ZONES)
}
