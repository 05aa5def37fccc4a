//! Who somebody from the identity provider is here, and what their groups give them: made and brought up to date in the
//! transaction that lets them in.

use std::collections::BTreeSet;

use legation_model::{
    Millis, Name, Scope, Text,
    access::PrincipalKind,
    ids::{GrantId, LoginId, PrincipalId},
    login::LoginMethod,
};
use legation_store::{
    StoreError, Tx,
    grants::{self, Grant},
    identities::{self, Identity},
    job,
    logins::{self, OwnedLogin},
    principals::{self, Principal},
    scopes,
};
use serde_json::Value;

use super::{Oidc, refused, settings::MappedRole, stranger};
use crate::{
    Manager,
    audit::{self, Actor, Change},
    error::Refusal,
    grants::{GRANTS_MAX, shown as shown_grant},
    logins::{Begun, Visitor, begin},
    oidc::provider::Said,
    principals::shown as shown_principal,
    roles::permissions,
};

/// The longest subject that a provider may say.
const SUBJECT_MAX: usize = 255;

/// What somebody gets who is let in.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    /// A session, whose owner showed at this time who they are.
    Session(Millis),
    /// A code, for which a program gets one.
    Code,
}

/// Somebody at the door.
struct Guest {
    identity: Identity,
    name: Option<Name>,
    /// What their groups give, each once.
    roles: Vec<(Name, Option<Scope>)>,
    /// For new rows.
    principal: PrincipalId,
    grants: Vec<GrantId>,
    actor: Actor,
    now: Millis,
}

/// What came of it.
enum Outcome {
    /// They are in.
    In(Principal, Option<Begun>),
    /// They are not, for this reason.
    Out(Option<Principal>, &'static str),
}

const NO_GROUP: &str =
    "none of your groups at the identity provider gives you anything here: ask who runs this Manager";
const DISABLED: &str = "your user has been disabled here: ask who runs this Manager";

impl Manager {
    /// Lets somebody in whom the provider vouches for. What their groups do not give any more ends at once, also when
    /// they are not let in.
    pub(super) async fn let_in(
        &self,
        oidc: &Oidc,
        said: Said,
        entry: Entry,
        from: &Visitor,
    ) -> Result<(Principal, Option<Begun>), Refusal> {
        let guest = self.guest(oidc, said, from)?;
        let known = guest.principal_of(self).await?.unwrap_or(guest.principal);
        let session = match entry {
            Entry::Session(at) => Some(self.prepared(known, LoginMethod::Oidc, at, from)),
            Entry::Code => None,
        };
        let visitor = from.clone();
        let work = job(move |tx: &mut Tx| {
            Box::pin(async move {
                let (outcome, changed) = guest.settle(tx).await?;
                let Outcome::In(principal, _) = &outcome else { return Ok((outcome, changed)) };
                let Some(session) = session.filter(|session| session.is_of(principal.id)) else {
                    return Ok((Outcome::In(principal.clone(), None), changed));
                };
                let ended = begin(tx, principal, &session, &visitor).await?;
                let principal = principal.clone();
                Ok((Outcome::In(principal, Some(session)), changed || ended > 0))
            })
        });
        let written = self.store.write(work).await;
        let concerned = match &written {
            Ok((Outcome::In(principal, _), _)) => Some(principal.id),
            Ok((Outcome::Out(principal, _), _)) => principal.as_ref().map(|principal| principal.id),
            Err(_) => Some(known),
        };
        if !matches!(written, Ok((_, false))) {
            self.vouched.forget(|standing| Some(standing.owner()) == concerned);
        }
        match written?.0 {
            Outcome::In(principal, begun) => Ok((principal, begun)),
            Outcome::Out(principal, why) => {
                self.refuse_login(principal.as_ref(), &stranger(from));
                Err(refused(why))
            }
        }
    }

