//! Handshakes that proved nothing, by source: who sends many of them is slowed before they cost anything.
//!
//! A failed proof costs the Manager as much as a good one, some hundred microseconds. Each source may fail now and then; who
//! fails more often has further handshakes ended before the first calculation, all but a few. From where delegates come in
//! as well, as from behind one address that many share, more go on: a storm there must not lock out the good ones. Other
//! sources do not notice.

use std::{collections::HashMap, net::IpAddr, sync::Mutex};

use legation_model::Millis;

use crate::{
    Manager,
    audit::{Actor, Change},
    handshakes::source,
    lock::lock,
    source::Source,
};

/// Failed proofs that a source has free; each second forgives one. A site whose token was revoked long ago stays below it,
/// since delegates come again ever more rarely.
const FAILURES_FREE: i64 = 60;
/// How much time forgives one failure: a second.
const FORGIVEN_EVERY: Millis = 1_000;
/// Between two handshakes of a source that failed too often: two a second, a fraction of a percent of a processor.
const LANE: Millis = 500;
/// The same for a source from which a delegate has proved a token lately: 500 a second, a twentieth of a processor.
const LANE_OF_GOOD: Millis = 2;
/// How long a proof speaks for its source: an hour.
const GOOD_FOR: Millis = 60 * 60 * 1000;
/// How often it is said, in log and audit record, that a source fails: once an hour.
const SAID_EVERY: Millis = 60 * 60 * 1000;
/// How often room is made when there are too many sources: looking through all of them costs as much as some handshakes.
const PRUNED_EVERY: Millis = 1_000;
/// Sources that are remembered, a megabyte at most. Those beyond share one place.
const SOURCES_MAX: usize = 16_384;

/// What is remembered of the sources.
#[derive(Default)]
pub(crate) struct Proofs(Mutex<Known>);

#[derive(Default)]
struct Known {
    sources: HashMap<IpAddr, Record>,
    /// Of all that are too many to be remembered one by one.
    others: Record,
    /// When those that are of no use any more were last looked for.
    pruned_at: Option<Millis>,
}

/// What is remembered of a source.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Failures that are not forgiven yet, in milliseconds of forgiveness.
    owed: Millis,
    /// As of when.
    at: Millis,
    /// When it last proved a token.
    good_at: Option<Millis>,
    /// From when on it may have another handshake.
    lane: Millis,
    /// Failures since it was last said.
    unsaid: u64,
    said_at: Option<Millis>,
}

impl Record {
    fn forgive(&mut self, now: Millis) {
        self.owed = (self.owed - (now - self.at).max(0)).max(0);
        self.at = now;
    }

    fn fails_too_often(&self) -> bool {
        self.owed > FAILURES_FREE * FORGIVEN_EVERY
    }

    fn is_good(&self, now: Millis) -> bool {
        self.good_at.is_some_and(|at| now - at < GOOD_FOR)
    }

    fn admit(&mut self, now: Millis) -> bool {
        self.forgive(now);
        if !self.fails_too_often() {
            return true;
        }
        if now < self.lane {
            return false;
        }
        self.lane = now + if self.is_good(now) { LANE_OF_GOOD } else { LANE };
        true
    }

