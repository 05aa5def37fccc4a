//! A connection from a source address of our own to the Manager's link.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use legation_link::{Io, LINK_PATH, SUBPROTOCOL, Socket, accept_key};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::World;

/// The longest answer to the upgrade.
const HEAD_MAX: usize = 1_024;
/// How long a connection may take in the making; beyond it there is an error to report.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// The key of every upgrade: it protects caches from confusion, and there is none here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Source addresses of one run. The kernel hands out each address's ports, about 28,000, once: with many addresses
/// it never has to look long for a free one.
const SOURCES: usize = 16;

/// Connections that one fleet or crowd has in the making at once: enough that a server always has one to go on with, and
/// well below what a Manager takes from one source.
pub(super) const DIALS: usize = 256;

/// The way to one Manager.
pub(super) struct Route {
    to: SocketAddr,
    sources: Sources,
    /// What checks the Manager's certificate, where it has one.
    tls: Option<TlsConnector>,
}

impl Route {
    /// The way to this world's Manager, over TLS if that is what it serves.
    pub(super) fn to(world: &World) -> anyhow::Result<Self> {
        let tls = world.url().starts_with("https:").then(|| trusting(&world.ca_file())).transpose()?;
        Ok(Self { to: world.address(), sources: Sources::of_this_run(), tls })
    }

    /// Connects and upgrades.
    pub(super) async fn dial(&self, number: usize) -> io::Result<Socket> {
        in_time(async {
            let stream = self.connect(number).await?;
            match &self.tls {
                None => self.upgrade(stream).await,
                Some(tls) => {
                    let name = ServerName::from(self.to.ip());
                    self.upgrade(tls.connect(name, stream).await?).await
                }
            }
        })
        .await
    }

    /// Connects, and no more.
    pub(super) async fn connect(&self, number: usize) -> io::Result<TcpStream> {
        connect(self.to, self.sources, number).await
    }

    /// Makes a connection the delegate's end of a link.
    pub(super) async fn upgrade(&self, mut stream: impl Io + 'static) -> io::Result<Socket> {
        let to = self.to;
        let request = format!(
            "GET {LINK_PATH} HTTP/1.1\r\nhost: {to}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(HEAD_MAX);
        // The Manager says nothing after its answer until it was spoken to.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        let head = String::from_utf8_lossy(&head);
        if head.starts_with("HTTP/1.1 101") && head.contains(&accept_key(KEY)) {
            return Ok(Socket::client(stream));
        }
        Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()))
    }
}

/// Trusts the certificates of this file alone.
fn trusting(file: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).context("cannot read the Manager's certificate")? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // Delegates are strangers to each other: none goes on where another has been, and none has been here before.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Addresses of the loopback network that this run alone uses, so that connections of an earlier one, which the
/// kernel remembers for a minute, are not in the way.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    net: [u8; 2],
}

impl Sources {
    pub(super) fn of_this_run() -> Self {
        // 127.0.x.x is where everybody else is.
        Self { net: [rand::random_range(1..=254), rand::random()] }
    }

    fn address(self, number: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, self.net[0], self.net[1], (number % SOURCES) as u8 + 1)
    }
}

/// A TCP connection from a source address of this run.
pub(super) async fn connect(to: SocketAddr, sources: Sources, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((sources.address(number), 0)))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Gives up what takes longer than a connection may take in the making.
pub(super) async fn in_time<T>(dialling: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(DIAL_TIMEOUT, dialling).await.map_err(late)?
}
