//! One-time codes: the value of a token for whoever opens it first, once.
//!
//! The value is sealed with a key that is derived from the code, and what comes of that with the data key. So what the
//! Manager has does not open it, and neither does a stolen database to whoever finds a code. It is erased in the
//! transaction that hands it out; of the code only a keyed hash is kept, so that a later attempt is told from a guess.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use legation_api::{Code, Problem, tokens::Token as ApiToken};
use legation_model::{
    Millis, Scope, Secret,
    ids::{TokenId, WrapId},
    secret::SecretText,
    token::{DelegateToken, Token, TokenStatus},
    wrap::{Wrap, WrapCode},
};
use legation_store::{
    StoreError, Tx, job, tokens,
    wraps::{self, NewWrap, StoredWrap},
};
use serde_json::json;

use crate::{
    Manager,
    audit::{self, Actor, Change},
    error::Refusal,
    keys::Keys,
    seal::{Sealer, derive},
    source::Source,
};

/// Late attempts at one code that are written down one by one; beyond that they are counted in its row. Whoever has a
/// code that was opened could fill the disk otherwise.
const REFUSALS_RECORDED: u32 = 16;
/// Codes whose time has passed that one transaction ends, so that it stays short; the next pass ends the next.
const EXPIRED_AT_ONCE: u32 = 100;

/// A value that has just been opened.
#[derive(Debug)]
pub struct Opened {
    /// Whose.
    pub token: DelegateToken,
    /// Of which generation.
    pub generation: u32,
    /// The whole value.
    pub value: SecretText,
}

/// Why a code does not open.
enum Closed {
    /// It is no code of ours. Whoever guesses learns nothing else.
    Unknown,
    /// It is one, and its end has come: its holder is told.
    Ended(Refusal),
}

impl Manager {
    /// Puts a value under a new code.
    ///
    /// # Errors
    /// `clock_in_doubt`: nobody knows when it would end.
    pub(crate) fn wrap(&self, value: &Token, by: &Actor, ttl: Millis) -> Result<(WrapCode, NewWrap), Refusal> {
        self.trust_clock()?;
        let code = WrapCode { id: WrapId::random(&*self.entropy), secret: Secret::random(&*self.entropy) };
        let created_at = self.clock.wall();
        let wrap = Wrap {
            id: code.id,
            token: value.id,
            generation: value.generation,
            created_at,
            created_by: by.name.clone(),
            expires_at: created_at + ttl,
            ended_at: None,
            opened_at: None,
            opened_from: None,
            refused: 0,
        };
        let (place, sealer) = (place(&wrap), &self.keys.sealer);
        let inner = of_code(&code).seal(&place, value.reveal().expose().as_bytes(), &*self.entropy);
        let sealed = sealer.seal(&place, &inner, &*self.entropy);
        let hash = sealer.keyed_hash(code.secret.expose());
        Ok((code, NewWrap { wrap, hash, sealed }))
    }

    /// Opens a code: its value, this once. Whoever comes second is told when and from where the first one came.
    ///
    /// # Errors
    /// `not_found` for what is no code of this Manager, `already_opened`, `code_expired`, `token_ended`;
    /// `too_many_attempts` from one source; `clock_in_doubt`, `store_unavailable`.
    pub async fn unwrap(&self, source: &Source, request: String, code: WrapCode) -> Result<Opened, Refusal> {
        let (from, id) = (source.address, code.id);
        if !self.unwraps.admit(from, self.clock.boot()) {
            return Err(Refusal::new(Code::TooManyAttempts, "too many codes from your address did not open"));
        }
        self.trust_clock()?;
        let actor = Actor::nobody(from, request);
        let attempt = Attempt { keys: Arc::clone(&self.keys), actor: actor.clone(), now: self.clock.wall(), code };
        let refusal = match self.attempt(Arc::new(attempt)).await? {
            Ok(opened) => {
                self.unwraps.proved(from, self.clock.boot());
                self.metrics.wraps_opened.inc();
                tracing::info!(wrap = %id, token = %opened.token.id, source = %from, "a one-time code was opened");
                return Ok(opened);
            }
            Err(Closed::Ended(refusal)) => {
                self.metrics.wraps_refused.inc();
                tracing::warn!(wrap = %id, source = %from, code = %refusal.0.code, "a one-time code was tried after its end");
                refusal
            }
            Err(Closed::Unknown) => {
                self.note_refusal(actor, Change::new("wrap.refuse", id, None).detail("no such code"));
                unknown()
            }
        };
        self.unwraps.failed(from, self.clock.boot());
        Err(refusal)
    }

