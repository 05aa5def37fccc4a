//! The delegate link: an HTTP upgrade to WebSocket, then Noise.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use legation_api::{Code, Problem};
use legation_link::{SUBPROTOCOL, Socket, accept_key};
use tokio::net::TcpStream;

use crate::{Manager, error::Refusal, source::Source};

/// Upgrades to the delegate protocol (WebSocket, subprotocol `legation.v1`); see docs/protocol.md.
#[utoipa::path(get, path = "/api/v1/link", tag = "link", security(()),
    responses((status = 101, description = "The delegate protocol follows"), (status = 400, body = Problem)))]
pub(super) async fn upgrade(State(manager): State<Arc<Manager>>, mut request: Request) -> Result<Response, Refusal> {
    if manager.stopping.is_cancelled() {
        return Err(Refusal::new(Code::Unready, "the Manager is stopping"));
    }
    let accept = accepted(request.headers())?;
    let source = request.extensions().get::<Source>().copied();
    let source = source.ok_or_else(|| Refusal::new(Code::Internal, "the connection has no peer address"))?;
    let upgrading = hyper::upgrade::on(&mut request);
    manager.connections.clone().spawn(async move {
        match upgrading.await {
            Ok(io) => manager.serve_link(socket(io), source).await,
            Err(error) => tracing::debug!(%error, "an upgrade did not happen"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

/// The upgraded connection, without the layers that HTTP needed where it is plain TCP.
fn socket(io: Upgraded) -> Socket {
    match io.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => Socket::tcp_server(parts.io.into_inner(), &parts.read_buf),
        Err(io) => Socket::server(TokioIo::new(io)),
    }
}

/// Checks the request against RFC 6455 section 4.2.1 and makes the answer's key.
fn accepted(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let lists = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    let fix = "connect with a delegate; this path speaks its protocol only";
    let refusal = |rule: &str| Refusal::from(Problem::invalid("upgrade", rule, fix));
    if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        return Err(refusal("the request is no WebSocket upgrade; a proxy on the way may have removed it"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(refusal("the WebSocket version is not 13"));
    }
    if !lists(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(refusal("the subprotocol legation.v1 is not offered"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let key = key.ok_or_else(|| refusal("Sec-WebSocket-Key is missing"))?;
    HeaderValue::from_str(&accept_key(key)).map_err(|_| refusal("Sec-WebSocket-Key is not usable"))
}
