//! The one loop that joins a socket, an end of the protocol and the clock.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use legation_model::Millis;
use legation_wire::End;
use tokio::time::{Sleep, sleep};

use crate::{Ended, Parted, Socket};

/// How long a peer may take no byte while some wait for it: 10 s, as long as a handshake may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A link in use. Nothing moves unless [`Connection::next`] or [`Connection::flush`] is awaited.
pub struct Connection<E> {
    socket: Socket,
    end: E,
    now: Box<dyn Fn() -> Millis + Send + Sync>,
    /// The timer of the end's deadline, and that deadline.
    timer: Option<(Millis, Pin<Box<Sleep>>)>,
    /// Runs while the peer takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// Whether something was handed to the socket and not yet flushed.
    unflushed: bool,
}

impl<E: End> Connection<E> {
    /// Joins a socket and an end. `now` is the clock that the end counts on.
    pub fn new(socket: Socket, end: E, now: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self { socket, end, now: Box::new(now), timer: None, stall: None, unflushed: false }
    }

    /// The end, to send messages through; they go out at the next [`Connection::next`] or
    /// [`Connection::flush`].
    pub const fn end_mut(&mut self) -> &mut E {
        &mut self.end
    }

    /// Moves bytes both ways until there is an event. May be dropped at any time and called again.
    ///
    /// # Errors
    /// How the link ended; nothing but [`Connection::close`] makes sense afterwards.
    pub async fn next(&mut self) -> Result<E::Event, Ended> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Writes everything that the end wants to send.
    ///
    /// # Errors
    /// How the link ended, [`Ended::Stalled`] if the peer takes nothing for [`WRITE_TIMEOUT`].
    pub async fn flush(&mut self) -> Result<(), Ended> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends what the end still has to say, then closes with this code and reason, all within `deadline`.
    pub async fn close(mut self, code: u16, reason: &str, deadline: Duration) {
        let farewell = async {
            if self.flush().await.is_ok() {
                self.socket.close(code, reason, deadline).await;
            }
        };
        // However this ends, the stream is dropped now.
        let _late = tokio::time::timeout(deadline, farewell).await;
    }

    /// Whether [`Connection::part`] can be: over plain TCP.
    pub const fn can_part(&self) -> bool {
        self.socket.can_part()
    }

    /// Sends what the end still has to say, then closes with this code and reason, at once and without waiting for the
    /// peer; see [`Parted`]. `None` when it is closed by then, because the peer did not take it.
    ///
    /// # Errors
    /// The connection itself, untouched, where that cannot be: over anything but plain TCP.
    pub fn part(self: Box<Self>, code: u16, reason: &str) -> Result<Option<Parted>, Box<Self>> {
        if !self.socket.can_part() {
            return Err(self);
        }
        let Self { socket, mut end, .. } = *self;
        Ok(socket.part(std::iter::from_fn(|| end.poll_transmit()), code, reason))
    }

    /// [`Connection::next`] for whoever waits for other things beside it.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<E::Event, Ended>> {
        loop {
            if let Some(event) = self.end.poll_event() {
                return Poll::Ready(Ok(event));
            }
            self.poll_deadline(cx)?;
            if let Poll::Ready(Err(ended)) = self.poll_flush(cx) {
                return Poll::Ready(Err(ended));
            }
            let message = ready!(self.socket.poll_receive(cx))?;
            self.end.receive(&message, (self.now)()).map_err(Ended::Protocol)?;
        }
    }

    /// Calls the end when its deadline has passed, and sets the timer for the next one.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        while let Some(deadline) = self.end.next_deadline() {
            let now = (self.now)();
            if now >= deadline {
                self.end.on_deadline(now).map_err(Ended::Protocol)?;
            } else if !self.timer_is_set(deadline, now, cx) {
                return Ok(());
            }
        }
        self.timer = None;
        Ok(())
    }

    /// Makes sure that a timer runs for this deadline; answers whether it has run out already.
    fn timer_is_set(&mut self, deadline: Millis, now: Millis, cx: &mut Context<'_>) -> bool {
        if self.timer.as_ref().is_none_or(|(set, _)| *set != deadline) {
            let wait = Duration::from_millis(deadline.saturating_sub(now).unsigned_abs());
            self.timer = Some((deadline, Box::pin(sleep(wait))));
        }
        let rang = self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready());
        if rang {
            self.timer = None;
        }
        rang
    }

    /// [`Connection::flush`] for whoever waits for other things beside it.
    ///
    /// # Errors
    /// As [`Connection::flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match self.poll_pump(cx) {
            Poll::Ready(written) => {
                self.stall = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.poll_stall(cx),
        }
    }

    /// Moves messages from the end to the socket as long as it takes them, then flushes.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            ready!(self.socket.poll_ready(cx))?;
            let Some(message) = self.end.poll_transmit() else { break };
            self.socket.start_send(message)?;
            (self.unflushed, self.stall) = (true, None);
        }
        if self.unflushed {
            ready!(self.socket.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        stall.as_mut().poll(cx).map(|()| Err(Ended::Stalled))
    }
}
