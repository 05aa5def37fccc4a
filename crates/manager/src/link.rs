//! One delegate connection, from its handshake to its last word.
//!
//! The order of events here is the promise of a revocation: a stop overtakes everything, whatever is sent passes
//! the token's gate and holds it until the bytes are with the socket, and nothing a peer does or fails to do can
//! hold the gate for longer than it takes to notice the stop.

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use legation_link::{Connection, Ended, Socket};
use legation_model::Millis;
use legation_wire::{
    Close, End as _, ManagerEnd, ManagerEvent, Proof, Role,
    message::{FromDelegate, Goodbye, Hello, Stopped, ToDelegate},
};
use tokio::task::JoinHandle;

use legation_store::{StoreError, job};

use crate::{Manager, admission::Admission, backlog::Backlog, handshakes::Slot, live::retry, sessions::Session};

/// How long a peer may take to its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a Goodbye may take before the connection is cut without it.
pub const GOODBYE_DEADLINE: Duration = Duration::from_millis(250);
/// Pause before reports that the store did not take are recorded again.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// On the heap, because futures keep a place for whatever moves through them.
type Link = Box<Connection<ManagerEnd>>;
/// A task of its own: it holds the gate until its transaction is over, also when its session has ended by then.
type Recording = JoinHandle<Vec<ToDelegate>>;

/// What a proven peer opens with.
enum Opening {
    Hello(Box<Hello>),
    Stopped(Stopped),
}

impl Manager {
    /// Serves one upgraded connection until it ends.
    ///
    /// A future stays as large as it ever was, so the parts that a session goes through once are on the heap while
    /// they last: what remains is what an idle session costs.
    pub async fn serve_link(self: Arc<Self>, socket: Socket, peer: SocketAddr) {
        let Some((mut link, admission)) = Box::pin(self.open_link(socket, peer)).await else { return };
        let session = Arc::clone(&admission.session);
        let _closing = Closing { manager: Arc::clone(&self), session: Arc::clone(&session) };
        let goodbye = match self.run_session(&mut link, admission).await {
            Leave::Told(goodbye) => goodbye,
            Leave::Ended(ended) => {
                tracing::info!(delegate = %session.delegate, %ended, "delegate disconnected");
                None
            }
        };
        match goodbye {
            Some(goodbye) => Box::pin(self.say_goodbye(link, goodbye)).await,
            // Before it counts as closed.
            None => drop(link),
        }
    }

    /// From the first message to an admitted delegate; whoever is not admitted has been told why.
    async fn open_link(&self, mut socket: Socket, peer: SocketAddr) -> Option<(Link, Admission)> {
        let Ok(Ok(first)) = tokio::time::timeout(FIRST_MESSAGE, socket.receive()).await else {
            self.metrics.unproven.inc();
            return None;
        };
        let Some(slot) = self.handshakes.take(peer.ip()) else {
            self.metrics.shed.inc();
            return None;
        };
        let end = ManagerEnd::new(
            Arc::clone(&self.keys.manager),
            Arc::clone(&self.tokens) as _,
            self.clock.boot(),
            &*self.entropy,
        );
        let clock = Arc::clone(&self.clock);
        let mut link = Box::new(Connection::new(socket, end, move || clock.boot()));
        match opening(&mut link, &first, self.clock.boot()).await {
            Ok((proof, _)) if proof.role != Role::Delegate => {
                self.say_goodbye(link, retry("this Manager does not serve upgraders")).await;
            }
            Ok((proof, Opening::Hello(hello))) => return self.admit_link(link, &proof, *hello, peer, slot).await,
            Ok((proof, Opening::Stopped(stopped))) => self.serve_stopped(link, &proof, stopped).await,
            Err(ended) => {
                self.metrics.unproven.inc();
                tracing::debug!(%peer, %ended, "a connection ended before it proved a token");
                if let Ended::Protocol(close) = ended {
                    link.close(close.code(), close.as_str(), GOODBYE_DEADLINE).await;
                }
            }
        }
        None
    }

