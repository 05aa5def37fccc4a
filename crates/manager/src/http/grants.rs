//! Grants over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    grants::{CreateGrant, DeletedGrant, Grant, GrantsQuery},
    page::DryRun,
};
use legation_model::ids::GrantId;
use legation_store::grants::GrantFilter;

use super::{
    request::{Body, Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal, grants::shown};

/// Lists grants.
#[utoipa::path(get, path = "/api/v1/grants", tag = "access", params(GrantsQuery),
    responses((status = 200, body = List<Grant>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<GrantsQuery>,
) -> Result<Json<List<Grant>>, Refusal> {
    let filter = GrantFilter { principal: query.principal, role: query.role };
    let found = manager.list_grants(&caller, query.scope, filter, paged(query.limit, query.cursor)?).await?;
    Ok(ok(List { items: found.items.iter().map(shown).collect(), next: found.next }))
}

/// Gives a principal a role. Nobody can give what they do not hold at the same place.
#[utoipa::path(post, path = "/api/v1/grants", tag = "access", request_body = CreateGrant,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request create nothing")),
    responses((status = 201, body = Grant), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreateGrant>,
) -> Result<Json<Grant>, Refusal> {
    Ok(Json(StatusCode::CREATED, shown(&manager.create_grant(&caller, body.value, body.once).await?)))
}

/// Shows a grant.
#[utoipa::path(get, path = "/api/v1/grants/{grant}", tag = "access", params(("grant" = String, Path)),
    responses((status = 200, body = Grant), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<GrantId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Grant>, Refusal> {
    Ok(ok(shown(&manager.grant(&caller, id).await?)))
}

/// Takes a grant away, and ends what is done by it at once. With `dry_run`, only says whether that can be.
#[utoipa::path(delete, path = "/api/v1/grants/{grant}", tag = "access", params(("grant" = String, Path), DryRun),
    responses((status = 200, body = DeletedGrant), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<GrantId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<DeletedGrant>, Refusal> {
    Ok(ok(DeletedGrant { grant: shown(&manager.delete_grant(&caller, id, dry_run).await?) }))
}
