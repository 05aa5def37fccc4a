//! A task's output as server-sent events.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use legation_api::{
    Problem,
    output::{EVENT_END, EVENT_OUTPUT, KEEP_ALIVE, LAST_EVENT_ID, OutputEvent, OutputQuery, Position, PositionError},
    tasks::Task,
};
use legation_model::ids::TaskId;

use super::request::{Id, Params};
use crate::{
    Manager,
    access::Caller,
    error::Refusal,
    output::{OutputReader, Piece},
};

/// Streams the output from the beginning, or from behind `Last-Event-ID`; ends with the task unless told not to wait.
#[utoipa::path(get, path = "/api/v1/tasks/{task}/output", tag = "tasks", params(("task" = String, Path), OutputQuery),
    responses((status = 200, body = OutputEvent, content_type = "text/event-stream"), (status = 404, body = Problem)))]
pub(super) async fn stream(
    State(manager): State<Arc<Manager>>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(query): Params<OutputQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    manager.task(&caller, id).await?;
    let after = match headers.get(LAST_EVENT_ID) {
        Some(value) => Some(position(value.to_str().unwrap_or_default())?),
        None => None,
    };
    let reader = OutputReader::new(manager, caller, id, after, query.follow);
    Ok(Sse::new(events(reader)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn position(text: &str) -> Result<Position, Refusal> {
    let fix = "send the id of the last event seen, or leave the header out";
    text.parse().map_err(|error: PositionError| Problem::invalid(LAST_EVENT_ID, &error.to_string(), fix).into())
}

fn events(reader: OutputReader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, |mut reader| async move {
        let event = match reader.next().await? {
            Piece::Output(output) => {
                let id = output.end().map(|end| end.to_string()).unwrap_or_default();
                Event::default().event(EVENT_OUTPUT).id(id).json_data(output)
            }
            Piece::End(task) => Event::default().event(EVENT_END).json_data(Task::from(&*task)),
        };
        // An event that cannot be written as JSON would be a bug; the stream then ends early and is resumed.
        Some((Ok(event.ok()?), reader))
    })
}
