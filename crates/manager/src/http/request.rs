//! Requests: bounded bodies, strict JSON, queries and ids, each with a refusal that names the fix.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    body::BodyDataStream,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH},
        request::Parts,
    },
};
use futures_util::StreamExt as _;
use legation_api::{Code, Problem, json, page};
use legation_store::Page;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::respond::RequestId;
use crate::{Manager, access::Caller, error::Refusal, idempotency::Idempotency, source::Source};

/// The largest body: a task with the largest script, input and secrets, all of it escaped.
const BODY_MAX: usize = 4 << 20;
/// The largest body of a request that is nothing but a name, a password or a code: sixteen times the longest password.
/// Two of these are read before anybody knows who sends them.
const BRIEF_MAX: usize = 16 << 10;
/// How long a whole body may take: the largest one over a slow line.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of a body that is too large is read and thrown away. A client that is still sending sees its
/// connection fail, and not the refusal, if nobody reads.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest cursor: more than the longest that a list hands out.
const CURSOR_MAX: usize = 256;

/// A JSON body of so many bytes at most, with what a repeated request is recognised by.
pub(super) struct Body<T, const MAX: usize = BODY_MAX> {
    pub(super) value: T,
    pub(super) once: Option<Idempotency>,
}

/// The body of a request that is refused before it takes much memory.
pub(super) type Brief<T> = Body<T, BRIEF_MAX>;

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<Manager>> for Body<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, manager: &Arc<Manager>) -> Result<Self, Refusal> {
        let route = format!("{} {}", request.method(), request.uri().path());
        let key = request.headers().get("idempotency-key").cloned();
        let bytes = read(request, MAX).await?;
        let value = json::parse(object(&bytes)?)?;
        let once = match key {
            Some(key) => {
                Some(Idempotency::new(key.to_str().unwrap_or_default(), &route, &bytes, &manager.keys.sealer)?)
            }
            None => None,
        };
        Ok(Self { value, once })
    }
}

/// A body is an object, or absent. serde would also take an array, as the fields in the order of their declaration.
fn object(bytes: &[u8]) -> Result<&[u8], Refusal> {
    match bytes.trim_ascii_start().first() {
        None if bytes.is_empty() => Ok(b"{}"),
        Some(b'{') => Ok(bytes),
        _ => Err(Problem::invalid("body", "not a JSON object", "send an object: {\"field\": value}").into()),
    }
}

async fn read(request: Request, max: usize) -> Result<Vec<u8>, Refusal> {
    let (parts, body) = request.into_parts();
    let collecting = collect(&parts.headers, body.into_data_stream(), max);
    let bytes = timeout(BODY_TIMEOUT, collecting).await.unwrap_or_else(|_| Err(cut_short()))?;
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let absent = kind.is_empty() && bytes.is_empty();
    if !is_json && !absent {
        return Err(Refusal::new(Code::UnsupportedMediaType, "the body is not described as application/json"));
    }
    Ok(bytes)
}

async fn collect(headers: &HeaderMap, mut body: BodyDataStream, max: usize) -> Result<Vec<u8>, Refusal> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut too_large = declared.is_some_and(|length| length > max as u64);
    let mut bytes = Vec::new();
    while !too_large && let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.map_err(|_| cut_short())?);
        too_large = bytes.len() > max;
    }
    if !too_large {
        return Ok(bytes);
    }
    // Whether the rest came or not, the answer is the same.
    let _ = timeout(REST_TIMEOUT, async { while let Some(Ok(_)) = body.next().await {} }).await;
    Err(Refusal::new(Code::BodyTooLarge, format!("the body has more than {max} bytes")))
}

fn cut_short() -> Refusal {
    Problem::invalid("body", "it is cut short or took too long", "send the whole body, without pauses").into()
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

/// A path that takes no query parameters: one that is given all the same, such as a dry run where there is none,
/// must not be passed over in silence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

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

/// Which version of an object the caller has seen, as `If-Match` says it.
pub(super) enum Seen {
    /// Whichever it is: `*`.
    Any,
    /// One of these.
    Versions(Vec<u64>),
}

impl Seen {
    pub(super) fn is(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(seen) => seen.contains(&version),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(IF_MATCH) {
            tags.extend(value.to_str().unwrap_or_default().split(',').map(str::trim));
        }
        match tags[..] {
            [] => Err(Refusal::new(Code::PreconditionRequired, "the request has no If-Match header")),
            ["*"] => Ok(Self::Any),
            // What is no tag of ours, a weak one included, names no version that is now.
            _ => Ok(Self::Versions(tags.into_iter().filter_map(version).collect())),
        }
    }
}

fn version(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Refusal::new(Code::Unauthenticated, "the request has no API key"))
    }
}

/// Somebody without a key, on a route that needs none.
pub(super) struct Visitor {
    /// Where they come from.
    pub(super) source: Source,
    /// The id of the request, for the audit record.
    pub(super) request: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let source = parts.extensions.get::<Source>().copied();
        let source = source.ok_or_else(|| Refusal::new(Code::Internal, "the connection has no peer address"))?;
        let request = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        Ok(Self { source, request })
    }
}

/// A page as the store takes it.
pub(super) fn paged(limit: Option<u32>, after: Option<String>) -> Result<Page, Refusal> {
    let usable =
        |cursor: &String| (1..=CURSOR_MAX).contains(&cursor.len()) && cursor.bytes().all(|b| b.is_ascii_graphic());
    if !after.as_ref().is_none_or(usable) {
        let fix = "use the `next` of the page before, or leave it out";
        return Err(Problem::invalid("cursor", "not a cursor of this list", fix).into());
    }
    Ok(Page { limit: page::limit(limit), after })
}
