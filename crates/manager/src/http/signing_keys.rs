//! The public halves of the signing keys, for everyone who has to check a receipt or an export.

use std::sync::Arc;

use axum::extract::State;
use legation_api::{List, Problem, signing_keys::SigningKey};
use legation_model::ids::ManagerKeyId;

use super::{
    request::Id,
    respond::{Json, ok},
};
use crate::{Manager, error::Refusal};

/// Lists the keys that receipts and audit checkpoints are signed with, oldest first, retired ones included.
#[utoipa::path(get, path = "/api/v1/signing-keys", tag = "proof", security(()),
    responses((status = 200, body = List<SigningKey>)))]
pub(super) async fn list(State(manager): State<Arc<Manager>>) -> Result<Json<List<SigningKey>>, Refusal> {
    Ok(ok(List { items: manager.signing_keys().await?, next: None }))
}

/// Shows one of them.
#[utoipa::path(get, path = "/api/v1/signing-keys/{key}", tag = "proof", security(()), params(("key" = String, Path)),
    responses((status = 200, body = SigningKey), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    Id(id): Id<ManagerKeyId>,
) -> Result<Json<SigningKey>, Refusal> {
    let found = manager.signing_keys().await?.into_iter().find(|key| key.id == id);
    found.map(ok).ok_or_else(|| Refusal::not_found("signing key"))
}
