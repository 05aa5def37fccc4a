//! The scope tree over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    page::DryRun,
    scopes::{CreateScope, DeletedScope, Scope, ScopesQuery, UpdateScope},
};
use legation_model::scope::{Dotted, ScopeKind};
use legation_store::scopes::Place;

use super::{
    request::{Body, Id, Nothing, Params, Seen, paged},
    respond::{Json, Versioned, ok},
};
use crate::{Manager, access::Caller, error::Refusal, scopes::PlaceChange};

/// Lists the scope tree: a place, everything below it, its next neighbour.
#[utoipa::path(get, path = "/api/v1/scopes", tag = "scopes", params(ScopesQuery),
    responses((status = 200, body = List<Scope>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<ScopesQuery>,
) -> Result<Json<List<Scope>>, Refusal> {
    let (wanted, page) = (query.wanted()?, paged(query.limit, query.cursor)?);
    let Some(wanted) = wanted else { return Ok(ok(List { items: Vec::new(), next: None })) };
    let found = manager.list_scopes(&caller, wanted.within, wanted.kind, page).await?;
    Ok(ok(List { items: found.items.iter().map(shown).collect(), next: found.next }))
}

/// Creates an account, an organization or a project and, unissued, its default token.
#[utoipa::path(post, path = "/api/v1/scopes", tag = "scopes", request_body = CreateScope,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request create nothing")),
    responses((status = 201, body = Scope), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreateScope>,
) -> Result<Versioned<Scope>, Refusal> {
    body.value.check()?;
    let CreateScope { scope, description, lease_ms } = body.value;
    let place = manager.create_scope(&caller, scope, description, lease_ms, body.once).await?;
    Ok(Versioned(place.version, Json(StatusCode::CREATED, shown(&place))))
}

/// Shows a place; the header `ETag` names its version.
#[utoipa::path(get, path = "/api/v1/scopes/{scope}", tag = "scopes",
    params(("scope" = String, Path, description = "Spelled with dots: acme.eng.web")),
    responses((status = 200, body = Scope), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(Dotted(scope)): Id<Dotted>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Versioned<Scope>, Refusal> {
    let place = manager.scope(&caller, scope).await?;
    Ok(Versioned(place.version, ok(shown(&place))))
}

/// Changes a place that is still at the version which `If-Match` names. With `dry_run`, only says what it would be then.
#[utoipa::path(patch, path = "/api/v1/scopes/{scope}", tag = "scopes", request_body = UpdateScope,
    params(("scope" = String, Path, description = "Spelled with dots: acme.eng.web"), DryRun,
        ("If-Match" = String, Header, description = "The ETag of the place as it was read")),
    responses((status = 200, body = Scope), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem), (status = 428, body = Problem)))]
pub(super) async fn update(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(Dotted(scope)): Id<Dotted>,
    Params(DryRun { dry_run }): Params<DryRun>,
    seen: Result<Seen, Refusal>,
    body: Body<UpdateScope>,
) -> Result<Versioned<Scope>, Refusal> {
    // First: whether a place exists that the caller may not see must not show in what else is wrong.
    caller.require_sight(&scope, "scope")?;
    let seen = seen?;
    body.value.check(scope.kind())?;
    let change =
        PlaceChange { description: body.value.description, lease: body.value.lease_ms, reveal: body.value.reveal };
    let place = manager.update_scope(&caller, scope, change, move |version| seen.is(version), dry_run).await?;
    Ok(Versioned(place.version, ok(shown(&place))))
}

/// Deletes a place in which nothing is; its name is never used again. With `dry_run`, only says what would be deleted.
#[utoipa::path(delete, path = "/api/v1/scopes/{scope}", tag = "scopes",
    params(("scope" = String, Path, description = "Spelled with dots: acme.eng.web"), DryRun),
    responses((status = 200, body = DeletedScope), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(Dotted(scope)): Id<Dotted>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<DeletedScope>, Refusal> {
    let place = manager.delete_scope(&caller, scope, dry_run).await?;
    Ok(ok(DeletedScope { scope: shown(&place) }))
}

fn shown(place: &Place) -> Scope {
    Scope {
        scope: place.scope.clone(),
        kind: place.scope.kind(),
        id: place.scope.own().to_owned(),
        description: place.description.clone(),
        lease_ms: place.lease,
        reveal: (place.scope.kind() == ScopeKind::Account).then_some(place.reveal),
        version: place.version,
        created_at: place.created_at,
        created_by: place.created_by.clone(),
    }
}