    async fn admit_link(
        &self,
        link: Link,
        proof: &Proof,
        hello: Hello,
        peer: SocketAddr,
        slot: Slot,
    ) -> Option<(Link, Admission)> {
        let admitted = self.admit(proof, hello, peer.ip()).await;
        drop(slot);
        let admission = match admitted {
            Ok(admission) => admission,
            Err(goodbye) => {
                self.metrics.refused.inc();
                tracing::info!(%peer, token = %proof.hint.token, reason = %goodbye.reason, "delegate refused");
                self.say_goodbye(link, goodbye).await;
                return None;
            }
        };
        let session = &admission.session;
        self.metrics.admitted.inc();
        tracing::info!(
            delegate = %session.delegate, name = %session.name, host = %session.host, %peer, token = %session.token.id,
            "delegate connected"
        );
        Some((link, admission))
    }

    async fn run_session(self: &Arc<Self>, link: &mut Link, admission: Admission) -> Leave {
        let session = match Box::pin(welcome(link, admission)).await {
            Ok(session) => session,
            Err(leave) => return leave,
        };
        self.queue.nudge();
        let mut backlog = Backlog::default();
        let mut recording: Option<Recording> = None;
        loop {
            if let Err(leave) = self.deliver(link, &session).await {
                return leave;
            }
            if recording.is_none() && !backlog.is_empty() {
                let record = Arc::clone(self).record(Arc::clone(&session), backlog.take().into());
                recording = Some(self.connections.spawn(record));
            }
            if recording.is_none() && backlog.overflowed() {
                return Leave::Told(Some(retry("the Manager's database was behind; what it missed is repeated")));
            }
            match step(link, &session, &mut recording).await {
                Step::Stopped(goodbye) => return Leave::Told(goodbye),
                Step::Recorded(answers) => answers.into_iter().for_each(|answer| session.send(answer)),
                Step::Heard(ManagerEvent::Message(message)) => {
                    if let Err(leave) = self.hear(link, &session, message, &mut backlog).await {
                        return leave;
                    }
                }
                Step::Signalled | Step::Heard(_) => {}
                Step::Ended(ended) => return Leave::Ended(ended),
            }
        }
    }

    /// Takes one message in. A heartbeat is answered here and now; what must be durable waits in the backlog.
    async fn hear(
        &self,
        link: &mut Link,
        session: &Session,
        message: FromDelegate,
        backlog: &mut Backlog,
    ) -> Result<(), Leave> {
        match message {
            FromDelegate::Heartbeat { sent, .. } => {
                let Ok(_entered) = session.token.enter(&self.clock) else { return Ok(()) };
                session.last_answered.store(self.clock.boot(), Ordering::Relaxed);
                self.metrics.heartbeats.inc();
                put(link, session, &ToDelegate::HeartbeatAck { sent }).await?;
                flush(link, session).await
            }
            FromDelegate::Draining => {
                session.draining.store(true, Ordering::Relaxed);
                Ok(())
            }
            report => {
                backlog.push(report);
                Ok(())
            }
        }
    }

    /// Sends what others queued for the session. An effect of its token.
    async fn deliver(&self, link: &mut Link, session: &Session) -> Result<(), Leave> {
        // A closed gate means that the stop is on its way; with a clock in doubt it waits for the next heartbeat.
        let Ok(_entered) = session.token.enter(&self.clock) else { return Ok(()) };
        let Some(first) = session.next_outgoing() else { return Ok(()) };
        // Rare beside heartbeats, and on the heap, so that an idle session has no room for it.
        Box::pin(async {
            put(link, session, &first).await?;
            while let Some(message) = session.next_outgoing() {
                put(link, session, &message).await?;
            }
            flush(link, session).await
        })
        .await
    }

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

    /// Accepts the one frame that a revoked token may still send, and answers it with the refusal.
    async fn serve_stopped(&self, link: Link, proof: &Proof, stopped: Stopped) {
        let Some(live) = self.tokens.get(proof.hint.token) else { return };
        if live.receipt() == Some(stopped.receipt) {
            let (scope, key) = (live.scope.clone(), proof.identity);
            let find =
                job(move |conn| Box::pin(async move { legation_store::delegates::by_key(conn, &scope, &key).await }));
            let recorded = match self.store.read(find).await {
                Ok(Some(delegate)) => self.record_stop(stopped.receipt, delegate.id, stopped.tasks_killed).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = recorded {
                // The Goodbye would say that the report was taken; without it the delegate reports again.
                tracing::warn!(token = %live.id, %error, "a delegate's report of its stop could not be stored");
                return;
            }
            tracing::info!(receipt = %stopped.receipt, tasks = stopped.tasks_killed, "a delegate reported its stop");
        }
        self.say_goodbye(link, live.refusal()).await;
    }

    /// Says the last word under its deadline and closes. The session is over then, also where the connection is kept
    /// for a moment so that the word arrives.
    async fn say_goodbye(&self, mut link: Link, goodbye: Goodbye) {
        let (code, reason) = (goodbye.reason.code(), goodbye.reason.as_str());
        if link.end_mut().goodbye(goodbye).is_ok()
            && let Some(parted) = link.part(code, reason, GOODBYE_DEADLINE).await
        {
            self.parted.keep(parted, self.clock.boot());
        }
    }
}

/// Takes a session off the books when its task is over, also by a panic: a revocation waits for that.
struct Closing {
    manager: Arc<Manager>,
    session: Arc<Session>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        // A recording that is still under way ends with its session.
        self.session.stop(None);
        self.manager.sessions.unregister(&self.session);
        self.session.mark_closed();
        self.manager.queue.nudge();
    }
}

