//! Delegate tokens: create, issue, list, delete. Their end has a file of its own.

use legation_api::{Code, Problem, token_update::UpdateToken, tokens::Token as ApiToken};
use legation_model::{
    Millis, Name, Scope, Secret, Text,
    ids::TokenId,
    secret::SecretText,
    token::{DEFAULT_TOKEN, DelegateToken, Token, TokenLimits, TokenStatus},
    wrap::{Wrap, WrapCode},
};
use legation_store::{
    StoreError, job,
    tokens::{self, TokenFilter},
    wraps::{self, NewWrap},
};
use legation_wire::{close::GoodbyeReason, psk};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor, Change},
    creations::Creation,
    error::Refusal,
    idempotency::{Idempotency, Made},
    schedule::editable,
    wraps::created,
};

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Where it belongs.
    pub scope: Scope,
    /// Unique among the scope's tokens that are not deleted.
    pub name: Name,
    /// Free text.
    pub description: Text,
    /// Restrictions.
    pub limits: TokenLimits,
    /// Make its first secret at once.
    pub issue: bool,
    /// Put its value under a one-time code that opens for so many milliseconds.
    pub wrap: Option<Millis>,
}

/// A token, and its value if it is shown this once.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: DelegateToken,
    /// Present only in the answer to the call that made it.
    pub value: Option<SecretText>,
    /// The one-time code that it is under, in the same answer, where one was asked for.
    pub wrapped: Option<(WrapCode, Wrap)>,
}

/// A secret that was drawn but is not stored yet.
struct Draft {
    value: Token,
    key: Secret<32>,
    sealed: Vec<u8>,
    wrapped: Option<(WrapCode, NewWrap)>,
}

impl Draft {
    /// What the store keeps of its one-time code.
    fn wrap(&self) -> Option<NewWrap> {
        self.wrapped.as_ref().map(|(_, new)| new.clone())
    }
}

impl Manager {
    /// Creates a token.
    ///
    /// # Errors
    /// `name_taken`, `not_found` for an unknown scope, `invalid_request`, `clock_in_doubt` for a one-time code,
    /// `store_unavailable`.
    pub async fn create_token(
        &self,
        caller: &Caller,
        new: NewToken,
        once: Option<Idempotency>,
    ) -> Result<Issued, Refusal> {
        caller.require_sight(&new.scope, "scope")?;
        let now = self.clock.wall();
        let id = TokenId::random(&*self.entropy);
        let draft = new.issue.then(|| self.draft(id, 1, caller, new.wrap)).transpose()?;
        let unissued = DelegateToken::unissued(id, new.scope, new.name, now, caller.actor().name);
        let token = DelegateToken { description: new.description, limits: new.limits, ..unissued };
        let sealed = draft.as_ref().map(|draft| draft.sealed.clone());
        let wrap = draft.as_ref().and_then(Draft::wrap);
        let token = match self.creations.ask(Creation { actor: caller.actor(), token, sealed, wrap, once }).await?? {
            Made::Fresh(made) => made,
            Made::Replayed(id) => return self.shown_before(id).await,
        };
        Ok(match draft {
            Some(draft) => self.issued(token, draft),
            None => Issued { token, value: None, wrapped: None },
        })
    }

    /// Draws a secret for a generation and seals what the store may keep of it.
    fn draft(&self, id: TokenId, generation: u32, caller: &Caller, wrap: Option<Millis>) -> Result<Draft, Refusal> {
        let secret = Secret::random(&*self.entropy);
        let key = psk::derive(&secret, id, generation);
        let sealed = self.keys.sealer.seal(&secret_place(id, generation), key.expose(), &*self.entropy);
        let value = Token { id, generation, secret, manager_key: self.keys.pinned() };
        let wrapped = wrap.map(|ttl| self.wrap(&value, &caller.actor(), ttl)).transpose()?;
        Ok(Draft { value, key, sealed, wrapped })
    }

    /// Lets a token that is stored be proven; what its maker is shown, this once.
    fn issued(&self, token: DelegateToken, draft: Draft) -> Issued {
        self.admit_token(&token, vec![(draft.value.generation, draft.key)]);
        match draft.wrapped {
            Some((code, new)) => Issued { token, value: None, wrapped: Some((code, new.wrap)) },
            None => Issued { token, value: Some(draft.value.reveal()), wrapped: None },
        }
    }

