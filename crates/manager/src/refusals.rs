//! Refusals that matter, in the audit chain: who was told that they may not, and when it was too often to list.
//!
//! Whoever holds any key can be refused as often as they like, so only a few refusals of a minute are written one by
//! one; the others are counted, and one record says how many of whom there were. Who has no key is told from others by
//! where they come from.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex},
};

use legation_model::Millis;
use legation_store::job;
use serde_json::json;

use crate::{
    Manager,
    audit::{self, Actor, Change},
    lock::lock,
};

/// How long refusals are counted together: a minute.
const WINDOW: Millis = 60_000;
/// Records of single refusals in a window. With the one that sums up the others a storm of any size writes less than
/// 30 MB a day.
const RECORDS_MAX: u32 = 30;
/// Of those, what one actor may use up, so that nobody hides another behind a storm of their own.
const RECORDS_MAX_EACH: u32 = 6;
/// Beyond so many records in a window those without a key get none: they may come from any number of places, and must not
/// hide who has a key.
const RECORDS_MAX_STRANGERS: u32 = 18;
/// Actors that are counted by name; the rest are counted together.
const ACTORS_MAX: usize = 64;
/// Beyond so many actors those without a key are counted together, for the same reason.
const ACTORS_MAX_STRANGERS: usize = 32;

/// The refusals of the present window.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Window>);

#[derive(Default)]
struct Window {
    begun: Option<Millis>,
    recorded: u32,
    by_actor: BTreeMap<String, Counted>,
    /// Of actors beyond those that are counted by name.
    others: u64,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    recorded: u32,
    unrecorded: u64,
}

/// How full a window may be for somebody to be written down in it, and to be counted by name.
#[derive(Clone, Copy)]
struct Bounds {
    records: u32,
    actors: usize,
}

const OF_KNOWN: Bounds = Bounds { records: RECORDS_MAX, actors: ACTORS_MAX };
const OF_STRANGERS: Bounds = Bounds { records: RECORDS_MAX_STRANGERS, actors: ACTORS_MAX_STRANGERS };

/// Refusals that were only counted.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    since: Millis,
    by_actor: BTreeMap<String, u64>,
    others: u64,
}

impl Window {
    /// Counts a refusal; whether it is to be written down by itself.
    fn note(&mut self, actor: &str, bounds: Bounds, now: Millis) -> bool {
        self.begun.get_or_insert(now);
        if self.by_actor.len() >= bounds.actors && !self.by_actor.contains_key(actor) {
            self.others += 1;
            return false;
        }
        let counted = self.by_actor.entry(actor.to_owned()).or_default();
        if self.recorded >= bounds.records || counted.recorded >= RECORDS_MAX_EACH {
            counted.unrecorded += 1;
            return false;
        }
        counted.recorded += 1;
        self.recorded += 1;
        true
    }

    /// Ends the window if its time is over, and says what in it was only counted.
    fn end(&mut self, now: Millis) -> Option<Sum> {
        let since = self.begun.filter(|begun| now - begun >= WINDOW)?;
        let ended = mem::take(self);
        let counted = ended.by_actor.into_iter().filter(|(_, counted)| counted.unrecorded > 0);
        let by_actor: BTreeMap<_, _> = counted.map(|(actor, counted)| (actor, counted.unrecorded)).collect();
        let sum = Sum { since, by_actor, others: ended.others };
        (sum.others > 0 || !sum.by_actor.is_empty()).then_some(sum)
    }
}

impl Manager {
    /// Records that something was refused, unless there are too many such records already; then it is counted. The
    /// answer does not wait for that.
    pub(crate) fn note_refusal(&self, actor: Actor, change: Change) {
        let (share, bounds) = match actor.stranger_from() {
            Some(from) => (format!("{} from {from}", actor.name), OF_STRANGERS),
            None => (actor.name.clone(), OF_KNOWN),
        };
        if lock(&self.refusals.0).note(&share, bounds, self.clock.boot()) {
            self.connections.spawn(self.handle().record_refusals(vec![(actor, change.refused())]));
        }
    }

    /// Writes down what was only counted in a window that is over.
    pub(crate) async fn sum_refusals_up(&self) {
        let Some(sum) = lock(&self.refusals.0).end(self.clock.boot()) else { return };
        let seconds = (self.clock.boot() - sum.since) / 1000;
        let count = sum.others + sum.by_actor.values().sum::<u64>();
        let change = Change::new("refusals.more", "", None)
            .after(json!({"refused": count, "by": sum.by_actor, "others": sum.others}))
            .detail(format!("refusals of the last {seconds} s that have no records of their own"));
        self.handle().record_refusals(vec![(Actor::system(), change.refused())]).await;
    }

    async fn record_refusals(self: Arc<Self>, refusals: Vec<(Actor, Change)>) {
        let now = self.clock.wall();
        let work = job(move |tx| Box::pin(async move { audit::append_all(tx, now, refusals).await }));
        if let Err(error) = self.store.write(work).await {
            tracing::warn!(%error, "a refusal could not be written into the audit chain");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_writes_little_and_hides_nobody() {
        let mut window = Window::default();
        let written = (0..100_000).filter(|_| window.note("loud", OF_KNOWN, 0)).count();
        assert_eq!(written, RECORDS_MAX_EACH as usize);
        assert!(window.note("quiet", OF_KNOWN, 1), "another actor is still written down");
        assert_eq!(window.end(WINDOW - 1), None, "the window is not over");
        let sum = window.end(WINDOW).expect("something was only counted");
        assert_eq!(sum.by_actor, BTreeMap::from([("loud".to_owned(), 100_000 - u64::from(RECORDS_MAX_EACH))]));
        assert_eq!(sum.others, 0);
        assert!(window.note("loud", OF_KNOWN, WINDOW), "a new window");
        assert_eq!(window.end(2 * WINDOW), None, "nothing was only counted");
    }

    #[test]
    fn strangers_from_everywhere_hide_nobody_who_has_a_key() {
        let mut window = Window::default();
        let written = (0..10_000).filter(|from| window.note(&format!("nobody from {from}"), OF_STRANGERS, 0)).count();
        assert_eq!(written, RECORDS_MAX_STRANGERS as usize);
        assert!(window.note("known", OF_KNOWN, 0), "a key is still written down");
        assert!(window.by_actor.contains_key("known") && window.by_actor.len() < ACTORS_MAX);
    }

    #[test]
    fn many_actors_are_bounded_too() {
        let mut window = Window::default();
        let written = (0..10_000).filter(|number| window.note(&format!("actor {number}"), OF_KNOWN, 0)).count();
        assert_eq!(written, RECORDS_MAX as usize);
        assert_eq!(window.by_actor.len(), ACTORS_MAX);
        let sum = window.end(WINDOW).expect("something was only counted");
        assert_eq!(sum.others + sum.by_actor.values().sum::<u64>(), 10_000 - u64::from(RECORDS_MAX));
    }
}
