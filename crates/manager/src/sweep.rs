//! The sweep: what is true in the store and by the clock becomes true of the live sessions.
//!
//! Each step is idempotent and takes no input, so that it may run at any time and repairs whatever a lost
//! notification, a crash or an error left behind. Notifications are only for speed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use legation_api::accounts::LEASE_MAX;
use legation_model::{
    Millis,
    ids::{DelegateId, TokenId},
    receipt::Cause,
    task::TaskState,
    token::TokenStatus,
};
use legation_store::{delegates, idempotency, job, keys, logins, receipts, standing, tasks, tokens, wraps};
use legation_wire::GoodbyeReason;

use crate::{
    Manager,
    audit::{Actor, Change, append_all},
    keys::MANAGER,
    live::LiveToken,
    lock::lock,
};

/// How often the quick steps run.
const EVERY: Duration = Duration::from_millis(250);
/// How many quick steps make a slow one: 5 s.
const SLOW_EVERY: u64 = 20;
/// How many quick steps make a rare one: an hour.
const RARE_EVERY: u64 = 4 * 60 * 60;
/// Heartbeats that may be missed before a session counts as gone.
const MISSED_MAX: Millis = 3;
/// How long an idempotency key is remembered: 24 h.
const IDEMPOTENCY_KEPT: Millis = 24 * 60 * 60 * 1000;
/// How long the key of an ended token is kept, so that its delegates can be told to stop: 90 days.
const ENDED_SECRETS_KEPT: Millis = 90 * 24 * 60 * 60 * 1000;
/// How long a console session that nobody uses is kept after it ended: longer than a use waits to be written down.
const ENDED_SESSIONS_KEPT: Millis = 60 * 60 * 1000;
/// Answers older than the longest lease are of no use to a receipt.
const ANSWERS_KEPT: Millis = LEASE_MAX + LEASE_MAX / 10;

/// The last answer of each delegate that was written, so that only changes are.
#[derive(Default)]
pub struct Seen(Mutex<HashMap<DelegateId, Millis>>);

