//! Revocation: the order of events that keeps the promise.
//!
//! Durable first; then the gate closes and every session is told to stop by a signal of its own; then the call
//! waits until the gate is empty and the last session is closed. Expiry takes the same way.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use legation_api::{
    Code,
    tokens::{RevokePreview, RevokePreviewLine},
};
use legation_model::{
    Millis, Text,
    ids::{BootId, DelegateId, ReceiptId, TokenId},
    receipt::{Cause, Receipt, ReceiptLine},
    task::Task,
    token::TokenStatus,
};
use legation_store::{StoreError, delegates, job, receipts, tasks, tokens};
use legation_wire::{close::GoodbyeReason, message::ToDelegate};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor},
    error::Refusal,
    live::LiveToken,
    receipts as statements,
    sessions::Session,
    tokens::change,
};

/// How long a revocation waits for the store before it cuts in memory. A store that is well takes milliseconds;
/// one that hangs must not keep open what a person wants closed.
const DURABLE_WAIT: Duration = Duration::from_secs(1);

/// Who was connected to a token when it was cut before its end was durable. The receipt counts them as connected.
type CutEarly = Arc<OnceLock<Vec<Arc<Session>>>>;

impl Manager {
    /// What revoking a token now would hit.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn preview_revoke(&self, caller: &Caller, id: TokenId) -> Result<RevokePreview, Refusal> {
        let token = self.token(caller, id).await?;
        let find = job(move |conn| {
            Box::pin(async move { Ok((tasks::open_of_token(conn, id).await?, delegates::holders(conn, id).await?)) })
        });
        let (open, delegates) = self.store.read(find).await?;
        let lines = self.lease_holders(&delegates, id, &[]).into_iter().filter_map(|line| {
            let delegate = delegates.iter().find(|delegate| delegate.id == line.delegate)?;
            let runs = |task: &&Task| task.attempt.as_ref().is_some_and(|attempt| attempt.delegate == delegate.id);
            Some(RevokePreviewLine {
                delegate: delegate.id,
                name: delegate.name.clone(),
                host: delegate.host.clone(),
                connected: line.connected,
                tasks_running: open.iter().filter(runs).count() as u32,
            })
        });
        Ok(RevokePreview { delegates: lines.collect(), attempts_lost: open.len() as u32, token: (&token).into() })
    }

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
        let _one_at_a_time = match &live {
            Some(live) => Some(live.ending.lock().await),
            None => None,
        };
        let begun = self.clock.boot();
        let early = CutEarly::default();
        let mut stored = pin!(self.store_end(actor, id, cause, reason, Arc::clone(&early)));
        let ended = match tokio::time::timeout(DURABLE_WAIT, stored.as_mut()).await {
            Ok(ended) => ended,
            Err(_late) => {
                if let Some(live) = &live {
                    self.cut_early(live, &early);
                }
                stored.await
            }
        };
        let (receipt, lost) = match ended {
            Ok(ended) => ended?,
            Err(error) => return Err(self.cut_undurable(live.as_ref(), error).await),
        };
        // A first secret may be on its way here from its own transaction: it must find the end, not a way in.
        let unknown = || LiveToken::without_keys(id, receipt.scope.clone(), self.config.timing);
        let live = &live.clone().unwrap_or_else(|| self.tokens.insert(unknown()));
        if !live.is_ended() {
            let reason = match receipt.cause {
                Cause::Kill => GoodbyeReason::TokenRevoked,
                Cause::Expired => GoodbyeReason::TokenExpired,
            };
            live.end(reason, Some(receipt.id));
        }
        self.end_lost(&lost);
        let cut = self.cut_token(live, early.get().map_or(&[], Vec::as_slice), true).await;
        self.metrics.revoke_to_cut(self.clock.boot() - begun);
        if receipt.completed_at.is_none()
            && let Err(error) = self.complete_receipt(receipt.id, cut, "every session was seen closed").await
        {
            tracing::warn!(receipt = %receipt.id, %error, "the token is revoked and cut; the receipt will be completed later");
        }
        tracing::info!(token = %id, receipt = %receipt.id, delegates = receipt.lines.len(), "token revoked");
        self.queue.nudge();
        self.stored_receipt(receipt.id).await.or(Ok(receipt))
    }

    /// The transaction of a revocation: status, lost attempts, receipt, audit record. A token that has ended
    /// keeps the receipt that it has.
    async fn store_end(
        &self,
        actor: Actor,
        id: TokenId,
        cause: Cause,
        reason: String,
        early: CutEarly,
    ) -> Result<Result<(Receipt, Vec<Task>), Refusal>, StoreError> {
        let this = self.handle();
        let now = self.clock.wall();
        let receipt_id = ReceiptId::random(&*self.entropy);
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
                if let Some(before) = token.receipt {
                    let receipt = receipts::get(tx, before).await?.ok_or(StoreError::NotFound)?;
                    return Ok(Ok((receipt, Vec::new())));
                }
                let open = tasks::open_of_token(tx, id).await?;
                let lost = tasks::lose_of_token(tx, id, cause_word(cause), now).await?;
                let holders = delegates::holders(tx, id).await?;
                let mut receipt = Receipt {
                    id: receipt_id,
                    token: id,
                    scope: token.scope.clone(),
                    cause,
                    reason: reason.clone(),
                    actor: actor.name.clone(),
                    revoked_at: now,
                    completed_at: None,
                    attempts_lost: lost.len() as u32,
                    lines: this.lease_holders(&holders, id, early.get().map_or(&[], Vec::as_slice)),
                    statements: Vec::new(),
                };
                let statement = this.keys.state(None, receipt_id, statements::opening(&receipt));
                receipt.statements.push(statement);
                if receipt.lines.iter().any(|line| line.connected) {
                    // The sweep notes this now and then, and never again after this.
                    tokens::touch_used(tx, &[(id, now)]).await?;
                }
                tokens::revoke(tx, id, TokenStatus::Revoked, now, &reason, receipt_id).await?;
                receipts::insert(tx, &receipt).await?;
                let detail = format!("{} receipt {receipt_id}: {reason}", cause.as_str());
                audit::append(tx, &actor, now, change("token.revoke", &token, detail)).await?;
                Ok(Ok((receipt, open)))
            })
        });
        self.store.write_first(work).await
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

    /// A line for every delegate of the token that is connected, was until it was cut early, or may still hold a
    /// lease.
    fn lease_holders(
        &self,
        delegates: &[delegates::Holder],
        token: TokenId,
        early: &[Arc<Session>],
    ) -> Vec<ReceiptLine> {
        let live = self.sessions.of_token(token);
        let connected: BTreeMap<DelegateId, BootId> =
            early.iter().chain(&live).map(|session| (session.delegate, session.boot)).collect();
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let timing = self.tokens.get(token).map_or(self.config.timing, |live| live.timing);
        let lines = delegates.iter().map(|delegate| {
            let ends = self.lease_ends(delegate.id, &timing);
            ReceiptLine {
                delegate: delegate.id,
                boot: connected.get(&delegate.id).copied().unwrap_or(delegate.boot),
                name: delegate.name.to_string(),
                connected: connected.contains_key(&delegate.id),
                cut_at: None,
                stopped_reported_at: None,
                tasks_killed: None,
                lease_ends_by: wall + (ends - boot),
            }
        });
        lines.filter(|line| line.connected || line.lease_ends_by > wall).collect()
    }

    /// Refuses the token and cuts its sessions while the store has not answered. Nothing is said: the end is not
    /// durable yet, and a delegate that comes back hears of it once it is.
    fn cut_early(&self, live: &LiveToken, early: &CutEarly) {
        tracing::warn!(token = %live.id, "the store takes its time; the revoked token is cut before it has answered");
        live.suspend();
        early.get_or_init(|| self.sessions.signal_token(live.id, None));
    }

    /// Stops every session of a token and waits until each is closed, and those that were stopped `early`; says
    /// when each was.
    async fn cut_token(&self, live: &Arc<LiveToken>, early: &[Arc<Session>], say: bool) -> Vec<(DelegateId, Millis)> {
        let goodbye = say.then(|| live.refusal());
        let mut sessions = early.to_vec();
        sessions.extend(self.sessions.signal_token(live.id, goodbye.as_ref()));
        live.gate.emptied().await;
        // An effect that was inside may have registered one more session; now that the gate is empty none can.
        sessions.extend(self.sessions.signal_token(live.id, goodbye.as_ref()));
        let mut cut = BTreeMap::new();
        for session in sessions {
            session.closed().await;
            cut.entry(session.delegate).or_insert_with(|| self.clock.wall());
        }
        cut.into_iter().collect()
    }

    /// The store could not take the revocation: cut all the same, say nothing that a restart would unsay.
    async fn cut_undurable(&self, live: Option<&Arc<LiveToken>>, error: StoreError) -> Refusal {
        tracing::error!(%error, "a revocation could not be made durable");
        if let Some(live) = live {
            live.suspend();
            self.cut_token(live, &[], false).await;
        }
        let detail = "the token's delegates are cut off and refused, but the database could not be written, so a restart \
                      of the Manager would accept the token again: repeat the revoke until it succeeds";
        Refusal::new(Code::RevokedNotDurable, detail)
    }
}

/// The reason that a lost attempt shows.
const fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Kill => "token_revoked",
        Cause::Expired => "token_expired",
    }
}
