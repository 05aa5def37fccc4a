//! Revocation: the order of events that keeps the promise.
//!
//! Durable first; then the gate closes and every session is told and closed by the thread that revokes; then the call
//! waits until the gate is empty and the last session is closed, and writes down who was cut and who may still hold a
//! lease. Only by then is that known: an effect that was inside may have let one more in. Expiry takes the same way.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use legation_api::Code;
use legation_model::{
    Millis, Text,
    ids::{BootId, DelegateId, ReceiptId, TokenId},
    receipt::{Cause, Receipt, ReceiptLine},
    task::Task,
    token::{DelegateToken, TokenStatus},
};
use legation_store::{StoreError, Tx, attempts, delegates, job, receipts, tasks, token_uses, tokens};
use legation_wire::message::ToDelegate;
use serde_json::json;

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor},
    error::Refusal,
    live::{LiveToken, reason_of},
    session::Session,
    tokens::change,
};

/// How long a revocation waits for the store before it cuts in memory. A store that is well takes milliseconds;
/// one that hangs must not keep open what a person wants closed.
const DURABLE_WAIT: Duration = Duration::from_secs(1);

/// Whose sessions a revocation has closed: which start of each, and when.
pub type Cuts = BTreeMap<DelegateId, (BootId, Millis)>;

/// How a token ends.
pub(crate) struct End {
    pub(crate) cause: Cause,
    pub(crate) reason: String,
    pub(crate) actor: Actor,
    pub(crate) receipt: ReceiptId,
    pub(crate) now: Millis,
}

/// What every end of a token writes, whoever ends it: lost attempts, status, the head of the receipt, audit record. The
/// lines of the receipt follow when it is known who was cut.
pub(crate) async fn end_in(tx: &mut Tx, token: &DelegateToken, end: End) -> Result<Receipt, StoreError> {
    let End { cause, reason, actor, receipt, now } = end;
    let lost = attempts::lose_of_token(tx, token.id, reason_of(cause).as_str(), now).await?;
    let receipt = Receipt {
        id: receipt,
        token: token.id,
        scope: token.scope.clone(),
        cause,
        reason: reason.clone(),
        actor: actor.name.clone(),
        revoked_at: now,
        completed_at: None,
        attempts_lost: lost.len() as u32,
        lines: Vec::new(),
        statements: Vec::new(),
    };
    tokens::revoke(tx, token.id, cause, now, &reason, receipt.id).await?;
    receipts::insert(tx, &receipt).await?;
    let change = change("token.revoke", token, reason).before(json!({"status": token.status.as_str()})).after(json!({
        "status": TokenStatus::Revoked.as_str(),
        "cause": cause.as_str(),
        "receipt": receipt.id,
        "attempts_lost": receipt.attempts_lost,
    }));
    audit::append(tx, &actor, now, change).await?;
    Ok(receipt)
}

impl Manager {
    /// Revokes a token: when this returns, no delegate of it is connected and nothing of it will happen again.
    ///
    /// Revoking again answers with the same receipt.
    ///
    /// # Errors
    /// `revoked_not_durable` when the sessions were cut but the store could not be written: repeat.
    pub async fn revoke_token(&self, caller: &Caller, id: TokenId, reason: Text) -> Result<Receipt, Refusal> {
        self.require_token_sight(caller, id).await?;
        self.end_token(caller.actor(), id, Cause::Kill, reason.to_string()).await
    }

    /// Ends a token for either cause; see `revoke_token`.
    pub(crate) async fn end_token(
        &self,
        actor: Actor,
        id: TokenId,
        cause: Cause,
        reason: String,
    ) -> Result<Receipt, Refusal> {
        let live = self.tokens.get(id);
        let held = match &live {
            Some(live) => Some(live.ending.lock().await),
            None => None,
        };
        let begun = self.clock.boot();
        let mut early = Vec::new();
        let mut stored = pin!(self.store_end(actor, id, cause, reason));
        let ended = match tokio::time::timeout(DURABLE_WAIT, stored.as_mut()).await {
            Ok(ended) => ended,
            Err(_late) => {
                early = live.as_ref().map(|live| self.cut_early(live)).unwrap_or_default();
                stored.await
            }
        };
        let (receipt, lost) = match ended {
            Ok(ended) => ended?,
            Err(error) => {
                let (cut, refusal) = self.cut_undurable(live.as_ref(), early, error).await;
                // The repeated call, or the sweep if the store had taken it after all, writes them down.
                if let Some(mut cuts) = held {
                    cuts.extend(cut);
                }
                return Err(refusal);
            }
        };
        // A first secret may be on its way here from its own transaction: it must find the end, not a way in.
        let timing = self.timings.of(&receipt.scope);
        let unknown = || LiveToken::without_keys(id, receipt.scope.clone(), timing);
        let live = &live.clone().unwrap_or_else(|| self.tokens.insert(unknown()));
        let mut cuts = match held {
            Some(held) => held,
            None => live.ending.lock().await,
        };
        // The sweep may have seen the end first, without knowing of a receipt.
        if live.receipt().is_none() {
            live.end(reason_of(receipt.cause), Some(receipt.id));
        }
        self.end_lost(&lost);
        let cut = self.cut_token(live, early, true).await;
        self.metrics.revoke_to_cut(self.clock.boot() - begun);
        self.queue.nudge();
        // Those of an earlier call whose receipt could not be written are not forgotten.
        cuts.extend(cut);
        let receipt = match self.complete_receipt(receipt.id, &cuts, "every session was seen closed").await {
            Ok(complete) => {
                cuts.clear();
                complete
            }
            Err(error) => {
                tracing::warn!(receipt = %receipt.id, %error, "the token is revoked and cut; the receipt is completed later");
                receipt
            }
        };
        tracing::info!(token = %id, receipt = %receipt.id, delegates = receipt.lines.len(), "token revoked");
        Ok(receipt)
    }

