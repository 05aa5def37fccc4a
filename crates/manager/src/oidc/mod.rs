//! Logging in at an identity provider: a round begins here, goes through a person's browser, and ends here once.

mod mapping;
mod once;
mod provider;
mod settings;

use std::time::Duration;

use legation_api::{
    Code, Problem,
    oidc::{BeginOidc, LogInByCode, Returned, challenge},
    proof::hex,
    routes,
};
use legation_model::{
    Entropy, Millis,
    ids::{LoginId, PrincipalId},
    login::LoginMethod,
    secret::SecretText,
};
use legation_store::{Tx, job, logins::OwnedLogin, principals};

use crate::{
    Manager,
    access::Caller,
    audit::Actor,
    error::Refusal,
    logins::{Ground, NewLogin, Visitor},
};

pub use self::settings::{MappedRole, OidcSettings};
use self::{
    mapping::Entry,
    once::Once,
    provider::{Bond, Provider, Said},
};

/// How long a person has for a round: to find the password and the second factor.
pub(crate) const ROUND_LASTS: Millis = 10 * 60 * 1000;
/// How long a program has to bring its code: it does so at once.
const CODE_LASTS: Millis = 60 * 1000;
/// By how much the provider's clock may differ from ours.
const CLOCKS_DIFFER: Millis = 60 * 1000;

/// What is needed for logins at an identity provider, if there is one.
pub(crate) struct Oidc {
    settings: OidcSettings,
    redirect: String,
    provider: Provider,
    rounds: Once<Round>,
    codes: Once<Earned>,
}

/// A round that is under way.
struct Round {
    bond: Bond,
    /// Hash of the word in the cookie of the browser that began it.
    browser: Vec<u8>,
    /// When it began, by the wall clock.
    begun_at: Millis,
    fresh: bool,
    purpose: Purpose,
}

/// What a round is for.
enum Purpose {
    /// A session for the browser itself.
    Browser,
    /// Showing anew who holds a session of this browser.
    Again(LoginId, PrincipalId),
    /// A session for a program that listens on the browser's machine.
    Program { port: u16, challenge: String },
}

/// A login that a program has not fetched yet.
struct Earned {
    challenge: String,
    principal: PrincipalId,
    authenticated_at: Millis,
}

/// A round that has begun.
pub struct Begun {
    /// Where the browser goes.
    pub address: String,
    /// The word that binds the round to the browser, for a cookie.
    pub browser: SecretText,
}

/// How a round ended.
pub enum Ended {
    /// The browser has a session.
    Browser(Box<NewLogin>),
    /// Its session has been shown anew.
    Again(Box<OwnedLogin>),
    /// The browser goes back to the program on its machine.
    Program(String),
}

/// What the browser brings back.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// Which round.
    pub state: String,
    /// What the provider gives for it.
    pub code: Option<String>,
    /// Why it gives nothing.
    pub error: Option<String>,
    /// The word in the browser's cookie.
    pub browser: String,
}

impl Oidc {
    /// What the settings ask for.
    ///
    /// # Errors
    /// When there can be no client for the provider.
    pub(crate) fn new(settings: Option<&OidcSettings>, public_url: Option<&str>) -> anyhow::Result<Option<Self>> {
        let (Some(settings), Some(public)) = (settings, public_url) else { return Ok(None) };
        Ok(Some(Self {
            settings: settings.clone(),
            redirect: format!("{public}{}", routes::LOGIN_OIDC_CALLBACK),
            provider: Provider::new(settings)?,
            rounds: Once::new(ROUND_LASTS),
            codes: Once::new(CODE_LASTS),
        }))
    }
}

impl Manager {
    fn oidc(&self) -> Result<&Oidc, Refusal> {
        let fix = "log in with a name and a password; an operator sets an identity provider with oidc-issuer";
        let none = || Problem::new(Code::NotFound, "no identity provider is set at this Manager").with_fix(fix).into();
        self.oidc.as_ref().ok_or_else(none)
    }

    /// Begins a round. A `caller` with a session of the browser shows anew that it is theirs.
    ///
    /// # Errors
    /// `not_found` without a provider, `too_many_attempts`, `provider_unavailable`, `invalid_request`.
    pub async fn begin_oidc(
        &self,
        asked: BeginOidc,
        from: &Visitor,
        caller: Option<&Caller>,
    ) -> Result<Begun, Refusal> {
        let oidc = self.oidc()?;
        self.attempts.admit_from(from.address)?;
        let fresh = asked.fresh;
        let own = caller.filter(|_| fresh).and_then(|caller| caller.standing.credential.login());
        let purpose = match (asked.program()?, own) {
            (Some((port, challenge)), _) => Purpose::Program { port, challenge },
            (None, Some(login)) => Purpose::Again(login.id, login.owner),
            (None, None) => Purpose::Browser,
        };
        let word = || word(&*self.entropy);
        let (bond, browser) = (Bond { state: word(), nonce: word(), verifier: word() }, word());
        let lasting = Duration::from_millis(self.config.console.lifetime.unsigned_abs());
        let max_age = (!fresh).then_some(lasting);
        let asked = oidc.provider.address(&oidc.settings, &oidc.redirect, &bond, max_age, self.clock.boot());
        let address = asked.await.map_err(unavailable)?;
        let (state, hash) = (bond.state.clone(), self.keys.sealer.keyed_hash(browser.as_bytes()));
        let round = Round { bond, browser: hash, begun_at: self.clock.wall(), fresh, purpose };
        oidc.rounds.put(state, round, self.clock.boot());
        Ok(Begun { address, browser: SecretText::new(browser) })
    }

