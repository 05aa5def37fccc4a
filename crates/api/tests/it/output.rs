//! The output stream goes on where it was cut.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use legation_api::{
    Code, Problem,
    client::{ClientError, OutputItem},
    output::{OutputEvent, OutputQuery, Stream},
    routes,
    tasks::Task,
};
use legation_model::{
    ids::{AttemptId, TaskId},
    task::{TaskKind, TaskState},
};

use crate::server::{client, serve};

const OLD: AttemptId = AttemptId([1; 16]);
const NEW: AttemptId = AttemptId([2; 16]);

fn task() -> Task {
    Task {
        id: TaskId([9; 16]),
        scope: "default".parse().expect("a scope"),
        kind: TaskKind::Shell,
        selectors: Vec::new(),
        state: TaskState::Succeeded,
        reason: String::new(),
        exit_code: Some(0),
        timeout_ms: 1,
        queue_deadline_at: 1,
        output_limit: 1,
        retries_left: 0,
        cancel_requested: false,
        created_by: "test".to_owned(),
        created_at: 1,
        started_at: None,
        finished_at: None,
        attempt: None,
    }
}

fn output(attempt: AttemptId, offset: u64, text: &str) -> String {
    let event = OutputEvent::new(attempt, offset, Stream::Stdout, text.into());
    let id = event.end().expect("an end");
    format!("event: output\nid: {id}\ndata: {}\n\n", serde_json::to_string(&event).expect("JSON"))
}

fn end() -> String {
    format!("event: end\ndata: {}\n\n", serde_json::to_string(&task()).expect("JSON"))
}

/// The first connection is cut in the middle of an event, the second after a whole one, the third refused.
async fn cut_again_and_again(State(calls): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").map(|id| id.to_str().expect("text").to_owned());
    let text = match calls.fetch_add(1, Ordering::SeqCst) {
        0 => {
            assert_eq!(last, None);
            format!(": hello\n\n{}event: output\ndata: {{\"att", output(OLD, 0, "one "))
        }
        1 => {
            assert_eq!(last, Some(format!("{OLD}:4")));
            format!("{}{}", output(OLD, 0, "one "), output(OLD, 2, "e two "))
        }
        2 => return (StatusCode::SERVICE_UNAVAILABLE, problem(Code::Unready)).into_response(),
        _ => {
            assert_eq!(last, Some(format!("{OLD}:8")));
            format!("{}{}", output(NEW, 0, "again"), end())
        }
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

fn problem(code: Code) -> String {
    serde_json::to_string(&Problem::new(code, "because")).expect("JSON")
}

#[tokio::test]
async fn nothing_is_missing_and_nothing_comes_twice() {
    let calls = Arc::new(AtomicUsize::new(0));
    let router = Router::new().route(routes::TASK_OUTPUT, get(cut_again_and_again)).with_state(Arc::clone(&calls));
    let mut stream = client(&serve(router).await).output(task().id, OutputQuery::default());
    let mut seen = String::new();
    let mut ended = None;
    while let Some(item) = stream.next().await.expect("an item") {
        match item {
            OutputItem::Chunk(chunk) => seen.push_str(std::str::from_utf8(&chunk.bytes).expect("text")),
            OutputItem::End(task) => ended = Some(*task),
        }
    }
    assert_eq!(seen, "one two again");
    assert_eq!(ended, Some(task()));
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert_eq!(stream.next().await, Ok(None));
}

#[tokio::test]
async fn a_refusal_ends_the_stream_at_once() {
    let router =
        Router::new().route(routes::TASK_OUTPUT, get(|| async { (StatusCode::NOT_FOUND, problem(Code::NotFound)) }));
    let mut stream = client(&serve(router).await).output(task().id, OutputQuery { follow: false });
    let error = stream.next().await.expect_err("a refusal");
    assert_eq!(error, ClientError::Problem(Problem::new(Code::NotFound, "because")));
}