    /// The transaction of a revocation: status, lost attempts, the head of the receipt, audit record. A token that has
    /// ended keeps the receipt that it has.
    async fn store_end(
        &self,
        actor: Actor,
        id: TokenId,
        cause: Cause,
        reason: String,
    ) -> Result<Result<(Receipt, Vec<Task>), Refusal>, StoreError> {
        let now = self.clock.wall();
        let end = End { cause, reason, actor, receipt: ReceiptId::random(&*self.entropy), now };
        let connected = !self.connected(id).is_empty();
        let noted = self.token_uses.take_of(id);
        let written = noted.clone();
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
                if let Some(before) = token.receipt {
                    let receipt = receipts::get(tx, before).await?.ok_or(StoreError::NotFound)?;
                    return Ok(Ok((receipt, Vec::new())));
                }
                let open = tasks::open_of_token(tx, id).await?;
                if connected {
                    // The sweep notes this now and then, and never again after this.
                    tokens::touch_used(tx, &[(id, now)]).await?;
                }
                // Who used it is part of what is known at its end.
                token_uses::note(tx, &written).await?;
                Ok(Ok((end_in(tx, &token, end).await?, open)))
            })
        });
        let stored = self.store.write_first(work).await;
        if !matches!(stored, Ok(Ok(_))) {
            self.token_uses.keep(noted);
        }
        stored
    }

    /// Tells watchers of lost tasks, and delegates that run one although they are with another token by now.
    fn end_lost(&self, lost: &[Task]) {
        for task in lost {
            self.announce(task.id);
            let Some(attempt) = &task.attempt else { continue };
            if let Some(session) = self.sessions.newest(attempt.delegate) {
                session.send(ToDelegate::Cancel { attempt: attempt.id, grace: 0 });
            }
        }
    }

    /// Who is connected with a token now, as if all had been cut at this moment.
    pub(crate) fn connected(&self, token: TokenId) -> Cuts {
        let now = self.clock.wall();
        self.sessions.of_token(token).iter().map(|session| (session.delegate, (session.boot, now))).collect()
    }

    /// A line for every delegate of the token that was connected or may still hold a lease.
    pub(crate) fn lease_holders(
        &self,
        delegates: &[delegates::Holder],
        token: TokenId,
        connected: &Cuts,
    ) -> Vec<ReceiptLine> {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let lease = self.lease_counted(token);
        let lines = delegates.iter().map(|delegate| {
            let cut = connected.get(&delegate.id);
            ReceiptLine {
                delegate: delegate.id,
                boot: cut.map_or(delegate.boot, |(boot, _)| *boot),
                name: delegate.name.to_string(),
                connected: cut.is_some(),
                cut_at: cut.map(|(_, at)| *at),
                stopped_reported_at: None,
                tasks_killed: None,
                lease_ends_by: wall + (self.lease_ends(delegate.id, lease) - boot),
            }
        });
        lines.filter(|line| line.connected || line.lease_ends_by > wall).collect()
    }

    /// Refuses the token and cuts its sessions while the store has not answered. Nothing is said: the end is not
    /// durable yet, and a delegate that comes back hears of it once it is.
    fn cut_early(&self, live: &LiveToken) -> Vec<Arc<Session>> {
        tracing::warn!(token = %live.id, "the store takes its time; the revoked token is cut before it has answered");
        live.suspend();
        self.sessions.signal_token(live.id, None)
    }

    /// Stops every session of a token and waits until each is closed, and those that were stopped before; says when
    /// each was.
    async fn cut_token(&self, live: &Arc<LiveToken>, mut sessions: Vec<Arc<Session>>, say: bool) -> Cuts {
        sessions.extend(self.cut_sessions(live, say).await);
        live.gate.emptied().await;
        // An effect that was inside may have registered one more session; now that the gate is empty none can.
        sessions.extend(self.cut_sessions(live, say).await);
        // Of two sessions of one delegate the later one says which start it was.
        sessions.sort_by_key(|session| session.admission);
        let mut cuts = Cuts::new();
        for session in sessions {
            session.closed().await;
            cuts.insert(session.delegate, (session.boot, self.clock.wall()));
        }
        cuts
    }

    /// Tells every session of a token to stop; those to which something is to be said are closed with it, on a thread
    /// that does nothing else meanwhile.
    async fn cut_sessions(&self, live: &Arc<LiveToken>, say: bool) -> Vec<Arc<Session>> {
        if say {
            let (this, token, goodbye) = (self.handle(), live.id, Arc::new(live.refusal()));
            let cut = move || this.sessions.cut_token(token, &goodbye, &this.parted, this.clock.boot());
            if let Ok(sessions) = tokio::task::spawn_blocking(cut).await {
                return sessions;
            }
        }
        self.sessions.signal_token(live.id, say.then(|| live.refusal()))
    }

    /// The store could not take the revocation: cut all the same, say nothing that a restart would unsay.
    async fn cut_undurable(
        &self,
        live: Option<&Arc<LiveToken>>,
        early: Vec<Arc<Session>>,
        error: StoreError,
    ) -> (Cuts, Refusal) {
        tracing::error!(%error, "a revocation could not be made durable");
        let mut cuts = Cuts::new();
        if let Some(live) = live {
            live.suspend();
            cuts = self.cut_token(live, early, false).await;
        }
        let detail = "the token's delegates are cut off and refused, but the database could not be written, so a restart \
                      of the Manager would accept the token again: repeat the revoke until it succeeds";
        (cuts, Refusal::new(Code::RevokedNotDurable, detail))
    }
}
