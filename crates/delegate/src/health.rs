//! Answers health checks and shows metrics; off unless an address is set.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// How long a checker may take for its request: 5 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last, answer included: one whose client reads nothing must not keep its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once: more than the checkers and scrapers of one delegate, and few enough that their descriptors
/// are never missed where tasks are killed. Further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 32;

/// What the agent lets others see.
#[derive(Debug, Default)]
pub struct Status {
    /// Whether a session is open.
    pub connected: AtomicBool,
    /// Whether it was told to stop and waits for another token.
    pub parked: AtomicBool,
    /// Attempts that run.
    pub running: AtomicU64,
    /// Attempts that were started.
    pub started: AtomicU64,
    /// Sessions that were opened.
    pub sessions: AtomicU64,
    /// Times that it killed its tasks because its lease ended.
    pub fenced: AtomicU64,
}

impl Status {
    fn is_ready(&self) -> bool {
        self.connected.load(Relaxed) && !self.parked.load(Relaxed)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            let name = format!("legation_delegate_{name}");
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
        };
        line("connected", "gauge", "Whether a session is open.", self.connected.load(Relaxed).into());
        line("parked", "gauge", "Whether it was told to stop.", self.parked.load(Relaxed).into());
        line("attempts_running", "gauge", "Attempts that run.", self.running.load(Relaxed));
        line("attempts_started_total", "counter", "Attempts started.", self.started.load(Relaxed));
        line("sessions_total", "counter", "Sessions opened.", self.sessions.load(Relaxed));
        line("fenced_total", "counter", "Times the lease ended.", self.fenced.load(Relaxed));
        text
    }
}

/// Serves on this address until the program ends; answers the real address.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, status: Arc<Status>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(accept(listener, status));
    Ok(bound)
}

async fn accept(listener: TcpListener, status: Arc<Status>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: give the others time to end.
            tokio::time::sleep(REQUEST_TIMEOUT).await;
            continue;
        };
        let status = Arc::clone(&status);
        let service = service_fn(move |request| std::future::ready(answer(&request, &status)));
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).keep_alive(false);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, status: &Status) -> Result<Response<Full<Bytes>>, Infallible> {
    let (code, text) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if status.is_ready() => (StatusCode::OK, "ready\n".to_owned()),
        "/readyz" if status.parked.load(Relaxed) => (StatusCode::SERVICE_UNAVAILABLE, "parked\n".to_owned()),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "not connected\n".to_owned()),
        "/metrics" => (StatusCode::OK, status.metrics()),
        _ => (StatusCode::NOT_FOUND, "see /healthz, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[tokio::test]
    async fn connections_beyond_the_bound_wait_until_one_ends() {
        let address = serve(([127, 0, 0, 1], 0).into(), Arc::default()).await.expect("a port");
        let connect = async || TcpStream::connect(address).await.expect("a connection");
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(connect().await);
        }
        let mut late = connect().await;
        late.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
        let mut answer = [0; 12];
        let early = timeout(REQUEST_TIMEOUT / 10, late.read_exact(&mut answer)).await;
        assert!(early.is_err(), "it has no place yet");
        drop(silent.pop());
        late.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
