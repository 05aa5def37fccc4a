//! What the delegate link needs to know of each token, in memory: its gate, its keys, its verdict.
//!
//! The store is the truth; this is the copy that one map access answers from. It only ever becomes stricter
//! than the store (a token suspended because its revocation could not be written), never laxer: a status is
//! changed here directly after its transaction has committed and before the caller hears of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use legation_model::{
    Scope, Secret,
    ids::{ReceiptId, TokenId},
    token::{DelegateToken, TokenLimits, TokenStatus},
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
    /// Its restrictions.
    pub limits: TokenLimits,
    /// The timing of its sessions, which it shares with all tokens of its account.
    pub timing: Arc<AccountTiming>,
    /// What every effect passes.
    pub gate: Arc<Gate>,
    /// Makes one revocation of this token wait for another, and keeps whom it has cut until its receipt says so.
    pub ending: tokio::sync::Mutex<Cuts>,
    keys: Mutex<Vec<(u32, Secret<32>)>>,
    verdict: Mutex<Verdict>,
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
        let this = Self {
            limits: token.limits.clone(),
            keys: Mutex::new(keys),
            ..Self::without_keys(token.id, token.scope.clone(), timing)
        };
        match token.status {
            TokenStatus::Active | TokenStatus::Draining => {}
            TokenStatus::Unissued => this.suspend(),
            TokenStatus::Revoked => this.end(ended_by_time(token), token.receipt),
            TokenStatus::Deleted => this.end(GoodbyeReason::TokenDeleted, token.receipt),
        }
        this
    }

    /// A token that nobody can prove: its secret is not known here, or not yet.
    pub fn without_keys(id: TokenId, scope: Scope, timing: impl Into<Arc<AccountTiming>>) -> Self {
        Self {
            id,
            scope,
            limits: TokenLimits::default(),
            timing: timing.into(),
            gate: Arc::new(Gate::default()),
            ending: tokio::sync::Mutex::default(),
            keys: Mutex::default(),
            verdict: Mutex::new(Verdict::Accepted),
        }
    }

    /// Enters the gate for one effect, if the token is accepted at this moment.
    pub fn enter(&self, clock: &JumpGuard) -> Result<Entered, Goodbye> {
        let entered = self.gate.enter().ok_or_else(|| self.refusal())?;
        if let Some(expires_at) = self.limits.expires_at {
            if clock.jumped() {
                return Err(retry("the Manager's clock jumped; expiring tokens wait until it is right again"));
            }
            if clock.wall() >= expires_at {
                return Err(retry("the token has just expired and is being revoked"));
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

/// The reason that tells a revoked token from one whose time came.
fn ended_by_time(token: &DelegateToken) -> GoodbyeReason {
    let expired = token.limits.expires_at.zip(token.revoked_at).is_some_and(|(end, at)| end <= at);
    if expired { GoodbyeReason::TokenExpired } else { GoodbyeReason::TokenRevoked }
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
    /// only learns further keys.
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
