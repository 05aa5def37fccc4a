//! A Manager made of prepared answers, and a log of what it was asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::any,
};
use legation_api::{Code, Problem, problem::PROBLEM_JSON};
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};

/// One request, as `METHOD path?query`.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) key: Option<String>,
    /// The version that a change names.
    pub(crate) seen: Option<String>,
    pub(crate) body: Bytes,
}

#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
    /// Stays open after its body until a request with this line has been made, then ends with this text.
    until: Option<(String, String)>,
}

/// The prepared answers; the last one for a line is given again and again.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    answers: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
    asked: Arc<watch::Sender<Vec<Asked>>>,
    pub(crate) url: String,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let fake = Self { answers: Arc::default(), asked: Arc::new(watch::channel(Vec::new()).0), url };
        let router = Router::new().fallback(any(answer)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// Answers with JSON.
    pub(crate) fn on(&self, line: &str, body: &impl Serialize) -> &Self {
        let body = serde_json::to_string(body).expect("JSON");
        self.add(line, Answer { status: 200, kind: "application/json", body, until: None })
    }

    /// Refuses.
    pub(crate) fn refuse(&self, line: &str, code: Code) -> &Self {
        let body = serde_json::to_string(&Problem::new(code, "because the test says so")).expect("JSON");
        self.add(line, Answer { status: code.status(), kind: PROBLEM_JSON, body, until: None })
    }

    /// Refuses once, before what was prepared.
    pub(crate) fn first_refuse(&self, line: &str, code: Code) {
        let prepared = self.answers.lock().expect("answers").remove(line).unwrap_or_default();
        self.refuse(line, code);
        self.answers.lock().expect("answers").entry(line.to_owned()).or_default().extend(prepared);
    }

    /// Answers with events; with `until`, holds the last part back until that line has been asked for.
    pub(crate) fn stream(&self, line: &str, body: String, until: Option<(String, String)>) -> &Self {
        self.add(line, Answer { status: 200, kind: "text/event-stream", body, until })
    }

    fn add(&self, line: &str, answer: Answer) -> &Self {
        self.answers.lock().expect("answers").entry(line.to_owned()).or_default().push(answer);
        self
    }

    /// Everything asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Waits until a line has been asked for.
    pub(crate) async fn asked_for(&self, line: &str) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| asked.iter().any(|asked| asked.line == line)).await.expect("requests");
    }

    fn next(&self, line: &str) -> Option<Answer> {
        let mut answers = self.answers.lock().expect("answers");
        let prepared = answers.get_mut(line)?;
        if prepared.len() > 1 { Some(prepared.remove(0)) } else { prepared.first().cloned() }
    }
}

async fn answer(State(fake): State<Fake>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let line = format!("{method} {uri}");
    let key = headers.get(header::AUTHORIZATION).map(|key| key.to_str().expect("text").to_owned());
    let seen = headers.get(header::IF_MATCH).map(|seen| seen.to_str().expect("text").to_owned());
    fake.asked.send_modify(|asked| asked.push(Asked { line: line.clone(), key, seen, body }));
    let Some(answer) = fake.next(&line) else {
        let problem = Problem::new(Code::Internal, format!("the test has no answer for {line}"));
        let body = serde_json::to_string(&problem).expect("JSON");
        return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
    };
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(answer.body)]);
    let rest = futures_util::stream::once(async move {
        match answer.until {
            Some((line, text)) => {
                fake.asked_for(&line).await;
                Ok(text)
            }
            None => Ok(String::new()),
        }
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    (status, [(header::CONTENT_TYPE, answer.kind)], body).into_response()
}
