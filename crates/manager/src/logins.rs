//! Console sessions: begun by people who show who they are, listed, and ended at once.

use std::net::IpAddr;

use legation_api::{
    Code,
    logins::{ConsoleSession, LogIn, SessionsQuery},
};
use legation_model::{
    Millis, Secret,
    ids::{LoginId, PrincipalId},
    login::{Login as LoginValue, LoginMethod},
    secret::SecretText,
};
use legation_store::{
    Page, Paged, StoreError, Tx, job,
    logins::{self, Login, LoginFilter, OwnedLogin},
    principals::{self, Principal},
    standing::{Credential, CredentialId},
};

use crate::{
    Manager,
    access::{Caller, named},
    audit::{self, Actor, Change},
    error::Refusal,
    passwords::Shown,
};

/// Sessions of one user: more than browsers that a person has. The one that was used longest ago ends for the next.
pub const SESSIONS_MAX: u32 = 32;
/// How long a session counts as fresh after its owner showed who they are: ten minutes. What the route table marks is
/// refused to older ones.
pub const FRESH_FOR: Millis = 10 * 60 * 1000;
/// Characters of a browser's name that are kept: enough to tell one's own apart.
const AGENT_MAX: usize = 160;

/// Where somebody comes from who does not have a session yet.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// The request, for the audit record.
    pub request: String,
    /// The network address, if the request came over a network.
    pub address: Option<IpAddr>,
    /// What the browser or program calls itself.
    pub agent: String,
}

/// A session, and its value if it is shown this once.
#[derive(Debug)]
pub struct NewLogin {
    /// The session.
    pub session: OwnedLogin,
    /// Its value.
    pub value: SecretText,
}

impl Manager {
    /// Begins a session for whoever shows a user's password.
    ///
    /// # Errors
    /// `login_refused`, whatever is not right; `too_many_attempts`, `overloaded`, `store_unavailable`.
    pub async fn log_in(&self, request: LogIn, from: Visitor) -> Result<NewLogin, Refusal> {
        self.attempts.admit(from.address, &request.name)?;
        let actor = Actor::nobody(from.address, from.request.clone());
        let shown = self.shown_password(request.name, request.password, &actor).await?;
        let principal = shown.principal.clone();
        let session = self.prepared(principal.id, LoginMethod::Password, self.clock.wall(), &from);
        // Between the check and its transaction the password may be changed, or its owner disabled.
        let begun = self.begin_session(principal.clone(), session, Ground::Password(shown), from).await?;
        begun.ok_or_else(|| {
            self.refuse_login(Some(&principal), &actor);
            Refusal::new(Code::LoginRefused, "the password was changed at this moment, or its owner disabled")
        })
    }

