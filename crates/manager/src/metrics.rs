//! Counters and gauges, in a registry that belongs to one Manager.

use std::time::Duration;

use legation_model::{Millis, token::EXPIRY_WARNINGS};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::recent::Timed;

/// Buckets of the time from a revoke to the last cut: from a millisecond in steps of a half to a minute.
const CUT_BUCKETS: (f64, f64, u16) = (0.001, 1.5, 28);
/// Buckets of the time from a revoke to a delegate's report that it has stopped: from 5 ms in doubled steps to a day,
/// since one that could not be reached reports when it comes back.
const STOP_BUCKETS: (f64, f64, u16) = (0.005, 2.0, 25);
/// Buckets of the time from an assignment's commit to the delegate's first answer: from 20 µs in steps of a quarter to
/// two minutes, so that a quantile between two of them is off by a tenth at most.
const DISPATCH_BUCKETS: (f64, f64, u16) = (20e-6, 1.25, 71);

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
    /// Handshakes ended at their beginning because too many from the same source proved nothing.
    pub slowed: Counter,
    /// Heartbeats answered.
    pub heartbeats: Counter,
    /// Delegate keys seen in two processes.
    pub clones: Counter,
    /// Delegate keys refused because of their token's enrolment.
    pub not_enrolled: Counter,
    /// Connections that proved a canary token.
    pub canaries: Counter,
    /// Logins and passwords that were refused.
    pub logins_refused: Counter,
    /// Passwords that were hashed, to be stored or to be compared.
    pub passwords_hashed: Counter,
    /// Tasks assigned.
    pub assigned: Counter,
    /// Revocations that were carried out, by a person or by expiry; a repeated one counts again.
    pub revocations: Counter,
    /// One-time codes opened.
    pub wraps_opened: Counter,
    /// Attempts of somebody who has a one-time code, after its end.
    pub wraps_refused: Counter,
    /// One-time codes that nobody opened in time.
    pub wraps_expired: Counter,
    /// Live sessions.
    pub sessions: Gauge,
    /// Waiting tasks.
    pub queued: Gauge,
    /// Accepted tokens that expire within each of the thresholds of a warning, nearest first.
    pub expiring: [Gauge; EXPIRY_WARNINGS.len()],
    dispatch: Histogram,
    revoke_to_cut: Timed,
    revoke_to_stop: Timed,
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
        let slowed =
            counter("handshakes_slowed", "Handshakes ended because too many from the same source proved no token");
        let heartbeats = counter("heartbeats_answered", "Heartbeats answered");
        let clones = counter("delegate_clones", "Delegate keys seen in two processes");
        let not_enrolled = counter(
            "delegates_not_enrolled",
            "Delegate keys refused because they wait for approval or enrolment is closed",
        );
        let canaries = counter("canary_connections", "Connections that proved a canary token");
        let passwords_hashed = counter("passwords_hashed", "Passwords hashed, each for some 20 ms of a processor");
        let logins_refused = counter("logins_refused", "Logins refused because of a wrong name or password");
        let assigned = counter("tasks_assigned", "Tasks assigned to a delegate");
        let revocations =
            counter("token_revocations", "Revocations carried out, by a person or by expiry, repeated ones included");
        let wraps_opened = counter("wraps_opened", "One-time codes opened");
        let help = "Attempts to open a one-time code that was opened before or has ended otherwise";
        let wraps_refused = counter("wraps_refused", help);
        let wraps_expired = counter("wraps_expired", "One-time codes that nobody opened in time");
        let (sessions, queued) = (Gauge::default(), Gauge::default());
        registry.register("sessions", "Live sessions", sessions.clone());
        registry.register("tasks_queued", "Tasks waiting for a delegate", queued.clone());
        let expiring = std::array::from_fn(|_| Gauge::default());
        for (gauge, (_, within)) in std::iter::zip(&expiring, EXPIRY_WARNINGS) {
            let name = format!("tokens_expiring_within_{}", within.replace(' ', ""));
            registry.register(name, format!("Accepted tokens that expire within {within}"), Gauge::clone(gauge));
        }
        let (first, step, count) = DISPATCH_BUCKETS;
        let dispatch = Histogram::new(exponential_buckets(first, step, count));
        let help = "From the commit of an assignment to the first answer of its delegate";
        registry.register("dispatch_seconds", help, dispatch.clone());
        let mut timed = |name: &str, help: &str, buckets| Timed::new(&mut registry, name, help, buckets);
        let revoke_to_cut = timed("revoke_to_cut", "From a revoke call to its last session closed", CUT_BUCKETS);
        let help = "From a revocation to the report of a delegate that it has stopped";
        let revoke_to_stop = timed("revoke_to_stop", help, STOP_BUCKETS);
        Self {
            admitted,
            refused,
            unproven,
            shed,
            slowed,
            heartbeats,
            clones,
            not_enrolled,
            canaries,
            logins_refused,
            passwords_hashed,
            assigned,
            revocations,
            wraps_opened,
            wraps_refused,
            wraps_expired,
            sessions,
            queued,
            expiring,
            dispatch,
            revoke_to_cut,
            revoke_to_stop,
            registry,
        }
    }
}

impl Metrics {
    /// Records how long a delegate took to answer an assignment.
    pub fn dispatch(&self, took: Duration) {
        self.dispatch.observe(took.as_secs_f64());
    }

    /// Records how long a revoke took until its last session was closed.
    pub fn revoke_to_cut(&self, took: Millis) {
        self.revocations.inc();
        self.revoke_to_cut.observe(took);
    }

    /// Records how long after its revocation a delegate reported that it had stopped.
    pub fn revoke_to_stop(&self, took: Millis) {
        self.revoke_to_stop.observe(took);
    }

    /// Everything, in the text format that Prometheus reads.
    pub fn render(&self) -> String {
        self.revoke_to_cut.refresh();
        self.revoke_to_stop.refresh();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory does not fail");
        text
    }
}
