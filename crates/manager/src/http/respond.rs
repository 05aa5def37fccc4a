//! Answers: JSON, problem documents, and the id that ties an answer to the log and the audit record.

use std::any::Any;

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use legation_api::{Code, Problem, problem::PROBLEM_JSON, proof::hex};
use legation_model::Entropy as _;
use serde::Serialize;

use crate::{error::Refusal, system::SystemEntropy};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over from a client.
const REQUEST_ID_MAX: usize = 64;
/// Seconds after which a shed, slowed or unready request may be worth repeating.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// The id of one request.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// A JSON answer.
pub(super) struct Json<T>(pub(super) StatusCode, pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.1) {
            Ok(body) => typed(self.0, "application/json", body),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Refusal::new(Code::Internal, "the answer cannot be written").into_response()
            }
        }
    }
}

/// An answer that names the version of the object in it, for `If-Match`.
pub(super) struct Versioned<T>(pub(super) u64, pub(super) Json<T>);

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.0)) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

/// A 200 answer.
pub(super) fn ok<T>(value: T) -> Json<T> {
    Json(StatusCode::OK, value)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = typed(status, PROBLEM_JSON, body);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let after = self.0.retry_after.map_or(RETRY_AFTER, HeaderValue::from);
            response.headers_mut().insert("retry-after", after);
        }
        response
    }
}

/// An answer of this media type that nothing on the way keeps.
pub(super) fn typed(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Answers may hold a token's value; nothing on the way may keep them.
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

/// Gives each request an id: the client's own, if it is harmless, or a new one.
pub(super) async fn with_request_id(mut request: Request, next: Next) -> Response {
    let harmless = |id: &&str| {
        (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    let id = given.map_or_else(new_id, str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn new_id() -> String {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes);
    hex(&bytes)
}

pub(super) async fn no_such_path() -> Refusal {
    Problem::new(Code::NotFound, "there is no such path").with_fix("see /api/v1/openapi.json for all paths").into()
}

pub(super) async fn no_such_method() -> Refusal {
    Refusal::new(Code::MethodNotAllowed, "the path does not take this method")
}

pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let what = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    tracing::error!(cause = what.unwrap_or("unknown"), "a handler panicked");
    Refusal::new(Code::Internal, "the Manager failed on this request").into_response()
}
