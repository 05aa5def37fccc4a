//! Binary WebSocket messages over any stream, with buffers small enough for ten thousand of them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Sink, StreamExt};
use legation_wire::{Close, MESSAGE_MAX};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use crate::tcp::TcpWebSocket;

/// What is read from the stream at once, in bytes. It is allocated for each connection, so it holds a
/// heartbeat and not more; larger messages grow it while they last.
const READ_BUFFER: usize = 256;
/// What is gathered before it is written, in bytes: messages that are handed over together leave together.
const WRITE_BUFFER: usize = 4 << 10;
/// What may wait inside the WebSocket layer, in bytes: one whole message and control frames beside it.
const WRITE_BUFFER_MAX: usize = WRITE_BUFFER + 2 * MESSAGE_MAX;
/// The longest reason in a close frame, in bytes (RFC 6455, section 5.5: 125 with the code).
const CLOSE_REASON_MAX: usize = 123;

/// A stream that a socket can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer closed it. Code and reason are a hint for logs; whoever is on the path can forge them.
    #[error("the peer closed the link (code {code}, {reason:?})")]
    Closed {
        /// WebSocket close code; 1005 if there was none.
        code: u16,
        /// The peer's words.
        reason: String,
    },
    /// The stream broke.
    #[error("the link broke: {0}")]
    Io(#[source] io::Error),
    /// The peer took no bytes for too long.
    #[error("the peer stopped reading")]
    Stalled,
    /// One of the two sides broke the protocol.
    #[error("{0}")]
    Protocol(#[source] Close),
}

/// A WebSocket after its HTTP upgrade.
pub struct Socket {
    inner: Inner,
}

enum Inner {
    /// Over anything, such as TLS or a proxied connection.
    Any(WebSocketStream<Box<dyn Io>>),
    /// Over plain TCP, where ten thousand of them lie in one Manager.
    Tcp(TcpWebSocket),
}

impl Socket {
    /// The side that dialled.
    pub fn client(io: impl Io + 'static) -> Self {
        Self::any(Box::new(io), Role::Client)
    }

    /// The side that accepted.
    pub fn server(io: impl Io + 'static) -> Self {
        Self::any(Box::new(io), Role::Server)
    }

    /// The side that accepted, over plain TCP; `read` is what came with the upgrade's request.
    pub fn tcp_server(stream: TcpStream, read: &[u8]) -> Self {
        Self { inner: Inner::Tcp(TcpWebSocket::server(stream, read, config())) }
    }

    fn any(io: Box<dyn Io>, role: Role) -> Self {
        let inner = WebSocketStream::from_raw_socket(io, role, Some(config()))
            .now_or_never()
            .expect("wrapping a stream waits for nothing");
        Self { inner: Inner::Any(inner) }
    }

    /// Whether the next message can be taken; while not, it tries to write the last one.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match &mut self.inner {
            Inner::Any(any) => Pin::new(any).poll_ready(cx),
            Inner::Tcp(tcp) => tcp.poll_ready(cx),
        }
        .map_err(ended)
    }

    /// Hands over one binary message.
    pub(crate) fn start_send(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        let message = Message::Binary(message.into());
        match &mut self.inner {
            Inner::Any(any) => Pin::new(any).start_send(message),
            Inner::Tcp(tcp) => tcp.start_send(message),
        }
        .map_err(ended)
    }

    /// Writes everything that was handed over.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match &mut self.inner {
            Inner::Any(any) => Pin::new(any).poll_flush(cx),
            Inner::Tcp(tcp) => tcp.poll_flush(cx),
        }
        .map_err(ended)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        match &mut self.inner {
            Inner::Any(any) => any.poll_next_unpin(cx).map(|next| next.unwrap_or(Err(Error::ConnectionClosed))),
            Inner::Tcp(tcp) => tcp.poll_receive(cx),
        }
    }

    async fn say_close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        match &mut self.inner {
            Inner::Any(any) => any.close(Some(frame)).await,
            Inner::Tcp(tcp) => tcp.close(frame).await,
        }
    }

    /// The next binary message; pings are answered, anything else ends the link.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        loop {
            let message = ready!(self.poll_message(cx)).map_err(ended)?;
            match message {
                Message::Binary(bytes) => return Poll::Ready(Ok(bytes)),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Text(_) => return Poll::Ready(Err(Ended::Protocol(Close::BadFrame))),
                Message::Close(frame) => return Poll::Ready(Err(closed(frame))),
            }
        }
    }

    /// Sends one binary message.
    ///
    /// # Errors
    /// How the link ended.
    pub async fn send(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits for the next binary message. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// How the link ended.
    pub async fn receive(&mut self) -> Result<Bytes, Ended> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Whether [`Socket::part`] can be: over plain TCP.
    pub(crate) const fn can_part(&self) -> bool {
        matches!(self.inner, Inner::Tcp(_))
    }

    /// Says these last messages and why, and ends this side's direction, at once. Does not wait for the peer: the
    /// socket is handed back, to be dropped when the last word has had time to arrive. `None` when the peer does not
    /// take it now.
    pub(crate) fn part(mut self, last: impl Iterator<Item = Vec<u8>>, code: u16, reason: &str) -> Option<Parted> {
        let Inner::Tcp(tcp) = &mut self.inner else { return None };
        tcp.part(last, close_frame(code, reason)).ok()?;
        Some(Parted { _socket: self })
    }

    /// Says why and closes, waiting at most this long for the peer to do the same, so that what was sent
    /// last is not lost with the connection.
    pub async fn close(mut self, code: u16, reason: &str, deadline: Duration) {
        let frame = close_frame(code, reason);
        let farewell = async {
            if self.say_close(frame).await.is_ok() {
                while self.receive().await.is_ok() {}
            }
        };
        // However this ends, the stream is dropped now.
        let _late = tokio::time::timeout(deadline, farewell).await;
    }
}

/// A connection whose last word is on its way. Nothing more is written or read; dropping it closes it.
pub struct Parted {
    _socket: Socket,
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    let mut reason = reason.to_owned();
    reason.truncate(reason.floor_char_boundary(CLOSE_REASON_MAX));
    CloseFrame { code: code.into(), reason: reason.into() }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
}

/// The answer to a `Sec-WebSocket-Key`, for `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
pub fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

fn closed(frame: Option<CloseFrame>) -> Ended {
    match frame {
        Some(frame) => Ended::Closed { code: frame.code.into(), reason: frame.reason.to_string() },
        None => Ended::Closed { code: 1005, reason: String::new() },
    }
}

fn ended(error: Error) -> Ended {
    match error {
        Error::Io(error) => Ended::Io(error),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Ended::Io(io::Error::from(io::ErrorKind::ConnectionReset))
        }
        Error::ConnectionClosed | Error::AlreadyClosed => Ended::Io(io::Error::from(io::ErrorKind::UnexpectedEof)),
        Error::Capacity(_) => Ended::Protocol(Close::TooLarge),
        Error::WriteBufferFull(_) => Ended::Stalled,
        _ => Ended::Protocol(Close::BadFrame),
    }
}
