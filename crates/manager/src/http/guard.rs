//! The one place where a request is let through or not.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use legation_api::Code;
use legation_model::access::Permission;

use super::{cookie::presented, respond::RequestId};
use crate::{Manager, access::Caller, audit::Change, error::Refusal, source::Source};

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
    /// Every valid key or session.
    AnyKey,
    /// Every valid key or session for what is its owner's own, and for what is others' those that hold this permission
    /// there; which of the two it is, is the handler's to ask.
    OwnOr(Permission),
    /// Callers that hold this permission somewhere; where it counts is the handler's to ask.
    Needs(Permission),
}

/// What the route table says of a route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) access: Access,
    /// Whether a console session must be fresh for it.
    pub(super) fresh: bool,
}

/// Lets a request through if its key or session may use the route, and leaves the caller for the handler.
pub(super) async fn check(
    State((manager, rule)): State<(Arc<Manager>, Rule)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let (mut asking, access) = (None, rule.access);
    if access != Access::Public {
        match allow(&manager, rule, &parts).await {
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
        && let Access::Needs(permission) | Access::OwnOr(permission) = access
    {
        note(&manager, &needs(permission), &caller, &method, &uri);
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

async fn allow(manager: &Manager, rule: Rule, request: &Parts) -> Result<Caller, Refusal> {
    let id = request.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let presented = presented(request, &manager.config)?;
    let mut caller = manager.authenticate(presented.value(), id).await?;
    caller.address = source(request);
    let noted = |why: &str| note(manager, why, &caller, &request.method, &request.uri);
    presented.require_own_page(request, &manager.config).inspect_err(|_| noted("from another site, by cookie"))?;
    if let Access::Needs(permission) = rule.access {
        caller.require(permission).inspect_err(|_| noted(&needs(permission)))?;
    }
    if rule.fresh {
        manager.require_fresh(&caller)?;
    }
    Ok(match rule.access {
        Access::Public | Access::AnyKey => caller,
        Access::OwnOr(permission) | Access::Needs(permission) => caller.needing(permission),
    })
}

fn needs(permission: Permission) -> String {
    format!("needs {permission}")
}

/// Has a refusal recorded.
fn note(manager: &Manager, why: &str, caller: &Caller, method: &Method, uri: &Uri) {
    let refused = Change::new("access.refuse", asked(method, uri), None);
    manager.note_refusal(caller.actor(), refused.detail(why));
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
