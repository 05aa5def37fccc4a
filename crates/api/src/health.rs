//! Whether the Manager lives and serves.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// In one word.
    pub status: HealthStatus,
    /// Version of the Manager.
    pub version: String,
    /// What is missing, for a person; empty while all is well.
    #[serde(default)]
    pub reason: String,
}

/// How the Manager is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It serves (200).
    Ok,
    /// Not yet serving, or its store is away (503).
    Unready,
    /// It is shutting down (503).
    Draining,
}
