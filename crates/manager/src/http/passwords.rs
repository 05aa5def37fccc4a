//! Passwords over HTTP.

use std::sync::Arc;

use axum::extract::State;
use legation_api::{
    Problem,
    passwords::{ChangePassword, PasswordSet, SetPassword},
};
use legation_model::ids::PrincipalId;

use super::{
    request::{Brief, Id, Nothing, Params},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal};

/// Gives a user a password, and ends that user's console sessions at once. Nobody can set that of somebody who holds
/// more.
#[utoipa::path(put, path = "/api/v1/principals/{principal}/password", tag = "access", request_body = SetPassword,
    params(("principal" = String, Path)),
    responses((status = 200, body = PasswordSet), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn set(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<PrincipalId>,
    Params(Nothing {}): Params<Nothing>,
    body: Brief<SetPassword>,
) -> Result<Json<PasswordSet>, Refusal> {
    let ended = manager.set_password(&caller, id, body.value.password).await?;
    Ok(answer(id, ended))
}

/// Changes the caller's own password, and ends the caller's other console sessions at once.
#[utoipa::path(put, path = "/api/v1/password", tag = "access", request_body = ChangePassword,
    responses((status = 200, body = PasswordSet), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 409, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn change(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Brief<ChangePassword>,
) -> Result<Json<PasswordSet>, Refusal> {
    let ended = manager.change_password(&caller, body.value.old_password, body.value.password).await?;
    Ok(answer(caller.principal(), ended))
}

fn answer(principal: PrincipalId, ended: u64) -> Json<PasswordSet> {
    ok(PasswordSet { principal, ended_sessions: u32::try_from(ended).unwrap_or(u32::MAX) })
}
