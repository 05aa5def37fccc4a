//! Connections that have heard their last word and are only kept open so that it arrives.
//!
//! Nothing is read from them and nothing more can be written. Closed at once, with something of the peer unread, the
//! kernel would answer with a reset, which may destroy what was said last. One sweep lets all of them go; each for
//! itself would cost a timer and a waking. `docs/decisions/0009-one-thread-says-goodbye.md` says who closes them.

use std::{collections::VecDeque, sync::Mutex};

use legation_link::Parted;
use legation_model::Millis;

use crate::lock::lock;

/// How long one is kept, in milliseconds: a round trip over a satellite fits into half of it.
const LINGER: Millis = 1_000;
/// The most that are kept, each a descriptor and what its socket buffers: a revocation of twice the ten thousand that a
/// Manager is measured with fits. Beyond it the oldest go at once, and whoever is far away may miss its Goodbye.
const PARTED_MAX: usize = 20_000;

/// Those that are kept, oldest first.
#[derive(Default)]
pub struct PartedLinks(Mutex<VecDeque<(Millis, Parted)>>);

impl PartedLinks {
    /// Keeps one from `now` on.
    pub fn keep(&self, parted: Parted, now: Millis) {
        let mut kept = lock(&self.0);
        // Two who close at the same time may have looked at the clock in the other order.
        let now = kept.back().map_or(now, |(last, _)| now.max(*last));
        let surplus = if kept.len() >= PARTED_MAX { kept.pop_front() } else { None };
        kept.push_back((now, parted));
        drop(kept);
        drop(surplus);
        // The sweep may be waiting for the store.
        self.let_go(now);
    }

    /// Closes those whose time is over.
    pub fn let_go(&self, now: Millis) {
        let mut kept = lock(&self.0);
        if kept.front().is_none_or(|(since, _)| since + LINGER > now) {
            return;
        }
        let over = kept.partition_point(|(since, _)| *since + LINGER <= now);
        let over: Vec<_> = kept.drain(..over).collect();
        drop(kept);
        drop(over);
    }
}
