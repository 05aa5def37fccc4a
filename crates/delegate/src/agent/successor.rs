//! The session that takes over from the one in use, so that none lasts longer than a day.
//!
//! It is dialled and opened while the old one still works. With its Welcome it is the one in use, and the
//! Manager has told the old one that it is superseded; attempts notice nothing. If it does not come about, the
//! old one stays, and another is tried later.

use std::sync::Arc;

use legation_link::Backoff;
use legation_model::{Entropy, Millis, token::Token};
use legation_wire::{
    Action, DelegateEvent,
    message::{ToDelegate, Welcome},
};

use super::{
    Agent, FIRST_WINDOW,
    link::{Link, Moved},
    session::{retry_after, told},
};
use crate::{config::CAPACITY_MAX, spool::ATTEMPTS_MAX, system::SystemEntropy};

/// Sessions end within this part of their life, a tenth, before it is over: those that began together, after a
/// restart of the Manager, do not all come back in the same minute.
const JITTER_PART: u64 = 10;
/// Messages that may wait until it is clear which session goes on: an assignment and a cancellation for every
/// attempt that may run, and an acknowledgement for every one in the spool.
const HELD_MAX: usize = 2 * CAPACITY_MAX as usize + ATTEMPTS_MAX;

/// The link that is to take over.
pub(super) struct Successor {
    pub(super) link: Link,
    /// What it opens its session with; the one in use may have an older one.
    token: Token,
    backoff: Backoff,
    /// What the session in use said meanwhile.
    held: Vec<ToDelegate>,
}

impl Successor {
    pub(super) fn new(token: Token) -> Self {
        Self { link: Link::Off, token, backoff: Backoff::new(FIRST_WINDOW, Arc::new(SystemEntropy)), held: Vec::new() }
    }

    /// Whether there is a connection, or one is being made.
    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self.link, Link::Due | Link::Dialling(_) | Link::Up(_))
    }

    /// Gives it up, and what was held: the Manager repeats that in the next session.
    pub(super) fn clear(&mut self) {
        self.link = Link::Off;
        self.held.clear();
    }
}

impl Agent {
    /// A session has begun: sets when the next one shall take over.
    pub(super) fn plan_successor(&mut self, welcome: &Welcome) {
        self.successor.backoff.reset(Millis::try_from(welcome.first_retry).unwrap_or(Millis::MAX));
        self.successor.link = Link::wait(life(self.config.session_life, &SystemEntropy));
    }

    /// Something happened on the link that is to take over; answers the exit code if that is the end.
    pub(super) async fn succeed(&mut self, moved: Moved) -> Option<u8> {
        match moved {
            Moved::Due => {
                self.successor.token = self.newest_token();
                self.successor.link = self.dial();
            }
            Moved::Dialled(dialled) => match *dialled {
                Ok(socket) => self.successor.link = self.open(socket, &self.successor.token.clone()),
                Err(error) => self.keep(error.retry_after(), &error),
            },
            Moved::Session(said) => match *said {
                Ok(DelegateEvent::Welcome(welcome)) => self.take_over(welcome),
                // The token in use is over; a newer one that is refused says nothing about it.
                Ok(DelegateEvent::Goodbye(goodbye))
                    if goodbye.reason.action() == Action::Stop && self.successor.token == self.token =>
                {
                    return self.stop(goodbye).await;
                }
                Ok(DelegateEvent::Goodbye(goodbye)) => self.keep(retry_after(&goodbye), &told(&goodbye)),
                // Nothing comes before a Welcome.
                Ok(_) => {}
                Err(ended) => self.keep(None, &ended),
            },
        }
        None
    }

    /// Takes in what the session in use says.
    ///
    /// Once Hello has named every attempt, none may begin until the Manager has answered: one that it knew to
    /// have started and that Hello does not name counts as lost. None may be forgotten either: one that Hello
    /// names takes up room in the new session until its end is said there. So what begins or ends attempts waits.
    pub(super) fn hear(&mut self, message: ToDelegate) {
        let opening = matches!(self.successor.link, Link::Up(_));
        let waits =
            matches!(message, ToDelegate::Assign(_) | ToDelegate::Cancel { .. } | ToDelegate::FinishedAck { .. });
        if !opening || !waits {
            return self.message(message);
        }
        tracing::debug!("a message waits for the new session");
        self.successor.held.push(message);
        if self.successor.held.len() > HELD_MAX {
            self.keep(None, &"too much happened meanwhile");
        }
    }

    /// The session in use is gone: goes on with what there is of its successor.
    pub(super) fn promote(&mut self) {
        let link = std::mem::replace(&mut self.successor.link, Link::Off);
        self.disconnect();
        (self.link, self.token) = (link, self.successor.token.clone());
    }

    fn take_over(&mut self, welcome: Welcome) {
        tracing::info!("a new session takes over from the old one");
        self.link = std::mem::replace(&mut self.successor.link, Link::Off);
        self.token = self.successor.token.clone();
        self.welcome(welcome);
        // Results are said again in the new session, and acknowledged there.
        self.successor.held.retain(|message| !matches!(message, ToDelegate::FinishedAck { .. }));
        self.settle();
    }

    /// Stays with the session in use and tries again later.
    fn keep(&mut self, after: Option<Millis>, trouble: &dyn std::fmt::Display) {
        let wait = self.successor.backoff.wait(after);
        tracing::warn!(wait_ms = wait, "no new session yet, the old one stays: {trouble}");
        self.successor.link = Link::wait(wait);
        self.settle();
    }

    /// Does what was held.
    fn settle(&mut self) {
        for message in std::mem::take(&mut self.successor.held) {
            self.message(message);
        }
    }
}

/// How long a session lasts, drawn evenly from the last part of its longest life.
fn life(longest: Millis, entropy: &dyn Entropy) -> Millis {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    let span = longest.unsigned_abs() / JITTER_PART + 1;
    longest - (u64::from_le_bytes(bytes) % span).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SESSION_LIFE;

    #[test]
    fn sessions_that_began_together_end_spread_over_the_last_tenth() {
        let hour = 60 * 60 * 1000;
        let lives: Vec<_> = (0..1_000).map(|_| life(SESSION_LIFE, &SystemEntropy) / hour).collect();
        assert!(lives.iter().all(|hours| (21..=24).contains(hours)), "{lives:?}");
        assert!([21, 22, 23].iter().all(|hours| lives.contains(hours)), "the whole of it is used");
    }
}
