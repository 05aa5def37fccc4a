//! Requests: bounded bodies, strict JSON, queries and ids, each with a refusal that names the fix.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{header::CONTENT_TYPE, request::Parts},
};
use legation_api::{Code, Problem, json, page};
use legation_store::Page;
use serde::de::DeserializeOwned;

use crate::{access::Caller, error::Refusal, idempotency::Idempotency};

/// The largest body: a task with the largest script, input and secrets, all of it escaped.
const BODY_MAX: usize = 4 << 20;

/// A JSON body, with what a repeated request is recognised by.
pub(super) struct Body<T> {
    pub(super) value: T,
    pub(super) once: Option<Idempotency>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let route = format!("{} {}", request.method(), request.uri().path());
        let key = request.headers().get("idempotency-key").cloned();
        let bytes = read(request).await?;
        let value = json::parse(if bytes.is_empty() { b"{}" } else { &bytes })?;
        let once = match key {
            Some(key) => Some(Idempotency::new(key.to_str().unwrap_or_default(), &route, &bytes)?),
            None => None,
        };
        Ok(Self { value, once })
    }
}

async fn read(request: Request) -> Result<Bytes, Refusal> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let bytes = axum::body::to_bytes(request.into_body(), BODY_MAX).await.map_err(|_| {
        Refusal::new(Code::BodyTooLarge, format!("the body is cut short or has more than {BODY_MAX} bytes"))
    })?;
    let absent = kind.is_empty() && bytes.is_empty();
    if !is_json && !absent {
        return Err(Refusal::new(Code::UnsupportedMediaType, "the body is not described as application/json"));
    }
    Ok(bytes)
}

/// Query parameters, unknown ones refused.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(value) = Query::try_from_uri(&parts.uri).map_err(|error| {
            let text: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
            Problem::invalid("query", &text, "see /api/v1/openapi.json for the parameters of this path")
        })?;
        Ok(Self(value))
    }
}

/// The id in the path. Text that is no id names nothing, so it is answered like an unknown id.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| Refusal::not_found("object"))?;
        text.parse().map(Self).map_err(|_| Refusal::not_found("object"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Refusal::new(Code::Unauthenticated, "the request has no API key"))
    }
}

/// A page as the store takes it.
pub(super) fn paged(limit: Option<u32>, after: Option<String>) -> Page {
    Page { limit: page::limit(limit), after }
}
