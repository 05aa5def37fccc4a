//! Passwords: hashed slowly and a few at a time, sealed, and of no use to any session but the one that changes them.

use std::{hint::black_box, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordVerifier as _, Version,
    password_hash::{PasswordHash, PasswordHasher as _, SaltString},
};
use legation_api::{Code, passwords};
use legation_model::{Name, access::PrincipalKind, ids::PrincipalId, login::PASSWORD_MAX, secret::SecretText};
use legation_store::{
    StoreError, Tx, identities, job, logins, passwords as stored,
    principals::{self, Principal},
    standing::{CredentialId, Standing},
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor, Change},
    error::Refusal,
    grants::{held_by, own},
    seal::SealError,
};

/// Memory of one hash in KiB, passes over it, and lanes: the parameters that OWASP asks of argon2id.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Bytes of the longest password: each of its characters has four at most.
const PASSWORD_BYTES_MAX: usize = 4 * PASSWORD_MAX;
/// Hashes that are made at the same time for whoever logs in: 38 MiB, and no more than two processors.
const HASHES_MAX: usize = 2;
/// Hashes that are made beside those for whoever has a session or key, so that no storm of logins keeps them waiting.
const HASHES_KNOWN_MAX: usize = 1;
/// How long a password waits for its turn; beyond that there is a storm, and a person would have gone.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// Those whose turn it is.
pub(crate) struct Turns {
    strangers: Semaphore,
    known: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { strangers: Semaphore::new(HASHES_MAX), known: Semaphore::new(HASHES_KNOWN_MAX) }
    }
}

/// A principal whose password was shown, and the row by which that is known.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) principal: Principal,
    sealed_hash: Vec<u8>,
}

impl Shown {
    /// Whether it is still the password, and its owner not disabled, in the transaction of what follows from it.
    pub(crate) async fn still_counts(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let id = self.principal.id;
        let enabled = principals::get(tx, id).await?.is_some_and(|principal| principal.disabled_at.is_none());
        Ok(enabled && stored::get(tx, id).await?.as_ref() == Some(&self.sealed_hash))
    }
}

/// What makes one hash, which is counted.
fn argon2(made: &Counter) -> Argon2<'static> {
    made.inc();
    let params = Params::new(MEMORY, PASSES, LANES, None).expect("parameters within the bounds of argon2");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Where the hash of a password is, for the envelope.
fn place(owner: PrincipalId) -> String {
    format!("passwords.sealed_hash.{owner}")
}

impl Manager {
    /// Gives a user a password and ends their console sessions, except the one that asks for it.
    ///
    /// # Errors
    /// `not_found`, `no_password` for a service account, `invalid_request` for one that breaks a rule, `forbidden` for
    /// that of somebody who holds more than the caller.
    pub async fn set_password(&self, caller: &Caller, id: PrincipalId, password: SecretText) -> Result<u64, Refusal> {
        let principal = self.principal(caller, id).await?;
        own(id)?;
        only_users(&principal)?;
        passwords::check(&password, &principal.name)?;
        let sealed = self.sealed_hash(id, password).await?;
        self.replace_password(caller, May::Editor(id), sealed).await
    }

    /// Changes the caller's own password and ends their console sessions, except the one that asks for it.
    ///
    /// # Errors
    /// `login_refused` when the old password is another one, `too_many_attempts`, `no_password`, `invalid_request` for
    /// a new one that breaks a rule.
    pub async fn change_password(
        &self,
        caller: &Caller,
        old: SecretText,
        password: SecretText,
    ) -> Result<u64, Refusal> {
        let shown = self.own_password(caller, old).await?;
        passwords::check(&password, &shown.principal.name)?;
        let sealed = self.sealed_hash(shown.principal.id, password).await?;
        self.replace_password(caller, May::Owner(shown), sealed).await
    }

    /// Checks the caller's own password, as often as a login may be tried, however often others try to log in.
    ///
    /// # Errors
    /// `no_password`, `too_many_attempts`, `login_refused`.
    pub(crate) async fn own_password(&self, caller: &Caller, password: SecretText) -> Result<Shown, Refusal> {
        let id = caller.principal();
        let find = job(move |conn: &mut Tx| {
            Box::pin(async move { Ok((principals::get(conn, id).await?, stored::get(conn, id).await?)) })
        });
        let (principal, sealed_hash) = self.store.read(find).await?;
        let principal = principal.ok_or_else(missing)?;
        let sealed_hash = sealed_hash.ok_or_else(|| none_of(&principal))?;
        self.attempts.admit_again(caller.credential())?;
        if self.is_password(&self.turns.known, id, Some(&sealed_hash), password).await? {
            return Ok(Shown { principal, sealed_hash });
        }
        let refusal = Change::new("login.refuse", id, principal.scope.clone()).detail(principal.name.to_string());
        self.metrics.logins_refused.inc();
        self.note_refusal(caller.actor(), refusal);
        Err(refused())
    }