    /// The answer to a repeated create: the same token, without the value that was shown once.
    async fn shown_before(&self, id: String) -> Result<Issued, Refusal> {
        let id = id.parse().map_err(|_| Refusal::not_found("token"))?;
        Ok(Issued { token: self.stored_token(id).await?, value: None, wrapped: None })
    }

    /// Makes the first secret of an unissued token and shows it once.
    ///
    /// # Errors
    /// `already_issued`, `not_found`, `clock_in_doubt`, `store_unavailable`.
    pub async fn issue_token(
        &self,
        caller: &Caller,
        id: TokenId,
        wrap: Option<Millis>,
        dry_run: bool,
    ) -> Result<Issued, Refusal> {
        let token = self.token(caller, id).await?;
        issuable(&token, self.clock.wall())?;
        if token.ends_at().is_some() {
            self.trust_clock()?;
        }
        if dry_run {
            return Ok(Issued { token, value: None, wrapped: None });
        }
        let draft = self.draft(id, 1, caller, wrap)?;
        let (sealed, manager_key, now) = (draft.sealed.clone(), self.keys.manager_id, self.clock.wall());
        let wrap = draft.wrap();
        let actor = caller.actor();
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
                if let Err(refusal) = issuable(&token, now) {
                    return Ok(Err(refusal));
                }
                tokens::issue(tx, id, 1, &sealed, manager_key, now).await?;
                let issued = tokens::get(tx, id).await?.ok_or(StoreError::NotFound)?;
                wraps::insert_all(tx, wrap.as_slice()).await?;
                let change = change("token.issue", &token, String::new()).between(shown(&token), shown(&issued));
                let wrapped = wrap.map(|new| created(&new.wrap, &token.scope));
                let changes = [change].into_iter().chain(wrapped).map(|change| (actor.clone(), change));
                audit::append_all(tx, now, changes.collect()).await?;
                Ok(Ok(issued))
            })
        });
        let token = self.store.write(work).await??;
        Ok(self.issued(token, draft))
    }

    /// One token.
    ///
    /// # Errors
    /// `not_found` for a token that the caller may not see.
    pub async fn token(&self, caller: &Caller, id: TokenId) -> Result<DelegateToken, Refusal> {
        let token = self.stored_token(id).await?;
        caller.require_sight(&token.scope, "token")?;
        Ok(token)
    }

    /// The same check without the store wherever that can be: a revocation must cut even while it is gone.
    pub(crate) async fn require_token_sight(&self, caller: &Caller, id: TokenId) -> Result<(), Refusal> {
        match self.tokens.get(id) {
            Some(live) => caller.require_sight(&live.scope, "token"),
            None => self.token(caller, id).await.map(drop),
        }
    }

    async fn stored_token(&self, id: TokenId) -> Result<DelegateToken, Refusal> {
        let found = self.store.read(move |conn| Box::pin(tokens::get(conn, id))).await?;
        found.ok_or_else(|| Refusal::not_found("token"))
    }

    /// Tokens, newest last.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_tokens(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        filter: TokenFilter,
        page: legation_store::Page,
    ) -> Result<legation_store::Paged<DelegateToken>, Refusal> {
        let within = caller.confine(scope)?;
        if filter.unused_since.is_some() {
            self.settle_uses().await?;
        }
        Ok(self
            .store
            .read(move |conn| Box::pin(async move { tokens::list(conn, &within, &filter, &page).await }))
            .await?)
    }

    /// Changes a token that still is what the caller has seen: `seen` says whether this version is. Tightened limits hold for connected delegates when this returns:
    /// those that they exclude are disconnected.
    ///
    /// # Errors
    /// `not_found`, `stale`, `invalid_request`, `name_taken`, `token_ended`, `clock_in_doubt`, `store_unavailable`.
    pub async fn update_token(
        &self,
        caller: &Caller,
        id: TokenId,
        seen: impl Fn(u64) -> bool + Send + Sync + 'static,
        update: UpdateToken,
        dry_run: bool,
    ) -> Result<DelegateToken, Refusal> {
        let (token, now) = (self.token(caller, id).await?, self.clock.wall());
        let changed = with_change(&token, &seen, &update, now)?;
        if update.expires_at.is_some_and(|at| at.is_some()) {
            self.trust_clock()?;
        }
        if dry_run {
            return Ok(changed);
        }
        let actor = caller.actor();
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
                let changed = match with_change(&token, &seen, &update, now) {
                    Ok(changed) => changed,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                tokens::change(tx, &changed).await?;
                let (before, after) = (ApiToken::from(&token), ApiToken::from(&changed));
                audit::append(tx, &actor, now, change("token.update", &token, "").between(before, after)).await?;
                Ok(Ok(changed))
            })
        });
        let token = self.store.write(work).await??;
        self.follow(&token).await;
        Ok(token)
    }

    /// Removes a revoked token from lists; its id is never used again and its name is free. A default token has an unissued
    /// successor in the same step.
    ///
    /// # Errors
    /// `token_not_revoked`, naming the command to run first.
    pub async fn delete_token(&self, caller: &Caller, id: TokenId, dry_run: bool) -> Result<DelegateToken, Refusal> {
        let token = self.token(caller, id).await?;
        deletable(&token)?;
        if dry_run {
            return Ok(token);
        }
        let (actor, now) = (caller.actor(), self.clock.wall());
        let successor = is_default(&token).then(|| self.default_token(token.scope.clone()));
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
                if let Err(refusal) = deletable(&token) {
                    return Ok(Err(refusal));
                }
                tokens::delete(tx, id, now).await?;
                let deleted = DelegateToken { status: TokenStatus::Deleted, ..token.clone() };
                let gone = change("token.delete", &token, token.name.to_string());
                audit::append(tx, &actor, now, gone.between(shown(&token), shown(&deleted))).await?;
                if let Some(successor) = successor {
                    // A place always has a token to issue; the name has just become free.
                    tokens::insert(tx, &successor).await?;
                    let new = change("token.create", &successor, format!("in place of {}", token.id));
                    audit::append(tx, &Actor::system(), now, new.after(shown(&successor))).await?;
                }
                Ok(Ok(deleted))
            })
        });
        let token = self.store.write(work).await??;
        if let Some(live) = self.tokens.get(id) {
            live.end(GoodbyeReason::TokenDeleted, live.receipt());
        }
        Ok(token)
    }
}

