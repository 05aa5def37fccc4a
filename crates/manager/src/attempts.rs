//! How often somebody may try to log in: from one source, and with one name.
//!
//! Every attempt counts, since a good one costs as much as a bad one. Who tries one name from many places is slowed by
//! the name, and who tries many names from one place by the place. Whoever holds a session or key and shows a password once
//! more is slowed by neither, but by their own attempts alone, so that no stranger keeps them from it.

use std::{hash::Hash, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter, clock::Clock as Ticks, middleware::NoOpMiddleware, state::keyed::HashMapStateStore,
};
use legation_api::{Code, Problem};
use legation_model::{Clock, Name};
use legation_store::standing::CredentialId;

use crate::{error::Refusal, handshakes::source};

/// Attempts that a source has free: an office of people who come at nine. Each second gives one back.
const FREE_PER_SOURCE: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
const SOURCE_EVERY: Duration = Duration::from_secs(1);
/// Attempts that a name has free: a person with a new keyboard. Each ten seconds give one back, so that whoever guesses
/// has 8,640 a day, of more passwords than that there are.
const FREE_PER_NAME: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
const NAME_EVERY: Duration = Duration::from_secs(10);
/// Attempts to show a password once more that a session or key has free, and after what time it gets one back: as many as
/// a name, since whoever has stolen a session guesses too.
const FREE_PER_CREDENTIAL: NonZeroU32 = FREE_PER_NAME;
const CREDENTIAL_EVERY: Duration = NAME_EVERY;
/// Sources, names, and credentials, that are remembered one by one, three megabytes at most; those beyond share one place.
const REMEMBERED_MAX: usize = 16_384;

/// The boot clock, as what limits rates reads it.
#[derive(Clone)]
struct Boot(Arc<dyn Clock>);

impl Ticks for Boot {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.boot()).unwrap_or_default())
    }
}

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, Boot, NoOpMiddleware<Duration>>;

/// The attempts of a while ago, as far as they still count.
pub(crate) struct Attempts {
    by_source: Limiter<Option<IpAddr>>,
    by_name: Limiter<Option<String>>,
    by_credential: Limiter<Option<CredentialId>>,
    clock: Boot,
}

impl Attempts {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let clock = Boot(clock);
        let quota = |every, free| Quota::with_period(every).expect("some time").allow_burst(free);
        Self {
            by_source: RateLimiter::hashmap_with_clock(quota(SOURCE_EVERY, FREE_PER_SOURCE), clock.clone()),
            by_name: RateLimiter::hashmap_with_clock(quota(NAME_EVERY, FREE_PER_NAME), clock.clone()),
            by_credential: RateLimiter::hashmap_with_clock(quota(CREDENTIAL_EVERY, FREE_PER_CREDENTIAL), clock.clone()),
            clock,
        }
    }

    /// Counts an attempt with this name from here, if there may be one now.
    ///
    /// # Errors
    /// `too_many_attempts`, with the time to wait.
    pub(crate) fn admit(&self, from: Option<IpAddr>, name: &Name) -> Result<(), Refusal> {
        self.admit_from(from)?;
        self.count(&self.by_name, Some(name.as_str().to_ascii_lowercase()))
    }

    /// The same for an attempt that says no name here.
    ///
    /// # Errors
    /// `too_many_attempts`, with the time to wait.
    pub(crate) fn admit_from(&self, from: Option<IpAddr>) -> Result<(), Refusal> {
        self.count(&self.by_source, from.map(source))
    }

    /// Counts an attempt to show a password once more with this session or key, if there may be one now.
    ///
    /// # Errors
    /// `too_many_attempts`, with the time to wait.
    pub(crate) fn admit_again(&self, with: CredentialId) -> Result<(), Refusal> {
        self.count(&self.by_credential, Some(with))
    }

    fn count<K: Hash + Eq + Clone>(&self, limiter: &Limiter<Option<K>>, key: Option<K>) -> Result<(), Refusal> {
        if limiter.len() >= REMEMBERED_MAX {
            limiter.retain_recent();
        }
        let key = key.filter(|_| limiter.len() < REMEMBERED_MAX);
        limiter.check_key(&key).map_err(|until| {
            let wait: Duration = until.wait_time_from(self.clock.now()).max(Duration::from_secs(1));
            Problem::new(Code::TooManyAttempts, "too many attempts came from here, with this name or with this session")
                .with_retry_after(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use legation_model::Millis;

    use super::*;

    #[derive(Default)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn wall(&self) -> Millis {
            0
        }

        fn boot(&self) -> Millis {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn at(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_name_is_slowed_from_wherever_it_is_tried_and_others_are_not() {
        let clock = Arc::new(Hands::default());
        let attempts = Attempts::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let tried = (0..100).filter(|from| attempts.admit(at(*from), &name("Alice")).is_ok()).count();
        assert_eq!(tried, FREE_PER_NAME.get() as usize);
        let refusal = attempts.admit(at(200), &name("alice")).expect_err("the same name");
        assert_eq!((refusal.0.code, refusal.0.retry_after), (Code::TooManyAttempts, Some(10)));
        assert_eq!(attempts.admit(at(200), &name("bob")), Ok(()));
        clock.0.fetch_add(10_000, Ordering::Relaxed);
        assert_eq!(attempts.admit(at(200), &name("alice")), Ok(()));
        assert!(attempts.admit(at(200), &name("alice")).is_err());
    }

    #[test]
    fn a_source_is_slowed_whatever_names_it_tries_and_others_are_not() {
        let attempts = Attempts::new(Arc::new(Hands::default()));
        let tried = (0..1_000).filter(|number| attempts.admit(at(1), &name(&format!("n{number}"))).is_ok()).count();
        assert_eq!(tried, FREE_PER_SOURCE.get() as usize);
        assert_eq!(attempts.admit(at(2), &name("n1")), Ok(()));
    }

    #[test]
    fn more_names_than_are_remembered_share_one_place() {
        let attempts = Attempts::new(Arc::new(Hands::default()));
        let many = REMEMBERED_MAX + 100;
        let from = |number: usize| Some(IpAddr::from([10, (number >> 16) as u8, (number >> 8) as u8, number as u8]));
        let tried = (0..many).filter(|n| attempts.admit(from(*n), &name(&format!("n{n}"))).is_ok()).count();
        assert!(tried < many && attempts.by_name.len() <= REMEMBERED_MAX + 1, "{tried}");
        assert!(attempts.by_source.len() <= REMEMBERED_MAX + 1);
    }
}
