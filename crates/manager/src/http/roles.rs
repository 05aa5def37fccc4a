//! Roles over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    page::{DryRun, PageQuery},
    roles::{CreateRole, DeletedRole, Role, UpdateRole, permissions, words},
};
use legation_model::{Name, access};

use super::{
    request::{Body, Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal, roles::shown};

/// Lists roles, the built-in ones on the first page before all others.
#[utoipa::path(get, path = "/api/v1/roles", tag = "access", params(PageQuery),
    responses((status = 200, body = List<Role>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    Params(query): Params<PageQuery>,
) -> Result<Json<List<Role>>, Refusal> {
    let built_in = access::Role::ALL.into_iter().filter(|_| query.cursor.is_none()).map(built_in);
    let found = manager.list_roles(paged(query.limit, query.cursor.clone())?).await?;
    Ok(ok(List { items: built_in.chain(found.items.iter().map(shown)).collect(), next: found.next }))
}

/// Creates a role.
#[utoipa::path(post, path = "/api/v1/roles", tag = "access", request_body = CreateRole,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request create nothing")),
    responses((status = 201, body = Role), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreateRole>,
) -> Result<Json<Role>, Refusal> {
    let holds = permissions(&body.value.permissions)?;
    Ok(Json(StatusCode::CREATED, shown(&manager.create_role(&caller, body.value, holds, body.once).await?)))
}

/// Shows a role.
#[utoipa::path(get, path = "/api/v1/roles/{role}", tag = "access", params(("role" = String, Path)),
    responses((status = 200, body = Role), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    Id(name): Id<Name>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Role>, Refusal> {
    match name.as_str().parse() {
        Ok(role) => Ok(ok(built_in(role))),
        Err(_) => Ok(ok(shown(&manager.role(name).await?))),
    }
}

/// Replaces what a role holds, for all who have it, at once.
#[utoipa::path(put, path = "/api/v1/roles/{role}", tag = "access", request_body = UpdateRole,
    params(("role" = String, Path)),
    responses((status = 200, body = Role), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn update(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(name): Id<Name>,
    Params(Nothing {}): Params<Nothing>,
    body: Body<UpdateRole>,
) -> Result<Json<Role>, Refusal> {
    let holds = permissions(&body.value.permissions)?;
    Ok(ok(shown(&manager.update_role(&caller, name, body.value.description, holds).await?)))
}

/// Deletes a role that nobody has. With `dry_run`, only says whether that can be.
#[utoipa::path(delete, path = "/api/v1/roles/{role}", tag = "access", params(("role" = String, Path), DryRun),
    responses((status = 200, body = DeletedRole), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(name): Id<Name>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<DeletedRole>, Refusal> {
    Ok(ok(DeletedRole { role: shown(&manager.delete_role(&caller, name, dry_run).await?) }))
}

fn built_in(role: access::Role) -> Role {
    let description = match role {
        access::Role::Admin => "Everything.",
        access::Role::Operator => {
            "Everything but changing accounts and access, deleting, seeing the value of a token again, and reading the \
             audit chain."
        }
        access::Role::Viewer => "Only looking, and not at who has access or at who did what.",
    };
    Role {
        name: role.as_str().parse().expect("a built-in role's name is a name"),
        built_in: true,
        description: description.to_owned(),
        permissions: words(role.permissions()),
        created_at: None,
        created_by: None,
    }
}
