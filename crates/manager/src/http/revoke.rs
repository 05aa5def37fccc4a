//! The end of tokens over HTTP.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use legation_api::{
    Problem,
    page::DryRun,
    receipts::Receipt,
    revoke::{End, RevokeMany, RevokePreview, RevokeToken, RevokedMany},
    tokens::Token,
};
use legation_model::ids::TokenId;

use super::{
    request::{Body, Id, Nothing, Params},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal, revoke_many::Many};

/// Revokes a token: when this answers 200, no delegate of it is connected. With the modes `drain` and `at` it answers 202
/// and the token, whose end is set. With `dry_run`, a `RevokePreview`.
#[utoipa::path(post, path = "/api/v1/tokens/{token}/revoke", tag = "tokens", request_body = RevokeToken,
    params(("token" = String, Path), DryRun),
    responses((status = 200, body = Receipt), (status = 202, body = Token), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn revoke(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(DryRun { dry_run }): Params<DryRun>,
    body: Body<RevokeToken>,
) -> Result<Response, Refusal> {
    let end = body.value.end(manager.clock.wall())?;
    if dry_run {
        let preview: RevokePreview = manager.preview_revoke(&caller, id).await?;
        return Ok(ok(preview).into_response());
    }
    let reason = body.value.reason;
    let (at, drain) = match end {
        End::Now => {
            let receipt = manager.revoke_token(&caller, id, reason).await?;
            return Ok(ok(Receipt::from(&receipt)).into_response());
        }
        End::Drain(at) => (at, true),
        End::At(at) => (at, false),
    };
    let token = manager.schedule_revoke(&caller, id, at, drain, reason).await?;
    Ok(Json(StatusCode::ACCEPTED, Token::from(&token)).into_response())
}

/// Takes back the end that was set for a token (mode `at`).
#[utoipa::path(delete, path = "/api/v1/tokens/{token}/revoke", tag = "tokens", params(("token" = String, Path)),
    responses((status = 200, body = Token), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cancel(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Token>, Refusal> {
    Ok(ok(Token::from(&manager.cancel_revoke(&caller, id).await?)))
}

/// Revokes all tokens of a scope, or those created before a time; each as if it were alone, with a receipt of its own.
/// Repeat the call while there are `more`. With `dry_run`, only says which.
#[utoipa::path(post, path = "/api/v1/tokens/revoke", tag = "tokens", request_body = RevokeMany, params(DryRun),
    responses((status = 200, body = RevokedMany), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn many(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(DryRun { dry_run }): Params<DryRun>,
    body: Body<RevokeMany>,
) -> Result<Json<RevokedMany>, Refusal> {
    let RevokeMany { scope, created_before, reason } = body.value;
    let many = Many { scope, created_before };
    Ok(ok(match dry_run {
        true => manager.preview_revoke_many(&caller, many).await?,
        false => manager.revoke_many(&caller, many, reason).await?,
    }))
}
