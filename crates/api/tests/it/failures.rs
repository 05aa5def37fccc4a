//! Whatever is wrong with the other side, the error says what it is and what to do.

use axum::{
    Router,
    http::{StatusCode, header},
    response::{Html, IntoResponse as _, Redirect},
    routing::get,
};
use legation_api::{
    Code, Problem,
    client::{Client, ClientError},
    problem::PROBLEM_JSON,
    routes,
};
use legation_model::secret::SecretText;
use tokio::net::TcpListener;

use crate::server::{KEY, client, serve, serve_bytes};

async fn whoami(url: &str) -> ClientError {
    let error = client(url).whoami().await.expect_err("a failure");
    assert!(!error.fix().is_empty() && !format!("{error:?}").contains(KEY), "{error:?}");
    error
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let error = whoami(&format!("http://{address}")).await;
    assert!(matches!(&error, ClientError::Unreachable { what, .. } if what.contains("nothing listens")), "{error:?}");
}

#[tokio::test]
async fn an_unknown_host() {
    let error = whoami("http://no-such-host.invalid:7430").await;
    assert!(matches!(&error, ClientError::Unreachable { fix, .. } if fix.contains("DNS")), "{error:?}");
}

#[tokio::test]
async fn a_web_site_is_not_a_manager() {
    let page = Router::new().fallback(|| async { Html("<h1>welcome</h1>") });
    assert!(matches!(whoami(&serve(page).await).await, ClientError::Unexpected { .. }));
    let missing = Router::new().fallback(|| async { (StatusCode::NOT_FOUND, "nothing here") });
    assert!(matches!(whoami(&serve(missing).await).await, ClientError::Unexpected { .. }));
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let router = Router::new().fallback(|| async { Redirect::permanent("https://manager.example.com/") });
    let error = whoami(&serve(router).await).await;
    assert!(error.fix().contains("https://manager.example.com/"), "{error:?}");
}

#[tokio::test]
async fn another_protocol_altogether() {
    let ssh = serve_bytes(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    assert!(matches!(whoami(&format!("http://{ssh}")).await, ClientError::Unexpected { .. }));
    let plain = whoami(&format!("https://{ssh}")).await;
    assert!(matches!(&plain, ClientError::Tls { fix, .. } if fix.contains("http://")), "{plain:?}");
    let tls_alert = serve_bytes(b"\x15\x03\x01\x00\x02\x02\x46").await;
    let error = whoami(&format!("http://{tls_alert}")).await;
    assert!(error.fix().contains("https://"), "{error:?}");
}

#[tokio::test]
async fn refusals_keep_their_code_and_fix() {
    for code in [Code::Unauthenticated, Code::NameTaken, Code::StoreUnavailable] {
        let answer = move || async move {
            let problem = serde_json::to_string(&Problem::new(code, "because")).expect("JSON");
            let status = StatusCode::from_u16(code.status()).expect("a status");
            (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], problem).into_response()
        };
        let error = whoami(&serve(Router::new().route(routes::WHOAMI, get(answer))).await).await;
        assert_eq!(error, ClientError::Problem(Problem::new(code, "because")));
        assert_eq!(error.is_passing(), code == Code::StoreUnavailable);
    }
}

#[test]
fn settings_that_cannot_be_right_are_told_before_anything_is_sent() {
    let key = SecretText::new(KEY.to_owned());
    for url in ["", "127.0.0.1:7430", "ftp://x", "http://", "http://u:p@host", "http://host/?x=1"] {
        assert!(matches!(Client::new(url, None, None), Err(ClientError::Settings { .. })), "{url}");
    }
    let broken = SecretText::new("lak_\n".repeat(2));
    assert!(matches!(Client::new("http://host", Some(&broken), None), Err(ClientError::Settings { .. })));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ca.pem");
    assert!(matches!(Client::new("https://host", Some(&key), Some(&file)), Err(ClientError::Settings { .. })));
    std::fs::write(&file, "not a certificate").expect("a file");
    assert!(matches!(Client::new("https://host", Some(&key), Some(&file)), Err(ClientError::Settings { .. })));
}

#[test]
fn the_key_is_not_in_debug() {
    assert!(!format!("{:?}", client("http://127.0.0.1:1")).contains(KEY));
}
