//! What the delegate link needs to know of each token, in memory: its gate, its keys, its verdict.
//!
//! The store is the truth; this is the copy that one map access answers from. It only ever becomes stricter
//! than the store (a token suspended because its revocation could not be written), never laxer: a status is
//! changed here directly after its transaction has committed and before the caller hears of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use legation_model::{
    Millis, Name, Scope, Secret,
    ids::{ReceiptId, TokenId},
    receipt::Cause,
    token::{DelegateToken, Schedule, TokenLimits, TokenStatus, expiry_warning},
};
use legation_wire::{TokenHint, TokenKeys, close::GoodbyeReason, message::Goodbye};

use crate::{
    clock::JumpGuard,
    gate::{Entered, Gate},
    lock::lock,
    revoke::Cuts,
    timings::AccountTiming,
};

/// After how many milliseconds a delegate that met a doubt may come again.
const RETRY_SOON: u64 = 5_000;

/// One token that has, or had, a secret.
pub struct LiveToken {
    /// Public id.
    pub id: TokenId,
    /// What its delegates serve.
    pub scope: Scope,
    /// The timing of its sessions, which it shares with all tokens of its account.
    pub timing: Arc<AccountTiming>,
    /// What every effect passes.
    pub gate: Arc<Gate>,
    /// Makes one revocation of this token wait for another, and keeps whom it has cut until its receipt says so.
    pub ending: tokio::sync::Mutex<Cuts>,
    keys: Mutex<Vec<(u32, Secret<32>)>>,
    verdict: Mutex<Verdict>,
    rules: Mutex<Arc<Rules>>,
    /// Of the rules, what every effect looks at: from which wall-clock millisecond on nothing is accepted.
    ends_at: AtomicI64,
    /// Of the rules, what the dispatcher asks of every session.
    draining: AtomicBool,
    pins: AtomicBool,
}

/// What may change about a token while its delegates are connected; replaced as a whole.
#[derive(Debug)]
pub struct Rules {
    /// The version of the token that these are of.
    pub version: u64,
    /// Its restrictions.
    pub limits: TokenLimits,
    /// From which wall-clock millisecond on it is not accepted any more; [`Millis::MAX`] for never.
    pub ends_at: Millis,
    /// What ends it then.
    pub cause: Cause,
    /// Who set that time, if somebody did.
    pub schedule: Option<Schedule>,
    /// Whether it takes no further work and no further delegates.
    pub draining: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let (limits, ends_at, cause) = (TokenLimits::default(), Millis::MAX, Cause::Expired);
        Self { version: 0, limits, ends_at, cause, schedule: None, draining: false }
    }
}

impl Rules {
    fn of(token: &DelegateToken) -> Self {
        let (expires_at, draining) = (token.limits.expires_at, token.status == TokenStatus::Draining);
        let cause = match &token.schedule {
            Some(schedule) if expires_at.is_some_and(|expires_at| expires_at <= schedule.at) => Cause::Expired,
            Some(_) if draining => Cause::Drained,
            Some(_) => Cause::Scheduled,
            None => Cause::Expired,
        };
        let ends_at = token.ends_at().unwrap_or(Millis::MAX);
        let (limits, schedule) = (token.limits.clone(), token.schedule.clone());
        Self { version: token.version, limits, ends_at, cause, schedule, draining }
    }
}

/// What a delegate that proves this token is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The end could not be made durable: nothing is accepted, and nothing is said that a restart would unsay.
    Suspended,
    Ended(GoodbyeReason, Option<ReceiptId>),
}

impl LiveToken {
    /// The copy of a token with its derived keys, newest generation last.
    pub fn new(token: &DelegateToken, keys: Vec<(u32, Secret<32>)>, timing: impl Into<Arc<AccountTiming>>) -> Self {
        let this = Self { keys: Mutex::new(keys), ..Self::without_keys(token.id, token.scope.clone(), timing) };
        this.follow(token);
        match token.status {
            TokenStatus::Active | TokenStatus::Draining => {}
            TokenStatus::Unissued => this.suspend(),
            TokenStatus::Revoked => this.end(ended_as(token), token.receipt),
            TokenStatus::Deleted => this.end(GoodbyeReason::TokenDeleted, token.receipt),
        }
        this
    }

    /// A token that nobody can prove: its secret is not known here, or not yet.
    pub fn without_keys(id: TokenId, scope: Scope, timing: impl Into<Arc<AccountTiming>>) -> Self {
        Self {
            id,
            scope,
            timing: timing.into(),
            gate: Arc::new(Gate::default()),
            ending: tokio::sync::Mutex::default(),
            keys: Mutex::default(),
            verdict: Mutex::new(Verdict::Accepted),
            rules: Mutex::default(),
            ends_at: AtomicI64::new(Millis::MAX),
            draining: AtomicBool::new(false),
            pins: AtomicBool::new(false),
        }
    }

