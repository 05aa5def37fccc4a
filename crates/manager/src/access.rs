//! Who is calling, and whether they may: API keys, and the one place that decides.

use std::{collections::BTreeMap, net::IpAddr, sync::Mutex, time::Duration};

use legation_api::Code;
use legation_model::{
    Millis, Name, Scope,
    access::{Permission, Role},
    api_key::ApiKey,
    audit::AuditRecord,
    ids::ApiKeyId,
};
use legation_store::{StoreError, api_keys};

use crate::{Manager, audit::Actor, error::Refusal, lock::lock};

/// Keys that are remembered: more than people and scripts have, and 200 KiB at most.
const VOUCHED_MAX: usize = 1024;

/// How long the store may take to know a key before what is remembered of it counts.
const KEY_WAIT: Duration = Duration::from_secs(1);

/// Keys that the store vouched for, for when it is gone: a revocation cuts even when it cannot be written, and
/// who asks for it must be known then. Every other call needs the store anyway and says so.
///
/// No other process takes a key away while this one holds the database, so what is remembered stays true.
#[derive(Default)]
pub(crate) struct Vouched(Mutex<BTreeMap<ApiKeyId, api_keys::ApiKey>>);

impl Vouched {
    fn remember(&self, key: &api_keys::ApiKey) {
        let mut known = lock(&self.0);
        if known.len() < VOUCHED_MAX || known.contains_key(&key.id) {
            known.insert(key.id, key.clone());
        }
    }

    fn forget(&self, id: ApiKeyId) {
        lock(&self.0).remove(&id);
    }

    fn get(&self, id: ApiKeyId) -> Option<api_keys::ApiKey> {
        lock(&self.0).get(&id).cloned()
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key's id.
    pub key: ApiKeyId,
    /// The key's name.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// Where: this scope and below; everywhere when empty.
    pub scope: Option<Scope>,
    /// When the key ends.
    pub expires_at: Option<Millis>,
    /// The request it makes, for the audit record.
    pub request: String,
    /// The network address from which it makes it, for the audit record.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Whether the caller may do this at all.
    ///
    /// # Errors
    /// `forbidden`, naming the permission.
    pub fn require(&self, permission: Permission) -> Result<(), Refusal> {
        if self.role.holds(permission) {
            return Ok(());
        }
        let detail =
            format!("this needs the permission {permission}, which the role {} of this key does not hold", self.role);
        Err(Refusal::new(Code::Forbidden, detail))
    }

    /// Whether objects of this scope exist for the caller.
    pub fn sees(&self, scope: &Scope) -> bool {
        self.scope.as_ref().is_none_or(|own| own.contains(scope))
    }

    /// Refuses an object outside the caller's scope in the words for one that does not exist.
    ///
    /// # Errors
    /// `not_found`.
    pub fn require_sight(&self, scope: &Scope, what: &str) -> Result<(), Refusal> {
        if self.sees(scope) { Ok(()) } else { Err(Refusal::not_found(what)) }
    }

    /// The scope a list is confined to: the asked one if the caller sees it, else the caller's own.
    ///
    /// # Errors
    /// `not_found` when the asked scope is outside.
    pub fn confine(&self, asked: Option<Scope>) -> Result<Option<Scope>, Refusal> {
        match asked {
            Some(scope) => self.require_sight(&scope, "scope").map(|()| Some(scope)),
            None => Ok(self.scope.clone()),
        }
    }

    /// Whether everything exists for the caller, and not only what is in some scope.
    pub fn is_everywhere(&self) -> bool {
        self.scope.is_none()
    }

    /// Refuses whoever does not see everything.
    ///
    /// # Errors
    /// `forbidden`, with the reason.
    pub fn require_everywhere(&self, why: &str) -> Result<(), Refusal> {
        if self.is_everywhere() {
            return Ok(());
        }
        Err(Refusal::new(Code::Forbidden, format!("this needs an API key that is not confined to a scope; {why}")))
    }

    /// Whether an audit record exists for the caller. What belongs to no scope is only for those who see everything.
    pub fn sees_record(&self, record: &AuditRecord) -> bool {
        record.scope.as_ref().map_or(self.is_everywhere(), |scope| self.sees(scope))
    }

    /// The caller as audit records name them.
    pub fn actor(&self) -> Actor {
        let name = format!("{} ({})", self.name, self.key);
        Actor { name, request: self.request.clone(), address: self.address }
    }
}

impl Manager {
    /// Finds out who presents this key.
    ///
    /// # Errors
    /// `unauthenticated` for anything but a known, unexpired key; `store_unavailable` when nobody can tell.
    pub async fn authenticate(&self, presented: &str, request: String) -> Result<Caller, Refusal> {
        let refusal = || {
            let detail = "the API key is not known, has expired, or is mistyped";
            Refusal::new(Code::Unauthenticated, detail)
        };
        let key: ApiKey = presented.parse().map_err(|error| Refusal::new(Code::Unauthenticated, format!("{error}")))?;
        let row = self.known_key(key.id).await?.ok_or_else(refusal)?;
        let current = row.expires_at.is_none_or(|end| self.clock.wall() < end);
        if !current || !self.keys.sealer.hash_matches(key.secret.expose(), &row.hash) {
            return Err(refusal());
        }
        Ok(Caller {
            key: row.id,
            name: row.name,
            role: row.role,
            scope: row.scope,
            expires_at: row.expires_at,
            request,
            address: None,
        })
    }

    /// Whether a caller that was let in still holds the same right: for streams, which outlive their request.
    pub(crate) async fn still_may(&self, caller: &Caller, permission: Permission) -> bool {
        let Ok(Some(key)) = self.known_key(caller.key).await else { return false };
        let current = key.expires_at.is_none_or(|end| self.clock.wall() < end);
        current && key.role.holds(permission) && key.scope == caller.scope
    }

    async fn known_key(&self, id: ApiKeyId) -> Result<Option<api_keys::ApiKey>, StoreError> {
        let read = self.store.read(move |conn| Box::pin(api_keys::get(conn, id)));
        // A revocation must not wait for a database that has fallen silent.
        let found = tokio::time::timeout(KEY_WAIT, read).await;
        match found.unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer".to_owned()))) {
            Ok(Some(key)) => {
                self.vouched.remember(&key);
                Ok(Some(key))
            }
            Ok(None) => {
                self.vouched.forget(id);
                Ok(None)
            }
            Err(error) => self.vouched.get(id).map(Some).ok_or(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scope: Option<&str>) -> Caller {
        Caller {
            key: ApiKeyId([0; 16]),
            name: "k".parse().expect("a name"),
            role: Role::Operator,
            scope: scope.map(|scope| scope.parse().expect("a scope")),
            expires_at: None,
            request: String::new(),
            address: None,
        }
    }

    #[test]
    fn another_tenants_objects_do_not_exist() {
        let foreign: Scope = "other".parse().expect("a scope");
        let refusal = caller(Some("acme")).require_sight(&foreign, "token").expect_err("outside");
        assert_eq!(refusal, Refusal::not_found("token"));
        assert!(caller(Some("acme")).confine(Some(foreign.clone())).is_err());
        assert!(caller(None).sees(&foreign));
        assert!(caller(Some("acme")).sees(&"acme/eng".parse().expect("a scope")));
        assert!(!caller(Some("acme/eng")).sees(&"acme".parse().expect("a scope")));
    }
}
