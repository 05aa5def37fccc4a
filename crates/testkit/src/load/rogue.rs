//! Delegates that do not take an end for an answer.
//!
//! They work as fast as they can. When their token is revoked, one half of them comes back at once and again, and the
//! other half has stopped listening by then and goes on reporting into a connection of which it does not know that it
//! is over.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use legation_link::Connection;
use legation_manager::system::{SystemClock, SystemEntropy};
use legation_model::{Clock as _, Name, ids::AttemptId, token::Token};
use legation_wire::{
    DelegateEnd, DelegateEvent, GoodbyeReason, KeyPair, Opening,
    message::{Assignment, FromDelegate, Hello, Stream, ToDelegate},
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
};

use super::{dial::Route, fleet::hello, work::Work};

/// Pieces of output of a task that ends.
const CHUNKS: u64 = 4;
/// Bytes of one.
const CHUNK: usize = 64;
/// Between the reports of one that does not listen; its messages would fill the Manager's buffers before the end.
const DEFIANCE: Duration = Duration::from_millis(1);

/// Where a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// All is well.
    Working,
    /// The revoke has been called.
    Revoking,
    /// It has returned.
    Returned,
    /// Whoever still tries should come to an end.
    Late,
}

/// What all rogues of a run do after the end of their tokens.
#[derive(Default)]
pub(super) struct Tried {
    /// Refused with the authenticated word that their token is revoked.
    pub(super) refused: AtomicU64,
    /// Let in with a revoked token.
    pub(super) admitted: AtomicU64,
    /// Reports written after a revoke had returned.
    pub(super) defied: AtomicU64,
}

/// What the rogues of one token share.
pub(super) struct Camp {
    pub(super) route: Arc<Route>,
    pub(super) token: Token,
    pub(super) tag: Name,
    pub(super) work: Work,
    pub(super) tried: Arc<Tried>,
    /// One permit for each rogue that has work.
    pub(super) busy: Semaphore,
    pub(super) stage: watch::Receiver<Stage>,
}

impl Camp {
    /// Waits for a stage.
    pub(super) async fn reached(&self, stage: Stage) -> anyhow::Result<()> {
        self.stage.clone().wait_for(|now| *now >= stage).await.map(drop).context("the round was given up")
    }

    fn is(&self, stage: Stage) -> bool {
        *self.stage.borrow() >= stage
    }
}

/// One of them, with a session.
pub(super) struct Rogue {
    camp: Arc<Camp>,
    number: usize,
    identity: KeyPair,
    hello: Hello,
    link: Connection<DelegateEnd>,
    /// The attempt that never ends, and how much output it has had.
    endless: Option<(AttemptId, u64)>,
    /// The connection under the session, which stays open on this side as long as this is kept.
    pub(super) socket: OwnedFd,
}

impl Rogue {
    /// Connects and is let in.
    pub(super) async fn join(camp: Arc<Camp>, number: usize) -> anyhow::Result<Self> {
        let identity = KeyPair::generate(&SystemEntropy);
        let hello = Hello { counter: 1, ..hello(number, &camp.tag) };
        let stream = camp.route.connect(number).await?;
        let socket = stream.as_fd().try_clone_to_owned()?;
        let mut link = open(&camp, stream, &identity, &hello).await?;
        match first_word(&mut link).await? {
            DelegateEvent::Welcome(_) => Ok(Self { camp, number, identity, hello, link, endless: None, socket }),
            other => bail!("a delegate was not let in: {other:?}"),
        }
    }

    /// Works until its token is revoked, and does not put up with it.
    pub(super) async fn live(mut self) -> anyhow::Result<()> {
        let camp = Arc::clone(&self.camp);
        if self.number.is_multiple_of(2) {
            tokio::select! {
                over = self.work() => over?,
                // Nobody has ended its session, which has been counted by now.
                late = camp.reached(Stage::Late) => late?,
            }
            self.come_back().await?;
        } else {
            tokio::select! {
                over = self.work() => over?,
                revoking = camp.reached(Stage::Revoking) => revoking?,
            }
            self.defy().await?;
        }
        camp.reached(Stage::Returned).await?;
        self.come_back().await
    }

    /// Answers assignments until the session ends, which it must not before the revoke.
    async fn work(&mut self) -> anyhow::Result<()> {
        loop {
            match self.link.next().await {
                Ok(DelegateEvent::Message(ToDelegate::Assign(assignment))) => self.take(&assignment).await?,
                Ok(DelegateEvent::Message(ToDelegate::OutputAck { attempt, offset })) => {
                    self.go_on(attempt, offset).await?;
                }
                Ok(DelegateEvent::Message(ToDelegate::FinishedAck { attempt })) => self.camp.work.acknowledged(attempt),
                Ok(DelegateEvent::Goodbye(_)) => return Ok(()),
                Ok(_) => {}
                Err(_) if self.camp.is(Stage::Revoking) => return Ok(()),
                Err(ended) => bail!("a session ended before its revoke: {ended}"),
            }
        }
    }

