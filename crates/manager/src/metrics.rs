//! Counters and gauges, in a registry that belongs to one Manager.

use legation_model::Millis;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Buckets of the time from a revoke to the last cut, in seconds.
const CUT_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Everything that is counted.
pub struct Metrics {
    /// Sessions admitted.
    pub admitted: Counter,
    /// Sessions refused with an authenticated Goodbye.
    pub refused: Counter,
    /// Handshakes that ended without a proof.
    pub unproven: Counter,
    /// Connections shed because too many were in their handshake.
    pub shed: Counter,
    /// Heartbeats answered.
    pub heartbeats: Counter,
    /// Delegate keys seen in two processes.
    pub clones: Counter,
    /// Tasks assigned.
    pub assigned: Counter,
    /// Revocations that were carried out, by a person or by expiry; a repeated one counts again.
    pub revocations: Counter,
    /// Live sessions.
    pub sessions: Gauge,
    /// Waiting tasks.
    pub queued: Gauge,
    revoke_to_cut: Histogram,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("legation");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let admitted = counter("sessions_admitted", "Sessions admitted");
        let refused = counter("sessions_refused", "Sessions refused with a Goodbye");
        let unproven = counter("handshakes_unproven", "Handshakes that ended without a proof of a token");
        let shed = counter("handshakes_shed", "Connections shed because too many were in their handshake");
        let heartbeats = counter("heartbeats_answered", "Heartbeats answered");
        let clones = counter("delegate_clones", "Delegate keys seen in two processes");
        let assigned = counter("tasks_assigned", "Tasks assigned to a delegate");
        let revocations =
            counter("token_revocations", "Revocations carried out, by a person or by expiry, repeated ones included");
        let (sessions, queued) = (Gauge::default(), Gauge::default());
        registry.register("sessions", "Live sessions", sessions.clone());
        registry.register("tasks_queued", "Tasks waiting for a delegate", queued.clone());
        let revoke_to_cut = Histogram::new(CUT_BUCKETS);
        registry.register(
            "revoke_to_cut_seconds",
            "From a revoke call to its last session closed",
            revoke_to_cut.clone(),
        );
        Self {
            admitted,
            refused,
            unproven,
            shed,
            heartbeats,
            clones,
            assigned,
            revocations,
            sessions,
            queued,
            revoke_to_cut,
            registry,
        }
    }
}

impl Metrics {
    /// Records how long a revoke took until its last session was closed.
    pub fn revoke_to_cut(&self, took: Millis) {
        self.revocations.inc();
        self.revoke_to_cut.observe(took as f64 / 1000.0);
    }

    /// Everything, in the text format that Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory does not fail");
        text
    }
}
