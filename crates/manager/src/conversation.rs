//! What is said in an admitted session, from Welcome to the stop.
//!
//! The order of events here is the promise of a revocation: a stop overtakes everything, whatever is sent passes the
//! token's gate and holds it until the bytes are with the socket, and nothing a peer does or fails to do can hold the
//! gate for longer than it takes to notice the stop.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use legation_link::Ended;
use legation_model::Millis;
use legation_store::StoreError;
use legation_wire::{
    Close, ManagerEvent, SendError,
    message::{FromDelegate, Goodbye, ToDelegate, Welcome},
};
use tokio::task::JoinHandle;

use crate::{
    Manager,
    backlog::Backlog,
    gate::Entered,
    live::retry,
    recording::attempt_of,
    session::{Link, Session},
    sessions::Registered,
};

/// Pause before reports that the store did not take are recorded again.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// A task of its own: it holds the gate until its transaction is over, also when its session has ended by then.
type Recording = JoinHandle<Vec<ToDelegate>>;

/// Why a session is over.
pub(crate) enum Leave {
    /// It was told to stop, with this Goodbye if any; whoever told it may have said it and closed the link already.
    Told(Option<Arc<Goodbye>>),
    /// The link ended.
    Ended(Ended),
}

/// One session at work. It is polled by hand and not written as a sequence of awaits, because ten thousand of them
/// wait for the same four things all the time, and a future keeps room for all it ever awaited.
pub(crate) struct Conversation {
    manager: Arc<Manager>,
    session: Arc<Session>,
    /// The effect whose bytes are not with the socket yet.
    entered: Option<Entered>,
    backlog: Backlog,
    recording: Option<Recording>,
}

impl Conversation {
    /// Says Welcome; the rest happens when it is polled.
    pub(crate) fn open(registered: &Registered, mut link: Link, welcome: Welcome, entered: Entered) -> Self {
        let (manager, session) = (Arc::clone(&registered.manager), Arc::clone(&registered.session));
        let welcomed = link.end_mut().send(&ToDelegate::Welcome(welcome));
        session.attach(link);
        if welcomed.is_err() {
            session.stop(None);
        }
        manager.queue.nudge();
        Self { manager, session, entered: Some(entered), backlog: Backlog::default(), recording: None }
    }