    /// Notes that the holder of a session showed once more who they are.
    pub(super) async fn show_again(
        &self,
        said: &Said,
        login: LoginId,
        owner: PrincipalId,
        at: Millis,
        from: Visitor,
    ) -> Result<OwnedLogin, Refusal> {
        let identity = Identity { issuer: said.issuer.clone(), subject: said.subject.clone() };
        let (actor, now) = (stranger(&from), self.clock.wall());
        let work = job(move |tx: &mut Tx| {
            Box::pin(async move {
                let found = logins::get(tx, login).await?.filter(|found| found.login.owner == owner);
                let (Some(found), Some(same)) = (found, identities::find(tx, &identity).await?) else {
                    return Ok(None);
                };
                let enabled = principals::get(tx, owner).await?.is_some_and(|owner| owner.disabled_at.is_none());
                if same != owner || !enabled {
                    return Ok(None);
                }
                logins::set_authenticated(tx, login, at).await?;
                let change =
                    Change::new("login.again", login, found.scope.clone()).detail(found.owner_name.to_string());
                audit::append(tx, &actor, now, change).await?;
                logins::get(tx, login).await
            })
        });
        let shown = self.store.write(work).await?;
        shown.ok_or_else(|| refused("the session has ended, or the identity provider says that you are somebody else"))
    }

    fn guest(&self, oidc: &Oidc, said: Said, from: &Visitor) -> Result<Guest, Refusal> {
        if said.subject.is_empty() || said.subject.chars().count() > SUBJECT_MAX {
            return Err(refused("the identity provider gives you a subject that is empty or too long"));
        }
        let settings = &oidc.settings;
        let groups = groups(&said.claims[&settings.groups_claim]);
        let gives = |mapped: &&MappedRole| groups.contains(&mapped.group);
        let roles: BTreeSet<_> =
            settings.grants.iter().filter(gives).map(|mapped| (mapped.role.clone(), mapped.scope.clone())).collect();
        let random = |_: &(Name, Option<Scope>)| GrantId::random(&*self.entropy);
        let issuer = &said.issuer;
        let actor = Actor { name: format!("identity provider {issuer}"), ..stranger(from) };
        Ok(Guest {
            name: said.claims[&settings.name_claim].as_str().and_then(|name| name.parse().ok()),
            grants: roles.iter().map(random).collect(),
            roles: roles.into_iter().collect(),
            identity: Identity { issuer: said.issuer, subject: said.subject },
            principal: PrincipalId::random(&*self.entropy),
            actor,
            now: self.clock.wall(),
        })
    }

    /// Says what the mapping gives, so that nobody has to find out by being given it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn tell_mapping(&self) -> Result<(), StoreError> {
        let Some(oidc) = &self.oidc else { return Ok(()) };
        for MappedRole { group, role, scope } in oidc.settings.grants.clone() {
            let (named, place) = (role.clone(), scope.clone());
            let found = job(move |conn: &mut Tx| {
                Box::pin(async move {
                    let there = match &place {
                        Some(place) => scopes::get(conn, place).await?.is_some(),
                        None => true,
                    };
                    Ok(permissions(conn, &named).await?.filter(|_| there))
                })
            });
            let place = scope.map_or_else(|| "everywhere".to_owned(), |scope| scope.to_string());
            match self.store.read(found).await? {
                Some(held) => {
                    let held: Vec<&str> = held.iter().map(|permission| permission.as_str()).collect();
                    tracing::info!(%group, %role, %place, holds = held.join(" "), "a group of the identity provider gives a role");
                }
                None => tracing::warn!(%group, %role, %place, "a group gives nothing: there is no such role or scope"),
            }
        }
        Ok(())
    }
}

impl Guest {
    /// Who they are here already.
    async fn principal_of(&self, manager: &Manager) -> Result<Option<PrincipalId>, StoreError> {
        let identity = self.identity.clone();
        let find = job(move |conn: &mut Tx| Box::pin(async move { identities::find(conn, &identity).await }));
        manager.store.read(find).await
    }

    /// Makes them a user if they are new, and brings their grants up to date; whether anything was taken or given.
    async fn settle(&self, tx: &mut Tx) -> Result<(Outcome, bool), StoreError> {
        let known = match identities::find(tx, &self.identity).await? {
            Some(id) => principals::get(tx, id).await?,
            None => None,
        };
        let wanted = self.that_exist(tx).await?;
        let principal = match known {
            Some(principal) => principal,
            None if wanted.is_empty() => return Ok((Outcome::Out(None, NO_GROUP), false)),
            None => self.make(tx).await?,
        };
        let changed = self.bring_up_to_date(tx, principal.id, &wanted).await?;
        let outcome = match (&principal.disabled_at, wanted.is_empty()) {
            (Some(_), _) => Outcome::Out(Some(principal), DISABLED),
            (None, true) => Outcome::Out(Some(principal), NO_GROUP),
            (None, false) => Outcome::In(principal, None),
        };
        Ok((outcome, changed))
    }

