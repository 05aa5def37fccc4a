//! Where the agent stands on its way to a session.

use std::{pin::Pin, time::Duration};

use legation_link::{Connection, DialError, Ended, Socket};
use legation_model::{Clock, Millis};
use legation_wire::{DelegateEnd, DelegateEvent};
use tokio::time::{Sleep, sleep};

use crate::system::SystemClock;

/// How long closing may take.
const CLOSE: Duration = Duration::from_millis(500);
/// WebSocket's code for a peer that goes away (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

type Dial = Pin<Box<dyn Future<Output = Result<Socket, DialError>>>>;

/// The link to the Manager.
pub(super) enum Link {
    /// Not wanted now.
    Off,
    /// To be dialled at once.
    Due,
    /// To be dialled later.
    Waiting(Pin<Box<Sleep>>),
    /// Being dialled.
    Dialling(Dial),
    /// A socket with a session, or one that is being opened.
    Up(Box<Connection<DelegateEnd>>),
}

/// What happened on it.
pub(super) enum Moved {
    /// It is time to dial.
    Due,
    /// A dial ended.
    Dialled(Box<Result<Socket, DialError>>),
    /// The session said something, or ended.
    Session(Box<Result<DelegateEvent, Ended>>),
}

impl Link {
    /// A new session over a socket.
    pub(super) fn open(socket: Socket, end: DelegateEnd) -> Self {
        Self::Up(Box::new(connect(socket, end)))
    }

    /// To be dialled after this many milliseconds.
    pub(super) fn wait(millis: Millis) -> Self {
        Self::Waiting(Box::pin(sleep(Duration::from_millis(millis.unsigned_abs()))))
    }

    /// The next thing that happens. May be dropped at any time and called again.
    pub(super) async fn moved(&mut self) -> Moved {
        match self {
            Self::Off => std::future::pending().await,
            Self::Due => Moved::Due,
            Self::Waiting(sleep) => {
                sleep.as_mut().await;
                Moved::Due
            }
            Self::Dialling(dial) => {
                let dialled = dial.as_mut().await;
                *self = Self::Off;
                Moved::Dialled(Box::new(dialled))
            }
            Self::Up(connection) => Moved::Session(Box::new(connection.next().await)),
        }
    }

    /// The protocol's end, while there is a connection.
    pub(super) fn end(&mut self) -> Option<&mut DelegateEnd> {
        match self {
            Self::Up(connection) => Some(connection.end_mut()),
            _ => None,
        }
    }

    /// Sends what waits and closes.
    pub(super) async fn close(self, reason: &str) {
        if let Self::Up(connection) = self {
            connection.close(GOING_AWAY, reason, CLOSE).await;
        }
    }
}

/// Joins a socket and an end on the boot clock.
pub(super) fn connect(socket: Socket, end: DelegateEnd) -> Connection<DelegateEnd> {
    Connection::new(socket, end, || SystemClock.boot())
}
