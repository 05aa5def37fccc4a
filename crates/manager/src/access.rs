//! Who is calling, and whether they may: what a key or a console session stands for, and the one place that decides.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::{Manager, audit::Actor, clock::CLOCK_JUMP_MAX, error::Refusal};
use futures_util::future::BoxFuture;
use legation_api::Code;
use legation_model::{
    Scope, Secret, Within,
    access::{Decision, Held, Permission},
    api_key::ApiKey,
    audit::AuditRecord,
    ids::PrincipalId,
    login::{LOGIN_PREFIX, Login},
};
use legation_store::{
    StoreError, Tx, job,
    standing::{self, Credential, CredentialId, Standing},
};

/// How long the store may take to know a credential before what is remembered of it counts.
const CREDENTIAL_WAIT: Duration = Duration::from_secs(1);

/// An authenticated caller of one route.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the presented key or session stands for.
    pub standing: Arc<Standing>,
    /// The request it makes, for the audit record.
    pub request: String,
    /// The network address from which it makes it, for the audit record.
    pub address: Option<IpAddr>,
    /// What the route needs; nothing is seen through a route that needs nothing.
    pub(crate) needs: Option<Permission>,
    /// Before which change of access it was looked up.
    pub(crate) epoch: u64,
}

impl Caller {
    /// The same caller on a route that needs a permission.
    #[must_use]
    pub fn needing(self, permission: Permission) -> Self {
        Self { needs: Some(permission), ..self }
    }

    /// The key or session it presented.
    pub fn credential(&self) -> CredentialId {
        self.standing.credential.id()
    }

    /// Whose that is.
    pub fn principal(&self) -> PrincipalId {
        self.standing.owner()
    }

    /// Whether the caller may do this anywhere at all.
    ///
    /// # Errors
    /// `forbidden`, naming the permission.
    pub fn require(&self, permission: Permission) -> Result<(), Refusal> {
        if self.standing.held.holds_somewhere(permission) {
            return Ok(());
        }
        let detail = format!("this needs the permission {permission}, which no grant of {} holds", self.named());
        Err(Refusal::new(Code::Forbidden, detail))
    }

    /// Whether the route's permission is held at this scope.
    pub fn sees(&self, scope: &Scope) -> bool {
        self.needs.is_some_and(|needed| self.standing.held.holds(needed, Some(scope)))
    }

    /// Refuses what the caller may not do to an object of this scope: in the words for one that does not exist, unless
    /// the caller may see it.
    ///
    /// # Errors
    /// `not_found`; `forbidden` for an object that the caller may see.
    pub fn require_sight(&self, scope: &Scope, what: &str) -> Result<(), Refusal> {
        self.require_at(Some(scope), what)
    }

    /// The same for an object that may belong to no scope.
    ///
    /// # Errors
    /// As [`Caller::require_sight`].
    pub fn require_at(&self, place: Option<&Scope>, what: &str) -> Result<(), Refusal> {
        let Some(needed) = self.needs else { return Err(Refusal::not_found(what)) };
        match self.standing.held.decide(needed, place) {
            Decision::Allowed => Ok(()),
            Decision::Hidden => Err(Refusal::not_found(what)),
            Decision::Forbidden => Err(self.forbidden(Some(needed), place)),
        }
    }

    /// The same for what is the caller's own, or somebody's who belongs there: with one's own everybody may.
    ///
    /// # Errors
    /// `forbidden` to whom the route's permission is nowhere given, whether or not the object is there; as
    /// [`Caller::require_at`].
    pub fn require_own_or_at(
        &self,
        owner: Option<PrincipalId>,
        place: Option<&Scope>,
        what: &str,
    ) -> Result<(), Refusal> {
        if owner == Some(self.principal()) {
            return Ok(());
        }
        self.needs.map_or(Ok(()), |needed| self.require(needed))?;
        if owner.is_none() { Err(Refusal::not_found(what)) } else { self.require_at(place, what) }
    }

    fn forbidden(&self, needed: Option<Permission>, place: Option<&Scope>) -> Refusal {
        let (needed, place) = (needed.map(Permission::as_str).unwrap_or("nothing"), spelled(place));
        let detail = format!("this needs the permission {needed}, which no grant of {} holds {place}", self.named());
        Refusal::new(Code::Forbidden, detail)
    }

    /// The caller as it stands in a transaction that changes access, where what it held a moment ago may be gone.
    async fn again(self, tx: &mut Tx) -> Result<Option<Self>, StoreError> {
        let standing = standing::standing(tx, self.credential()).await?;
        Ok(standing.map(|standing| Self { standing: Arc::new(standing), ..self }))
    }

    /// The same, refused like an unknown key if it is gone.
    ///
    /// # Errors
    /// Inside: `unauthenticated`.
    pub(crate) async fn still(self, tx: &mut Tx) -> Result<Result<Self, Refusal>, StoreError> {
        Ok(self.again(tx).await?.ok_or_else(unknown))
    }

