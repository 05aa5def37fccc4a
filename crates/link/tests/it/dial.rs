//! Dialling a Manager, and all that is not one.

use std::time::Duration;

use legation_link::{DialConfig, DialError, Ended};
use legation_wire::{DelegateEvent, GoodbyeReason, ManagerEvent, message::ToDelegate};
use tokio::net::TcpListener;

use crate::support::{answering, config, delegate, dial, hello, listen, manager, now, refused, upgrade, welcome};

async fn serve_one(listener: TcpListener) {
    let (io, _) = listener.accept().await.expect("a connection");
    let mut manager = manager(upgrade(io).await, now);
    assert!(matches!(manager.next().await, Ok(ManagerEvent::Proven(_))));
    assert_eq!(manager.next().await.expect("a Hello"), ManagerEvent::Hello(Box::new(hello())));
    manager.end_mut().send(&ToDelegate::Welcome(welcome())).expect("open");
    manager.flush().await.expect("a reader");
    let reason = GoodbyeReason::ManagerDraining;
    manager.close(reason.code(), reason.as_str(), Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_delegate_dials_proves_itself_and_sees_why_the_link_closes() {
    let (listener, address) = listen().await;
    let served = tokio::spawn(serve_one(listener));
    let socket = dial(&config(format!("ws://{address}"))).await.expect("a Manager");
    let mut delegate = delegate(socket, now);
    assert_eq!(delegate.next().await.expect("a Welcome"), DelegateEvent::Welcome(welcome()));
    assert!(matches!(delegate.next().await, Ok(DelegateEvent::LeaseRenewed { .. })));
    let ended = delegate.next().await.expect_err("the Manager leaves");
    assert!(matches!(&ended, Ended::Closed { code: 4106, reason } if reason == "manager_draining"), "{ended}");
    drop(delegate);
    served.await.expect("no assertion failed");
}

async fn answered(answer: &'static str) -> (DialError, String) {
    let address = answering(answer).await;
    refused(&config(format!("http://{address}"))).await
}

#[tokio::test]
async fn a_server_that_is_no_manager_is_named_so() {
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let (error, text) = answered(answer).await;
        assert!(matches!(error, DialError::NotManager { .. }), "{answer}: {error:?}");
        assert!(text.contains("not a Manager") && text.contains("MANAGER_HOST_AND_PORT"), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_named_so() {
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "\x15\x03\x03\x00\x02\x02\x46", ""] {
        let (error, text) = answered(answer).await;
        assert!(matches!(error, DialError::NotHttp { .. }), "{answer:?}: {error:?}");
        assert!(text.contains("https://"), "{text}");
    }
}

#[tokio::test]
async fn an_overloaded_manager_says_when_to_come_back() {
    let (error, text) = answered("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\n").await;
    assert_eq!(error.retry_after(), Some(7_000), "{text}");
    let (error, _) = answered("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(error, DialError::Busy { retry_after: None, .. }));
}

#[tokio::test]
async fn a_redirect_is_not_followed_but_shown() {
    let (error, text) = answered("HTTP/1.1 308 Permanent Redirect\r\nLocation: https://new.example/\r\n\r\n").await;
    assert!(matches!(error, DialError::Redirected { .. }) && text.contains("https://new.example/"), "{text}");
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_host_are_unreachable() {
    let (listener, address) = listen().await;
    drop(listener);
    let (error, text) = refused(&config(format!("http://{address}"))).await;
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    assert!(text.contains(&address.to_string()) && text.contains("refused"), "{text}");
    let (error, text) = refused(&config("https://no-such-host.invalid")).await;
    assert!(matches!(error, DialError::Unreachable { .. }) && text.contains("no-such-host.invalid:443"), "{text}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let (listener, address) = listen().await;
    let impatient = DialConfig { connect_timeout: Duration::from_millis(50), ..config(format!("http://{address}")) };
    let (error, _) = refused(&impatient).await;
    assert!(matches!(error, DialError::Timeout { .. }));
    drop(listener);
}
