//! Who is calling, and whether they may: what a key stands for, and the one place that decides.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use legation_api::Code;
use legation_model::{
    Millis, Scope, Within,
    access::{Decision, Held, Permission},
    api_key::ApiKey,
    audit::AuditRecord,
    ids::{ApiKeyId, PrincipalId},
};
use legation_store::{
    StoreError, Tx,
    api_keys::{self, Standing},
    job,
};
use tokio::sync::watch;

use crate::{Manager, audit::Actor, error::Refusal, lock::lock};

/// Keys that are remembered: more than people and scripts have, and a few hundred bytes each.
const VOUCHED_MAX: usize = 1024;

/// How long the store may take to know a key before what is remembered of it counts.
const KEY_WAIT: Duration = Duration::from_secs(1);

/// How exact the store's time of a key's last use is: a write for every request would cost more than it tells.
const USED_STEP: Millis = 10_000;

/// Keys that the store vouched for, for when it is gone: a revocation cuts even when it cannot be written, and
/// who asks for it must be known then. Every other call needs the store anyway and says so.
///
/// What takes access away is written by this process alone, which has it forgotten here before it answers.
#[derive(Default)]
pub(crate) struct Vouched {
    known: Mutex<BTreeMap<ApiKeyId, Arc<Standing>>>,
    /// When each key was used since this was last written down.
    used: Mutex<HashMap<ApiKeyId, Millis>>,
    /// Raised by each change of access.
    epoch: watch::Sender<u64>,
}

impl Vouched {
    /// Remembers what was read in this epoch; what was read before a change may be what the change took away.
    fn remember(&self, standing: &Arc<Standing>, read_in: u64) {
        let mut known = lock(&self.known);
        if *self.epoch.borrow() != read_in {
            return;
        }
        if known.len() < VOUCHED_MAX || known.contains_key(&standing.key.id) {
            known.insert(standing.key.id, Arc::clone(standing));
        }
    }

    /// Forgets the keys that a change of access concerns, and has everybody who goes on for long look again.
    pub(crate) fn forget(&self, concerned: impl Fn(&Standing) -> bool) {
        let mut known = lock(&self.known);
        known.retain(|_, standing| !concerned(standing));
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    fn get(&self, id: ApiKeyId) -> Option<Arc<Standing>> {
        lock(&self.known).get(&id).cloned()
    }

    /// Takes back what could not be written down, for the next time.
    pub(crate) fn keep_used(&self, times: &[(ApiKeyId, Millis)]) {
        let mut used = lock(&self.used);
        for (id, at) in times {
            let noted = used.entry(*id).or_insert(*at);
            *noted = (*noted).max(*at);
        }
    }

    /// The keys that were used since this was last asked, and when.
    pub(crate) fn take_used(&self) -> Vec<(ApiKeyId, Millis)> {
        std::mem::take(&mut *lock(&self.used)).into_iter().collect()
    }
}

/// An authenticated caller of one route.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the presented key stands for.
    pub standing: Arc<Standing>,
    /// The request it makes, for the audit record.
    pub request: String,
    /// The network address from which it makes it, for the audit record.
    pub address: Option<IpAddr>,
    /// What the route needs; nothing is seen through a route that needs nothing.
    needs: Option<Permission>,
    epoch: u64,
}

impl Caller {
    /// The same caller on a route that needs a permission.
    #[must_use]
    pub fn needing(self, permission: Permission) -> Self {
        Self { needs: Some(permission), ..self }
    }

    /// The key it presented.
    pub fn key(&self) -> ApiKeyId {
        self.standing.key.id
    }

