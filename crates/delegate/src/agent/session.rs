//! The session in use: opened, listened to, spoken into, lost.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use legation_link::{DialError, Ended, Socket};
use legation_model::{Clock, Millis, task::TaskKind, token::Token};
use legation_wire::{
    Action, DelegateEnd, DelegateEvent, Opening,
    message::{FromDelegate, Goodbye, Hello, ToDelegate, Welcome},
};

use super::{
    Agent, WINDOW,
    link::{Link, Moved},
};
use crate::{
    spool::Next,
    system::{SystemClock, SystemEntropy},
};

/// The difference between the Manager's wall clock and this one's above which someone should know. Nothing here
/// depends on it: leases and timeouts count on the boot clock.
const SKEW_MAX: Millis = 60_000;

impl Agent {
    /// Something happened on the link in use; answers the exit code if that is the end.
    pub(super) async fn moved(&mut self, moved: Moved) -> Option<u8> {
        match moved {
            Moved::Due => {
                self.token = self.newest_token();
                self.link = self.dial();
            }
            Moved::Dialled(dialled) => self.dialled(*dialled),
            Moved::Session(said) => return self.session(*said).await,
        }
        None
    }

    /// The token as its source has it now; one that cannot be read right now changes nothing.
    pub(super) fn newest_token(&self) -> Token {
        self.config.token.read().unwrap_or_else(|_| self.token.clone())
    }

    pub(super) fn dial(&self) -> Link {
        let dialer = Arc::clone(&self.dialer);
        Link::Dialling(Box::pin(async move { dialer.dial().await }))
    }

    /// Opens a session of this process over a socket. Each one has a higher counter than all before it.
    pub(super) fn open(&mut self, socket: Socket, token: &Token) -> Link {
        let opening = Opening::Hello(Box::new(self.hello()));
        Link::open(socket, DelegateEnd::new(token, &self.identity, opening, SystemClock.boot(), &SystemEntropy))
    }

    fn dialled(&mut self, dialled: Result<Socket, DialError>) {
        match dialled {
            Ok(socket) => self.link = self.open(socket, &self.token.clone()),
            Err(error) => self.retry(error.retry_after(), &error),
        }
    }

    fn hello(&mut self) -> Hello {
        self.counter += 1;
        let kinds = TaskKind::ALL.into_iter().filter(|kind| self.config.policy.allows_kind(*kind));
        Hello {
            delegate: self.delegate,
            account: self.config.account.clone(),
            boot: self.boot,
            counter: self.counter,
            name: self.config.name.clone(),
            host: self.config.host.clone(),
            tags: self.config.tags.clone(),
            description: self.config.description.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: kinds.map(|kind| kind.to_string()).collect(),
            capacity: self.config.capacity,
            isolation: self.isolation,
            attempts: self.spool.held(),
        }
    }

    async fn session(&mut self, said: Result<DelegateEvent, Ended>) -> Option<u8> {
        match said {
            Ok(DelegateEvent::Welcome(welcome)) => self.welcome(welcome),
            Ok(DelegateEvent::LeaseRenewed { until }) => self.renew(until),
            Ok(DelegateEvent::TokenExpires { left }) => self.expiry.warn(left),
            Ok(DelegateEvent::Message(message)) => self.hear(message),
            Ok(DelegateEvent::Goodbye(goodbye)) => return self.goodbye(goodbye).await,
            Err(ended) => self.retry(None, &ended),
        }
        None
    }

    pub(super) fn welcome(&mut self, welcome: Welcome) {
        tracing::info!(delegate = %welcome.delegate, session = %welcome.session, scope = %welcome.scope, "connected");
        self.trouble.clear();
        self.welcomed = true;
        self.status.connected.store(true, Relaxed);
        self.status.sessions.fetch_add(1, Relaxed);
        self.backoff.reset(Millis::try_from(welcome.first_retry).unwrap_or(Millis::MAX));
        self.plan_successor(&welcome);
        self.compare_clocks(welcome.server_time);
        if self.delegate != Some(welcome.delegate) {
            self.delegate = Some(welcome.delegate);
            if let Err(error) = self.state.write("delegate", welcome.delegate.to_string().as_bytes()) {
                tracing::warn!(%error, "the delegate's id could not be kept");
            }
        }
        self.spool.rewind();
        // What was refused in the last session and not heard is assigned again in this one.
        self.refusals.clear();
        self.count();
        if self.draining.is_some() {
            self.say(&FromDelegate::Draining);
        }
    }