    /// Ends a round: the person is let in, or told why not.
    ///
    /// # Errors
    /// `login_refused` in a sentence for the person; `provider_unavailable`, `store_unavailable`.
    pub async fn end_oidc(&self, brought: Brought, from: Visitor) -> Result<Ended, Refusal> {
        let oidc = self.oidc()?;
        let round = oidc.rounds.take(&brought.state, self.clock.boot());
        // A round that another browser began is another person's.
        let own = |round: &Round| self.keys.sealer.hash_matches(brought.browser.as_bytes(), &round.browser);
        let round = round.filter(own).ok_or_else(|| {
            refused("this login was not begun in this browser, took too long, or has been used: begin again")
        })?;
        let ended = self.end_round(oidc, &round, brought, from).await;
        match (ended, round.purpose) {
            (Err(refusal), Purpose::Program { port, .. }) => {
                Ok(Ended::Program(Returned::Refused(refusal.0.detail.clone()).address(port)))
            }
            (ended, _) => ended,
        }
    }

    async fn end_round(&self, oidc: &Oidc, round: &Round, brought: Brought, from: Visitor) -> Result<Ended, Refusal> {
        let code = brought.code.ok_or_else(|| {
            let why: String =
                brought.error.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(64).collect();
            refused(&format!("the identity provider did not let you in ({why})"))
        })?;
        let now = self.clock.wall();
        let at = (self.clock.boot(), now);
        let said = oidc.provider.said(&oidc.settings, &oidc.redirect, &round.bond, code, at).await;
        let said = said.map_err(unavailable)?;
        let authenticated_at = shown_at(&said, round, now, self.config.console.lifetime)?;
        match &round.purpose {
            Purpose::Again(login, owner) => self
                .show_again(&said, *login, *owner, authenticated_at, from)
                .await
                .map(|shown| Ended::Again(Box::new(shown))),
            Purpose::Browser => {
                let entry = Entry::Session(authenticated_at);
                let (principal, begun) = self.let_in(oidc, said, entry, &from).await?;
                let begun = begun.ok_or_else(|| refused("the login has no session: begin again"))?;
                Ok(Ended::Browser(Box::new(begun.of(principal))))
            }
            Purpose::Program { port, challenge } => {
                let (principal, _) = self.let_in(oidc, said, Entry::Code, &from).await?;
                let (code, challenge) = (word(&*self.entropy), challenge.clone());
                let earned = Earned { challenge, principal: principal.id, authenticated_at };
                oidc.codes.put(code.clone(), earned, self.clock.boot());
                Ok(Ended::Program(Returned::Code(code).address(*port)))
            }
        }
    }

    /// Opens the session that a program's code stands for.
    ///
    /// # Errors
    /// `login_refused` for a code that is not known, not this program's, used, or too old.
    pub async fn log_in_by_code(&self, request: LogInByCode, from: Visitor) -> Result<NewLogin, Refusal> {
        let oidc = self.oidc()?;
        self.attempts.admit_from(from.address)?;
        let earned = oidc.codes.take(request.code.expose(), self.clock.boot());
        let earned = earned
            .filter(|earned| earned.challenge == challenge(request.word.expose()))
            .ok_or_else(|| refused("the code is not this program's, took too long, or has been used: begin again"))?;
        let id = earned.principal;
        let principal = self.store.read(job(move |conn: &mut Tx| Box::pin(principals::get(conn, id)))).await?;
        let principal = principal.ok_or_else(|| refused("the user has been deleted at this moment: begin again"))?;
        let session = self.prepared(id, LoginMethod::Oidc, earned.authenticated_at, &from);
        let begun = self.begin_session(principal, session, Ground::Provider(id), from).await?;
        begun.ok_or_else(|| refused("the user has been disabled at this moment"))
    }
}

/// When the person showed who they are, as far as the provider says.
fn shown_at(said: &Said, round: &Round, now: Millis, lifetime: Millis) -> Result<Millis, Refusal> {
    if round.fresh {
        // It was told to ask. One that says when it did must not have taken an old answer for a new one.
        let asked = said.auth_time.is_none_or(|at| at >= round.begun_at - CLOCKS_DIFFER);
        let again = || refused("the identity provider has not asked you again: log out there, and begin again");
        return if asked { Ok(now) } else { Err(again()) };
    }
    match said.auth_time {
        Some(at) if now - at > lifetime + CLOCKS_DIFFER => {
            Err(refused("your login at the identity provider is too old: log out there, and begin again"))
        }
        Some(at) => Ok(at.min(now)),
        // Nobody knows, so that what asks for a fresh session asks again.
        None => Ok(0),
    }
}

/// A word that nobody can guess.
fn word(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    hex(&bytes)
}

fn refused(why: &str) -> Refusal {
    Problem::new(Code::LoginRefused, why).with_fix("do as the detail says, or ask who runs this Manager").into()
}

/// Whatever goes wrong at the provider is for the operator to read; the person learns that it is not their fault.
fn unavailable(error: anyhow::Error) -> Refusal {
    tracing::error!(error = format!("{error:#}"), "a login at the identity provider failed");
    Refusal::new(Code::ProviderUnavailable, "the identity provider does not answer, or not as it should")
}

/// Who refuses somebody whom the Manager does not know yet.
fn stranger(from: &Visitor) -> Actor {
    Actor { request: from.request.clone(), address: from.address, ..Actor::system() }
}
