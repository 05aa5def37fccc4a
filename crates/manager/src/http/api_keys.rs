//! API keys over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    api_keys::{ApiKey, ApiKeysQuery, CreateApiKey, IssuedApiKey, RevokedApiKey},
    page::DryRun,
    tokens::NoValue,
};
use legation_model::ids::ApiKeyId;

use super::{
    request::{Body, Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, api_keys::shown, error::Refusal};

/// Lists API keys, never their values.
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "access", params(ApiKeysQuery),
    responses((status = 200, body = List<ApiKey>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<ApiKeysQuery>,
) -> Result<Json<List<ApiKey>>, Refusal> {
    let page = paged(query.limit, query.cursor)?;
    let found = manager.list_api_keys(&caller, query.scope, query.owner, page).await?;
    Ok(ok(List { items: found.items.iter().map(shown).collect(), next: found.next }))
}

/// Makes an API key: the answer has its value, this once. Nobody can make one that does more than they may.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "access", request_body = CreateApiKey,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request create nothing")),
    responses((status = 201, body = IssuedApiKey), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreateApiKey>,
) -> Result<Json<IssuedApiKey>, Refusal> {
    body.value.check(manager.clock.wall())?;
    let issued = manager.create_api_key(&caller, body.value, body.once).await?;
    let code = issued.value.is_none().then_some(NoValue::ValueAlreadyShown);
    Ok(Json(StatusCode::CREATED, IssuedApiKey { key: shown(&issued.key), value: issued.value, code }))
}

/// Shows an API key, never its value.
#[utoipa::path(get, path = "/api/v1/api-keys/{key}", tag = "access", params(("key" = String, Path)),
    responses((status = 200, body = ApiKey), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<ApiKeyId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<ApiKey>, Refusal> {
    Ok(ok(shown(&manager.api_key(&caller, id).await?)))
}

/// Revokes an API key, and ends what is done through it at once. With `dry_run`, only says which it is.
#[utoipa::path(delete, path = "/api/v1/api-keys/{key}", tag = "access", params(("key" = String, Path), DryRun),
    responses((status = 200, body = RevokedApiKey), (status = 404, body = Problem)))]
pub(super) async fn revoke(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<ApiKeyId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<RevokedApiKey>, Refusal> {
    Ok(ok(RevokedApiKey { key: shown(&manager.revoke_api_key(&caller, id, dry_run).await?) }))
}
