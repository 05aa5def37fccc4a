//! Users and service accounts over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    page::DryRun,
    principals::{ChangedPrincipal, CreatePrincipal, Principal, PrincipalsQuery},
};
use legation_model::ids::PrincipalId;
use legation_store::principals::PrincipalFilter;

use super::{
    request::{Body, Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{
    Manager,
    access::Caller,
    error::Refusal,
    grants,
    principals::{Fate, shown},
};

/// Lists users and service accounts.
#[utoipa::path(get, path = "/api/v1/principals", tag = "access", params(PrincipalsQuery),
    responses((status = 200, body = List<Principal>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<PrincipalsQuery>,
) -> Result<Json<List<Principal>>, Refusal> {
    let filter = PrincipalFilter { kind: query.kind, name: query.name };
    let found = manager.list_principals(&caller, query.scope, filter, paged(query.limit, query.cursor)?).await?;
    Ok(ok(List { items: found.items.iter().map(shown).collect(), next: found.next }))
}

/// Creates a user or a service account, which can do nothing until it has a grant.
#[utoipa::path(post, path = "/api/v1/principals", tag = "access", request_body = CreatePrincipal,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request create nothing")),
    responses((status = 201, body = Principal), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreatePrincipal>,
) -> Result<Json<Principal>, Refusal> {
    let principal = manager.create_principal(&caller, body.value, body.once).await?;
    Ok(Json(StatusCode::CREATED, shown(&principal)))
}

/// Shows a user or a service account.
#[utoipa::path(get, path = "/api/v1/principals/{principal}", tag = "access", params(("principal" = String, Path)),
    responses((status = 200, body = Principal), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<PrincipalId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Principal>, Refusal> {
    Ok(ok(shown(&manager.principal(&caller, id).await?)))
}

/// Ends all that a principal can do, its keys and live streams at once. With `dry_run`, only says what would end.
#[utoipa::path(post, path = "/api/v1/principals/{principal}/disable", tag = "access",
    params(("principal" = String, Path), DryRun),
    responses((status = 200, body = ChangedPrincipal), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn disable(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<PrincipalId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<ChangedPrincipal>, Refusal> {
    change(&manager, &caller, id, Fate::Disabled, dry_run).await
}

/// Lets a principal do again what its grants say. With `dry_run`, only says what that is.
#[utoipa::path(post, path = "/api/v1/principals/{principal}/enable", tag = "access",
    params(("principal" = String, Path), DryRun),
    responses((status = 200, body = ChangedPrincipal), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn enable(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<PrincipalId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<ChangedPrincipal>, Refusal> {
    change(&manager, &caller, id, Fate::Enabled, dry_run).await
}

/// Deletes a principal with its grants and keys; what it made stays. With `dry_run`, only says what would be deleted.
#[utoipa::path(delete, path = "/api/v1/principals/{principal}", tag = "access",
    params(("principal" = String, Path), DryRun),
    responses((status = 200, body = ChangedPrincipal), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<PrincipalId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<ChangedPrincipal>, Refusal> {
    change(&manager, &caller, id, Fate::Deleted, dry_run).await
}

async fn change(
    manager: &Manager,
    caller: &Caller,
    id: PrincipalId,
    fate: Fate,
    dry_run: bool,
) -> Result<Json<ChangedPrincipal>, Refusal> {
    let changed = manager.change_principal(caller, id, fate, dry_run).await?;
    Ok(ok(ChangedPrincipal {
        principal: shown(&changed.principal),
        grants: changed.grants.iter().map(grants::shown).collect(),
        api_keys: u32::try_from(changed.api_keys).unwrap_or(u32::MAX),
        sessions: u32::try_from(changed.sessions).unwrap_or(u32::MAX),
    }))
}
