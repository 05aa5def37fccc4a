//! Delegates over HTTP.

use std::sync::{Arc, atomic::Ordering};

use axum::extract::State;
use legation_api::{
    List, Problem,
    delegates::{AllowDelegate, Delegate, DelegatesQuery, StopDelegate, StoppedDelegate, account_of},
    page::DryRun,
};
use legation_model::{delegate as model, ids::DelegateId, token::TokenStatus};
use legation_store::delegates::DelegateFilter;

use super::{
    request::{Body, Id, Nothing, Params, paged},
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
    let filter = DelegateFilter { token: query.token, name: query.name, status: query.status };
    let found = manager.list_delegates(&caller, query.scope, filter, paged(query.limit, query.cursor)?).await?;
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
    let delegate = manager.delegate(&caller, id).await?;
    let clone = manager.clone_of(id).await?.map(|clone| account_of(id, delegate.token, &clone));
    Ok(ok(Delegate { clone, ..shown(&manager, &delegate) }))
}

/// Stops a delegate: its key is refused from now on, its attempts are lost, its session is closed when this answers. One that
/// waits for approval is refused for good. With `dry_run`, only says what would happen.
#[utoipa::path(post, path = "/api/v1/delegates/{delegate}/stop", tag = "delegates", request_body = StopDelegate,
    params(("delegate" = String, Path), DryRun),
    responses((status = 200, body = StoppedDelegate), (status = 404, body = Problem)))]
pub(super) async fn stop(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<DelegateId>,
    Params(DryRun { dry_run }): Params<DryRun>,
    body: Body<StopDelegate>,
) -> Result<Json<StoppedDelegate>, Refusal> {
    let stop = match dry_run {
        true => manager.preview_stop(&caller, id).await?,
        false => manager.stop_delegate(&caller, id, body.value.reason).await?,
    };
    Ok(ok(StoppedDelegate {
        delegate: shown(&manager, &stop.delegate),
        attempts_lost: stop.lost as u32,
        enrolment: stop.token.limits.enrolment,
        token_accepted: stop.token.status == TokenStatus::Active,
    }))
}

/// Lets a delegate in that waits for approval, or in again that was stopped or is quarantined. With `dry_run`, only shows it.
#[utoipa::path(post, path = "/api/v1/delegates/{delegate}/allow", tag = "delegates", request_body = AllowDelegate,
    params(("delegate" = String, Path), DryRun),
    responses((status = 200, body = Delegate), (status = 404, body = Problem)))]
pub(super) async fn allow(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<DelegateId>,
    Params(DryRun { dry_run }): Params<DryRun>,
    body: Body<AllowDelegate>,
) -> Result<Json<Delegate>, Refusal> {
    Ok(ok(shown(&manager, &manager.allow_delegate(&caller, id, body.value.reason, dry_run).await?)))
}

/// The stored delegate together with what only its live session knows.
fn shown(manager: &Manager, delegate: &model::Delegate) -> Delegate {
    let session = manager.sessions.newest(delegate.id);
    let running = session.as_ref().map_or(0, |session| usize::from(session.capacity).saturating_sub(session.free()));
    let mut shown = Delegate::new(delegate, session.is_some(), running as u32);
    if let Some(session) = session {
        let silent = manager.clock.boot() - session.last_answered.load(Ordering::Relaxed);
        shown.last_seen_at = shown.last_seen_at.max(manager.clock.wall() - silent);
    }
    shown
}
