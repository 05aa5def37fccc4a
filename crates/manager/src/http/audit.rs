//! The audit chain over HTTP.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use legation_api::{
    List, Problem,
    audit::{AuditQuery, AuditRecord, TailQuery},
    audit_export::{EVENT_BEHIND, EVENT_RECORD, ExportLine, ExportQuery, JSON_LINES},
    output::{KEEP_ALIVE, LAST_EVENT_ID},
};

use super::{
    request::{Id, Nothing, Params, paged},
    respond::{Json, ok},
};
use crate::{
    Manager,
    access::Caller,
    audit_stream::{Broken, Export, Piece, Tail},
    error::Refusal,
};

/// Lists audit records, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = List<AuditRecord>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
) -> Result<Json<List<AuditRecord>>, Refusal> {
    let page = paged(query.limit, query.cursor.clone())?;
    let found = manager.list_audit(&caller, query, page).await?;
    Ok(ok(List { items: found.items.iter().map(AuditRecord::from).collect(), next: found.next }))
}

/// Shows an audit record.
#[utoipa::path(get, path = "/api/v1/audit/{number}", tag = "audit", params(("number" = u64, Path)),
    responses((status = 200, body = AuditRecord), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(number): Id<u64>,
    Params(Nothing {}): Params<Nothing>,
) -> Result<Json<AuditRecord>, Refusal> {
    Ok(ok(AuditRecord::from(&manager.audit_record(&caller, number).await?)))
}

/// Exports the audit chain with its checkpoints, one JSON object a line, up to a checkpoint that is signed now.
///
/// `legation audit verify` checks such a file without the Manager. Only for callers that see everything.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(ExportQuery),
    responses((status = 200, body = ExportLine, content_type = "application/jsonl"), (status = 403, body = Problem)))]
pub(super) async fn export(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<ExportQuery>,
) -> Result<Response, Refusal> {
    let export = manager.export_audit(caller, query.after).await?;
    let mut response = Response::new(Body::from_stream(lines(export)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn lines(export: Export) -> impl Stream<Item = Result<Bytes, Broken>> {
    stream::try_unfold(export, |mut export| async move {
        let Some(lines) = export.next().await? else { return Ok(None) };
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line).expect("a line is JSON, and memory takes it");
            text.push(b'\n');
        }
        Ok(Some((Bytes::from(text), export)))
    })
}

/// Streams audit records as they are written, from behind `Last-Event-ID` or `after`, else only new ones.
///
/// Each is an event `record` whose id is its number. A reader that is far behind is told so by an event `behind`, and
/// then gets all of them. The stream ends when its caller may not read any more.
#[utoipa::path(get, path = "/api/v1/audit/tail", tag = "audit", params(TailQuery),
    responses((status = 200, body = AuditRecord, content_type = "text/event-stream"), (status = 400, body = Problem)))]
pub(super) async fn tail(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Params(query): Params<TailQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let after = match headers.get(LAST_EVENT_ID) {
        Some(value) => Some(number(value)?),
        None => query.after,
    };
    let tail = manager.tail_audit(caller, after, query.follow).await?;
    Ok(Sse::new(events(tail)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn number(value: &HeaderValue) -> Result<u64, Refusal> {
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    let fix = "send the id of the last event seen, or leave the header out";
    number.ok_or_else(|| Problem::invalid(LAST_EVENT_ID, "not the number of a record", fix).into())
}

fn events(tail: Tail) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(tail, |mut tail| async move {
        let event = match tail.next().await? {
            Piece::Record(record) => {
                Event::default().event(EVENT_RECORD).id(record.number.to_string()).json_data(record)
            }
            Piece::Behind(behind) => Event::default().event(EVENT_BEHIND).json_data(behind),
        };
        // An event that cannot be written as JSON would be a bug; the stream then ends early and is resumed.
        Some((Ok(event.ok()?), tail))
    })
}