    /// Whose key that is.
    pub fn principal(&self) -> PrincipalId {
        self.standing.key.owner
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

    fn forbidden(&self, needed: Option<Permission>, place: Option<&Scope>) -> Refusal {
        let (needed, place) = (needed.map(Permission::as_str).unwrap_or("nothing"), spelled(place));
        let detail = format!("this needs the permission {needed}, which no grant of {} holds {place}", self.named());
        Refusal::new(Code::Forbidden, detail)
    }

    /// The caller as it stands in a transaction that changes access, where what it held a moment ago may be gone.
    async fn again(self, tx: &mut Tx) -> Result<Option<Self>, StoreError> {
        let standing = api_keys::standing(tx, self.key()).await?;
        Ok(standing.map(|standing| Self { standing: Arc::new(standing), ..self }))
    }

    /// The same, refused like an unknown key if it is gone.
    ///
    /// # Errors
    /// Inside: `unauthenticated`.
    pub(crate) async fn still(self, tx: &mut Tx) -> Result<Result<Self, Refusal>, StoreError> {
        Ok(self.again(tx).await?.ok_or_else(unknown_key))
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

    /// The caller as audit records name them: principal and key, by name and by id.
    pub fn actor(&self) -> Actor {
        let standing = &self.standing;
        let (owner, key) = (&standing.key.owner, &standing.key);
        let name = format!("{}/{} ({owner}, {})", standing.owner_name, key.name, key.id);
        Actor { name, request: self.request.clone(), address: self.address }
    }

    fn named(&self) -> String {
        format!("{} through the key {}", self.standing.owner_name, self.standing.key.name)
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

    /// Finds out who presents this key.
    ///
    /// # Errors
    /// `unauthenticated` for anything but a known, unexpired key of somebody who is not disabled; `store_unavailable`
    /// when nobody can tell.
    pub async fn authenticate(&self, presented: &str, request: String) -> Result<Caller, Refusal> {
        let key: ApiKey = presented.parse().map_err(|error| Refusal::new(Code::Unauthenticated, format!("{error}")))?;
        let epoch = *self.vouched.epoch.borrow();
        let standing = self.known_key(key.id, epoch).await?.ok_or_else(unknown_key)?;
        let now = self.clock.wall();
        let current = standing.key.expires_at.is_none_or(|end| now < end);
        if !current || !self.keys.sealer.hash_matches(key.secret.expose(), &standing.key.hash) {
            return Err(unknown_key());
        }
        if standing.key.last_used_at.is_none_or(|noted| now - noted >= USED_STEP) {
            lock(&self.vouched.used).insert(key.id, now);
        }
        Ok(Caller { standing, request, address: None, needs: None, epoch })
    }

    async fn known_key(&self, id: ApiKeyId, epoch: u64) -> Result<Option<Arc<Standing>>, StoreError> {
        let read = self.store.read(job(move |conn| Box::pin(api_keys::standing(conn, id))));
        // A revocation must not wait for a database that has fallen silent.
        let found = tokio::time::timeout(KEY_WAIT, read).await;
        match found.unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer".to_owned()))) {
            Ok(Some(standing)) => {
                let standing = Arc::new(standing);
                self.vouched.remember(&standing, epoch);
                Ok(Some(standing))
            }
            Ok(None) => {
                lock(&self.vouched.known).remove(&id);
                Ok(None)
            }
            Err(error) => self.vouched.get(id).map(Some).ok_or(error),
        }
    }
}

fn unknown_key() -> Refusal {
    let detail = "the API key is not known, has expired, belongs to somebody who is disabled, or is mistyped";
    Refusal::new(Code::Unauthenticated, detail)
}

/// A caller that goes on for long, such as a live stream: it ends with its access.
pub struct Lasting {
    manager: Arc<Manager>,
    caller: Caller,
    changes: watch::Receiver<u64>,
}

impl Lasting {
    /// From now on.
    pub fn new(manager: Arc<Manager>, caller: Caller) -> Self {
        let changes = manager.vouched.epoch.subscribe();
        Self { manager, caller, changes }
    }

    /// The caller, as it was last looked up.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller may still see this scope. Doubt denies.
    pub async fn sees(&mut self, scope: &Scope) -> bool {
        self.stands().await && self.caller.sees(scope)
    }

    /// Whether the caller may still do somewhere what its route needs; after a change of access it is looked up anew.
    /// Doubt denies.
    pub async fn stands(&mut self) -> bool {
        let epoch = *self.changes.borrow_and_update();
        if epoch != self.caller.epoch {
            let key = self.caller.key();
            let read = job(move |conn: &mut Tx| Box::pin(api_keys::standing(conn, key)));
            let Ok(Some(standing)) = self.manager.store.read(read).await else { return false };
            self.caller.standing = Arc::new(standing);
            self.caller.epoch = epoch;
        }
        let now = self.manager.clock.wall();
        let current = self.caller.standing.key.expires_at.is_none_or(|end| now < end);
        current && self.caller.needs.is_some_and(|needed| self.caller.standing.held.holds_somewhere(needed))
    }

    /// Waits for a change of anybody's access.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The Manager is gone, and this with it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use legation_model::access::{Held, Holding, PrincipalKind, Role};

    use super::*;

    /// A caller with these roles on a route that needs this permission.
    pub(crate) fn caller(grants: &[(Role, Option<&str>)], needs: Permission) -> Caller {
        let holding = |(role, scope): &(Role, Option<&str>)| Holding {
            permissions: role.permissions(),
            scope: scope.map(|scope| scope.parse().expect("a scope")),
        };
        let key = api_keys::ApiKey {
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
            key,
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

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let vouched = Vouched::default();
        let standing = caller(&[], Permission::TaskView).standing;
        let epoch = *vouched.epoch.borrow();
        vouched.remember(&standing, epoch);
        assert!(vouched.get(standing.key.id).is_some());
        vouched.forget(|other| other.key.id == standing.key.id);
        assert!(vouched.get(standing.key.id).is_none());
        vouched.remember(&standing, epoch);
        assert!(vouched.get(standing.key.id).is_none(), "a removed key came back");
        vouched.remember(&standing, epoch + 1);
        vouched.forget(|_| false);
        assert!(vouched.get(standing.key.id).is_some(), "somebody else's change");
    }
}
