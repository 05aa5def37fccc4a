//! The delegate's heartbeats: when the next is due, what an answer is worth, when silence is final.

use std::collections::VecDeque;

use legation_model::Millis;

use crate::{close::Close, message::Welcome};

/// Heartbeats that may be unanswered at once; when the next is due after them, the link counts as dead.
pub const UNANSWERED_MAX: usize = 3;

/// Part of an interval by which a heartbeat may come early or late: a tenth.
const JITTER_PART: i64 = 10;

/// The rhythm of one session.
pub(crate) struct Pulse {
    lease: Millis,
    interval: Millis,
    due: Millis,
    number: u64,
    /// Number and time of sending of those without an answer, oldest first.
    unanswered: VecDeque<(u64, Millis)>,
    jitter: Jitter,
}

impl Pulse {
    /// Starts the rhythm that the Manager asked for, at a random point of it, so that the heartbeats of many
    /// delegates that came back at once spread out.
    pub(crate) fn new(welcome: &Welcome, now: Millis, jitter: Jitter) -> Self {
        let lease = millis(welcome.lease);
        let mut pulse =
            Self { lease, interval: millis(welcome.heartbeat), due: 0, number: 0, unanswered: VecDeque::new(), jitter };
        let first = pulse.jitter.within(pulse.interval);
        pulse.due = now + pulse.bound(first);
        pulse
    }

    /// When the next heartbeat is due.
    pub(crate) const fn due(&self) -> Millis {
        self.due
    }

    /// The lease that something sent at `sent` and answered since is worth.
    pub(crate) const fn lease_from(&self, sent: Millis) -> Millis {
        sent + self.lease
    }

    /// Counts a heartbeat as sent now and answers its number; or finds that too many went unanswered.
    pub(crate) fn beat(&mut self, now: Millis) -> Result<u64, Close> {
        if self.unanswered.len() >= UNANSWERED_MAX {
            return Err(Close::Silent);
        }
        self.number += 1;
        self.unanswered.push_back((self.number, now));
        let spread = self.interval / JITTER_PART;
        let next = self.interval - spread + self.jitter.within(2 * spread);
        self.due = now + self.bound(next);
        Ok(self.number)
    }

    /// Takes an answer; tells until when the lease runs. An answer to a heartbeat before one that was already
    /// answered says nothing new, and one to a heartbeat never sent breaks the rules.
    pub(crate) fn answered(&mut self, number: u64) -> Result<Option<Millis>, Close> {
        if number == 0 || number > self.number {
            return Err(Close::OutOfPlace);
        }
        let mut sent = None;
        while let Some((_, at)) = self.unanswered.pop_front_if(|(waiting, _)| *waiting <= number) {
            sent = Some(at);
        }
        Ok(sent.map(|sent| self.lease_from(sent)))
    }

    /// Never later than a third of the lease, so that two may be lost; never at once.
    fn bound(&self, delay: Millis) -> Millis {
        delay.min(self.lease / 3).max(1)
    }
}

/// A number of milliseconds that the Manager named, as the clock counts them.
pub(crate) fn millis(bounded: u64) -> Millis {
    Millis::try_from(bounded).unwrap_or(Millis::MAX / 4)
}

/// A small generator (SplitMix64) for spreading heartbeats; nothing secret comes from it.
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to `span`.
    fn within(&mut self, span: Millis) -> Millis {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let span = u64::try_from(span).unwrap_or(0);
        millis(mixed % (span + 1))
    }
}