/// Where the derived key of a generation is sealed.
pub(crate) fn secret_place(id: TokenId, generation: u32) -> String {
    format!("token_secrets.sealed_psk.{id}.{generation}")
}

/// Whether it is the token that its place was born with, or a successor of that.
fn is_default(token: &DelegateToken) -> bool {
    token.name.as_str() == DEFAULT_TOKEN
}

fn issuable(token: &DelegateToken, now: Millis) -> Result<(), Refusal> {
    if token.status == TokenStatus::Unissued {
        return editable(token, now);
    }
    let detail = format!("the token {} is {}; only an unissued token can be issued", token.name, token.status);
    Err(Refusal::new(Code::AlreadyIssued, detail))
}

/// The token with the change in it, if it may be made.
fn with_change(
    token: &DelegateToken,
    seen: &impl Fn(u64) -> bool,
    update: &UpdateToken,
    now: Millis,
) -> Result<DelegateToken, Refusal> {
    editable(token, now)?;
    if !seen(token.version) {
        let detail = format!("the token {} is at version {} by now", token.name, token.version);
        return Err(Refusal::new(Code::Stale, detail));
    }
    Ok(update.apply(token, now)?)
}

fn deletable(token: &DelegateToken) -> Result<(), Refusal> {
    match token.status {
        TokenStatus::Revoked => Ok(()),
        TokenStatus::Deleted => Err(Refusal::not_found("token")),
        status => {
            let detail = format!("the token {} is {status}; only a revoked token can be deleted", token.name);
            let fix = format!("run `legation token revoke {}` first", token.id);
            Err(Problem::new(Code::TokenNotRevoked, detail).with_fix(fix).into())
        }
    }
}

/// A token as people see it, and as audit records show what changed of it: without any secret.
pub(crate) fn shown(token: &DelegateToken) -> legation_api::tokens::Token {
    token.into()
}

pub(crate) fn change(action: &'static str, token: &DelegateToken, detail: impl Into<String>) -> Change {
    Change::new(action, token.id, token.scope.clone()).detail(detail)
}
