//! Delegate tokens over HTTP.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use legation_api::{
    List, Problem,
    page::DryRun,
    token_update::UpdateToken,
    tokens::{CreateToken, DeletedToken, IssuePreview, IssueToken, IssuedToken, NoValue, Token, TokensQuery},
    wraps::{Wrap, WrapCode},
};
use legation_model::ids::TokenId;
use legation_store::tokens::TokenFilter;

use super::{
    request::{Body, Id, Nothing, Params, Seen, paged},
    respond::{Json, Versioned, ok},
};
use crate::{
    Manager,
    access::Caller,
    error::Refusal,
    tokens::{Issued, NewToken},
};

/// Lists tokens; revoked ones only when asked.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", params(TokensQuery),
    responses((status = 200, body = List<Token>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<TokensQuery>,
) -> Result<Json<List<Token>>, Refusal> {
    let filter = TokenFilter {
        expires_by: query.expires_by(manager.clock.wall())?,
        include_revoked: query.include_revoked,
        name: query.name,
        status: query.status,
        unused_since: query.unused_since,
    };
    let found = manager.list_tokens(&caller, query.scope, filter, paged(query.limit, query.cursor)?).await?;
    Ok(ok(List { items: manager.with_wraps(&found.items).await?, next: found.next }))
}

/// Creates a token and, unless asked not to, issues it: the answer has its value, or its one-time code, this once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = CreateToken,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request create nothing")),
    responses((status = 201, body = IssuedToken), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Body<CreateToken>,
) -> Result<Json<IssuedToken>, Refusal> {
    let asked = body.value;
    asked.check(manager.clock.wall())?;
    let limits = asked.limits();
    let CreateToken { scope, name, description, issue, wrap_ttl_ms: wrap, .. } = asked;
    let new = NewToken { scope, name, description, limits, issue, wrap };
    let issued = manager.create_token(&caller, new, body.once).await?;
    Ok(Json(StatusCode::CREATED, shown_once(issued)))
}

/// Shows a token, never its value. The `ETag` is what a change needs as `If-Match`.
#[utoipa::path(get, path = "/api/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path)),
    responses((status = 200, body = Token), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Versioned<Token>, Refusal> {
    let token = manager.token(&caller, id).await?;
    Ok(Versioned(token.version, ok(manager.with_wrap(&token).await?)))
}

/// Makes the secret of an unissued token: the answer has its value, or its one-time code, this once. With `dry_run`, an `IssuePreview`.
#[utoipa::path(post, path = "/api/v1/tokens/{token}/issue", tag = "tokens", request_body = IssueToken,
    params(("token" = String, Path), DryRun),
    responses((status = 200, body = IssuedToken), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn issue(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(DryRun { dry_run }): Params<DryRun>,
    body: Body<IssueToken>,
) -> Result<Response, Refusal> {
    body.value.check()?;
    let issued = manager.issue_token(&caller, id, body.value.wrap_ttl_ms, dry_run).await?;
    if dry_run {
        let generation = issued.token.generation + 1;
        return Ok(ok(IssuePreview { token: Token::from(&issued.token), generation }).into_response());
    }
    Ok(ok(shown_once(issued)).into_response())
}

/// Changes a token that is still at the version in `If-Match`: name, description, limits. When this answers, delegates
/// that a tightened limit excludes are disconnected. With `dry_run`, only says what the token would be.
#[utoipa::path(patch, path = "/api/v1/tokens/{token}", tag = "tokens", request_body = UpdateToken,
    params(("token" = String, Path), DryRun, ("If-Match" = String, Header, description = "The `ETag` of the token as it was read")),
    responses((status = 200, body = Token), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 428, body = Problem)))]
pub(super) async fn update(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(DryRun { dry_run }): Params<DryRun>,
    seen: Result<Seen, Refusal>,
    body: Body<UpdateToken>,
) -> Result<Versioned<Token>, Refusal> {
    let seen = seen?;
    let token = manager.update_token(&caller, id, move |version| seen.is(version), body.value, dry_run).await?;
    Ok(Versioned(token.version, ok(Token::from(&token))))
}

/// Deletes a revoked token. With `dry_run`, only says what would be deleted.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path), DryRun),
    responses((status = 200, body = DeletedToken), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<DeletedToken>, Refusal> {
    let token = manager.delete_token(&caller, id, dry_run).await?;
    Ok(ok(DeletedToken { token: Token::from(&token) }))
}

fn shown_once(issued: Issued) -> IssuedToken {
    let code = match (&issued.value, &issued.wrapped, issued.token.generation) {
        (Some(_), _, _) => None,
        (None, Some(_), _) => Some(NoValue::Wrapped),
        (None, None, 0) => Some(NoValue::NotIssued),
        (None, None, _) => Some(NoValue::ValueAlreadyShown),
    };
    let wrap = issued.wrapped.as_ref().map(|(_, wrap)| Wrap::from(wrap));
    let wrapped =
        issued.wrapped.map(|(code, wrap)| WrapCode { id: wrap.id, code: code.reveal(), expires_at: wrap.expires_at });
    IssuedToken { token: Token { wrap, ..Token::from(&issued.token) }, value: issued.value, code, wrapped }
}
