//! Revocations that come later: after draining, or at a set time. What happens then is an ordinary revocation.

use legation_api::{Code, Problem, tokens::Token};
use legation_model::{
    Millis, Text,
    ids::TokenId,
    token::{DelegateToken, Schedule, TokenStatus},
};
use legation_store::{StoreError, job, tokens};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor},
    error::Refusal,
    tokens::change,
};

impl Manager {
    /// Sets the time from which on a token is revoked, draining until then or not. Said again, it sets it anew.
    ///
    /// # Errors
    /// `not_found`, `token_ended`, `token_draining` where it drains and is not to any more, `clock_in_doubt`,
    /// `store_unavailable`.
    pub async fn schedule_revoke(
        &self,
        caller: &Caller,
        id: TokenId,
        at: Millis,
        drain: bool,
        reason: Text,
    ) -> Result<DelegateToken, Refusal> {
        self.token(caller, id).await?;
        self.trust_clock()?;
        let actor = caller.actor();
        let schedule = Schedule { at, by: actor.name.clone(), reason: reason.to_string() };
        let what = if drain { "token.drain" } else { "token.revoke_at" };
        self.store_schedule(actor, id, what, Some((schedule, drain))).await
    }

    /// Takes back the end that was set for a token.
    ///
    /// # Errors
    /// `not_found`, `token_ended`, `token_draining`, `store_unavailable`.
    pub async fn cancel_revoke(&self, caller: &Caller, id: TokenId) -> Result<DelegateToken, Refusal> {
        self.token(caller, id).await?;
        self.store_schedule(caller.actor(), id, "token.keep", None).await
    }

    /// The transaction of both, and what follows in memory: from then on no task and no new delegate for one that
    /// drains.
    async fn store_schedule(
        &self,
        actor: Actor,
        id: TokenId,
        what: &'static str,
        wanted: Option<(Schedule, bool)>,
    ) -> Result<DelegateToken, Refusal> {
        let now = self.clock.wall();
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
                let status = match scheduled(&token, wanted.as_ref().map(|(_, drain)| *drain), now) {
                    Ok(status) => status,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let schedule = wanted.as_ref().map(|(schedule, _)| schedule);
                if schedule.is_none() && token.schedule.is_none() {
                    return Ok(Ok(token));
                }
                tokens::schedule(tx, id, status, schedule).await?;
                let changed = tokens::get(tx, id).await?.ok_or(StoreError::NotFound)?;
                let record = change(what, &token, schedule.map_or("", |schedule| schedule.reason.as_str()));
                let record = record.between(Token::from(&token), Token::from(&changed));
                audit::append(tx, &actor, now, record).await?;
                Ok(Ok(changed))
            })
        });
        let token = self.store.write(work).await??;
        self.follow(&token).await;
        Ok(token)
    }

    /// Makes the stored rules of a token those of its live copy, and ends the sessions that they do not allow.
    pub(crate) async fn follow(&self, token: &DelegateToken) {
        let Some(live) = self.tokens.get(token.id) else { return };
        if !live.follow(token) {
            return;
        }
        let ended = self.enforce_rules(&live).await;
        if ended > 0 {
            tracing::info!(token = %token.id, ended, "sessions ended because their token's limits were changed");
        }
        self.queue.nudge();
    }

    /// Refuses what goes by the wall clock while that is in doubt.
    ///
    /// # Errors
    /// `clock_in_doubt`.
    pub(crate) fn trust_clock(&self) -> Result<(), Refusal> {
        if self.clock.jumped() {
            let detail =
                "the wall clock moved against the boot clock by more than a minute, and times are not to be trusted";
            return Err(Refusal::new(Code::ClockInDoubt, detail));
        }
        Ok(())
    }
}

/// The status of a token whose end is set, draining or not, or taken back.
fn scheduled(token: &DelegateToken, drain: Option<bool>, now: Millis) -> Result<TokenStatus, Refusal> {
    editable(token, now)?;
    match (token.status, drain) {
        (TokenStatus::Draining, Some(true)) => Ok(TokenStatus::Draining),
        (TokenStatus::Draining, _) => {
            let detail = format!("the token {} is draining, which cannot be taken back", token.name);
            Err(Refusal::new(Code::TokenDraining, detail))
        }
        (TokenStatus::Active, Some(true)) => Ok(TokenStatus::Draining),
        (TokenStatus::Unissued, Some(true)) => {
            let detail = format!("the token {} was never issued: there is nothing to drain", token.name);
            let fix = format!("run `legation token revoke {}`", token.id);
            Err(Problem::new(Code::TokenEnded, detail).with_fix(fix).into())
        }
        (status, _) => Ok(status),
    }
}

/// Whether anything about the token can still be changed.
///
/// # Errors
/// `not_found` for a deleted one, `token_ended` for one that is revoked or whose time has come.
pub(crate) fn editable(token: &DelegateToken, now: Millis) -> Result<(), Refusal> {
    match token.status {
        TokenStatus::Deleted => Err(Refusal::not_found("token")),
        TokenStatus::Revoked => Err(Refusal::new(Code::TokenEnded, format!("the token {} is revoked", token.name))),
        _ if token.ends_at().is_some_and(|end| end <= now) => {
            Err(Refusal::new(Code::TokenEnded, format!("the time of the token {} has come", token.name)))
        }
        _ => Ok(()),
    }
}
