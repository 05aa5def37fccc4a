//! Delegates over HTTP.

use std::sync::{Arc, atomic::Ordering};

use axum::extract::State;
use legation_api::{
    List, Problem,
    delegates::{Delegate, DelegatesQuery},
};
use legation_model::{delegate as model, ids::DelegateId};
use legation_store::delegates::DelegateFilter;

use super::{
    request::{Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal};

/// Lists delegates. With `connected`, a page may have fewer items than its limit.
#[utoipa::path(get, path = "/api/v1/delegates", tag = "delegates", params(DelegatesQuery),
    responses((status = 200, body = List<Delegate>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<DelegatesQuery>,
) -> Result<Json<List<Delegate>>, Refusal> {
    let filter = DelegateFilter { scope: query.scope, token: query.token, name: query.name };
    let found = manager.list_delegates(&caller, filter, paged(query.limit, query.cursor)?).await?;
    let items = found.items.iter().map(|delegate| shown(&manager, delegate));
    Ok(ok(List { items: items.filter(|delegate| delegate.connected || !query.connected).collect(), next: found.next }))
}

/// Shows a delegate.
#[utoipa::path(get, path = "/api/v1/delegates/{delegate}", tag = "delegates", params(("delegate" = String, Path)),
    responses((status = 200, body = Delegate), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<DelegateId>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<Delegate>, Refusal> {
    Ok(ok(shown(&manager, &manager.delegate(&caller, id).await?)))
}

/// The stored delegate together with what only its live session knows.
fn shown(manager: &Manager, delegate: &model::Delegate) -> Delegate {
    let session = manager.sessions.newest(delegate.id);
    let running = session.as_ref().map_or(0, |session| session.capacity.saturating_sub(session.free()));
    let mut shown = Delegate::new(delegate, session.is_some(), running as u32);
    if let Some(session) = session {
        let silent = manager.clock.boot() - session.last_answered.load(Ordering::Relaxed);
        shown.last_seen_at = shown.last_seen_at.max(manager.clock.wall() - silent);
    }
    shown
}
