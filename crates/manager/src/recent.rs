//! Times with their newest values at hand: a histogram for what aggregates over long times and many Managers, and the
//! median, the 99th percentile and the maximum of the newest ones for who looks now.

use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::AtomicU64},
};

use legation_model::Millis;
use prometheus_client::{
    metrics::{
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::lock::lock;

/// Values that quantiles are computed over: the 99th percentile has ten values above it.
const WINDOW: usize = 1_024;
/// What is shown of them.
const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)];

type Label = [(&'static str, &'static str); 1];

/// One kind of time.
pub(crate) struct Timed {
    histogram: Histogram,
    quantiles: Family<Label, Gauge<f64, AtomicU64>>,
    newest: Mutex<VecDeque<f64>>,
}

impl Timed {
    /// Registers `name_seconds` with buckets from `first` on, each `step` times the one before, and
    /// `name_recent_seconds` with the quantiles of the newest values.
    pub(crate) fn new(registry: &mut Registry, name: &str, help: &str, (first, step, count): (f64, f64, u16)) -> Self {
        let this = Self {
            histogram: Histogram::new(exponential_buckets(first, step, count)),
            quantiles: Family::default(),
            newest: Mutex::default(),
        };
        registry.register(format!("{name}_seconds"), help, this.histogram.clone());
        let help = format!("{help}: quantiles of the newest {WINDOW}");
        registry.register(format!("{name}_recent_seconds"), help, this.quantiles.clone());
        this
    }

    /// Adds a value.
    pub(crate) fn observe(&self, took: Millis) {
        let seconds = took as f64 / 1000.0;
        self.histogram.observe(seconds);
        let mut newest = lock(&self.newest);
        if newest.len() == WINDOW {
            newest.pop_front();
        }
        newest.push_back(seconds);
    }

    /// Computes the quantiles anew; none are shown before the first value.
    pub(crate) fn refresh(&self) {
        let mut sorted: Vec<f64> = lock(&self.newest).iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        for (word, quantile) in QUANTILES {
            if let Some(value) = nearest(&sorted, quantile) {
                self.quantiles.get_or_create(&[("quantile", word)]).set(value);
            }
        }
    }
}

/// The smallest value that at least this share of all does not exceed.
fn nearest(sorted: &[f64], quantile: f64) -> Option<f64> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_newest_values() {
        let timed = Timed::new(&mut Registry::default(), "t", "Time", (0.001, 2.0, 10));
        let shown = || {
            timed.refresh();
            QUANTILES.map(|(word, _)| timed.quantiles.get_or_create(&[("quantile", word)]).get())
        };
        (1..=100).rev().for_each(|value| timed.observe(value * 1000));
        assert_eq!(shown(), [50.0, 99.0, 100.0]);
        (0..WINDOW).for_each(|_| timed.observe(7_000));
        assert_eq!(shown(), [7.0, 7.0, 7.0], "what is older than the window is gone");
        assert_eq!(nearest(&[], 0.5), None);
    }
}
