//! Accounts over HTTP.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use legation_api::{
    List, Problem,
    accounts::{Account, AccountsQuery, CreateAccount},
};
use legation_model::{Scope, scope::ScopeKind};
use legation_store::scopes::Place;

use super::{
    request::{Body, Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal};

/// Lists accounts.
#[utoipa::path(get, path = "/api/v1/accounts", tag = "accounts", params(AccountsQuery),
    responses((status = 200, body = List<Account>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<AccountsQuery>,
) -> Result<Json<List<Account>>, Refusal> {
    let page = paged(query.limit, query.cursor)?;
    let found = manager.list_scopes(&caller, None, Some(ScopeKind::Account), page).await?;
    Ok(ok(List { items: found.items.iter().map(shown).collect(), next: found.next }))
}

/// Creates an account and, unissued, its default token.
#[utoipa::path(post, path = "/api/v1/accounts", tag = "accounts", request_body = CreateAccount,
    responses((status = 201, body = Account), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreateAccount>,
) -> Result<Json<Account>, Refusal> {
    body.value.check()?;
    let CreateAccount { id, description, lease_ms } = body.value;
    let account = manager.create_scope(&caller, id, description, lease_ms, body.once).await?;
    Ok(Json(StatusCode::CREATED, shown(&account)))
}

/// Shows an account.
#[utoipa::path(get, path = "/api/v1/accounts/{account}", tag = "accounts", params(("account" = String, Path)),
    responses((status = 200, body = Account), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(scope): Id<Scope>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Account>, Refusal> {
    if scope.kind() != ScopeKind::Account {
        return Err(Refusal::not_found("scope"));
    }
    Ok(ok(shown(&manager.scope(&caller, scope).await?)))
}

fn shown(account: &Place) -> Account {
    Account {
        id: account.scope.clone(),
        description: account.description.clone(),
        lease_ms: account.lease,
        reveal: account.reveal,
        created_at: account.created_at,
        created_by: account.created_by.clone(),
    }
}