    /// The user of this name, if this is their password and they are not disabled. What the answer is takes the same
    /// time whether or not there is such a user.
    ///
    /// # Errors
    /// `login_refused`, whatever the reason; `overloaded`.
    pub(crate) async fn shown_password(
        &self,
        name: Name,
        password: SecretText,
        actor: &Actor,
    ) -> Result<Shown, Refusal> {
        let find = job(move |conn: &mut Tx| {
            Box::pin(async move {
                let Some(user) = principals::user(conn, &name).await? else { return Ok(None) };
                let sealed_hash = stored::get(conn, user.id).await?;
                Ok(Some((user, sealed_hash)))
            })
        });
        let found = self.store.read(find).await?;
        let (user, sealed_hash) = found.map_or((None, None), |(user, sealed_hash)| (Some(user), sealed_hash));
        let id = user.as_ref().map_or(PrincipalId([0; 16]), |user| user.id);
        let right = self.is_password(&self.turns.strangers, id, sealed_hash.as_deref(), password).await?;
        match (user, sealed_hash) {
            (Some(principal), Some(sealed_hash)) if right && principal.disabled_at.is_none() => {
                Ok(Shown { principal, sealed_hash })
            }
            (user, _) => {
                self.refuse_login(user.as_ref(), actor);
                Err(refused())
            }
        }
    }

    /// Has a refused login recorded. A name that nobody has is not repeated: it may be a password in the wrong field.
    pub(crate) fn refuse_login(&self, user: Option<&Principal>, actor: &Actor) {
        let (object, scope) = user.map_or((String::new(), None), |user| (user.id.to_string(), user.scope.clone()));
        let name = user.map_or("nobody has this name", |user| user.name.as_str());
        self.metrics.logins_refused.inc();
        self.note_refusal(actor.clone(), Change::new("login.refuse", object, scope).detail(name));
    }

    async fn is_password(
        &self,
        turns: &Semaphore,
        owner: PrincipalId,
        sealed_hash: Option<&[u8]>,
        password: SecretText,
    ) -> Result<bool, Refusal> {
        let spelled = match sealed_hash {
            Some(sealed) => Some(self.keys.sealer.open(&place(owner), sealed).map_err(unreadable)?),
            None => None,
        };
        let made = self.metrics.passwords_hashed.clone();
        self.slowly(turns, move || match spelled {
            Some(spelled) if password.expose().len() <= PASSWORD_BYTES_MAX => {
                matches(&String::from_utf8_lossy(&spelled), &password, &made)
            }
            // As much work as for somebody who is there, and for one that is longer than any password.
            _ => {
                black_box(spell(&password, &[0; SALT_BYTES], &made));
                false
            }
        })
        .await
    }

    async fn sealed_hash(&self, owner: PrincipalId, password: SecretText) -> Result<Vec<u8>, Refusal> {
        let mut salt = [0; SALT_BYTES];
        self.entropy.fill(&mut salt);
        let made = self.metrics.passwords_hashed.clone();
        let spelled = self.slowly(&self.turns.known, move || spell(&password, &salt, &made)).await?;
        let spelled = spelled.ok_or_else(|| Refusal::new(Code::Internal, "the password cannot be hashed"))?;
        Ok(self.keys.sealer.seal(&place(owner), spelled.as_bytes(), &*self.entropy))
    }