    /// Goes on until the session is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Leave> {
        self.session.wake_on_signal(cx.waker());
        loop {
            if let Err(leave) = ready!(self.poll_step(cx)) {
                // Whoever revokes waits for this, and the last word is none of it.
                self.entered = None;
                return Poll::Ready(leave);
            }
        }
    }

    /// Does the most urgent thing that can be done.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Leave>> {
        if let Some(goodbye) = self.session.stopped() {
            return Poll::Ready(Err(Leave::Told(goodbye.clone())));
        }
        ready!(self.poll_written(cx))?;
        self.poll_recorded(cx);
        if self.deliver()? {
            return Poll::Ready(Ok(()));
        }
        match self.with_link(|link| link.poll_next(cx))? {
            Poll::Ready(Ok(event)) => Poll::Ready(self.hear(event)),
            Poll::Ready(Err(ended)) => Poll::Ready(Err(Leave::Ended(ended))),
            Poll::Pending => self.record_more(),
        }
    }

    /// Waits until all that was said is with the socket, and leaves the gate.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Leave>> {
        if self.entered.is_some() {
            ready!(self.with_link(|link| link.poll_flush(cx))?).map_err(Leave::Ended)?;
            self.entered = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recorded(&mut self, cx: &mut Context<'_>) {
        if let Some(under_way) = &mut self.recording
            && let Poll::Ready(answers) = Pin::new(under_way).poll(cx)
        {
            self.recording = None;
            // A recording that panicked has been reported; its reports are repeated at the next connect.
            answers.unwrap_or_default().into_iter().for_each(|answer| self.session.send(answer));
        }
    }

    /// Puts what others queued for the session into its link; whether there was anything. An effect of its token.
    fn deliver(&mut self) -> Result<bool, Leave> {
        if self.session.has_nothing_to_send() {
            return Ok(false);
        }
        // A closed gate means that the stop is on its way; with a clock in doubt it waits for the next heartbeat.
        let Ok(entered) = self.session.token.enter(&self.manager.clock) else { return Ok(false) };
        self.entered = Some(entered);
        let session = &self.session;
        match self.with_link(|link| session.hand_over(|message| link.end_mut().send(message)))? {
            // What is not taken now follows when the rest is with the socket.
            Ok(()) | Err(SendError::Full) => Ok(true),
            Err(SendError::TooLarge | SendError::NotOpen) => Err(Leave::Ended(Ended::Protocol(Close::TooLarge))),
        }
    }

    /// Takes one event in. A heartbeat is answered here and now; what must be durable waits in the backlog.
    fn hear(&mut self, event: ManagerEvent) -> Result<(), Leave> {
        match event {
            ManagerEvent::Message(FromDelegate::Heartbeat { sent, .. }) => self.answer_heartbeat(sent),
            ManagerEvent::Message(FromDelegate::Draining) => {
                self.session.draining.store(true, Ordering::Relaxed);
                Ok(())
            }
            ManagerEvent::Message(report) => {
                if let Some(took) = self.session.answered(attempt_of(&report)) {
                    self.manager.metrics.dispatch(took);
                }
                self.backlog.push(report);
                Ok(())
            }
            // The wire lets none of the others come again.
            _ => Ok(()),
        }
    }

    fn answer_heartbeat(&mut self, sent: u64) -> Result<(), Leave> {
        let Ok(entered) = self.session.token.enter(&self.manager.clock) else { return Ok(()) };
        self.entered = Some(entered);
        self.session.last_answered.store(self.manager.clock.boot(), Ordering::Relaxed);
        self.manager.metrics.heartbeats.inc();
        let expires_in = self.session.token.expires_in(self.manager.clock.wall()).map(Millis::unsigned_abs);
        let answered = self.with_link(|link| link.end_mut().send(&ToDelegate::HeartbeatAck { sent, expires_in }))?;
        answered.map_err(|_| Leave::Ended(Ended::Protocol(Close::TooLarge)))
    }

    /// Has reports recorded, once the peer has said all it has to say for now.
    fn record_more(&mut self) -> Poll<Result<(), Leave>> {
        if self.recording.is_some() || (self.backlog.is_empty() && !self.backlog.overflowed()) {
            return Poll::Pending;
        }
        if self.backlog.is_empty() {
            let goodbye = retry("the Manager's database was behind; what it missed is repeated");
            return Poll::Ready(Err(Leave::Told(Some(Arc::new(goodbye)))));
        }
        let record = Arc::clone(&self.manager).record(Arc::clone(&self.session), self.backlog.take().into());
        self.recording = Some(self.manager.connections.spawn(record));
        Poll::Ready(Ok(()))
    }

    fn with_link<T>(&self, act: impl FnOnce(&mut Link) -> T) -> Result<T, Leave> {
        self.session.with_link(act).ok_or(Leave::Told(None))
    }
}

impl Manager {
    /// Records reports until the store took them, the session is over, or the token ended. An effect of the
    /// session's token. Whatever is dropped here the delegate still has, and repeats at its next connect.
    async fn record(self: Arc<Self>, session: Arc<Session>, reports: Arc<[FromDelegate]>) -> Vec<ToDelegate> {
        while session.stopped().is_none() && session.token.gate.is_open() {
            if let Ok(_entered) = session.token.enter(&self.clock) {
                match self.record_reports(&session, Arc::clone(&reports)).await {
                    Ok(answers) => return answers,
                    Err(StoreError::Unavailable(error)) => {
                        tracing::warn!(%error, "reports cannot be stored; trying again")
                    }
                    Err(error) => {
                        tracing::warn!(delegate = %session.delegate, %error, "a delegate reports what cannot be; it is cut off");
                        session.stop(None);
                    }
                }
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
        Vec::new()
    }
}