    /// What is given, as far as there are such roles and scopes.
    async fn that_exist(&self, tx: &mut Tx) -> Result<Vec<(Name, Option<Scope>)>, StoreError> {
        let mut existing = Vec::new();
        for (role, scope) in &self.roles {
            let place = match scope {
                Some(scope) => scopes::get(tx, scope).await?.is_some(),
                None => true,
            };
            if place && permissions(tx, role).await?.is_some() {
                existing.push((role.clone(), scope.clone()));
            }
        }
        Ok(existing)
    }

    /// A new user, bound to the person at the provider. A local user of the same name is somebody else.
    async fn make(&self, tx: &mut Tx) -> Result<Principal, StoreError> {
        let id = self.principal;
        let marked = |name: &str| format!("{name}-{}", &id.to_string()[4..12]).parse::<Name>().ok();
        let plain = match &self.name {
            Some(name) if principals::user(tx, name).await?.is_none() => Some(name.clone()),
            Some(name) => marked(name.as_str()),
            None => None,
        };
        // A name that grows too long by its mark is no name.
        let name = plain.or_else(|| marked("person")).ok_or_else(|| StoreError::Refused("no name".to_owned()))?;
        let principal = Principal {
            id,
            kind: PrincipalKind::User,
            scope: None,
            name,
            description: format!("logs in at {}", self.identity.issuer).parse::<Text>().unwrap_or_default(),
            disabled_at: None,
            created_at: self.now,
            created_by: self.actor.name.clone(),
        };
        principals::insert(tx, &principal).await?;
        identities::insert(tx, &self.identity, id, self.now).await?;
        let change = Change::new("principal.create", id, None).detail(principal.name.to_string());
        let after = (shown_principal(&principal), &self.identity.subject);
        let mut fields = serde_json::to_value(after.0).unwrap_or_default();
        fields["subject"] = Value::String(after.1.clone());
        audit::append(tx, &self.actor, self.now, change.after(fields)).await?;
        Ok(principal)
    }

    /// Takes away what the mapping gave and gives no more, and gives what it gives now. What people gave stays.
    async fn bring_up_to_date(
        &self,
        tx: &mut Tx,
        principal: PrincipalId,
        wanted: &[(Name, Option<Scope>)],
    ) -> Result<bool, StoreError> {
        let mut changed = false;
        let is_wanted = |grant: &Grant| wanted.iter().any(|(role, scope)| *role == grant.role && *scope == grant.scope);
        for grant in grants::mapped(tx, principal).await?.into_iter().filter(|grant| !is_wanted(grant)) {
            grants::delete(tx, grant.id).await?;
            let change = Change::new("grant.delete", grant.id, grant.scope.clone()).before(shown_grant(&grant));
            audit::append(tx, &self.actor, self.now, change).await?;
            changed = true;
        }
        let present = grants::of(tx, principal).await?;
        let has =
            |role: &Name, scope: &Option<Scope>| present.iter().any(|had| had.role == *role && had.scope == *scope);
        let missing = wanted.iter().zip(&self.grants).filter(|((role, scope), _)| !has(role, scope));
        for ((role, scope), id) in missing.take(GRANTS_MAX.saturating_sub(present.len())) {
            let (role, scope, created_by) = (role.clone(), scope.clone(), self.actor.name.clone());
            let grant = Grant { id: *id, principal, role, scope, created_at: self.now, created_by };
            grants::insert_mapped(tx, &grant).await?;
            let change = Change::new("grant.create", grant.id, grant.scope.clone()).after(shown_grant(&grant));
            audit::append(tx, &self.actor, self.now, change).await?;
            changed = true;
        }
        Ok(changed)
    }
}

/// The groups in a claim: a list of names, or a single one.
fn groups(claim: &Value) -> BTreeSet<String> {
    match claim {
        Value::String(group) => BTreeSet::from([group.clone()]),
        Value::Array(groups) => groups.iter().filter_map(|group| group.as_str().map(str::to_owned)).collect(),
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_are_names_and_nothing_else() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(groups(&json!(["a", "b", 3, null, ["c"]])), set(&["a", "b"]));
        assert_eq!(groups(&json!("a b")), set(&["a b"]));
        for none in [json!(null), json!(true), json!({"a": "b"}), json!(7)] {
            assert_eq!(groups(&none), set(&[]));
        }
    }
}
