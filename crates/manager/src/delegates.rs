//! Delegates, as people see them, stop them and let them in; how they come in by themselves is in `admission.rs`.

use std::time::Duration;

use legation_model::{
    Scope, Text,
    delegate::{CloneReport, Delegate, DelegateStatus, Standing},
    ids::DelegateId,
    token::DelegateToken,
};
use legation_store::{
    Page, Paged, StoreError, attempts, clones,
    delegates::{self, DelegateFilter},
    job, tasks, tokens,
};
use serde_json::json;

use crate::{
    Manager,
    access::Caller,
    audit::{self, Change},
    error::Refusal,
    joins::stopped,
    lock::lock,
};

/// How long a stop waits for the session to be closed: longer than a last word may take.
const CLOSED_WAIT: Duration = Duration::from_secs(1);

/// A delegate that is stopped, or would be.
pub struct Stop {
    /// The delegate.
    pub delegate: Delegate,
    /// Attempts that are lost.
    pub lost: usize,
    /// The token that it last proved.
    pub token: DelegateToken,
}

impl Manager {
    /// One delegate.
    ///
    /// # Errors
    /// `not_found` for a delegate that the caller may not see.
    pub async fn delegate(&self, caller: &Caller, id: DelegateId) -> Result<Delegate, Refusal> {
        let found = self.store.read(move |conn| Box::pin(delegates::get(conn, id))).await?;
        let delegate = found.ok_or_else(|| Refusal::not_found("delegate"))?;
        caller.require_sight(&delegate.scope, "delegate")?;
        Ok(delegate)
    }

    /// What is known of two processes that used a delegate's key, if that ever happened.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn clone_of(&self, id: DelegateId) -> Result<Option<CloneReport>, Refusal> {
        Ok(self.store.read(move |conn| Box::pin(clones::get(conn, id))).await?)
    }

    /// What stopping a delegate would do.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn preview_stop(&self, caller: &Caller, id: DelegateId) -> Result<Stop, Refusal> {
        let delegate = self.delegate(caller, id).await?;
        let token = delegate.token;
        let look = job(move |conn| {
            Box::pin(async move {
                let token = tokens::get(conn, token).await?.ok_or(StoreError::NotFound)?;
                Ok((tasks::open_of_delegates(conn, &[id]).await?.len(), token))
            })
        });
        let (lost, token) = self.store.read(look).await?;
        Ok(Stop { delegate, lost, token })
    }

    /// Refuses a delegate's key from now on: when this returns its attempts are lost and its session is closed. Stopping
    /// again changes nothing.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn stop_delegate(&self, caller: &Caller, id: DelegateId, reason: Text) -> Result<Stop, Refusal> {
        self.delegate(caller, id).await?;
        let (actor, now, this) = (caller.actor(), self.clock.wall(), self.handle());
        let standing = Standing { reason: reason.to_string(), by: actor.name.clone(), at: now };
        let told = stopped(Some(&standing));
        let work = job(move |tx| {
            Box::pin(async move {
                let before = delegates::get(tx, id).await?.ok_or(StoreError::NotFound)?;
                let token = tokens::get(tx, before.token).await?.ok_or(StoreError::NotFound)?;
                if before.status == DelegateStatus::Stopped {
                    return Ok((Stop { delegate: before, lost: 0, token }, Vec::new(), None));
                }
                let open = tasks::open_of_delegates(tx, &[id]).await?;
                let ids: Vec<_> = open.iter().filter_map(|task| task.attempt.as_ref()).map(|held| held.id).collect();
                attempts::lose(tx, &ids, "delegate_stopped", now).await?;
                delegates::set_status(tx, id, DelegateStatus::Stopped, &standing).await?;
                let action = if before.status == DelegateStatus::Pending { "delegate.refuse" } else { "delegate.stop" };
                let after = Delegate { status: DelegateStatus::Stopped, standing: Some(standing), ..before.clone() };
                audit::append(tx, &actor, now, step(action, &before, &after).detail(reason.to_string())).await?;
                // In the order in which the store decides about connections of this delegate.
                let mark = this.next_admission();
                Ok((Stop { delegate: after, lost: ids.len(), token }, open, Some(mark)))
            })
        });
        let (stop, lost, mark) = self.store.write(work).await?;
        let session = self.sessions.newest(id);
        if let Some(mark) = mark {
            self.bar(id, mark, told);
            tracing::info!(delegate = %id, name = %stop.delegate.name, "a person stopped this delegate");
        }
        lost.iter().for_each(|task| self.announce(task.id));
        self.queue.nudge();
        if let Some(session) = session
            && tokio::time::timeout(CLOSED_WAIT, session.closed()).await.is_err()
        {
            tracing::warn!(delegate = %id, "the session of a stopped delegate takes its time to close");
        }
        Ok(stop)
    }

    /// Lets a delegate in that waits for approval, was stopped or is quarantined. One that is allowed stays so. With
    /// `dry_run`, only answers what it is now.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn allow_delegate(
        &self,
        caller: &Caller,
        id: DelegateId,
        reason: Text,
        dry_run: bool,
    ) -> Result<Delegate, Refusal> {
        let delegate = self.delegate(caller, id).await?;
        if dry_run || delegate.status == DelegateStatus::Allowed {
            return Ok(delegate);
        }
        let (actor, now) = (caller.actor(), self.clock.wall());
        let standing = Standing { reason: reason.to_string(), by: actor.name.clone(), at: now };
        let work = job(move |tx| {
            Box::pin(async move {
                let before = delegates::get(tx, id).await?.ok_or(StoreError::NotFound)?;
                if before.status == DelegateStatus::Allowed {
                    return Ok((before.clone(), before));
                }
                delegates::set_status(tx, id, DelegateStatus::Allowed, &standing).await?;
                // Whichever of its starts comes now is the real one.
                delegates::forget_boots(tx, id).await?;
                let action =
                    if before.status == DelegateStatus::Pending { "delegate.approve" } else { "delegate.allow" };
                let after = Delegate {
                    status: DelegateStatus::Allowed,
                    standing: Some(standing),
                    former_boots: Vec::new(),
                    ..before.clone()
                };
                audit::append(tx, &actor, now, step(action, &before, &after).detail(reason.to_string())).await?;
                Ok((before, after))
            })
        });
        let (before, after) = self.store.write(work).await?;
        let mut late = lock(&self.late_boots);
        late.retain(|boot| *boot != before.boot && !before.former_boots.contains(boot));
        drop(late);
        tracing::info!(delegate = %id, name = %after.name, before = %before.status, "a person allowed this delegate");
        Ok(after)
    }

    /// Delegates.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_delegates(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        filter: DelegateFilter,
        page: Page,
    ) -> Result<Paged<Delegate>, Refusal> {
        let within = caller.confine(scope)?;
        Ok(self
            .store
            .read(move |conn| Box::pin(async move { delegates::list(conn, &within, &filter, &page).await }))
            .await?)
    }
}

/// A change of a delegate's status, for the audit chain.
fn step(action: &'static str, before: &Delegate, after: &Delegate) -> Change {
    let shown = |delegate: &Delegate| json!({"status": delegate.status.as_str()});
    Change::new(action, after.id, after.scope.clone()).between(shown(before), shown(after))
}