    /// Refuses what concerns the whole tree unless the route's permission is held everywhere. That it is there is no
    /// secret.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require_everywhere(&self) -> Result<(), Refusal> {
        if self.is_everywhere() { Ok(()) } else { Err(self.forbidden(self.needs, None)) }
    }

    /// Refuses to make something that is to belong to a scope, or to the whole tree.
    ///
    /// # Errors
    /// As [`Caller::require_sight`], or as [`Caller::require_everywhere`].
    pub fn require_home(&self, scope: Option<&Scope>) -> Result<(), Refusal> {
        scope.map_or_else(|| self.require_everywhere(), |scope| self.require_sight(scope, "scope"))
    }

    /// Refuses to give what the caller does not hold at the same place.
    ///
    /// # Errors
    /// `forbidden`, naming what and where.
    pub fn require_cover(&self, other: &Held) -> Result<(), Refusal> {
        let Some((permission, place)) = self.standing.held.lacks(other) else { return Ok(()) };
        let place = spelled(place);
        let detail =
            format!("nobody can give what they do not hold: {} does not hold {permission} {place}", self.named());
        Err(Refusal::new(Code::Forbidden, detail))
    }

    /// What a list is confined to: the asked scope if the caller sees it, everything that the caller sees without one.
    ///
    /// # Errors
    /// `not_found` when the asked scope is outside.
    pub fn confine(&self, asked: Option<Scope>) -> Result<Within, Refusal> {
        match asked {
            Some(scope) => self.require_sight(&scope, "scope").map(|()| Within::below([scope])),
            None => Ok(self.needs.map_or(Within::below([]), |needed| self.standing.held.within(needed))),
        }
    }

    /// Whether the route's permission is held everywhere, and not only in some scope.
    pub fn is_everywhere(&self) -> bool {
        self.needs.is_some_and(|needed| self.standing.held.holds(needed, None))
    }

    /// Whether an audit record exists for the caller. What belongs to no scope is only for those who see everything.
    pub fn sees_record(&self, record: &AuditRecord) -> bool {
        record.scope.as_ref().map_or_else(|| self.is_everywhere(), |scope| self.sees(scope))
    }

    /// The caller as audit records name them: principal and key or session, by name and by id.
    pub fn actor(&self) -> Actor {
        let standing = &self.standing;
        let name = named(standing.owner_name.as_str(), standing.owner(), &standing.credential);
        Actor { name, request: self.request.clone(), address: self.address }
    }

    fn named(&self) -> String {
        let owner = &self.standing.owner_name;
        match &self.standing.credential {
            Credential::Key(key) => format!("{owner} through the key {}", key.name),
            Credential::Login(_) => format!("{owner} in a console session"),
        }
    }
}

/// Somebody as audit records name them.
pub(crate) fn named(owner_name: &str, owner: PrincipalId, credential: &Credential) -> String {
    match credential {
        Credential::Key(key) => format!("{owner_name}/{} ({owner}, {})", key.name, key.id),
        Credential::Login(login) => format!("{owner_name}/console ({owner}, {})", login.id),
    }
}

/// A place in a sentence.
fn spelled(place: Option<&Scope>) -> String {
    place.map_or_else(|| "everywhere".to_owned(), |scope| format!("in {scope}"))
}

impl Manager {
    /// Changes who may do what: in one transaction, by a caller who may still do so in that transaction. When this
    /// returns, nothing remembered and no live stream of those concerned is what it was before.
    ///
    /// # Errors
    /// What the change refuses, and those of the store.
    pub(crate) async fn change_access<T, F>(
        &self,
        caller: &Caller,
        concerned: impl Fn(&Standing) -> bool,
        change: F,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx, Caller) -> BoxFuture<'a, Result<Result<T, Refusal>, StoreError>> + Send + 'static,
    {
        let asking = caller.clone();
        let work = job(move |tx: &mut Tx| {
            Box::pin(async move {
                match asking.still(tx).await? {
                    Ok(caller) => change(tx, caller).await,
                    Err(refusal) => Ok(Err(refusal)),
                }
            })
        });
        let changed = self.store.write(work).await;
        // Also when nobody knows whether it was written. A refusal changed nothing.
        if !matches!(changed, Ok(Err(_))) {
            self.vouched.forget(concerned);
        }
        changed?
    }

    /// Finds out who presents this key or session.
    ///
    /// # Errors
    /// `unauthenticated` for anything but a known key or session that has not ended, of somebody who is not disabled;
    /// `store_unavailable` when nobody can tell.
    pub async fn authenticate(&self, presented: &str, request: String) -> Result<Caller, Refusal> {
        let (id, secret) = read(presented)?;
        let epoch = self.vouched.epoch();
        let standing = self.known(id, epoch).await?.ok_or_else(unknown)?;
        let genuine = self.keys.sealer.hash_matches(secret.expose(), standing.credential.hash());
        if !genuine || !self.is_current(&standing.credential) {
            return Err(unknown());
        }
        self.vouched.note_use(&standing.credential, self.clock.latest());
        Ok(Caller { standing, request, address: None, needs: None, epoch })
    }