    /// Takes over the rules of a token as it is stored, unless newer ones are known: of two changes at the same time
    /// the second may be heard of first. Says whether they were new.
    pub fn follow(&self, token: &DelegateToken) -> bool {
        self.take_over(Arc::new(Rules::of(token)))
    }

    fn take_over(&self, newer: Arc<Rules>) -> bool {
        let mut rules = lock(&self.rules);
        if newer.version <= rules.version {
            return false;
        }
        self.ends_at.store(newer.ends_at, Ordering::Release);
        self.draining.store(newer.draining, Ordering::Release);
        self.pins.store(!newer.limits.pinned_tags.is_empty(), Ordering::Release);
        *rules = newer;
        true
    }

    /// The rules as they are now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.rules))
    }

    /// From which wall-clock millisecond on it is not accepted any more; [`Millis::MAX`] for never.
    pub fn ends_at(&self) -> Millis {
        self.ends_at.load(Ordering::Acquire)
    }

    /// Milliseconds until it expires, once that is near enough to warn of. A revocation that is to come is not told: whoever
    /// holds a stolen token would learn of it.
    pub fn expires_in(&self, now: Millis) -> Option<Millis> {
        let near = |left: &Millis| expiry_warning(*left).is_some();
        // Of most tokens one number says that there is nothing to say.
        near(&self.ends_at().saturating_sub(now))
            .then(|| self.rules().limits.expires_at)?
            .map(|at| at - now)
            .filter(near)
    }

    /// Whether it takes no further work and no further delegates.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the token vouches for this tag.
    pub fn pins(&self, tag: &Name) -> bool {
        self.pins.load(Ordering::Acquire) && lock(&self.rules).limits.pinned_tags.contains(tag)
    }

    /// Enters the gate for one effect, if the token is accepted at this moment.
    pub fn enter(&self, clock: &JumpGuard) -> Result<Entered, Goodbye> {
        let entered = self.gate.enter().ok_or_else(|| self.refusal())?;
        let ends_at = self.ends_at();
        if ends_at < Millis::MAX {
            if clock.jumped() {
                return Err(retry("the Manager's clock jumped; expiring tokens wait until it is right again"));
            }
            if clock.wall() >= ends_at {
                return Err(retry("the token's time has come and it is being revoked"));
            }
        }
        Ok(entered)
    }

    /// Ends acceptance with a reason that is durable.
    pub fn end(&self, reason: GoodbyeReason, receipt: Option<ReceiptId>) {
        *lock(&self.verdict) = Verdict::Ended(reason, receipt);
        self.gate.close();
    }

    /// Ends acceptance in this process alone.
    pub fn suspend(&self) {
        let mut verdict = lock(&self.verdict);
        if *verdict == Verdict::Accepted {
            *verdict = Verdict::Suspended;
        }
        drop(verdict);
        self.gate.close();
    }

    /// What a delegate is told when the gate is closed.
    pub fn refusal(&self) -> Goodbye {
        match *lock(&self.verdict) {
            Verdict::Ended(reason, receipt) => {
                let text = format!("{}: this delegate must stop", reason.as_str().replace('_', " "));
                Goodbye { reason, receipt, retry_after: None, text }
            }
            Verdict::Accepted | Verdict::Suspended => retry("the Manager cannot decide about this token now"),
        }
    }

    /// Whether the end is durable and can be said.
    pub fn is_ended(&self) -> bool {
        matches!(*lock(&self.verdict), Verdict::Ended(..))
    }

    /// The receipt that a `Stopped` frame may append to.
    pub fn receipt(&self) -> Option<ReceiptId> {
        match *lock(&self.verdict) {
            Verdict::Ended(_, receipt) => receipt,
            _ => None,
        }
    }
}

/// What the delegates of an ended token are told.
fn ended_as(token: &DelegateToken) -> GoodbyeReason {
    let expired = || token.limits.expires_at.zip(token.revoked_at).is_some_and(|(end, at)| end <= at);
    match token.revoked_cause {
        Some(cause) => reason_of(cause),
        // It ended before causes were noted.
        None => reason_of(if expired() { Cause::Expired } else { Cause::Kill }),
    }
}

/// What delegates are told when their token has ended by this.
pub(crate) const fn reason_of(cause: Cause) -> GoodbyeReason {
    match cause {
        Cause::Kill | Cause::Drained | Cause::Scheduled => GoodbyeReason::TokenRevoked,
        Cause::Expired => GoodbyeReason::TokenExpired,
    }
}

