//! A WebSocket directly on a TCP socket: no boxed stream, no second waker between it and its task.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use rustix::net::{SendFlags, send};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{CloseFrame, Role, WebSocketConfig},
};

/// The socket as the WebSocket layer reads and writes it: at once or not at all.
struct AtOnce {
    stream: TcpStream,
    /// Whether what is written leaves with what follows, and not before: the last word goes with the end of its
    /// direction in one segment, which halves what ten thousand of them cost both sides.
    held_back: bool,
}

impl Read for AtOnce {
    /// Whoever finds nothing here asks [`TcpStream::poll_read_ready`] with a waker of its own. A read that does not fill
    /// the buffer has emptied the socket, and the stream remembers that, so that the next one costs no system call;
    /// and what is read counts against the task's budget, so that a peer that never stops sending does not keep its
    /// thread for itself.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut nobody = Context::from_waker(Waker::noop());
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut self.stream).poll_read(&mut nobody, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for AtOnce {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.held_back {
            return self.stream.try_write(bytes);
        }
        self.stream.try_io(Interest::WRITABLE, || Ok(send(&self.stream, bytes, SendFlags::MORE)?))
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
        let stream = AtOnce { stream, held_back: false };
        let inner = WebSocket::from_partially_read(stream, read.to_vec(), Role::Server, Some(config));
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
                    ready!(self.inner.get_ref().stream.poll_write_ready(cx))?;
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
                Err(error) if would_block(&error) => ready!(self.inner.get_ref().stream.poll_read_ready(cx))?,
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

    /// Sends messages and the close frame and ends this direction, all at once or with an error.
    pub(crate) fn part(&mut self, last: impl Iterator<Item = Vec<u8>>, frame: CloseFrame) -> Result<(), Error> {
        self.inner.get_mut().held_back = true;
        for message in last {
            self.inner.write(Message::Binary(message.into()))?;
        }
        self.inner.close(Some(frame))?;
        let mut nobody = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.inner.get_mut().stream).poll_shutdown(&mut nobody) {
            Poll::Ready(shut) => Ok(shut?),
            Poll::Pending => Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
