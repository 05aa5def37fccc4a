//! One delegate connection: its handshake, its admission, and its last word. What is said between is in
//! `conversation.rs`.

use std::{future::poll_fn, sync::Arc, time::Duration};

use legation_link::{Connection, Ended, Socket};
use legation_model::Millis;
use legation_store::job;
use legation_wire::{
    Close, End as _, ManagerEnd, ManagerEvent, Opening, Proof, Role,
    message::{Goodbye, Hello, Stopped},
};

use crate::{
    Manager,
    admission::Admission,
    conversation::{Conversation, Leave},
    handshakes::Slot,
    live::retry,
    session::{Link, part},
    sessions::Registered,
    source::Source,
};

/// How long a peer may take to its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long the report of a stop waits for its receipt; less than the delegate waits for the answer.
const RECEIPT_WAIT: Duration = Duration::from_secs(2);

/// How long a last word may take where it is not said at once, before the connection is cut without it.
pub(crate) const GOODBYE_DEADLINE: Duration = Duration::from_millis(250);

impl Manager {
    /// Serves one upgraded connection until it ends.
    ///
    /// A future stays as large as it ever was, so what a session goes through once is on the heap while it lasts, and an
    /// admitted one goes on in a task of its own.
    pub async fn serve_link(self: Arc<Self>, socket: Socket, source: Source) {
        if let Some((link, admission)) = Box::pin(self.open_link(socket, source)).await {
            let Admission { registered, welcome, entered } = admission;
            let conversation = Conversation::open(&registered, link, welcome, entered);
            self.connections.spawn(serve_session(registered, conversation));
        }
    }

    /// From the first message to an admitted delegate; whoever is not admitted has been told why.
    async fn open_link(&self, mut socket: Socket, source: Source) -> Option<(Link, Admission)> {
        let Ok(Ok(first)) = tokio::time::timeout(FIRST_MESSAGE, socket.receive()).await else {
            self.metrics.unproven.inc();
            return None;
        };
        if !self.proofs.admit(source.address, self.clock.boot()) {
            self.metrics.slowed.inc();
            return None;
        }
        let Some(slot) = self.handshakes.take(source.address) else {
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
        let proven = prove(&mut link, &first, self.clock.boot()).await;
        if proven.is_ok() {
            self.proofs.proved(source.address, self.clock.boot());
        }
        match proven {
            Ok((proof, _)) if proof.role != Role::Delegate => {
                self.say_goodbye(link, &retry("this Manager does not serve upgraders")).await;
            }
            Ok((proof, Opening::Hello(hello))) => return self.admit_link(link, &proof, *hello, source, slot).await,
            Ok((proof, Opening::Stopped(stopped))) => self.serve_stopped(link, &proof, stopped).await,
            Err(ended) => {
                self.note_unproven(&source);
                tracing::debug!(source = %source.address, peer = %source.peer, %ended, "a connection ended before it proved a token");
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
        source: Source,
        slot: Slot,
    ) -> Option<(Link, Admission)> {
        if let Some(live) = self.tokens.get(proof.hint.token).filter(|live| live.rules().limits.canary) {
            drop(slot);
            self.spring(link, &live, proof, &hello, &source).await;
            return None;
        }
        let admitted = self.admit(proof, hello, source).await;
        drop(slot);
        let admission = match admitted {
            Ok(admission) => admission,
            Err(goodbye) => {
                self.metrics.refused.inc();
                tracing::info!(
                    source = %source.address, peer = %source.peer, token = %proof.hint.token, reason = %goodbye.reason,
                    "delegate refused: {}", goodbye.text
                );
                self.say_goodbye(link, &goodbye).await;
                return None;
            }
        };
        let session = &admission.registered.session;
        self.metrics.admitted.inc();
        tracing::info!(
            delegate = %session.delegate, name = %session.name, host = %session.host, source = %source.address,
            peer = %source.peer, token = %session.token.id,
            "delegate connected"
        );
        Some((link, admission))
    }

    /// Accepts the one frame that a revoked token may still send, and answers it with the refusal.
    async fn serve_stopped(&self, link: Link, proof: &Proof, stopped: Stopped) {
        let Some(live) = self.tokens.get(proof.hint.token) else { return };
        if live.receipt() == Some(stopped.receipt) {
            // The call that revoked is about to write the line to which this is added. While it takes long, the delegate
            // gives its place back and reports again.
            let Ok(written) = tokio::time::timeout(RECEIPT_WAIT, live.ending.lock()).await else { return };
            drop(written);
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
        self.say_goodbye(link, &live.refusal()).await;
    }

    /// Says the last word and closes: at once over plain TCP, under its deadline over anything else. The session is over
    /// then, also where the connection is kept for a moment so that the word arrives.
    pub(crate) async fn say_goodbye(&self, link: Link, goodbye: &Goodbye) {
        let (code, reason) = (goodbye.reason.code(), goodbye.reason.as_str());
        match part(link, goodbye) {
            Ok(last) => last.into_iter().for_each(|last| self.parted.keep(last, self.clock.boot())),
            Err(link) => link.close(code, reason, GOODBYE_DEADLINE).await,
        }
    }
}

/// Serves an admitted session until it is over, and says the last word unless that is done.
#[expect(clippy::manual_async_fn, reason = "an async function would keep its arguments twice")]
fn serve_session(registered: Registered, mut conversation: Conversation) -> impl Future<Output = ()> {
    async move {
        let leave = poll_fn(|cx| conversation.poll(cx)).await;
        if let Leave::Ended(ended) = &leave {
            tracing::info!(delegate = %registered.session.delegate, %ended, "delegate disconnected");
        }
        if let (Leave::Told(Some(goodbye)), Some(link)) = (leave, registered.session.detach()) {
            Box::pin(registered.manager.say_goodbye(link, &goodbye)).await;
        }
    }
}

/// Drives the handshake from its first message to the first frame.
async fn prove(link: &mut Link, first: &[u8], now: Millis) -> Result<(Proof, Opening), Ended> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the task of a session holds while it is idle.
    const TASK_MAX: usize = 192;

    /// Bytes of the future that a function returns, without calling it.
    fn future_of<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_session_stays_small() {
        let bytes = future_of(serve_session);
        println!("the task of a session    {bytes:>6} B, at most {TASK_MAX}");
        assert!(bytes <= TASK_MAX, "it grew to {bytes} B: ten thousand sessions pay for that; make it smaller");
    }
}
