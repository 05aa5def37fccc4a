//! A WebSocket directly on a TCP socket: no boxed stream, no second waker between it and its task.

use std::{
    io::{self, Read, Write},
    task::{Context, Poll, Waker, ready},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::coop};
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{CloseFrame, Role, WebSocketConfig},
};

/// The socket as the WebSocket layer reads and writes it: at once or not at all.
struct AtOnce(TcpStream);

impl Read for AtOnce {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A peer that never stops sending must not keep its thread for itself: what was read counts against the task's
        // budget, and without one the caller waits for its turn.
        let mut nobody = Context::from_waker(Waker::noop());
        let Poll::Ready(turn) = coop::poll_proceed(&mut nobody) else { return Err(io::ErrorKind::WouldBlock.into()) };
        let read = self.0.try_read(buffer);
        if read.is_ok() {
            turn.made_progress();
        }
        read
    }
}

impl Write for AtOnce {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The WebSocket; whoever polls it is woken when the socket can go on.
pub(crate) struct TcpWebSocket {
    inner: WebSocket<AtOnce>,
    /// Whether something that was handed over is not written yet.
    unwritten: bool,
}

impl TcpWebSocket {
    /// The side that accepted; `read` is what was read with the upgrade's request.
    pub(crate) fn server(stream: TcpStream, read: &[u8], config: WebSocketConfig) -> Self {
        let inner = WebSocket::from_partially_read(AtOnce(stream), read.to_vec(), Role::Server, Some(config));
        Self { inner, unwritten: false }
    }

    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.unwritten { self.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    pub(crate) fn start_send(&mut self, message: Message) -> Result<(), Error> {
        match self.inner.write(message) {
            Err(error) if would_block(&error) => {
                // It was taken all the same, and waits.
                self.unwritten = true;
                Ok(())
            }
            other => other,
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match self.inner.flush() {
                Err(error) if would_block(&error) => {
                    self.unwritten = true;
                    ready!(self.inner.get_ref().0.poll_write_ready(cx))?;
                }
                other => {
                    self.unwritten = false;
                    return Poll::Ready(other);
                }
            }
        }
    }

    /// The next message. What the layer answers by itself, such as a pong, goes out with it or with the next flush.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        loop {
            match self.inner.read() {
                Err(error) if would_block(&error) => ready!(self.inner.get_ref().0.poll_read_ready(cx))?,
                other => return Poll::Ready(other),
            }
        }
    }

    /// Sends the close frame; the peer's is still to be received.
    pub(crate) async fn close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        match self.inner.close(Some(frame)) {
            Err(error) if would_block(&error) => {}
            Err(Error::ConnectionClosed) => return Ok(()),
            other => other?,
        }
        match std::future::poll_fn(|cx| self.poll_flush(cx)).await {
            Err(Error::ConnectionClosed) => Ok(()),
            other => other,
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) async fn shut(&mut self) -> io::Result<()> {
        self.inner.get_mut().0.shutdown().await
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
