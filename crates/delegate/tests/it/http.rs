//! HTTP tasks of a real delegate, and the servers that they ask.

use legation_delegate::system::SystemEntropy;
use legation_model::{ids::AttemptId, secret::SecretText, task::TaskState};
use legation_wire::message::{Assignment, FromDelegate, SecretVar, Work};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    manager::{Delegate, Manager, within},
    supervisor::script,
    support::eventually,
};

#[tokio::test]
async fn an_http_task_gives_back_the_body_and_obeys_the_policy() {
    let manager = Manager::start().await;
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = server.local_addr().expect("bound").port();
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.toml");
    std::fs::write(&policy, format!("hosts = ['127.0.0.1:{port}']")).expect("written");
    let _delegate = Delegate::start_with(&manager, |command| {
        command.env("DELEGATE_POLICY_FILE", &policy);
    });
    let (mut session, _) = manager.session().await;
    let request = |url: String| Assignment {
        attempt: AttemptId::random(&SystemEntropy),
        work: Work::Http {
            method: "POST".into(),
            url,
            headers: vec![("x-key".into(), "${KEY}".into())],
            body: b"question".to_vec(),
        },
        secrets: vec![SecretVar { name: "KEY".into(), value: SecretText::new("canary".into()) }],
        ..script("")
    };
    session.assign(&request("http://localhost:1/".into()));
    assert!(
        matches!(session.message().await, FromDelegate::Refused { reason, again: false, .. } if reason.contains("localhost"))
    );
    session.assign(&request(format!("http://127.0.0.1:{port}/x")));
    let serve = async {
        let (mut stream, _) = server.accept().await.expect("a request");
        let mut seen = Vec::new();
        while !seen.ends_with(b"question") {
            seen.push(stream.read_u8().await.expect("bytes"));
        }
        assert!(String::from_utf8_lossy(&seen).contains("x-key: canary"));
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\nsaid: canary";
        stream.write_all(answer).await.expect("written");
        std::future::pending::<()>().await;
    };
    let read = async {
        session.await_output("said: ***").await;
        session.finished().await
    };
    let end = tokio::select! {
        () = serve => unreachable!("it never ends"),
        end = read => end,
    };
    assert_eq!((end.state, end.exit_code), (TaskState::Failed, Some(404)));
}

/// Answers one request with a redirect or with success; gives back the request's head.
async fn answer(server: &TcpListener, location: Option<&str>) -> String {
    let (mut stream, _) = server.accept().await.expect("a request");
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.expect("bytes"));
    }
    let answer = match location {
        Some(to) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
        None => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    stream.write_all(answer.as_bytes()).await.expect("written");
    String::from_utf8(seen).expect("text")
}

#[tokio::test]
async fn a_secret_in_a_header_is_not_carried_to_another_origin() {
    let manager = Manager::start().await;
    let (one, other) = (
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    let url = |server: &TcpListener| format!("http://{}/", server.local_addr().expect("bound"));
    let _delegate = Delegate::start(&manager);
    let (mut session, _) = manager.session().await;
    let request = |value: &str| Assignment {
        attempt: AttemptId::random(&SystemEntropy),
        work: Work::Http {
            method: "GET".into(),
            url: format!("{}?q=private", url(&one)),
            headers: vec![("x-key".into(), value.into())],
            body: vec![],
        },
        secrets: vec![SecretVar { name: "KEY".into(), value: SecretText::new("canary".into()) }],
        ..script("")
    };
    session.assign(&request("Bearer ${KEY}"));
    let end = tokio::select! {
        end = session.finished() => end,
        seen = async {
            answer(&one, Some("/again")).await;
            // Within the origin it goes along.
            assert!(answer(&one, Some(&url(&other))).await.contains("canary"));
            answer(&other, None).await
        } => panic!("another origin was asked: {seen}"),
    };
    assert_eq!(end.state, TaskState::Failed);
    assert!(end.reason.contains("another origin"), "{}", end.reason);

    session.assign(&request("nothing secret"));
    let served = async {
        answer(&one, Some(&url(&other))).await;
        answer(&other, None).await
    };
    let (seen, end) = tokio::join!(served, session.finished());
    assert_eq!(end.state, TaskState::Succeeded, "{}", end.reason);
    assert!(seen.contains("nothing secret") && !seen.contains("private"), "no Referer either: {seen}");
}

#[tokio::test]
async fn a_request_without_a_supervisor_ends_with_the_lease_too() {
    let manager = Manager { lease: 900, ..Manager::start().await };
    let delegate = Delegate::start(&manager);
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", server.local_addr().expect("bound"));
    let (mut session, _) = manager.session().await;
    let work = Work::Http { method: "GET".into(), url, headers: vec![], body: vec![] };
    session.assign(&Assignment { work, ..script("") });
    assert!(matches!(session.message().await, FromDelegate::Started { .. }));
    // Taken and never answered.
    let _held = within("a request", server.accept()).await;
    session.fall_silent();
    let ended = async { while session.event().await.is_ok() {} };
    within("it closes a silent link", ended).await;
    // A Welcome would renew the lease: this connection gets none until the lease is over.
    let held = within("it dials again", manager.socket()).await;
    eventually("the lease ends", || delegate.log().contains("the lease ended"));
    drop(held);
    let (mut session, _) = manager.session().await;
    assert_eq!(session.finished().await.state, TaskState::Lost);
}
