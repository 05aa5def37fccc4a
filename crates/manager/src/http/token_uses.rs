//! Uses of a token over HTTP.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use axum::extract::State;
use legation_api::{List, Problem, page::PageQuery, token_uses::TokenUse};
use legation_model::{
    Millis,
    ids::{DelegateId, TokenId},
    token_use as model,
};

use super::{
    request::{Id, Params, paged},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal, session::Session};

/// Lists who used a token, when, and from where: a line for each delegate and address, newest first. One that is used
/// while pages are read moves to the beginning.
#[utoipa::path(get, path = "/api/v1/tokens/{token}/uses", tag = "tokens", params(("token" = String, Path), PageQuery),
    responses((status = 200, body = List<TokenUse>), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(query): Params<PageQuery>,
) -> Result<Json<List<TokenUse>>, Refusal> {
    let found = manager.token_uses(&caller, id, paged(query.limit, query.cursor)?).await?;
    let holders = holders(&manager, id);
    Ok(ok(List { items: found.items.iter().map(|noted| shown(noted, &holders)).collect(), next: found.next }))
}

/// Who holds a token now and from where, and when each was heard.
type Holders = HashMap<(DelegateId, IpAddr), Millis>;

fn holders(manager: &Manager, id: TokenId) -> Holders {
    let (wall, boot) = (manager.clock.wall(), manager.clock.boot());
    let current = manager.sessions.current().into_iter().filter(|session| session.token.id == id);
    let heard = |session: &Session| wall - (boot - session.last_answered.load(Ordering::Relaxed));
    current.map(|session| ((session.delegate, session.address), heard(&session))).collect()
}

fn shown(noted: &model::TokenUse, holders: &Holders) -> TokenUse {
    let heard = holders.get(&(noted.delegate, noted.address));
    TokenUse {
        delegate: noted.delegate,
        name: noted.name.clone(),
        address: noted.address,
        first_used_at: noted.first_at,
        last_used_at: heard.map_or(noted.last_at, |heard| noted.last_at.max(*heard)),
        uses: noted.uses,
        connected: heard.is_some(),
    }
}