    /// Does what takes a processor a while and much memory, when it has its turn.
    async fn slowly<T: Send + 'static>(
        &self,
        turns: &Semaphore,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let busy = || Refusal::new(Code::Overloaded, "too many passwords are being checked at this moment");
        let turn = tokio::time::timeout(TURN_WAIT, turns.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Refusal::new(Code::Internal, "the Manager failed on a password"))
    }

    /// Stores a password and ends the sessions that were begun with the one before.
    async fn replace_password(&self, caller: &Caller, may: May, sealed: Vec<u8>) -> Result<u64, Refusal> {
        let (actor, now, id) = (caller.actor(), self.clock.wall(), may.whose());
        let kept = caller.standing.credential.login().map(|login| login.id);
        let ended = move |standing: &Standing| match standing.credential.id() {
            CredentialId::Login(login) => standing.owner() == id && Some(login) != kept,
            CredentialId::Key(_) => false,
        };
        self.change_access(caller, ended, move |tx, caller| {
            Box::pin(async move {
                let action = may.action();
                let principal = match may.judge(tx, &caller).await? {
                    Ok(principal) => principal,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                stored::set(tx, id, &sealed, now, &actor.name).await?;
                let ended = logins::delete_others(tx, id, kept).await?;
                let change = Change::new(action, id, principal.scope).detail(principal.name.to_string());
                audit::append(tx, &actor, now, change.after(serde_json::json!({ "ended_sessions": ended }))).await?;
                Ok(Ok(ended))
            })
        })
        .await
    }
}

/// Why somebody may set a password.
enum May {
    /// They may edit access where this user belongs.
    Editor(PrincipalId),
    /// It is their own, and they showed the one before.
    Owner(Shown),
}

impl May {
    const fn whose(&self) -> PrincipalId {
        match self {
            Self::Editor(id) => *id,
            Self::Owner(shown) => shown.principal.id,
        }
    }

    const fn action(&self) -> &'static str {
        match self {
            Self::Editor(_) => "password.set",
            Self::Owner(_) => "password.change",
        }
    }

    /// Whether they still may, in the transaction; if so, whose it is.
    async fn judge(self, tx: &mut Tx, caller: &Caller) -> Result<Result<Principal, Refusal>, StoreError> {
        let id = match self {
            Self::Owner(shown) if shown.still_counts(tx).await? => return Ok(Ok(shown.principal)),
            Self::Owner(_) => return Ok(Err(refused())),
            Self::Editor(id) => id,
        };
        let Some(principal) = principals::get(tx, id).await? else { return Ok(Err(missing())) };
        if let Err(refusal) = caller.require_at(principal.scope.as_ref(), "principal") {
            return Ok(Err(refusal));
        }
        if identities::of(tx, id).await?.is_some() {
            let detail = format!("{} logs in at the identity provider, and has none here", principal.name);
            return Ok(Err(Refusal::new(Code::NoPassword, detail)));
        }
        // Who has somebody's password can do what they can.
        let covered = caller.require_cover(&held_by(tx, id, None).await?);
        Ok(covered.map(|()| principal))
    }
}

/// A hash as argon2 spells it, with its salt and parameters.
fn spell(password: &SecretText, salt: &[u8; SALT_BYTES], made: &Counter) -> Option<Zeroizing<String>> {
    let salt = SaltString::encode_b64(salt).ok()?;
    let hash = argon2(made).hash_password(password.expose().as_bytes(), &salt).ok()?;
    Some(Zeroizing::new(hash.to_string()))
}

fn matches(spelled: &str, password: &SecretText, made: &Counter) -> bool {
    let password = password.expose().as_bytes();
    PasswordHash::new(spelled).is_ok_and(|hash| argon2(made).verify_password(password, &hash).is_ok())
}

fn only_users(principal: &Principal) -> Result<(), Refusal> {
    if principal.kind == PrincipalKind::User { Ok(()) } else { Err(none_of(principal)) }
}

fn none_of(principal: &Principal) -> Refusal {
    let why = match principal.kind {
        PrincipalKind::User => "has none",
        PrincipalKind::ServiceAccount => "is a service account, which has none",
    };
    Refusal::new(Code::NoPassword, format!("{} {why}", principal.name))
}

fn refused() -> Refusal {
    Refusal::new(Code::LoginRefused, "the name or the password is not right, or there is no login by password for it")
}

fn missing() -> Refusal {
    Refusal::not_found("principal")
}

fn unreadable(error: SealError) -> Refusal {
    tracing::error!(%error, "a password cannot be checked");
    Refusal::new(Code::Internal, "the hash of the password cannot be opened; the Manager's log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_password_alone_and_has_the_parameters_that_are_asked_for() {
        let password = |text: &str| SecretText::new(text.to_owned());
        let made = Counter::default();
        let matches = |spelled: &str, tried: &str| matches(spelled, &password(tried), &made);
        let spelled = spell(&password("correct horse"), &[7; SALT_BYTES], &made).expect("a hash");
        assert!(spelled.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", *spelled);
        assert!(matches(&spelled, "correct horse") && !matches(&spelled, "correct horses"));
        assert!(!matches("not a hash", "correct horse"));
        assert_eq!(made.get(), 3, "each is counted");
    }
}
