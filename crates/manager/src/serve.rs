//! Listeners: they accept connections, speak TLS where it is on, and serve a router over HTTP/1.1.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, extract::Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{Manager, source::Source};

/// Connections that may wait to be accepted: a storm of delegates that all come back at once.
const BACKLOG: u32 = 4_096;
/// How long a client may take for its TLS handshake, and for the head of each request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when the process has no descriptor left for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
pub struct Listener {
    /// The real address.
    pub address: SocketAddr,
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    /// One sentence when it is taken or not allowed.
    pub async fn bind(address: SocketAddr, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let bind = || -> std::io::Result<TcpListener> {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let tcp = bind().with_context(|| {
            format!("cannot listen on {address}: stop the program that uses it, or choose another with --listen")
        })?;
        Ok(Self { address: tcp.local_addr()?, tcp, tls })
    }
}

/// Accepts until the Manager stops; each connection is a task that the tracker awaits.
pub async fn accept(manager: Arc<Manager>, listener: Listener, router: Router) {
    loop {
        let accepted = tokio::select! {
            () = manager.stopping.cancelled() => return,
            accepted = listener.tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (manager, router, tls) = (Arc::clone(&manager), router.clone(), listener.tls.clone());
                let tasks = manager.connections.clone();
                tasks.spawn(connection(manager, stream, peer, router, tls));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

async fn connection(
    manager: Arc<Manager>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
) {
    // A frame is sent whole, so waiting for more would only delay it.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve(manager, stream, peer, router).await };
    match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(manager, stream, peer, router).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn serve<Io>(manager: Arc<Manager>, io: Io, peer: SocketAddr, router: Router)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let trusted = Arc::clone(&manager.config.trusted_proxies);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let source = Source::of(peer, request.headers(), &trusted);
        request.extensions_mut().insert(source);
        router.clone().oneshot(request.map(axum::body::Body::new) as Request)
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = manager.stopping.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
