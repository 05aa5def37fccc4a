//! The end of many tokens at once: each as if it were alone, a few at the same time.

use futures_util::{StreamExt as _, stream};
use legation_api::revoke::{RevokedMany, RevokedOne};
use legation_model::{Millis, Scope, Text, receipt::Cause, token::DelegateToken};
use legation_store::{job, tokens};

use crate::{Manager, access::Caller, audit::Actor, error::Refusal};

/// Tokens that one call ends; whoever has more repeats the call.
pub const TOGETHER_MAX: u32 = 500;
/// Revocations under way at the same time: they share the writer, and each waits for its own sessions.
const AT_ONCE: usize = 8;

/// Which tokens are to end.
#[derive(Clone, Debug)]
pub struct Many {
    /// Of this scope and below.
    pub scope: Scope,
    /// Created before this wall-clock millisecond.
    pub created_before: Option<Millis>,
}

impl Manager {
    /// Which tokens a bulk revocation would end now.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see, `store_unavailable`.
    pub async fn preview_revoke_many(&self, caller: &Caller, many: Many) -> Result<RevokedMany, Refusal> {
        let (found, more) = self.not_ended(caller, many).await?;
        let connected = |token: &DelegateToken| self.connected(token.id).len() as u32;
        Ok(RevokedMany { tokens: found.iter().map(|token| one(token, connected(token))).collect(), more })
    }

    /// Revokes tokens. One that fails does not keep the others; the call is repeated for it.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see, `store_unavailable` while nobody can say which they are.
    pub async fn revoke_many(&self, caller: &Caller, many: Many, reason: Text) -> Result<RevokedMany, Refusal> {
        let (found, more) = self.not_ended(caller, many).await?;
        let reason = reason.to_string();
        let ends = found.into_iter().map(|token| self.end_one(caller.actor(), token, reason.clone()));
        Ok(RevokedMany { tokens: stream::iter(ends).buffered(AT_ONCE).collect().await, more })
    }

    async fn end_one(&self, actor: Actor, token: DelegateToken, reason: String) -> RevokedOne {
        match self.end_token(actor, token.id, Cause::Kill, reason).await {
            Ok(receipt) => {
                let cut = receipt.lines.iter().filter(|line| line.cut_at.is_some()).count() as u32;
                RevokedOne { receipt: Some(receipt.id), ..one(&token, cut) }
            }
            Err(refusal) => RevokedOne { problem: Some(*refusal.0), ..one(&token, 0) },
        }
    }

    /// The tokens that have not ended, oldest first, and whether there are more of them.
    async fn not_ended(&self, caller: &Caller, many: Many) -> Result<(Vec<DelegateToken>, bool), Refusal> {
        caller.require_sight(&many.scope, "scope")?;
        let find = job(move |conn| {
            Box::pin(async move { tokens::not_ended(conn, &many.scope, many.created_before, TOGETHER_MAX + 1).await })
        });
        let mut found = self.store.read(find).await?;
        let more = found.len() > TOGETHER_MAX as usize;
        found.truncate(TOGETHER_MAX as usize);
        Ok((found, more))
    }
}

fn one(token: &DelegateToken, connected: u32) -> RevokedOne {
    let (scope, name) = (token.scope.clone(), token.name.clone());
    RevokedOne { token: token.id, scope, name, connected, receipt: None, problem: None }
}
