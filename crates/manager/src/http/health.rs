//! Health, readiness, metrics.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::health::{Health, HealthStatus};

use super::respond::{Json, ok};
use crate::Manager;

fn health(status: HealthStatus, reason: &str) -> Health {
    Health { status, version: env!("CARGO_PKG_VERSION").to_owned(), reason: reason.to_owned() }
}

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Health)), security(()))]
pub(super) async fn alive() -> Json<Health> {
    ok(health(HealthStatus::Ok, ""))
}

/// Whether requests can be served: the store answers, took the last write, and the Manager is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Health), (status = 503, body = Health)), security(()))]
pub(super) async fn ready(State(manager): State<Arc<Manager>>) -> Json<Health> {
    if manager.stopping.is_cancelled() {
        return Json(StatusCode::SERVICE_UNAVAILABLE, health(HealthStatus::Draining, "the Manager is stopping"));
    }
    let unready = |why| Json(StatusCode::SERVICE_UNAVAILABLE, health(HealthStatus::Unready, why));
    // The sweep writes every few seconds, so that this is never about a time long past.
    if manager.store.failing() {
        return unready("the database takes no writes");
    }
    match manager.store.ping().await {
        Ok(()) => ok(health(HealthStatus::Ok, "")),
        Err(_) => unready("the database does not answer"),
    }
}

/// Counters and gauges, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(manager): State<Arc<Manager>>) -> String {
    manager.metrics.sessions.set(manager.sessions.len() as i64);
    manager.metrics.queued.set(manager.queue.len() as i64);
    manager.metrics.render()
}