impl Manager {
    /// Sweeps until the Manager stops.
    pub(crate) async fn sweep_loop(self: Arc<Self>) {
        let mut round = 0_u64;
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
            self.drop_silent();
            self.parted.let_go(self.clock.boot());
            self.expire_tokens().await;
            self.reject_overdue().await;
            self.sum_refusals_up().await;
            self.tell_audit_readers().await;
            if round.is_multiple_of(SLOW_EVERY) {
                self.sweep_slowly().await;
            }
            if round.is_multiple_of(RARE_EVERY) {
                self.forget_old().await;
            }
            round += 1;
        }
        self.note_seen().await;
    }

    async fn sweep_slowly(&self) {
        if self.clock.jumped() {
            tracing::error!(
                "the wall clock moved against the boot clock; expiring tokens are refused until it is set right, or until \
                 a restart if it is right now"
            );
        }
        self.compare_with_store().await;
        self.lose_fenced().await;
        self.note_seen().await;
        self.note_used_credentials().await;
        self.sweep_uses().await;
        self.complete_receipts().await;
        self.forget_ephemeral().await;
        self.warn_of_expiry().await;
        self.expire_wraps().await;
        self.checkpoint_when_due().await;
        self.sessions.forget_answers(self.clock.boot() - ANSWERS_KEPT);
    }

    /// Removes what is kept for a time only.
    pub async fn forget_old(&self) {
        self.forget_pending().await;
        let now = self.clock.earliest();
        let (answers, secrets) = (now - IDEMPOTENCY_KEPT, now - ENDED_SECRETS_KEPT);
        let idle = now - self.config.console.idle - ENDED_SESSIONS_KEPT;
        let forget = job(move |tx| {
            Box::pin(async move {
                idempotency::prune(tx, answers).await?;
                tokens::forget_secrets(tx, secrets).await?;
                logins::forget(tx, now, idle).await?;
                wraps::forget(tx, secrets).await?;
                let retired = keys::retire_unused(tx, MANAGER, now).await?;
                let change = |id: &String| (Actor::system(), Change::new("manager_key.retire", id, None));
                append_all(tx, now, retired.iter().map(change).collect()).await
            })
        });
        if let Err(error) = self.store.write(forget).await {
            tracing::debug!(%error, "old records wait for the store");
        }
        if let Err(error) = self.prune_audit().await {
            tracing::warn!(%error, "audit records that are old enough to be deleted wait for the store");
        }
    }

    /// Ends sessions whose delegates missed their heartbeats.
    fn drop_silent(&self) {
        let now = self.clock.boot();
        for session in self.sessions.all() {
            let heartbeat = session.token.timing.heartbeat();
            let oldest = now - heartbeat * MISSED_MAX - heartbeat / 2;
            if session.last_answered.load(Ordering::Relaxed) < oldest {
                session.stop(None);
            }
        }
    }

    /// Ends tokens whose time came, through the same path as a revocation.
    async fn expire_tokens(&self) {
        if self.clock.jumped() {
            return;
        }
        let now = self.clock.wall();
        for token in self.tokens.all() {
            if token.ends_at() <= now && !token.is_ended() {
                self.end_due(&token).await;
            }
        }
    }

    /// Ends a token whose time has come; the store need not be there to know why.
    async fn end_due(&self, token: &LiveToken) {
        let rules = token.rules();
        let (actor, reason) = match rules.schedule.as_ref().filter(|_| rules.cause != Cause::Expired) {
            Some(schedule) => (Actor { name: schedule.by.clone(), ..Actor::system() }, schedule.reason.clone()),
            None => (Actor::system(), "its time came".to_owned()),
        };
        if let Err(error) = self.end_token(actor, token.id, rules.cause, reason).await {
            tracing::error!(token = %token.id, %error, "a token whose time has come could not be recorded as ended");
        }
    }

    /// Rejects tasks that waited too long, saying what excluded whom.
    async fn reject_overdue(&self) {
        let now = self.clock.earliest();
        for task in self.queue.snapshot().into_iter().filter(|task| task.queue_deadline <= now) {
            let (id, why) = (task.id, format!("no delegate in time: {}", self.explain_waiting(&task)));
            let end = job(move |tx| {
                Box::pin(async move { tasks::end_unassigned(tx, id, TaskState::Rejected, &why, now).await })
            });
            if self.store.write(end).await.is_ok() {
                self.queue.remove(&task);
                self.announce(id);
            }
        }
    }

    /// Cuts every session whose token the store says has ended, whatever the memory believes.
    pub(crate) async fn compare_with_store(&self) {
        // The memory first: a token is stored before it is there, so one that is issued meanwhile is not mistaken
        // for one that the store does not know.
        let accepted: Vec<_> = self.tokens.all().into_iter().filter(|token| token.gate.is_open()).collect();
        let Ok(states) = self.store.read(|conn| Box::pin(tokens::states(conn))).await else { return };
        let stored: HashMap<TokenId, (TokenStatus, u64)> =
            states.into_iter().map(|(id, status, version)| (id, (status, version))).collect();
        for token in accepted {
            // A call that ends the token says so itself, with the receipt that its delegates report to.
            let Ok(_ending) = token.ending.try_lock() else { continue };
            if token.is_ended() {
                continue;
            }
            match stored.get(&token.id) {
                Some((TokenStatus::Active | TokenStatus::Draining, version)) => {
                    // A change whose call did not learn that it was stored.
                    if *version > token.rules().version {
                        self.follow_store(token.id).await;
                    }
                    continue;
                }
                Some((TokenStatus::Revoked, _)) => token.end(GoodbyeReason::TokenRevoked, None),
                Some((TokenStatus::Deleted, _)) => token.end(GoodbyeReason::TokenDeleted, None),
                // No life of a token leads here, so something else is wrong, and that is no verdict.
                Some((TokenStatus::Unissued, _)) | None => token.suspend(),
            }
            tracing::error!(
                token = %token.id, status = ?stored.get(&token.id),
                "the store does not accept this token any more; its sessions are cut"
            );
            self.sessions.signal_token(token.id, Some(token.refusal()));
        }
    }

    async fn follow_store(&self, id: TokenId) {
        if let Ok(Some(token)) = self.store.read(move |conn| Box::pin(tokens::get(conn, id))).await {
            self.follow(&token).await;
        }
    }

    /// Ends attempts that no delegate runs any more: its lease has run out, and a correct delegate has killed them
    /// by now, or it was started again.
    async fn lose_fenced(&self) {
        let Ok(open) = self.store.read(|conn| Box::pin(tasks::open_attempts(conn))).await else { return };
        let now = self.clock.boot();
        let fenced = open.iter().filter_map(|task| task.attempt.as_ref()).filter(|attempt| {
            if let Some(session) = self.sessions.newest(attempt.delegate) {
                return session.boot != attempt.boot;
            }
            self.lease_ends(attempt.delegate, self.lease_counted(attempt.token)) < now
        });
        self.lose_attempts(
            fenced.map(|attempt| attempt.id).collect(),
            "its delegate's lease ended, or it was restarted",
        )
        .await;
    }

    /// Writes who was seen since the last time, in one transaction.
    async fn note_seen(&self) {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        // What a heartbeat leaves in the store is an effect of its token like any other.
        let (mut seen, mut used, mut entered) = (Vec::new(), HashMap::new(), Vec::new());
        {
            let mut noted = lock(&self.seen.0);
            for session in self.sessions.all() {
                let answered = session.last_answered.load(Ordering::Relaxed);
                let Ok(inside) = session.token.enter(&self.clock) else { continue };
                if noted.insert(session.delegate, answered) != Some(answered) {
                    entered.push(inside);
                    seen.push((session.delegate, wall - (boot - answered)));
                    used.insert(session.token.id, wall);
                }
            }
            noted.retain(|delegate, _| self.sessions.newest(*delegate).is_some());
        }
        if seen.is_empty() {
            return;
        }
        let used: Vec<_> = used.into_iter().collect();
        let note = job(move |tx| {
            Box::pin(async move {
                delegates::touch_seen(tx, &seen).await?;
                tokens::touch_used(tx, &used).await
            })
        });
        if let Err(error) = self.store.write(note).await {
            tracing::debug!(%error, "last-seen times wait for the store");
        }
        drop(entered);
    }

    /// Writes which API keys and console sessions were used since the last time, in one transaction.
    async fn note_used_credentials(&self) {
        let used = self.vouched.used();
        if used.is_empty() {
            return;
        }
        let times = used.clone();
        let note = job(move |tx| Box::pin(async move { standing::touch_used(tx, &times).await }));
        match self.store.write(note).await {
            Ok(()) => self.vouched.written(&used),
            Err(error) => tracing::debug!(%error, "when API keys and sessions were last used waits for the store"),
        }
    }

    /// Completes receipts whose call did not live to do it, or could not: no session of their token is left.
    async fn complete_receipts(&self) {
        let Ok(open) = self.store.read(|conn| Box::pin(receipts::incomplete(conn))).await else { return };
        for (receipt, token) in open {
            let live = self.tokens.get(token);
            let Ok(mut ending) = live.as_ref().map(|live| live.ending.try_lock()).transpose() else {
                // A call is at it.
                continue;
            };
            if !self.sessions.of_token(token).is_empty() {
                continue;
            }
            let cuts = ending.as_deref_mut().map(std::mem::take).unwrap_or_default();
            let how = "found without any session by the sweep";
            if let Err(error) = self.complete_receipt(receipt, &cuts, how).await {
                tracing::debug!(%error, "a receipt waits for its completion");
                ending.into_iter().for_each(|mut ending| *ending = cuts.clone());
            }
        }
    }
}
