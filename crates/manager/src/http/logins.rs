//! Console sessions over HTTP.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, State},
    http::{
        HeaderValue, StatusCode,
        header::{SET_COOKIE, USER_AGENT},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use legation_api::{
    List, Problem,
    logins::{ConsoleSession, EndedSession, LogIn, LoggedIn, Reauthenticate, SessionsQuery},
    page::DryRun,
};
use legation_model::ids::LoginId;

use super::{
    cookie,
    request::{Brief, Id, Nothing, Params, paged},
    respond::{Json, RequestId, ok},
};
use crate::{
    Manager,
    access::Caller,
    error::Refusal,
    logins::{Visitor, shown},
    source::Source,
};

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Ok(Self {
            request: parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
            address: parts.extensions.get::<Source>().map(|source| source.address),
            agent: agent.to_owned(),
        })
    }
}

/// An answer that sets or clears the cookie.
fn with_cookie(answer: impl IntoResponse, cookie: Option<HeaderValue>) -> Response {
    let mut response = answer.into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Logs in with a password: the answer has the session's value, this once, or sets it as a cookie.
#[utoipa::path(post, path = "/api/v1/login", tag = "access", request_body = LogIn, security(()),
    responses((status = 201, body = LoggedIn), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn log_in(
    State(manager): State<Arc<Manager>>,
    from: Visitor,
    Params(Nothing {}): Params<Nothing>,
    body: Brief<LogIn>,
) -> Result<Response, Refusal> {
    let wants_cookie = body.value.cookie;
    let begun = manager.log_in(body.value, from).await?;
    let session = shown(&begun.session, None);
    if !wants_cookie {
        return Ok(Json(StatusCode::CREATED, LoggedIn { session, value: Some(begun.value) }).into_response());
    }
    let cookie = cookie::keep(&begun.value, manager.config.console.lifetime, &manager.config);
    Ok(with_cookie(Json(StatusCode::CREATED, LoggedIn { session, value: None }), cookie))
}

/// Ends the session that is presented, and clears the cookie.
#[utoipa::path(post, path = "/api/v1/logout", tag = "access",
    responses((status = 200, body = EndedSession), (status = 409, body = Problem)))]
pub(super) async fn log_out(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Response, Refusal> {
    let session = shown(&manager.log_out(&caller).await?, Some(&caller));
    Ok(with_cookie(ok(EndedSession { session }), cookie::clear(&manager.config)))
}

/// Shows once more who holds the session that is presented. What can hurt most asks for that.
#[utoipa::path(post, path = "/api/v1/reauthenticate", tag = "access", request_body = Reauthenticate,
    responses((status = 200, body = ConsoleSession), (status = 401, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem)))]
pub(super) async fn reauthenticate(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(Nothing {}): Params<Nothing>,
    body: Brief<Reauthenticate>,
) -> Result<Json<ConsoleSession>, Refusal> {
    Ok(ok(shown(&manager.reauthenticate(&caller, body.value.password).await?, Some(&caller))))
}

/// Lists sessions that have not ended: one's own, and those of others where the caller may view access.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "access", params(SessionsQuery),
    responses((status = 200, body = List<ConsoleSession>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<SessionsQuery>,
) -> Result<Json<List<ConsoleSession>>, Refusal> {
    let page = paged(query.limit, query.cursor.clone())?;
    let found = manager.list_sessions(&caller, &query, page).await?;
    Ok(ok(List { items: found.items.iter().map(|item| shown(item, Some(&caller))).collect(), next: found.next }))
}

/// Ends a session, and what is done in it, at once: one's own, or one of others where the caller may edit access. With
/// `dry_run`, only says which it is.
#[utoipa::path(delete, path = "/api/v1/sessions/{session}", tag = "access", params(("session" = String, Path), DryRun),
    responses((status = 200, body = EndedSession), (status = 404, body = Problem)))]
pub(super) async fn end(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<LoginId>,
    Params(DryRun { dry_run }): Params<DryRun>,
) -> Result<Json<EndedSession>, Refusal> {
    Ok(ok(EndedSession { session: shown(&manager.end_session(&caller, id, dry_run).await?, Some(&caller)) }))
}