/// Why a session is over.
enum Leave {
    /// It was told to stop, with this Goodbye if any.
    Told(Option<Goodbye>),
    /// The link ended.
    Ended(Ended),
}

/// Drives the handshake from its first message to the first frame.
async fn opening(link: &mut Link, first: &[u8], now: Millis) -> Result<(Proof, Opening), Ended> {
    link.end_mut().receive(first, now).map_err(Ended::Protocol)?;
    let mut proof = None;
    loop {
        match (link.next().await?, proof) {
            (ManagerEvent::Proven(proven), _) => proof = Some(proven),
            (ManagerEvent::Hello(hello), Some(proof)) => return Ok((proof, Opening::Hello(hello))),
            (ManagerEvent::Stopped(stopped), Some(proof)) => return Ok((proof, Opening::Stopped(stopped))),
            _ => return Err(Ended::Protocol(Close::OutOfPlace)),
        }
    }
}

/// Says Welcome, and leaves the gate that admission entered.
async fn welcome(link: &mut Link, admission: Admission) -> Result<Arc<Session>, Leave> {
    let Admission { session, welcome, entered } = admission;
    put(link, &session, &ToDelegate::Welcome(welcome)).await?;
    flush(link, &session).await?;
    drop(entered);
    Ok(session)
}

/// What a session waits for, the most urgent first.
enum Step {
    Stopped(Option<Goodbye>),
    Recorded(Vec<ToDelegate>),
    /// Something was queued for it.
    Signalled,
    Heard(ManagerEvent),
    Ended(Ended),
}

/// Waits for the next step. One waker serves all that may bring it.
async fn step(link: &mut Link, session: &Session, recording: &mut Option<Recording>) -> Step {
    let mut next = pin!(link.next());
    poll_fn(|cx| {
        session.wake_on_signal(cx.waker());
        if let Some(goodbye) = session.stopped() {
            return Poll::Ready(Step::Stopped(goodbye.clone()));
        }
        if let Some(under_way) = recording
            && let Poll::Ready(answers) = Pin::new(under_way).poll(cx)
        {
            *recording = None;
            // A recording that panicked has been reported; its reports are repeated at the next connect.
            return Poll::Ready(Step::Recorded(answers.unwrap_or_default()));
        }
        if session.take_signal() {
            return Poll::Ready(Step::Signalled);
        }
        next.as_mut().poll(cx).map(|event| event.map_or_else(Step::Ended, Step::Heard))
    })
    .await
}

/// Puts a message behind those that wait to be sent; while they are at their bound, hands them to the socket first.
async fn put(link: &mut Link, session: &Session, message: &ToDelegate) -> Result<(), Leave> {
    if link.end_mut().send(message).is_ok() {
        return Ok(());
    }
    Box::pin(flush(link, session)).await?;
    link.end_mut().send(message).map_err(|_| Leave::Ended(Ended::Protocol(Close::TooLarge)))
}

/// Hands what waits to the socket, unless the session is told to stop meanwhile or the peer does not take it.
async fn flush(link: &mut Link, session: &Session) -> Result<(), Leave> {
    let mut writing = pin!(link.flush());
    poll_fn(|cx| {
        session.wake_on_signal(cx.waker());
        match session.stopped() {
            Some(goodbye) => Poll::Ready(Err(Leave::Told(goodbye.clone()))),
            None => writing.as_mut().poll(cx).map_err(Leave::Ended),
        }
    })
    .await
}