    fn compare_clocks(&mut self, server_time: Millis) {
        let skew = SystemClock.wall().saturating_sub(server_time);
        if skew.abs() > SKEW_MAX && !self.skewed {
            tracing::warn!(
                skew_ms = skew,
                "this machine's clock and the Manager's differ; tasks and leases do not depend on it, but times in \
                 logs do: check both machines' time synchronisation"
            );
        }
        self.skewed = skew.abs() > SKEW_MAX;
    }

    pub(super) fn message(&mut self, message: ToDelegate) {
        match message {
            ToDelegate::Assign(assignment) => self.assign(*assignment),
            ToDelegate::Cancel { attempt, grace } => self.cancel(attempt, grace),
            ToDelegate::OutputAck { attempt, offset } => self.spool.ack_output(attempt, offset),
            ToDelegate::FinishedAck { attempt } => self.forget(attempt),
            // The end of the protocol keeps these to itself.
            ToDelegate::Welcome(_) | ToDelegate::Goodbye(_) | ToDelegate::HeartbeatAck { .. } => {}
        }
    }

    async fn goodbye(&mut self, goodbye: Goodbye) -> Option<u8> {
        if goodbye.reason.action() == Action::Stop {
            return self.stop(goodbye).await;
        }
        self.retry(retry_after(&goodbye), &told(&goodbye));
        None
    }

    /// Lets go of the link, if there is one, and dials again later, unless a successor is on its way. Tasks go
    /// on as long as the lease does.
    pub(super) fn retry(&mut self, after: Option<Millis>, trouble: &dyn std::fmt::Display) {
        if self.successor.is_under_way() {
            tracing::debug!("the old session ended before the new one is open: {trouble}");
            return self.promote();
        }
        self.disconnect();
        let wait = self.backoff.wait(after);
        let trouble = trouble.to_string();
        if trouble == self.trouble {
            tracing::debug!(wait_ms = wait, "not connected: {trouble}");
        } else {
            tracing::warn!(wait_ms = wait, "not connected: {trouble}");
            self.trouble = trouble;
        }
        self.link = Link::wait(wait);
    }

    pub(super) fn disconnect(&mut self) {
        self.link = Link::Off;
        self.successor.clear();
        self.welcomed = false;
        self.status.connected.store(false, Relaxed);
    }

    pub(super) fn say(&mut self, message: &FromDelegate) {
        let open = self.welcomed;
        if let Some(end) = self.link.end().filter(|_| open) {
            // What the session does not take is lost; only what the Manager learns otherwise is said this way.
            let _ = end.send(message);
        }
    }

    /// Hands what the Manager has not heard yet to the session, as far as it takes it.
    pub(super) fn speak(&mut self) {
        let Some(end) = self.link.end().filter(|_| self.welcomed) else { return };
        while self.refusals.front().is_some_and(|refusal| end.send(refusal).is_ok()) {
            self.refusals.pop_front();
        }
        self.spool.drain(WINDOW, |attempt, next| {
            let message = match next {
                Next::Started => FromDelegate::Started { attempt },
                Next::Output(chunk) => FromDelegate::Output {
                    attempt,
                    offset: chunk.offset,
                    stream: chunk.stream,
                    bytes: chunk.bytes.clone(),
                },
                Next::Finished(finished) => FromDelegate::Finished(finished.clone()),
            };
            end.send(&message).is_ok()
        });
    }

    /// Shows how many attempts run.
    pub(super) fn count(&mut self) {
        let running = self.running.len();
        self.status.running.store(running as u64, Relaxed);
        if let Some(end) = self.link.end() {
            end.set_running(running as u32);
        }
    }
}

/// How long the Manager asks to wait.
pub(super) fn retry_after(goodbye: &Goodbye) -> Option<Millis> {
    goodbye.retry_after.map(|after| Millis::try_from(after).unwrap_or(Millis::MAX))
}

/// A Goodbye as a sentence.
pub(super) fn told(goodbye: &Goodbye) -> String {
    format!("the Manager says {}: {}", goodbye.reason, goodbye.text)
}
