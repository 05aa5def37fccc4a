//! The one place where a request is let through or not.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use legation_api::Code;
use legation_model::access::Permission;

use crate::{Manager, access::Caller, audit::Change, error::Refusal, http::respond::RequestId, source::Source};

/// The longest part of a path that an audit record repeats: an id with its prefix has 27 characters at most, every
/// secret has more.
const PATH_PART_MAX: usize = 32;
/// Parts of a path that an audit record repeats: more than any route has.
const PATH_PARTS_MAX: usize = 8;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone, without a key.
    Public,
    /// Every valid key.
    AnyKey,
    /// Callers that hold this permission somewhere; where it counts is the handler's to ask.
    Needs(Permission),
}

/// Lets a request through if its key may use the route, and leaves the caller for the handler.
pub(super) async fn check(
    State((manager, access)): State<(Arc<Manager>, Access)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut asking = None;
    if access != Access::Public {
        match allow(&manager, access, &parts).await {
            Ok(caller) => {
                asking = Some((caller.clone(), parts.method.clone(), parts.uri.clone()));
                parts.extensions.insert(caller);
            }
            Err(refusal) => return refusal.into_response(),
        }
    }
    let answer = run(&manager, Request::from_parts(parts, body), next).await;
    // Where a permission counts is for the handler to say, and so is this refusal.
    if answer.status() == StatusCode::FORBIDDEN
        && let Some((caller, method, uri)) = asking
    {
        note(&manager, access, &caller, &method, &uri);
    }
    answer
}

async fn run(manager: &Manager, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // A change runs to its end even if its caller hangs up: half a revocation would leave sessions open.
    let change = manager.connections.spawn(next.run(request));
    change.await.unwrap_or_else(|_| Refusal::new(Code::Internal, "the Manager failed on this request").into_response())
}

async fn allow(manager: &Manager, access: Access, request: &Parts) -> Result<Caller, Refusal> {
    let id = request.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let mut caller = manager.authenticate(presented(&request.headers)?, id).await?;
    caller.address = source(request);
    let Access::Needs(permission) = access else { return Ok(caller) };
    caller.require(permission).inspect_err(|_| note(manager, access, &caller, &request.method, &request.uri))?;
    Ok(caller.needing(permission))
}

/// Has a refusal recorded.
fn note(manager: &Manager, access: Access, caller: &Caller, method: &Method, uri: &Uri) {
    let Access::Needs(permission) = access else { return };
    let refused = Change::new("access.refuse", asked(method, uri), None);
    manager.note_refusal(caller.actor(), refused.detail(format!("needs {permission}")));
}

/// Where a request comes from, for audit records.
fn source(request: &Parts) -> Option<IpAddr> {
    request.extensions.get::<Source>().map(|source| source.address)
}

/// What was asked for, without what may be a secret in the wrong place: no id and no word of a route is so long.
fn asked(method: &Method, uri: &Uri) -> String {
    let short = |part: &str| if part.len() > PATH_PART_MAX { "…".to_owned() } else { part.to_owned() };
    let parts: Vec<String> = uri.path().split('/').take(PATH_PARTS_MAX).map(short).collect();
    format!("{method} {}", parts.join("/"))
}

/// The key in `Authorization: Bearer` or `x-api-key`; both at once would leave open which one counts.
fn presented(headers: &HeaderMap) -> Result<&str, Refusal> {
    let none = || Refusal::new(Code::Unauthenticated, "the request has no API key");
    let mut found = headers.get_all(AUTHORIZATION).iter().chain(headers.get_all("x-api-key"));
    let value = found.next().ok_or_else(none)?;
    if found.next().is_some() {
        return Err(Refusal::new(Code::Unauthenticated, "the request has more than one API key"));
    }
    let text = value.to_str().map_err(|_| none())?.trim();
    match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
        Some(_) => Err(none()),
        None => Ok(text),
    }
}
