//! What both ends have in common: bytes and time in; bytes, events and the next deadline out.

use std::collections::VecDeque;

use legation_model::Millis;

use crate::close::Close;

/// How long a peer may take from connecting to its first frame: 10 s, enough for a slow satellite link, short
/// enough that idle connections do not pile up.
pub const HANDSHAKE_TIMEOUT: Millis = 10_000;
/// Events that may wait to be taken. A loop that takes them after each message never has more than two.
pub const EVENTS_MAX: usize = 64;

/// One end of the protocol, without a socket, a clock or a thread.
///
/// After an error the end is over, but [`End::poll_transmit`] may still hold last words for the peer, to be
/// sent before closing.
pub trait End {
    /// What this end tells its program.
    type Event;

    /// Takes one WebSocket binary message.
    ///
    /// # Errors
    /// The rule that it broke; the link must be closed.
    fn receive(&mut self, message: &[u8], now: Millis) -> Result<(), Close>;

    /// The next WebSocket binary message to send.
    fn poll_transmit(&mut self) -> Option<Vec<u8>>;

    /// The next event.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// When [`End::on_deadline`] wants to be called, on the clock of `now`.
    fn next_deadline(&self) -> Option<Millis>;

    /// Does what is due; too early a call does nothing.
    ///
    /// # Errors
    /// What did not happen in time; the link must be closed.
    fn on_deadline(&mut self, now: Millis) -> Result<(), Close>;
}

/// Events on their way out; holds no memory while empty.
pub(crate) struct Events<E>(VecDeque<E>);

impl<E> Events<E> {
    pub(crate) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(crate) fn push(&mut self, event: E) -> Result<(), Close> {
        if self.0.len() >= EVENTS_MAX {
            return Err(Close::Flooded);
        }
        self.0.push_back(event);
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<E> {
        let event = self.0.pop_front();
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
        event
    }
}
