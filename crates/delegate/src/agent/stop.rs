//! Stopping because the Manager said so, and ending because this machine said so.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use legation_link::Backoff;
use legation_model::{Clock, ids::ReceiptId};
use legation_wire::{
    DelegateEnd, DelegateEvent, Opening,
    message::{Goodbye, Stopped},
};

use super::{
    Agent, FAREWELL,
    link::{Link, connect},
    tasks::remember,
};
use crate::{
    config::OnRevoked,
    exit,
    system::{SystemClock, SystemEntropy},
};

/// How often the last report is tried, and how long each time: a Manager that does not answer by then has
/// cut the delegate anyway, and its receipt says when the lease ends.
const REPORT_TRIES: usize = 3;
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// The window of the pause before the second try, in milliseconds: thousands that are stopped at once report at once,
/// and a Manager sheds those for which it has no place.
const REPORT_WINDOW: i64 = 1_000;
/// How often a parked delegate looks for another token.
const TOKEN_POLL: Duration = Duration::from_secs(1);

impl Agent {
    /// Kills, erases, reports; then ends, or parks until there is another token.
    pub(super) async fn stop(&mut self, goodbye: Goodbye) -> Option<u8> {
        tracing::warn!(reason = %goodbye.reason, "the Manager stops this delegate: {}", goodbye.text);
        let killed = self.kill_tasks("the Manager stopped the delegate");
        self.lease = None;
        self.disconnect();
        // Some may be another token's, whose Manager does not know that they ran.
        remember(&mut self.erased, self.spool.erase());
        // On doubt nothing is reported: the receipt then rests on the end of the lease.
        if let (Some(receipt), Some(killed)) = (goodbye.receipt, killed) {
            self.report_stop(receipt, killed).await;
        }
        match self.config.on_revoked {
            OnRevoked::Exit => Some(exit::REFUSED),
            OnRevoked::Park => self.park().await,
        }
    }

    /// Ends because of a signal: what still runs is killed, and the Manager told if it listens.
    pub(super) async fn leave(&mut self) -> u8 {
        self.kill_tasks("the delegate was shut down");
        self.speak();
        let link = std::mem::replace(&mut self.link, Link::Off);
        let _ = tokio::time::timeout(FAREWELL, link.close("the delegate goes down")).await;
        exit::CLEAN
    }

    /// Tells the Manager once per revocation, in a last session that can do nothing else.
    async fn report_stop(&self, receipt: ReceiptId, tasks_killed: u32) {
        if self.state.read("stopped").is_some_and(|told| told == receipt.to_string()) {
            return;
        }
        let stopped = Stopped { receipt, tasks_killed };
        let mut backoff = Backoff::new(REPORT_WINDOW, Arc::new(SystemEntropy));
        for attempt in 0..REPORT_TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(backoff.wait(None).unsigned_abs())).await;
            }
            if tokio::time::timeout(REPORT_TIMEOUT, self.report_once(stopped)).await == Ok(true) {
                // Not noted, it is only reported again after the next start, which changes nothing.
                let _ = self.state.write("stopped", receipt.to_string().as_bytes());
                return;
            }
        }
        tracing::warn!("the Manager could not be told that everything has stopped");
    }

    async fn report_once(&self, stopped: Stopped) -> bool {
        let Ok(socket) = self.dialer.dial().await else { return false };
        let opening = Opening::Stopped(stopped);
        let end = DelegateEnd::new(&self.token, &self.identity, opening, SystemClock.boot(), &SystemEntropy);
        let mut connection = connect(socket, end);
        loop {
            match connection.next().await {
                // The Manager's answer: it has read the report.
                Ok(DelegateEvent::Goodbye(_)) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Stays without tasks until the token source holds another token, or a signal comes.
    async fn park(&mut self) -> Option<u8> {
        tracing::warn!("parked: put another token into the token file, or stop this process");
        self.status.parked.store(true, Relaxed);
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => return Some(exit::CLEAN),
                Some(()) = self.interrupt.recv() => return Some(exit::CLEAN),
                // Attempts that were killed still say that they are gone.
                Some((attempt, told)) = self.told.recv() => self.attempt(attempt, told),
                () = tokio::time::sleep(TOKEN_POLL) => {}
            }
            if self.config.token.read().is_ok_and(|token| token != self.token) {
                break;
            }
        }
        tracing::info!("another token is there: connecting");
        self.status.parked.store(false, Relaxed);
        self.link = Link::Due;
        None
    }
}
