//! One delegate connection, from its handshake to its last word.
//!
//! The order of events here is the promise of a revocation: a stop overtakes everything, whatever is sent passes
//! the token's gate and holds it until the bytes are with the socket, and nothing a peer does or fails to do can
//! hold the gate for longer than it takes to notice the stop.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use legation_link::{Connection, Ended, Socket};
use legation_model::Millis;
use legation_wire::{
    Close, End as _, ManagerEnd, ManagerEvent, Proof, Role,
    message::{FromDelegate, Goodbye, Hello, Stopped, ToDelegate},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use legation_store::{StoreError, job};

use crate::{Manager, admission::Admission, backlog::Backlog, handshakes::Slot, live::retry, sessions::Session};

/// How long a peer may take to its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a Goodbye may take before the connection is cut without it.
pub const GOODBYE_DEADLINE: Duration = Duration::from_millis(250);
/// Pause before reports that the store did not take are recorded again.
const STORE_PAUSE: Duration = Duration::from_millis(250);

type Link = Connection<ManagerEnd>;
/// A task of its own: it holds the gate until its transaction is over, also when its session has ended by then.
type Recording = JoinHandle<Vec<ToDelegate>>;

/// What a proven peer opens with.
enum Opening {
    Hello(Box<Hello>),
    Stopped(Stopped),
}

impl Manager {
    /// Serves one upgraded connection until it ends.
    pub async fn serve_link<Io>(self: Arc<Self>, io: Io, peer: SocketAddr)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut socket = Socket::server(io);
        let Ok(Ok(first)) = tokio::time::timeout(FIRST_MESSAGE, socket.receive()).await else {
            self.metrics.unproven.inc();
            return;
        };
        let Some(slot) = self.handshakes.take(peer.ip()) else {
            self.metrics.shed.inc();
            return;
        };
        let end = ManagerEnd::new(
            Arc::clone(&self.keys.manager),
            Arc::clone(&self.tokens) as _,
            self.clock.boot(),
            &*self.entropy,
        );
        let clock = Arc::clone(&self.clock);
        let mut link = Connection::new(socket, end, move || clock.boot());
        match opening(&mut link, &first, self.clock.boot()).await {
            Ok((proof, _)) if proof.role != Role::Delegate => {
                say_goodbye(link, retry("this Manager does not serve upgraders")).await;
            }
            Ok((proof, Opening::Hello(hello))) => self.serve_delegate(link, &proof, *hello, peer, slot).await,
            Ok((proof, Opening::Stopped(stopped))) => self.serve_stopped(link, &proof, stopped).await,
            Err(ended) => {
                self.metrics.unproven.inc();
                tracing::debug!(%peer, %ended, "a connection ended before it proved a token");
                if let Ended::Protocol(close) = ended {
                    link.close(close.code(), close.as_str(), GOODBYE_DEADLINE).await;
                }
            }
        }
    }

    async fn serve_delegate(
        self: Arc<Self>,
        mut link: Link,
        proof: &Proof,
        hello: Hello,
        peer: SocketAddr,
        slot: Slot,
    ) {
        let admitted = self.admit(proof, hello, peer.ip()).await;
        drop(slot);
        let admission = match admitted {
            Ok(admission) => admission,
            Err(goodbye) => {
                self.metrics.refused.inc();
                tracing::info!(%peer, token = %proof.hint.token, reason = %goodbye.reason, "delegate refused");
                return say_goodbye(link, goodbye).await;
            }
        };
        let session = Arc::clone(&admission.session);
        let _closing = Closing { manager: Arc::clone(&self), session: Arc::clone(&session) };
        self.metrics.admitted.inc();
        tracing::info!(
            delegate = %session.delegate, name = %session.name, host = %session.host, %peer, token = %session.token.id,
            "delegate connected"
        );
        let goodbye = match self.run_session(&mut link, admission).await {
            Leave::Told(goodbye) => goodbye,
            Leave::Ended(ended) => {
                tracing::info!(delegate = %session.delegate, %ended, "delegate disconnected");
                None
            }
        };
        match goodbye {
            Some(goodbye) => say_goodbye(link, goodbye).await,
            None => drop(link),
        }
    }

    async fn run_session(self: &Arc<Self>, link: &mut Link, admission: Admission) -> Leave {
        let Admission { session, welcome, entered } = admission;
        let welcomed = send(link, &session, [ToDelegate::Welcome(welcome)]).await;
        drop(entered);
        if let Err(leave) = welcomed {
            return leave;
        }
        self.queue.nudge();
        let mut backlog = Backlog::default();
        let mut recording: Option<Recording> = None;
        loop {
            if let Err(leave) = self.deliver(link, &session).await {
                return leave;
            }
            if recording.is_none() && !backlog.is_empty() {
                let record = Arc::clone(self).record(Arc::clone(&session), backlog.take());
                recording = Some(self.connections.spawn(record));
            }
            if recording.is_none() && backlog.overflowed() {
                return Leave::Told(Some(retry("the Manager's database was behind; what it missed is repeated")));
            }
            tokio::select! {
                biased;
                goodbye = session.stopping() => return Leave::Told(goodbye.clone()),
                answers = recorded(&mut recording) => answers.into_iter().for_each(|answer| session.send(answer)),
                () = session.signalled() => {}
                event = link.next() => match event {
                    Ok(ManagerEvent::Message(message)) => {
                        if let Err(leave) = self.hear(link, &session, message, &mut backlog).await {
                            return leave;
                        }
                    }
                    Ok(_) => {}
                    Err(ended) => return Leave::Ended(ended),
                },
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
                send(link, session, [ToDelegate::HeartbeatAck { sent }]).await
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
        send(link, session, std::iter::once(first).chain(std::iter::from_fn(|| session.next_outgoing()))).await
    }

    /// Records reports until the store took them, the session is over, or the token ended. An effect of the
    /// session's token. Whatever is dropped here the delegate still has, and repeats at its next connect.
    async fn record(self: Arc<Self>, session: Arc<Session>, reports: Vec<FromDelegate>) -> Vec<ToDelegate> {
        while session.stopped().is_none() && session.token.gate.is_open() {
            if let Ok(_entered) = session.token.enter(&self.clock) {
                match self.record_reports(&session, &reports).await {
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
        say_goodbye(link, live.refusal()).await;
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

/// Hands messages to the socket, unless the session is told to stop meanwhile or the peer does not take them.
async fn send(link: &mut Link, session: &Session, messages: impl IntoIterator<Item = ToDelegate>) -> Result<(), Leave> {
    tokio::select! {
        biased;
        goodbye = session.stopping() => Err(Leave::Told(goodbye.clone())),
        sent = write(link, messages) => sent.map_err(Leave::Ended),
    }
}

async fn write(link: &mut Link, messages: impl IntoIterator<Item = ToDelegate>) -> Result<(), Ended> {
    for message in messages {
        if link.end_mut().send(&message).is_err() {
            // What waits has reached its bound; once it is with the socket there is room again.
            link.flush().await?;
            link.end_mut().send(&message).map_err(|_| Ended::Protocol(Close::TooLarge))?;
        }
    }
    link.flush().await
}

/// Says the last word under its deadline and closes.
async fn say_goodbye(mut link: Link, goodbye: Goodbye) {
    let (code, reason) = (goodbye.reason.code(), goodbye.reason.as_str());
    if link.end_mut().goodbye(goodbye).is_ok() {
        link.close(code, reason, GOODBYE_DEADLINE).await;
    }
}

/// Waits for a recording, or for ever when there is none.
async fn recorded(recording: &mut Option<Recording>) -> Vec<ToDelegate> {
    let Some(future) = recording else { return std::future::pending().await };
    let answers = future.await;
    *recording = None;
    // A recording that panicked has been reported; its reports are repeated at the next connect.
    answers.unwrap_or_default()
}