    /// A guess costs a look into the database. Only who has a code gets as far as the one writer, which heartbeats and
    /// tasks share, and is looked at again there.
    async fn attempt(&self, attempt: Arc<Attempt>) -> Result<Result<Opened, Closed>, StoreError> {
        let first = Arc::clone(&attempt);
        let find = job(move |conn: &mut Tx| Box::pin(async move { first.find(conn).await }));
        if self.store.read(find).await?.is_none() {
            return Ok(Err(Closed::Unknown));
        }
        self.store.write(job(move |tx| Box::pin(async move { attempt.open(tx).await }))).await
    }

    /// A token as people see it, with what became of its value if that was put under a code.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn with_wrap(&self, token: &DelegateToken) -> Result<ApiToken, Refusal> {
        let shown = self.with_wraps(std::slice::from_ref(token)).await?.pop();
        shown.ok_or_else(|| Refusal::not_found("token"))
    }

    /// The same for a list.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn with_wraps(&self, tokens: &[DelegateToken]) -> Result<Vec<ApiToken>, Refusal> {
        let ids: Vec<TokenId> = tokens.iter().map(|token| token.id).collect();
        let find = job(move |conn: &mut Tx| Box::pin(async move { wraps::of_tokens(conn, &ids).await }));
        let wraps = self.store.read(find).await?;
        let with = |token: &DelegateToken| ApiToken { wrap: wraps.get(&token.id).map(Into::into), ..token.into() };
        Ok(tokens.iter().map(with).collect())
    }

    /// Erases the values that nobody has opened in time. They are lost, which the record says.
    pub async fn expire_wraps(&self) {
        if self.clock.jumped() {
            return;
        }
        let now = self.clock.wall();
        let due = self.store.read(move |conn| Box::pin(wraps::due(conn, now, EXPIRED_AT_ONCE))).await;
        let Ok(due) = due else { return };
        if due.is_empty() {
            return;
        }
        let work = job(move |tx| Box::pin(async move { expire(tx, due, now).await }));
        match self.store.write(work).await {
            Ok(count) => drop(self.metrics.wraps_expired.inc_by(count)),
            Err(error) => tracing::debug!(%error, "one-time codes whose time has passed wait for the store"),
        }
    }
}

/// One attempt to open a code.
struct Attempt {
    keys: Arc<Keys>,
    actor: Actor,
    now: Millis,
    code: WrapCode,
}

impl Attempt {
    /// What is stored of this very code.
    async fn find(&self, conn: &mut Tx) -> Result<Option<StoredWrap>, StoreError> {
        let stored = wraps::get(conn, self.code.id).await?;
        let is_it = |stored: &StoredWrap| self.keys.sealer.hash_matches(self.code.secret.expose(), &stored.hash);
        Ok(stored.filter(is_it))
    }

    /// The transaction: erased and written down, or nothing is handed out.
    async fn open(&self, tx: &mut Tx) -> Result<Result<Opened, Closed>, StoreError> {
        let Some(stored) = self.find(tx).await? else { return Ok(Err(Closed::Unknown)) };
        let token = tokens::get(tx, stored.wrap.token).await?.ok_or(StoreError::NotFound)?;
        if let Some(problem) = ended(&stored.wrap, &token, self.now) {
            return self.refuse(tx, &stored.wrap, &token, problem).await.map(|refusal| Err(Closed::Ended(refusal)));
        }
        let value = self.value(&stored)?;
        let from = self.actor.address.map(|address| address.to_string()).unwrap_or_default();
        wraps::open(tx, stored.wrap.id, self.now, &from).await?;
        let opened = change("wrap.open", &stored.wrap, &token.scope);
        audit::append(tx, &self.actor, self.now, opened.after(json!({"token": token.id}))).await?;
        Ok(Ok(Opened { token, generation: stored.wrap.generation, value }))
    }

