//! The one place where a request is let through or not.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use legation_api::Code;
use legation_model::access::Permission;

use crate::{Manager, access::Caller, error::Refusal, http::respond::RequestId};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone, without a key.
    Public,
    /// Every valid key.
    AnyKey,
    /// Keys whose role holds this permission.
    Needs(Permission),
}

/// Lets a request through if its key may use the route, and leaves the caller for the handler.
pub(super) async fn check(
    State((manager, access)): State<(Arc<Manager>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    if access != Access::Public {
        let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        match allow(&manager, access, request.headers(), id).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(refusal) => return refusal.into_response(),
        };
    }
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // A change runs to its end even if its caller hangs up: half a revocation would leave sessions open.
    let change = manager.connections.spawn(next.run(request));
    change.await.unwrap_or_else(|_| Refusal::new(Code::Internal, "the Manager failed on this request").into_response())
}

async fn allow(manager: &Manager, access: Access, headers: &HeaderMap, request: String) -> Result<Caller, Refusal> {
    let caller = manager.authenticate(presented(headers)?, request).await?;
    if let Access::Needs(permission) = access {
        caller.require(permission)?;
    }
    Ok(caller)
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
