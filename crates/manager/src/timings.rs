//! How long the leases of each account are, now and at the longest.
//!
//! All tokens of an account share one value, so that a changed lease holds for every delegate that connects from then on.
//! Those that are connected keep the lease they were granted; the Manager therefore goes on counting with the longest
//! that it granted, because a delegate that it gives up too early would still be acting.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use legation_model::{Millis, Scope};

use crate::{config::Timing, lock::lock};

/// The timing of one account's sessions.
#[derive(Debug)]
pub struct AccountTiming {
    /// What holds where the account says nothing.
    usual: Timing,
    /// Milliseconds that a delegate is granted which connects now.
    lease: AtomicI64,
    /// The longest that was granted in this process's life.
    longest: AtomicI64,
}

impl AccountTiming {
    fn new(usual: Timing, lease: Millis) -> Self {
        Self { usual, lease: AtomicI64::new(lease), longest: AtomicI64::new(lease) }
    }

    /// What a delegate is told that connects now.
    pub fn granted(&self) -> Timing {
        self.usual.with_lease(Some(self.lease.load(Ordering::Acquire)))
    }

    /// How long after its last answer a delegate may still act, whenever it connected.
    pub fn lease_counted(&self) -> Millis {
        self.usual.with_lease(Some(self.longest.load(Ordering::Acquire))).lease_counted()
    }

    /// The longest interval at which a delegate that is connected may send heartbeats.
    pub fn heartbeat(&self) -> Millis {
        self.usual.with_lease(Some(self.longest.load(Ordering::Acquire))).heartbeat
    }

    fn set(&self, lease: Option<Millis>) {
        let lease = lease.unwrap_or(self.usual.lease);
        // First, so that nobody is granted what is not counted.
        self.longest.fetch_max(lease, Ordering::AcqRel);
        self.lease.store(lease, Ordering::Release);
    }
}

impl From<Timing> for Arc<AccountTiming> {
    fn from(usual: Timing) -> Self {
        Self::new(AccountTiming::new(usual, usual.lease))
    }
}

/// The timing of every account that sets a lease or has tokens. The store's leases are read when the Manager begins, and
/// what changes later is set here when it is stored.
#[derive(Debug)]
pub(crate) struct Timings {
    usual: Timing,
    accounts: Mutex<HashMap<String, Arc<AccountTiming>>>,
}

impl Timings {
    pub(crate) fn new(usual: Timing) -> Self {
        Self { usual, accounts: Mutex::default() }
    }

    /// The timing of the account at the top of a scope.
    pub(crate) fn of(&self, scope: &Scope) -> Arc<AccountTiming> {
        let mut accounts = lock(&self.accounts);
        let known = accounts.entry(scope.account().to_owned());
        Arc::clone(known.or_insert_with(|| self.usual.into()))
    }

    /// A lease that an account was found with when the Manager began.
    pub(crate) fn load(&self, scope: &Scope, lease: Millis) {
        lock(&self.accounts).insert(scope.account().to_owned(), Arc::new(AccountTiming::new(self.usual, lease)));
    }

    /// A lease that has just been stored.
    pub(crate) fn set(&self, scope: &Scope, lease: Option<Millis>) {
        self.of(scope).set(lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Timing = Timing { lease: 300_000, heartbeat: 10_000, first_retry: 1_000 };

    #[test]
    fn a_shorter_lease_is_granted_at_once_and_the_longer_one_still_counted() {
        let timings = Timings::new(USUAL);
        let (account, below): (Scope, Scope) = ("acme".parse().expect("a scope"), "acme/eng".parse().expect("a scope"));
        timings.load(&account, 60_000);
        let token = timings.of(&below);
        assert_eq!((token.granted().lease, token.lease_counted()), (60_000, 60_600));
        timings.set(&account, Some(15_000));
        assert_eq!((token.granted().lease, token.granted().heartbeat), (15_000, 5_000));
        assert_eq!((token.lease_counted(), token.heartbeat()), (60_600, 10_000), "as some delegate was told");
        timings.set(&account, None);
        assert_eq!((token.granted(), token.lease_counted()), (USUAL, 303_000));
        assert_eq!(timings.of(&"other".parse().expect("a scope")).granted(), USUAL);
    }
}
