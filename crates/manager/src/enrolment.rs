//! Whether a delegate key that nobody knows yet may join with a token.

use legation_model::{
    Millis,
    delegate::{Delegate, DelegateStatus},
    token::Enrolment,
};
use legation_store::{StoreError, Tx, delegates, job};
use legation_wire::{close::GoodbyeReason, message::Goodbye};

use crate::{
    Manager,
    audit::Actor,
    joins::{Join, Key, Table, change},
};

/// Keys that may wait for a person with one token: more than a person looks through, and few enough that whoever holds a
/// token cannot fill the database.
pub const PENDING_MAX: u64 = 64;
/// How long a key that is not heard any more waits: a week, so that a person may be away.
pub const PENDING_KEPT: Millis = 7 * 24 * 60 * 60 * 1000;
/// After how many milliseconds a key that waits may come again.
pub const COME_AGAIN: u64 = 15_000;
/// How often it is noted that a key which waits was heard: coming again must not cost a write each time.
const NOTED_EVERY: Millis = 60_000;

impl Manager {
    /// Decides about a key that was never let in; `None` lets it in.
    pub(crate) async fn enrol(
        &self,
        tx: &mut Tx,
        table: &mut Table,
        join: &Join,
        key: &Key,
        now: Millis,
    ) -> Result<Option<Goodbye>, StoreError> {
        let waiting = table.known.get(key).cloned();
        match join.rules.limits.enrolment {
            Enrolment::Open => Ok(None),
            Enrolment::Closed => {
                self.metrics.not_enrolled.inc();
                let delegate = self.delegate_of(join, None, now);
                let refused = change("delegate.join", &delegate).detail("the token takes no new delegates");
                self.note_refusal(Actor::system_for(join.address), refused);
                Ok(Some(come_again(
                    "the token takes no new delegate keys (its enrolment is closed): use another token, or have it opened",
                )))
            }
            Enrolment::Approval => {
                self.metrics.not_enrolled.inc();
                self.let_wait(tx, table, join, key, waiting, now).await.map(Some)
            }
        }
    }

    /// Notes a key that waits for a person, and tells it so.
    async fn let_wait(
        &self,
        tx: &mut Tx,
        table: &mut Table,
        join: &Join,
        key: &Key,
        waiting: Option<Delegate>,
        now: Millis,
    ) -> Result<Goodbye, StoreError> {
        let noted = waiting.as_ref().is_some_and(|waiting| now - waiting.last_seen < NOTED_EVERY);
        if waiting.is_none() {
            // Those that came before it in this transaction count as well.
            table.write(tx, now).await?;
            if delegates::count_pending(tx, join.live.id).await? >= PENDING_MAX {
                return Ok(come_again("as many delegates as may wait for approval already do; a person has to look"));
            }
        }
        let delegate = Delegate { status: DelegateStatus::Pending, ..self.delegate_of(join, waiting.clone(), now) };
        let text = format!("a person has to approve this delegate: `legation delegate approve {}`", delegate.id);
        if waiting.is_none() {
            tracing::info!(delegate = %delegate.id, name = %delegate.name, token = %join.live.id, "a delegate waits for approval");
            table.changes.push((Actor::system_for(join.address), change("delegate.wait", &delegate)));
        }
        if !noted {
            table.known.insert(key.clone(), delegate);
            table.changed.insert(key.clone());
        }
        Ok(come_again(&text))
    }

    /// Forgets keys that wait and have not been heard for long.
    pub(crate) async fn forget_pending(&self) {
        let since = self.clock.earliest() - PENDING_KEPT;
        let forget = job(move |tx| Box::pin(async move { delegates::forget_pending(tx, since).await }));
        match self.store.write(forget).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "delegates that waited for approval and do not come any more are forgotten")
            }
            Err(error) => tracing::debug!(%error, "pending delegates wait for the store"),
        }
    }

    /// Forgets delegates of ephemeral tokens whose leases have ended.
    pub(crate) async fn forget_ephemeral(&self) {
        for live in self.tokens.all().into_iter().filter(|live| live.rules().limits.ephemeral) {
            let token = live.id;
            let Ok(holders) = self.store.read(move |conn| Box::pin(delegates::holders(conn, token))).await else {
                return;
            };
            let (boot, wall) = (self.clock.boot(), self.clock.earliest());
            let lease = live.timing.lease_counted();
            let ended = |id| self.sessions.newest(id).is_none() && self.lease_ends(id, lease) < boot;
            let ended: Vec<_> = holders.into_iter().map(|holder| holder.id).filter(|id| ended(*id)).collect();
            if ended.is_empty() {
                continue;
            }
            // One that joined since this was read was seen since.
            let forget = job(move |tx| Box::pin(async move { delegates::forget(tx, &ended, wall - lease).await }));
            match self.store.write(forget).await {
                Ok(forgotten) => {
                    for delegate in forgotten {
                        tracing::info!(%delegate, %token, "the lease of an ephemeral delegate has ended; it is forgotten");
                    }
                }
                Err(error) => tracing::debug!(%error, "ephemeral delegates wait for the store"),
            }
        }
    }
}

fn come_again(text: &str) -> Goodbye {
    Goodbye { retry_after: Some(COME_AGAIN), ..Goodbye::new(GoodbyeReason::AwaitingApproval, text) }
}