    /// The first task is one that never ends; of every other all is said at once.
    async fn take(&mut self, assignment: &Assignment) -> anyhow::Result<()> {
        let [started, finished] = self.camp.work.assigned(assignment);
        let attempt = assignment.attempt;
        self.say(&started).await?;
        if self.endless.is_none() {
            self.endless = Some((attempt, 0));
            self.camp.busy.add_permits(1);
            self.say(&output(attempt, 0)).await?;
        } else {
            for chunk in 0..CHUNKS {
                self.say(&output(attempt, chunk * CHUNK as u64)).await?;
            }
            self.say(&finished).await?;
        }
        self.flush().await
    }

    /// More output of the endless task when the last has been stored, so that there is always some on its way.
    async fn go_on(&mut self, attempt: AttemptId, offset: u64) -> anyhow::Result<()> {
        if let Some((endless, begins)) = &mut self.endless
            && *endless == attempt
        {
            *begins = offset;
            self.say(&output(attempt, offset)).await?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Reports and hears nothing, until the connection breaks or it gets late.
    async fn defy(&mut self) -> anyhow::Result<()> {
        while !self.camp.is(Stage::Late) {
            if self.insist().await.is_err() {
                break;
            }
            if self.camp.is(Stage::Returned) {
                self.camp.tried.defied.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(DEFIANCE).await;
        }
        self.camp.reached(Stage::Late).await
    }

    async fn insist(&mut self) -> anyhow::Result<()> {
        if let Some((attempt, begins)) = &mut self.endless {
            let report = output(*attempt, *begins);
            *begins += CHUNK as u64;
            self.say(&report).await?;
        }
        tokio::time::timeout(DEFIANCE, self.flush()).await?
    }

    /// Connects as the process that it is. Once the revoke has returned there is one right answer.
    async fn come_back(&mut self) -> anyhow::Result<()> {
        let returned = self.camp.is(Stage::Returned);
        self.hello.counter += 1;
        let stream = self.camp.route.connect(self.number).await?;
        let mut link = open(&self.camp, stream, &self.identity, &self.hello).await?;
        match first_word(&mut link).await? {
            DelegateEvent::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::TokenRevoked => {
                self.camp.tried.refused.fetch_add(1, Ordering::Relaxed);
            }
            DelegateEvent::Goodbye(_) if !returned => {}
            DelegateEvent::Welcome(_) => {
                self.camp.tried.admitted.fetch_add(1, Ordering::Relaxed);
            }
            other => bail!("a revoked delegate was told {other:?}"),
        }
        Ok(())
    }

    async fn say(&mut self, report: &FromDelegate) -> anyhow::Result<()> {
        if self.link.end_mut().send(report).is_err() {
            // No room for more until some are with the socket.
            self.flush().await?;
            self.link.end_mut().send(report).context("a report that the session does not take")?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        match self.link.flush().await {
            Err(ended) if !self.camp.is(Stage::Revoking) => bail!("a session ended before its revoke: {ended}"),
            _ => Ok(()),
        }
    }
}

async fn open(
    camp: &Camp,
    stream: TcpStream,
    identity: &KeyPair,
    hello: &Hello,
) -> anyhow::Result<Connection<DelegateEnd>> {
    let socket = camp.route.upgrade(stream).await?;
    let opening = Opening::Hello(Box::new(hello.clone()));
    let end = DelegateEnd::new(&camp.token, identity, opening, SystemClock.boot(), &SystemEntropy);
    Ok(Connection::new(socket, end, || SystemClock.boot()))
}

/// What the Manager says to a Hello.
async fn first_word(link: &mut Connection<DelegateEnd>) -> anyhow::Result<DelegateEvent> {
    loop {
        let event = link.next().await.map_err(|ended| anyhow::anyhow!("no answer to a Hello: {ended}"))?;
        if matches!(event, DelegateEvent::Welcome(_) | DelegateEvent::Goodbye(_)) {
            return Ok(event);
        }
    }
}

fn output(attempt: AttemptId, offset: u64) -> FromDelegate {
    FromDelegate::Output { attempt, offset, stream: Stream::Stdout, bytes: vec![b'.'; CHUNK] }
}