    /// Begins a prepared session, if the ground for it still holds.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn begin_session(
        &self,
        principal: Principal,
        session: Begun,
        ground: Ground,
        from: Visitor,
    ) -> Result<Option<NewLogin>, Refusal> {
        let (owner, begun) = (principal.clone(), session.clone());
        let work = job(move |tx: &mut Tx| {
            Box::pin(async move {
                if !ground.holds(tx).await? {
                    return Ok(None);
                }
                begin(tx, &owner, &begun, &from).await.map(Some)
            })
        });
        let Some(ended) = self.store.write(work).await? else { return Ok(None) };
        if ended > 0 {
            self.vouched.forget(|standing| standing.owner() == principal.id && standing.credential.login().is_some());
        }
        Ok(Some(session.of(principal)))
    }

    /// A session that nobody has yet.
    pub(crate) fn prepared(&self, owner: PrincipalId, method: LoginMethod, shown_at: Millis, from: &Visitor) -> Begun {
        let value = LoginValue { id: LoginId::random(&*self.entropy), secret: Secret::random(&*self.entropy) };
        // By the clock by which it ends.
        let now = self.clock.latest();
        let login = Login {
            id: value.id,
            owner,
            method,
            hash: self.keys.sealer.keyed_hash(value.secret.expose()),
            address: from.address.map(|address| address.to_canonical().to_string()).unwrap_or_default(),
            agent: from.agent.chars().filter(|c| !c.is_control()).take(AGENT_MAX).collect(),
            created_at: now,
            authenticated_at: shown_at,
            last_used_at: now,
            expires_at: now + self.config.console.lifetime,
        };
        Begun { value: value.reveal(), login }
    }

    /// Ends the caller's own session.
    ///
    /// # Errors
    /// `not_a_session` for an API key.
    pub async fn log_out(&self, caller: &Caller) -> Result<OwnedLogin, Refusal> {
        let id = own_session(caller)?.id;
        self.end(caller, id, "logout", false).await
    }

    /// Notes that the caller showed once more who they are.
    ///
    /// # Errors
    /// `not_a_session`, `reauthenticate` for a session that was begun at an identity provider, `login_refused`,
    /// `too_many_attempts`.
    pub async fn reauthenticate(&self, caller: &Caller, password: SecretText) -> Result<OwnedLogin, Refusal> {
        let login = own_session(caller)?;
        if login.method != LoginMethod::Password {
            return Err(stale(login));
        }
        let (id, shown) = (login.id, self.own_password(caller, password).await?);
        let (actor, now) = (caller.actor(), self.clock.wall());
        self.change_access(
            caller,
            |_| false,
            move |tx, _| {
                Box::pin(async move {
                    if !shown.still_counts(tx).await? {
                        return Ok(Err(Refusal::new(Code::LoginRefused, "the password was changed at this moment")));
                    }
                    again(tx, &actor, &shown, id, now).await
                })
            },
        )
        .await
    }

    /// Refuses what only somebody may do who showed a moment ago who they are. An API key shows that each time.
    ///
    /// # Errors
    /// `reauthenticate`.
    pub(crate) fn require_fresh(&self, caller: &Caller) -> Result<(), Refusal> {
        let Some(login) = caller.standing.credential.login() else { return Ok(()) };
        let since = self.clock.wall() - login.authenticated_at;
        // A clock that was set back must not keep a session fresh.
        if since.abs() <= FRESH_FOR { Ok(()) } else { Err(stale(login)) }
    }

    /// Sessions, oldest first: the caller's own, and those of others where the caller may look.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_sessions(
        &self,
        caller: &Caller,
        query: &SessionsQuery,
        page: Page,
    ) -> Result<Paged<OwnedLogin>, Refusal> {
        let (within, now) = (caller.confine(None)?, self.clock.latest());
        let used_after = now - self.config.console.idle;
        let filter = LoginFilter { owner: query.principal, own: caller.principal(), now, used_after };
        let list = job(move |conn: &mut Tx| Box::pin(async move { logins::list(conn, &within, &filter, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// Ends a session, and what is done in it, at once: one's own, or somebody's where the caller may edit.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `store_unavailable`.
    pub async fn end_session(&self, caller: &Caller, id: LoginId, dry_run: bool) -> Result<OwnedLogin, Refusal> {
        self.end(caller, id, "session.end", dry_run).await
    }

    async fn end(
        &self,
        caller: &Caller,
        id: LoginId,
        action: &'static str,
        dry_run: bool,
    ) -> Result<OwnedLogin, Refusal> {
        let (actor, now) = (caller.actor(), self.clock.wall());
        self.change_access(
            caller,
            move |standing| !dry_run && standing.credential.id() == CredentialId::Login(id),
            move |tx, caller| {
                Box::pin(async move {
                    let found = logins::get(tx, id).await?;
                    let place = found.as_ref().and_then(|found| found.scope.as_ref());
                    let owner = found.as_ref().map(|found| found.login.owner);
                    let allowed = caller.require_own_or_at(owner, place, "session");
                    let (Ok(()), Some(session)) = (&allowed, found) else { return Ok(allowed.and(Err(missing()))) };
                    if !dry_run {
                        logins::delete(tx, id).await?;
                        let change = Change::new(action, id, session.scope.clone());
                        audit::append(tx, &actor, now, change.detail(session.owner_name.to_string())).await?;
                    }
                    Ok(Ok(session))
                })
            },
        )
        .await
    }
}

/// A session that is made, and in the store when its transaction is.
#[derive(Clone)]
pub(crate) struct Begun {
    value: SecretText,
    login: Login,
}

impl Begun {
    /// Whether it is for this principal.
    pub(crate) fn is_of(&self, owner: PrincipalId) -> bool {
        self.login.owner == owner
    }

    /// The session with its owner.
    pub(crate) fn of(self, owner: Principal) -> NewLogin {
        let Principal { name: owner_name, scope, .. } = owner;
        NewLogin { session: OwnedLogin { login: self.login, owner_name, scope }, value: self.value }
    }
}

/// Why somebody may have a session.
pub(crate) enum Ground {
    /// They showed their password.
    Password(Shown),
    /// The identity provider vouched for them a moment ago.
    Provider(PrincipalId),
}

impl Ground {
    /// Whether that still holds, in the transaction that begins the session.
    async fn holds(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        match self {
            Self::Password(shown) => shown.still_counts(tx).await,
            Self::Provider(id) => {
                Ok(principals::get(tx, *id).await?.is_some_and(|principal| principal.disabled_at.is_none()))
            }
        }
    }
}

/// Stores a session and its record, and ends those that are too many; how many.
pub(crate) async fn begin(tx: &mut Tx, owner: &Principal, begun: &Begun, from: &Visitor) -> Result<u64, StoreError> {
    let login = &begun.login;
    logins::insert(tx, login).await?;
    let ended = logins::delete_surplus(tx, login, SESSIONS_MAX).await?;
    let name = named(owner.name.as_str(), owner.id, &Credential::Login(login.clone()));
    let actor = Actor { name, request: from.request.clone(), address: from.address };
    let fields = serde_json::json!({ "method": login.method, "agent": login.agent, "expires_at": login.expires_at });
    let change = Change::new("login", login.id, owner.scope.clone()).detail(owner.name.to_string()).after(fields);
    audit::append(tx, &actor, login.created_at, change).await?;
    Ok(ended)
}

/// Stores that somebody showed once more who they are.
async fn again(
    tx: &mut Tx,
    actor: &Actor,
    shown: &Shown,
    id: LoginId,
    now: Millis,
) -> Result<Result<OwnedLogin, Refusal>, StoreError> {
    logins::set_authenticated(tx, id, now).await?;
    let principal = &shown.principal;
    let change = Change::new("login.again", id, principal.scope.clone()).detail(principal.name.to_string());
    audit::append(tx, actor, now, change).await?;
    Ok(logins::get(tx, id).await?.ok_or_else(missing))
}

fn own_session(caller: &Caller) -> Result<&Login, Refusal> {
    let refusal = || Refusal::new(Code::NotASession, "the request was made with an API key");
    caller.standing.credential.login().ok_or_else(refusal)
}

fn stale(login: &Login) -> Refusal {
    let minutes = FRESH_FOR / 60_000;
    let detail = format!("this needs a session whose owner showed who they are within the last {minutes} minutes");
    let problem = legation_api::Problem::new(Code::Reauthenticate, detail);
    match login.method {
        LoginMethod::Password => problem.into(),
        LoginMethod::Oidc => {
            problem.with_fix("log in once more at the identity provider, and repeat the request").into()
        }
    }
}

fn missing() -> Refusal {
    Refusal::not_found("session")
}

/// A session as people see it.
pub(crate) fn shown(session: &OwnedLogin, caller: Option<&Caller>) -> ConsoleSession {
    let login = &session.login;
    ConsoleSession {
        id: login.id,
        principal: login.owner,
        name: session.owner_name.clone(),
        method: login.method,
        address: login.address.clone(),
        agent: login.agent.clone(),
        created_at: login.created_at,
        authenticated_at: login.authenticated_at,
        last_used_at: login.last_used_at,
        expires_at: login.expires_at,
        current: caller.is_none_or(|caller| caller.credential() == CredentialId::Login(login.id)),
    }
}
