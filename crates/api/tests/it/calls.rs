//! What the client sends is what the server reads.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, Method, Uri},
    routing::any,
};
use legation_api::{
    json,
    page::DryRun,
    revoke::RevokeToken,
    routes,
    tasks::{Shell, SubmitTask, Work},
    tokens::{CreateToken, TokensQuery},
};
use legation_model::{ids::TokenId, secret::SecretText};

use crate::server::{client, serve};

#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// Notes every request and answers something that is no answer.
async fn listening() -> (String, Log) {
    async fn note(State(log): State<Log>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) {
        log.lock().expect("a log").push(Asked { method, uri, headers, body });
    }
    let log = Log::default();
    let router = Router::new().fallback(any(note)).with_state(Arc::clone(&log));
    (serve(router).await, log)
}

fn last(log: &Log) -> Asked {
    log.lock().expect("a log").pop().expect("a request")
}

#[tokio::test]
async fn bodies_queries_and_headers_arrive() {
    let (url, log) = listening().await;
    let client = client(&url);
    let create = CreateToken::new("acme/eng".parse().expect("a scope"), "build".parse().expect("a name"));
    let _ = client.idempotent("k1").create_token(&create).await;
    let asked = last(&log);
    assert_eq!((asked.method, asked.uri.path()), (Method::POST, routes::TOKENS));
    assert_eq!(asked.headers["authorization"], "Bearer lak_test");
    assert_eq!(asked.headers["idempotency-key"], "k1");
    assert_eq!(json::parse::<CreateToken>(&asked.body), Ok(create));

    let query = TokensQuery {
        scope: Some("acme/eng".parse().expect("a scope")),
        include_revoked: true,
        limit: Some(7),
        ..TokensQuery::default()
    };
    let _ = client.tokens(&query).await;
    let asked = last(&log);
    assert!(!asked.headers.contains_key("idempotency-key"));
    assert_eq!(Query::<TokensQuery>::try_from_uri(&asked.uri).expect("a query").0, query);
}

#[tokio::test]
async fn a_preview_never_does_the_deed() {
    let (url, log) = listening().await;
    let (client, id) = (client(&url), TokenId([1; 16]));
    let dry = |asked: &Asked| Query::<DryRun>::try_from_uri(&asked.uri).expect("a query").0.dry_run;
    let _ = client.preview_revoke(id).await;
    assert!(dry(&last(&log)));
    let _ = client.preview_delete(id).await;
    assert!(dry(&last(&log)));
    let _ = client.preview_issue(id).await;
    assert!(dry(&last(&log)));
    let _ = client.revoke_token(id, &RevokeToken::kill("leaked".parse().expect("a text"))).await;
    let asked = last(&log);
    assert!(!dry(&asked) && asked.uri.path().ends_with("/revoke"));
    assert_eq!(json::parse::<RevokeToken>(&asked.body).expect("a body").reason.as_str(), "leaked");
}

#[tokio::test]
async fn a_task_with_a_secret_is_read_back_whole() {
    let (url, log) = listening().await;
    let shell = Shell { script: "echo $A".to_owned(), ..Shell::default() };
    let mut task = SubmitTask::new("default".parse().expect("a scope"), Work::Shell(shell));
    task.selectors = vec!["pinned:gpu".parse().expect("a selector")];
    task.secrets.insert("A".to_owned(), SecretText::new("hunter2".to_owned()));
    let _ = client(&url).submit_task(&task).await;
    assert_eq!(json::parse::<SubmitTask>(&last(&log).body), Ok(task.clone()));
    assert!(!format!("{task:?}").contains("hunter2"));
}