/// A Goodbye that says: not now, come again.
pub(crate) fn retry(text: &str) -> Goodbye {
    Goodbye { retry_after: Some(RETRY_SOON), ..Goodbye::new(GoodbyeReason::ManagerDraining, text) }
}

/// All tokens that ever had a secret and may still be proven.
#[derive(Default)]
pub struct LiveTokens(RwLock<HashMap<TokenId, Arc<LiveToken>>>);

impl LiveTokens {
    /// One map access, whatever the number of tokens.
    pub fn get(&self, id: TokenId) -> Option<Arc<LiveToken>> {
        self.read().get(&id).cloned()
    }

    /// Adds a token, and answers the one that counts: one that is there already keeps its gate and its verdict and
    /// only learns further keys and newer rules.
    pub fn insert(&self, token: LiveToken) -> Arc<LiveToken> {
        match self.write().entry(token.id) {
            Entry::Vacant(vacant) => Arc::clone(vacant.insert(Arc::new(token))),
            Entry::Occupied(known) => {
                let mut keys = lock(&known.get().keys);
                for (generation, key) in token.keys.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    if keys.iter().all(|(present, _)| *present != generation) {
                        keys.push((generation, key));
                    }
                }
                drop(keys);
                let newer = token.rules.into_inner().unwrap_or_else(PoisonError::into_inner);
                known.get().take_over(newer);
                Arc::clone(known.get())
            }
        }
    }

    /// All of them, for the sweeps.
    pub fn all(&self) -> Vec<Arc<LiveToken>> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<TokenId, Arc<LiveToken>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<TokenId, Arc<LiveToken>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenKeys for LiveTokens {
    fn psk(&self, hint: TokenHint) -> Option<Secret<32>> {
        let token = self.get(hint.token)?;
        let keys = lock(&token.keys);
        keys.iter().find(|(generation, _)| *generation == hint.generation).map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;

    /// A clock that stands still.
    struct Stopped(Millis);

    impl legation_model::Clock for Stopped {
        fn wall(&self) -> Millis {
            self.0
        }

        fn boot(&self) -> Millis {
            self.0
        }
    }

    #[test]
    fn a_token_ends_at_its_millisecond_whatever_ends_it() {
        let (scope, name) = ("default".parse().expect("a scope"), "farm".parse().expect("a name"));
        let issued = DelegateToken::unissued(TokenId([1; 16]), scope, name, 0, "alice".to_owned());
        let issued = DelegateToken { status: TokenStatus::Active, ..issued };
        let scheduled = Schedule { at: 2_000, by: "bob".to_owned(), reason: String::new() };
        let timing = Timing { lease: 15_000, heartbeat: 5_000, first_retry: 1_000 };
        for (expires_at, schedule, status, cause) in [
            (Some(2_000), None, TokenStatus::Active, Cause::Expired),
            (Some(2_000), Some(scheduled.clone()), TokenStatus::Draining, Cause::Expired),
            (Some(2_001), Some(scheduled.clone()), TokenStatus::Draining, Cause::Drained),
            (None, Some(scheduled), TokenStatus::Active, Cause::Scheduled),
        ] {
            let mut token = DelegateToken { schedule, status, ..issued.clone() };
            token.limits.expires_at = expires_at;
            let live = LiveToken::new(&token, Vec::new(), timing);
            let at = |now| live.enter(&JumpGuard::new(Arc::new(Stopped(now)))).is_ok();
            assert!(at(1_999) && !at(2_000), "{cause:?}");
            assert_eq!(live.rules().cause, cause);
            assert!(!live.follow(&token), "the same version again is nothing new");
            token.version += 1;
            (token.limits.expires_at, token.schedule) = (None, None);
            assert!(live.follow(&token) && at(2_000), "{cause:?}");
        }
    }

    #[test]
    fn a_first_secret_that_comes_after_the_end_finds_the_end() {
        let tokens = LiveTokens::default();
        let (id, timing) = (TokenId([1; 16]), Timing { lease: 15_000, heartbeat: 5_000, first_retry: 1_000 });
        let unknown = || LiveToken::without_keys(id, "default".parse().expect("a scope"), timing);
        tokens.insert(unknown()).end(GoodbyeReason::TokenRevoked, Some(ReceiptId([2; 16])));

        let issued = tokens.insert(LiveToken { keys: Mutex::new(vec![(1, Secret::new([3; 32]))]), ..unknown() });
        assert!(issued.gate.enter().is_none(), "the way in stays closed");
        assert_eq!(issued.receipt(), Some(ReceiptId([2; 16])), "a delegate's last report finds its receipt");
        assert!(tokens.psk(TokenHint { token: id, generation: 1 }).is_some(), "its delegates can be told");
    }
}
