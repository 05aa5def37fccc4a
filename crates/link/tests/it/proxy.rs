//! Through a proxy that wants a name and a password.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use legation_link::{DialConfig, DialError, Proxies};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::{
    support::{config, dial, head, header, listen, refused, upgrade},
    tls::Authority,
};

/// `user:pass` as a client must send it.
const CREDENTIALS: &str = "Basic dXNlcjpwYXNz";

/// A CONNECT proxy that remembers what it was asked.
struct TinyProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TinyProxy {
    async fn start() -> Self {
        let (listener, address) = listen().await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, Arc::clone(&asked)));
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

async fn serve(listener: TcpListener, asked: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut io, _)) = listener.accept().await {
        let head = head(&mut io).await;
        let request = head.lines().next().unwrap_or_default().to_owned();
        asked.lock().expect("nobody panicked").push(request.clone());
        let answer = if header(&head, "proxy-authorization") != Some(CREDENTIALS) {
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        } else if request.starts_with("CONNECT 127.0.0.1:1 ") {
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        } else if let Some(target) = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) {
            let mut far = TcpStream::connect(target).await.expect("the target");
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a client");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut io, &mut far).await });
            continue;
        } else {
            "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n"
        };
        let _ = io.write_all(answer.as_bytes()).await;
    }
}

fn through(url: String, proxy: String) -> DialConfig {
    let proxies = Proxies { https: Some(proxy.clone()), http: Some(proxy), none: None };
    DialConfig { proxies, ..config(url) }
}

#[tokio::test]
async fn https_goes_through_connect_with_credentials() {
    let (authority, proxy) = (Authority::for_host("localhost"), TinyProxy::start().await);
    let manager = authority.serve().await;
    let url = format!("https://localhost:{}", manager.port());
    let config = through(url, format!("user:pass@{}", proxy.address));
    dial(&DialConfig { ca_file: Some(authority.file()), ..config }).await.expect("a Manager");
    assert_eq!(proxy.asked(), [format!("CONNECT localhost:{} HTTP/1.1", manager.port())]);
}

#[tokio::test]
async fn wrong_or_missing_credentials_are_named_and_not_shown() {
    let proxy = TinyProxy::start().await;
    for scheme in ["https", "http"] {
        for user in ["", "user:canary@"] {
            let config = through(format!("{scheme}://127.0.0.1:9"), format!("http://{user}{}", proxy.address));
            let (error, text) = refused(&config).await;
            assert!(matches!(error, DialError::ProxyAuth), "{error:?}");
            assert!(text.contains("HTTPS_PROXY") && !format!("{text} {error:?} {config:?}").contains("canary"));
        }
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_the_target_is_named() {
    let proxy = TinyProxy::start().await;
    let config = through("https://127.0.0.1:1".to_owned(), format!("http://user:pass@{}", proxy.address));
    let (error, text) = refused(&config).await;
    assert!(matches!(error, DialError::ProxyRefused { .. }), "{error:?}");
    assert!(text.contains("127.0.0.1:1") && text.contains("NO_PROXY"), "{text}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_unreachable() {
    let (listener, address) = listen().await;
    drop(listener);
    let (error, text) = refused(&through("https://127.0.0.1:9".to_owned(), format!("http://{address}"))).await;
    assert!(matches!(error, DialError::Unreachable { .. }) && text.contains("proxy"), "{error:?}");
}

#[tokio::test]
async fn hosts_in_no_proxy_are_reached_directly() {
    let (listener, manager) = listen().await;
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.expect("a connection");
        let _ = upgrade(io).await.receive().await;
    });
    let proxy = TinyProxy::start().await;
    let mut config = through(format!("http://{manager}"), format!("http://{}", proxy.address));
    config.proxies.none = Some("example.com,127.0.0.0/8".to_owned());
    dial(&config).await.expect("a Manager");
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

/// The one thing that the HTTP client cannot do: plain HTTP is not tunnelled but forwarded, and most proxies do
/// not forward an upgrade.
#[tokio::test]
async fn plain_http_through_a_proxy_is_refused_with_the_fix() {
    let proxy = TinyProxy::start().await;
    let (error, text) =
        refused(&through("http://127.0.0.1:9".to_owned(), format!("http://user:pass@{}", proxy.address))).await;
    assert!(matches!(error, DialError::NotManager { .. }) && text.contains("there use https://"), "{text}");
    assert_eq!(proxy.asked(), ["GET http://127.0.0.1:9/api/v1/link HTTP/1.1"]);
}
