//! One client of a server of another make.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use super::{
    peer::{Event, Peer, User},
    server::Server,
    tls::HOST,
};
use crate::load::dial::{Sources, connect, in_time};

/// The subject to which all clients send their answers.
pub(super) const ANSWERS: &str = "answers";
/// More than a server ever says at once to one client here.
const INPUT_MAX: usize = 8_192;

/// How clients find and trust a server.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) peer: &'static dyn Peer,
    address: std::net::SocketAddr,
    connector: TlsConnector,
    sources: Sources,
}

impl Target {
    pub(super) fn of(server: &Server) -> Self {
        let (peer, address, connector) = (server.peer, server.address, server.connector.clone());
        Self { peer, address, connector, sources: Sources::of_this_run() }
    }
}

/// A connection that is authenticated and listens to its subject.
pub(super) struct Client {
    peer: &'static dyn Peer,
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(target: &Target, number: usize, user: &User, subject: &str) -> io::Result<Self> {
        in_time(Self::greet(target, number, user, subject)).await
    }

    async fn greet(target: &Target, number: usize, user: &User, subject: &str) -> io::Result<Self> {
        let mut stream = connect(target.address, target.sources, number).await?;
        if target.peer.speaks_first() {
            skip_line(&mut stream).await?;
        }
        let host = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let stream = target.connector.connect(host, stream).await?;
        let mut client = Self { peer: target.peer, stream, input: Vec::new() };
        client.send(&target.peer.greeting(user, subject)).await?;
        client.until(Event::Answer).await?;
        Ok(client)
    }

    /// What the server says next; nothing is lost when this is given up in between.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.peer.take(&mut self.input)? {
                return Ok(event);
            }
            if self.input.len() > INPUT_MAX || self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
    }

    /// Waits until it says this.
    pub(super) async fn until(&mut self, awaited: Event) -> io::Result<()> {
        loop {
            match self.next().await? {
                event if event == awaited => return Ok(()),
                Event::Question(answer) => self.send(answer).await?,
                _ => {}
            }
        }
    }

    pub(super) async fn publish(&mut self, subject: &str, payload: &[u8]) -> io::Result<()> {
        self.send(&self.peer.publish(subject, payload)).await
    }

    pub(super) async fn beat(&mut self) -> io::Result<()> {
        self.send(self.peer.heartbeat()).await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// The server says nothing behind its line until it was spoken to.
async fn skip_line(stream: &mut TcpStream) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > INPUT_MAX || stream.read_buf(&mut line).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
    Ok(())
}