    /// A late attempt of somebody who has the code is in the record before it is answered.
    async fn refuse(
        &self,
        tx: &mut Tx,
        wrap: &Wrap,
        token: &DelegateToken,
        problem: Problem,
    ) -> Result<Refusal, StoreError> {
        wraps::refuse(tx, wrap.id).await?;
        if wrap.refused < REFUSALS_RECORDED {
            let refused = change("wrap.refuse", wrap, &token.scope).detail(problem.detail.clone()).refused();
            audit::append(tx, &self.actor, self.now, refused.after(json!({"token": token.id}))).await?;
        }
        Ok(problem.into())
    }

    fn value(&self, stored: &StoredWrap) -> Result<SecretText, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("the one-time code {} does not open", stored.wrap.id));
        let (place, sealed) = (place(&stored.wrap), stored.sealed.as_deref().ok_or_else(corrupt)?);
        let inner = self.keys.sealer.open(&place, sealed).map_err(|_| corrupt())?;
        let value = of_code(&self.code).open(&place, &inner).map_err(|_| corrupt())?;
        let text = std::str::from_utf8(&value).map_err(|_| corrupt())?;
        Ok(SecretText::new(text.to_owned()))
    }
}

/// Why a code does not open any more, for somebody who has it.
fn ended(wrap: &Wrap, token: &DelegateToken, now: Millis) -> Option<Problem> {
    if let Some(at) = wrap.opened_at {
        let from = wrap.opened_from.as_deref().unwrap_or("an unknown address");
        let detail = format!("the code was opened on {} from {from}", spelled(at));
        let fix = format!(
            "if that was not you, somebody else has the value of the token: run `legation token revoke {}` at once, or \
             have it done",
            token.id
        );
        return Some(Problem::new(Code::AlreadyOpened, detail).with_fix(fix));
    }
    if matches!(token.status, TokenStatus::Revoked | TokenStatus::Deleted) {
        let detail = format!("the token {} is {}: its value is of no use any more", token.id, token.status);
        return Some(Problem::new(Code::TokenEnded, detail).with_fix("ask for a new token"));
    }
    (wrap.ended_at.is_some() || wrap.expires_at <= now).then(|| {
        let detail = format!("the code expired on {}, and nobody had opened it", spelled(wrap.expires_at));
        let fix = format!("ask for a new token; this one has no holder: `legation token revoke {}`", token.id);
        Problem::new(Code::CodeExpired, detail).with_fix(fix)
    })
}

fn unknown() -> Refusal {
    let fix = "check the Manager's address, and copy the whole code again as it was shown";
    Problem::new(Code::NotFound, "this Manager has made no such code").with_fix(fix).into()
}

async fn expire(tx: &mut Tx, due: Vec<Wrap>, now: Millis) -> Result<u64, StoreError> {
    let (mut count, mut changes) = (0, Vec::new());
    for wrap in due {
        // Somebody may have opened it since it was looked for.
        if wraps::end(tx, wrap.id, now).await? {
            let token = tokens::get(tx, wrap.token).await?.ok_or(StoreError::NotFound)?;
            let lost = change("wrap.expire", &wrap, &token.scope).after(json!({"token": token.id}));
            changes.push((Actor::system(), lost.detail("nobody opened it in time: the value is lost")));
            count += 1;
        }
    }
    audit::append_all(tx, now, changes).await?;
    Ok(count)
}

/// The record of a new one.
pub(crate) fn created(wrap: &Wrap, scope: &Scope) -> Change {
    let (token, generation, expires_at) = (wrap.token, wrap.generation, wrap.expires_at);
    change("wrap.create", wrap, scope)
        .after(json!({"token": token, "generation": generation, "expires_at": expires_at}))
}

fn change(action: &'static str, wrap: &Wrap, scope: &Scope) -> Change {
    Change::new(action, wrap.id, scope.clone())
}

/// What only the code's holder has the key of.
fn of_code(code: &WrapCode) -> Sealer {
    Sealer::new(&derive(&code.secret, "legation one-time code v1"))
}

fn place(wrap: &Wrap) -> String {
    format!("wraps.sealed.{}.{}.{}", wrap.id, wrap.token, wrap.generation)
}

fn spelled(at: Millis) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at.unsigned_abs()))
}
