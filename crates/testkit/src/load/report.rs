//! Lines of JSON, one for each phase.

use std::{fs, io::Write as _, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::meter::Spent;

/// Part of a core beyond which the generator, and not the Manager, may be what held a wall figure back.
const GENERATOR_BOUND: f64 = 0.8;

/// Takes each line as soon as it is known.
pub(super) type Say<'a> = &'a mut dyn FnMut(Figures);

/// One line: which phase, how many delegates, and its figures.
pub struct Figures(Map<String, Value>);

impl Figures {
    /// A line without figures yet.
    pub(super) fn new(phase: &str, delegates: usize) -> Self {
        let mut line = Map::new();
        line.insert("phase".to_owned(), json!(phase));
        line.insert("delegates".to_owned(), json!(delegates));
        line.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        Self(line).with("load_average", load_average())
    }

    /// Adds a figure.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds what it took, by operation.
    pub(super) fn spent(self, operations: u64, spent: Spent) -> Self {
        let wall = spent.wall.as_secs_f64();
        let each = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / operations.max(1) as f64);
        let generator = spent.own_cpu.as_secs_f64() / wall;
        self.with("operations", operations)
            .with("wall_ms", round(wall * 1e3))
            .with("per_second", round(operations as f64 / wall))
            .with("server_cpu_us", each(spent.server_cpu))
            .with("generator_cpu_us", each(spent.own_cpu))
            .with("generator_core", round(generator))
            .with("generator_bound", generator > GENERATOR_BOUND)
    }

    /// Adds latencies, in microseconds.
    pub(super) fn latencies(self, name: &str, of: &Histogram<u64>) -> Self {
        [("p50", 0.5), ("p99", 0.99), ("max", 1.0)].into_iter().fold(self, |line, (part, quantile)| {
            line.with(&format!("{name}_{part}_us"), of.value_at_quantile(quantile))
        })
    }

    /// A figure of the line, if it has it.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Prints the line; nobody may be reading any more.
    pub(super) fn print(&self) {
        let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&self.0).unwrap_or_default());
    }
}

/// A time in the unit of its figures.
pub(super) fn milliseconds(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

/// Two digits behind the point: more than any run repeats.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}
