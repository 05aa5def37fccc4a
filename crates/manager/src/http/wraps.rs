//! One-time codes over HTTP.

use std::sync::Arc;

use axum::extract::State;
use legation_api::{
    Problem,
    wraps::{OpenWrap, Unwrapped},
};
use legation_model::wrap::{WrapCode, WrapCodeError};

use super::{
    request::{Brief, Nothing, Params, Visitor},
    respond::{Json, ok},
};
use crate::{Manager, error::Refusal, wraps::Opened};

/// Opens a one-time code: the answer has the token's value, this once. The code is all that is needed, and stands in the
/// body, since addresses are logged.
#[utoipa::path(post, path = "/api/v1/unwrap", tag = "tokens", request_body = OpenWrap, security(()),
    responses((status = 200, body = Unwrapped), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 410, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn open(
    State(manager): State<Arc<Manager>>,
    visitor: Visitor,
    Params(Nothing {}): Params<Nothing>,
    body: Brief<OpenWrap>,
) -> Result<Json<Unwrapped>, Refusal> {
    let code: WrapCode = body.value.code.expose().parse().map_err(|error: WrapCodeError| {
        Problem::invalid("code", &error.to_string(), "copy the code again from where it was shown")
    })?;
    let Opened { token, generation, value } = manager.unwrap(&visitor.source, visitor.request, code).await?;
    let commands = Some(manager.commands(&token.name, false));
    Ok(ok(Unwrapped { token: token.id, name: token.name, scope: token.scope, generation, value, commands }))
}
