//! The value of a token once more, over HTTP.

use std::sync::Arc;

use axum::extract::State;
use legation_api::{
    Problem,
    reveal::{RevealToken, RevealedToken},
};
use legation_model::ids::TokenId;

use super::{
    request::{Body, Id, Nothing, Params},
    respond::{Json, ok},
};
use crate::{Manager, access::Caller, error::Refusal, reveal::Revealed};

/// Shows the value of a token again, where its account's policy is `reveal = audited`. Who asks and why is recorded first.
#[utoipa::path(post, path = "/api/v1/tokens/{token}/reveal", tag = "tokens", request_body = RevealToken,
    params(("token" = String, Path)),
    responses((status = 200, body = RevealedToken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn reveal(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Params(Nothing {}): Params<Nothing>,
    body: Body<RevealToken>,
) -> Result<Json<RevealedToken>, Refusal> {
    body.value.check()?;
    let Revealed { token, generation, value } = manager.reveal_token(&caller, id, body.value.reason).await?;
    Ok(ok(RevealedToken { token: manager.with_wrap(&token).await?, generation, value }))
}