    /// How many failures there were, when it is time to say so.
    fn fail(&mut self, now: Millis) -> Option<u64> {
        self.forgive(now);
        // Twice what is free is as bad as any more: whoever stops is forgiven within a minute or two.
        self.owed = (self.owed + FORGIVEN_EVERY).min(2 * FAILURES_FREE * FORGIVEN_EVERY);
        self.unsaid += 1;
        if !self.fails_too_often() || self.said_at.is_some_and(|at| now - at < SAID_EVERY) {
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    fn prove(&mut self, now: Millis) {
        self.forgive(now);
        // One that mostly succeeds is never slowed.
        self.owed = (self.owed - FORGIVEN_EVERY).max(0);
        self.good_at = Some(now);
    }

    /// Whether nothing would be lost with it.
    fn is_spent(&self, now: Millis) -> bool {
        self.owed <= now - self.at && !self.is_good(now) && self.said_at.is_none_or(|at| now - at >= SAID_EVERY)
    }
}

impl Known {
    fn of(&mut self, from: IpAddr, now: Millis) -> &mut Record {
        let from = source(from);
        if self.sources.len() >= SOURCES_MAX && self.pruned_at.is_none_or(|at| now - at >= PRUNED_EVERY) {
            self.pruned_at = Some(now);
            self.sources.retain(|_, record| !record.is_spent(now));
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&from) {
            return &mut self.others;
        }
        self.sources.entry(from).or_insert(Record { at: now, ..Record::default() })
    }
}

impl Proofs {
    /// Whether a handshake from here may go on.
    pub(crate) fn admit(&self, from: IpAddr, now: Millis) -> bool {
        let mut known = lock(&self.0);
        match known.sources.contains_key(&source(from)) || known.sources.len() >= SOURCES_MAX {
            true => known.of(from, now).admit(now),
            // Nothing is remembered of most that come.
            false => true,
        }
    }

    /// Counts a failure; how many there were, when it is time to say so.
    pub(crate) fn failed(&self, from: IpAddr, now: Millis) -> Option<u64> {
        lock(&self.0).of(from, now).fail(now)
    }

    pub(crate) fn proved(&self, from: IpAddr, now: Millis) {
        lock(&self.0).of(from, now).prove(now);
    }
}

impl Manager {
    /// Counts a handshake that proved nothing, and says now and then that there are many.
    pub(crate) fn note_unproven(&self, from: &Source) {
        self.metrics.unproven.inc();
        if let Some(count) = self.proofs.failed(from.address, self.clock.boot()) {
            let source = source(from.address);
            tracing::warn!(%source, peer = %from.peer, count, "many handshakes prove no token; further ones are slowed");
            let refused = Change::new("link.prove", source, None)
                .detail(format!("{count} handshakes proved no token; further ones from there are slowed"));
            self.note_refusal(Actor::system_for(from.address), refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn fail(proofs: &Proofs, from: IpAddr, count: i64, now: Millis) -> Vec<u64> {
        (0..count).filter_map(|_| proofs.failed(from, now)).collect()
    }

    /// How many of so many handshakes a second go on.
    fn admitted(proofs: &Proofs, from: IpAddr, from_ms: Millis) -> usize {
        (from_ms..from_ms + 1_000).filter(|now| proofs.admit(from, *now)).count()
    }

    #[test]
    fn who_fails_often_is_slowed_and_nobody_else() {
        let (proofs, loud, quiet) = (Proofs::default(), address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(fail(&proofs, loud, FAILURES_FREE, 1_000), [0_u64; 0], "so many are free");
        assert_eq!(admitted(&proofs, loud, 1_000), 1_000);
        let told = fail(&proofs, loud, 2 * FAILURES_FREE, 2_000);
        assert_eq!(told.len(), 1, "it is said once");
        assert_eq!(admitted(&proofs, loud, 2_000), 2);
        assert_eq!(admitted(&proofs, quiet, 2_000), 1_000);
        // Whoever stops is forgiven.
        let later = 3_000 + FAILURES_FREE * FORGIVEN_EVERY;
        assert_eq!(admitted(&proofs, loud, later), 1_000);
    }

    #[test]
    fn delegates_behind_the_address_of_a_storm_keep_a_share() {
        let (proofs, shared) = (Proofs::default(), address("192.0.2.1"));
        fail(&proofs, shared, 1_000, 1_000);
        assert_eq!(admitted(&proofs, shared, 1_000), 2);
        proofs.proved(shared, 2_000);
        assert_eq!(admitted(&proofs, shared, 2_000), 500);
        assert_eq!(admitted(&proofs, shared, 2_000 + GOOD_FOR), 1_000, "by then it is forgiven");
        // Ten thousand that come back at once over a bad line are no storm.
        let site = address("192.0.2.3");
        for _ in 0..10_000 {
            proofs.proved(site, 0);
            proofs.failed(site, 0);
        }
        assert_eq!(admitted(&proofs, site, 0), 1_000);
    }

    #[test]
    fn it_is_said_once_an_hour_with_what_came_meanwhile() {
        let (proofs, from) = (Proofs::default(), address("192.0.2.1"));
        assert_eq!(fail(&proofs, from, 1_000, 0), [FAILURES_FREE as u64 + 1]);
        assert_eq!(fail(&proofs, from, 1_000, SAID_EVERY - 1), [0_u64; 0]);
        let told = fail(&proofs, from, 1, SAID_EVERY);
        assert_eq!(told, [2_000 - FAILURES_FREE as u64], "all since");
    }

    #[test]
    fn one_host_of_ipv6_is_one_source_and_many_sources_are_bounded() {
        let proofs = Proofs::default();
        for host in 0..2 * FAILURES_FREE as u16 {
            proofs.failed(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]), 0);
        }
        let neighbour = address("2001:db8:0:1::ffff");
        assert_eq!([(); 3].map(|()| proofs.admit(neighbour, 0)), [true, false, false]);
        assert!(proofs.admit(address("2001:db8:0:2::1"), 0));
        for number in 0..2 * SOURCES_MAX as u32 {
            proofs.failed(IpAddr::from(number.to_be_bytes()), 0);
        }
        assert_eq!(lock(&proofs.0).sources.len(), SOURCES_MAX);
        assert!(lock(&proofs.0).others.fails_too_often(), "those beyond share a place");
        assert!(proofs.admit(address("0.0.0.7"), 0), "one that is remembered is not slowed for them");
        // What is spent makes room.
        proofs.failed(address("203.0.113.1"), 3 * GOOD_FOR);
        assert!(lock(&proofs.0).sources.len() < SOURCES_MAX);
    }
}