    /// Whether a credential has not ended by itself: at its time, or, if it is a session, because nobody used it. A clock
    /// that is set back lengthens neither. A session that is younger than now was begun by a clock that was fast, and
    /// nobody knows how long it has been there.
    pub(crate) fn is_current(&self, credential: &Credential) -> bool {
        let now = self.clock.latest();
        match credential {
            Credential::Key(key) => key.expires_at.is_none_or(|end| now < end),
            Credential::Login(login) => {
                let used_at = self.vouched.last_use(credential).unwrap_or(login.created_at);
                let begun = login.created_at <= now + CLOCK_JUMP_MAX;
                begun && now < login.expires_at && now < used_at + self.config.console.idle
            }
        }
    }

    async fn known(&self, id: CredentialId, epoch: u64) -> Result<Option<Arc<Standing>>, StoreError> {
        let read = self.store.read(job(move |conn| Box::pin(standing::standing(conn, id))));
        // A revocation must not wait for a database that has fallen silent.
        let found = tokio::time::timeout(CREDENTIAL_WAIT, read).await;
        match found.unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer".to_owned()))) {
            Ok(Some(standing)) => {
                let standing = Arc::new(standing);
                self.vouched.remember(&standing, epoch, |credential| self.is_current(credential));
                Ok(Some(standing))
            }
            Ok(None) => {
                self.vouched.drop(id);
                Ok(None)
            }
            Err(error) => self.vouched.get(id).map(Some).ok_or(error),
        }
    }
}

/// What is presented, by its prefix a key or a session.
fn read(presented: &str) -> Result<(CredentialId, Secret<32>), Refusal> {
    let wrong = |error: &dyn std::fmt::Display| Refusal::new(Code::Unauthenticated, error.to_string());
    if presented.starts_with(LOGIN_PREFIX) {
        let login: Login = presented.parse().map_err(|error| wrong(&error))?;
        return Ok((CredentialId::Login(login.id), login.secret));
    }
    let key: ApiKey = presented.parse().map_err(|error| wrong(&error))?;
    Ok((CredentialId::Key(key.id), key.secret))
}

fn unknown() -> Refusal {
    let detail = "the API key or console session is not known, has ended, belongs to somebody who is disabled, or is \
                  mistyped";
    Refusal::new(Code::Unauthenticated, detail)
}

#[cfg(test)]
pub(crate) mod tests {
    use legation_model::{
        access::{Holding, PrincipalKind, Role},
        ids::ApiKeyId,
    };

    use super::*;

    /// A caller with these roles on a route that needs this permission.
    pub(crate) fn caller(grants: &[(Role, Option<&str>)], needs: Permission) -> Caller {
        let holding = |(role, scope): &(Role, Option<&str>)| Holding {
            permissions: role.permissions(),
            scope: scope.map(|scope| scope.parse().expect("a scope")),
        };
        let key = legation_store::api_keys::ApiKey {
            id: ApiKeyId([0; 16]),
            owner: PrincipalId([0; 16]),
            name: "k".parse().expect("a name"),
            hash: Vec::new(),
            scope: None,
            created_at: 0,
            created_by: String::new(),
            expires_at: None,
            last_used_at: None,
        };
        let standing = Standing {
            credential: Credential::Key(key),
            kind: PrincipalKind::User,
            owner_name: "p".parse().expect("a name"),
            grants: Vec::new(),
            held: Held::new(grants.iter().map(holding), None),
        };
        Caller { standing: Arc::new(standing), request: String::new(), address: None, needs: Some(needs), epoch: 0 }
    }

    fn scope(text: &str) -> Scope {
        text.parse().expect("a scope")
    }

    #[test]
    fn another_tenants_objects_do_not_exist() {
        let foreign = scope("other");
        let own = caller(&[(Role::Operator, Some("acme"))], Permission::DelegateEdit);
        assert_eq!(own.require_sight(&foreign, "token").expect_err("outside"), Refusal::not_found("token"));
        assert!(own.confine(Some(foreign.clone())).is_err());
        assert!(caller(&[(Role::Operator, None)], Permission::DelegateEdit).sees(&foreign));
        assert!(own.sees(&scope("acme/eng")));
        assert!(!caller(&[(Role::Operator, Some("acme/eng"))], Permission::DelegateEdit).sees(&scope("acme")));
    }

    #[test]
    fn what_is_only_seen_is_forbidden_and_not_missing() {
        let grants = [(Role::Viewer, Some("acme")), (Role::Operator, Some("acme/eng"))];
        let own = caller(&grants, Permission::DelegateEdit);
        let refusal = own.require_sight(&scope("acme"), "token").expect_err("only seen");
        assert_eq!(refusal.0.code, Code::Forbidden);
        assert!(refusal.0.detail.contains("core_delegate_edit") && refusal.0.detail.contains("in acme"), "{refusal}");
        assert_eq!(own.require_sight(&scope("acme/eng/web"), "token"), Ok(()));
        assert_eq!(own.confine(None), Ok(Within::below([scope("acme/eng")])));
        let nothing = Caller { needs: None, ..own };
        assert!(!nothing.sees(&scope("acme/eng")) && nothing.confine(None) == Ok(Within::below([])));
    }
}
