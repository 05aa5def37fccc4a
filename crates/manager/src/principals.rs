//! Users and service accounts: made, disabled and deleted. What they may do is in their grants.

use legation_api::{Code, principals::CreatePrincipal};
use legation_model::{Scope, access::Permission, ids::PrincipalId};
use legation_store::{
    Page, Paged, StoreError, Tx, api_keys,
    grants::{self, Grant},
    job, logins,
    principals::{self, Principal, PrincipalFilter},
    scopes,
};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Change},
    error::Refusal,
    grants::{held_by, leave_an_admin, own},
    idempotency::{self, Idempotency},
};

/// What becomes of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It can do nothing until it is enabled.
    Disabled,
    /// It can do what its grants say.
    Enabled,
    /// It is gone, and its grants and keys with it.
    Deleted,
}

/// A principal whose fate changed, or would.
#[derive(Clone, Debug)]
pub struct Changed {
    /// As it stands then.
    pub principal: Principal,
    /// Its grants.
    pub grants: Vec<Grant>,
    /// How many keys it owns.
    pub api_keys: u64,
    /// How many console sessions it has.
    pub sessions: u64,
}

impl Manager {
    /// Creates a principal, which can do nothing until it has a grant.
    ///
    /// # Errors
    /// `name_taken`, `not_found` for a scope that is not there, `idempotency_mismatch`, `store_unavailable`.
    pub async fn create_principal(
        &self,
        caller: &Caller,
        new: CreatePrincipal,
        once: Option<Idempotency>,
    ) -> Result<Principal, Refusal> {
        caller.require_home(new.scope.as_ref())?;
        let (actor, created_at) = (caller.actor(), self.clock.wall());
        let created_by = actor.name.clone();
        let CreatePrincipal { kind, scope, name, description } = new;
        let id = PrincipalId::random(&*self.entropy);
        let principal = Principal { id, kind, scope, name, description, disabled_at: None, created_at, created_by };
        let made = self.change_access(
            caller,
            |_| false,
            move |tx, caller| {
                Box::pin(async move {
                    if let Err(refusal) = caller.require_home(principal.scope.as_ref()) {
                        return Ok(Err(refusal));
                    }
                    if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                        return replayed(tx, before).await;
                    }
                    if let Some(scope) = &principal.scope
                        && scopes::get(tx, scope).await?.is_none()
                    {
                        return Ok(Err(Refusal::not_found("scope")));
                    }
                    principals::insert(tx, &principal).await?;
                    audit::append(
                        tx,
                        &actor,
                        created_at,
                        change("principal.create", &principal).after(shown(&principal)),
                    )
                    .await?;
                    idempotency::keep(tx, &actor, once.as_ref(), &principal.id.to_string(), created_at).await?;
                    Ok(Ok(principal))
                })
            },
        );
        made.await.map_err(name_taken)
    }

    /// One principal.
    ///
    /// # Errors
    /// `not_found` for a principal that the caller may not see.
    pub async fn principal(&self, caller: &Caller, id: PrincipalId) -> Result<Principal, Refusal> {
        let found = self.store.read(job(move |conn: &mut Tx| Box::pin(principals::get(conn, id)))).await?;
        let principal = found.ok_or_else(missing)?;
        caller.require_at(principal.scope.as_ref(), "principal")?;
        Ok(principal)
    }

    /// Principals, oldest first.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_principals(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        filter: PrincipalFilter,
        page: Page,
    ) -> Result<Paged<Principal>, Refusal> {
        let within = caller.confine(scope)?;
        let list =
            job(move |conn: &mut Tx| Box::pin(async move { principals::list(conn, &within, &filter, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// Disables, enables or deletes a principal. What a disabled or deleted one was doing ends at once; what it made,
    /// such as tokens, stays and goes on naming it.
    ///
    /// # Errors
    /// `not_found`, `built_in`, `last_admin`; `forbidden` for enabling one that holds more than the caller.
    pub async fn change_principal(
        &self,
        caller: &Caller,
        id: PrincipalId,
        fate: Fate,
        dry_run: bool,
    ) -> Result<Changed, Refusal> {
        self.principal(caller, id).await?;
        let (actor, now) = (caller.actor(), self.clock.wall());
        self.change_access(
            caller,
            move |standing| !dry_run && standing.owner() == id,
            move |tx, caller| {
                Box::pin(async move {
                    let Some(mut principal) = principals::get(tx, id).await? else { return Ok(Err(missing())) };
                    if let Err(refusal) = changeable(tx, &caller, &principal, fate).await? {
                        return Ok(Err(refusal));
                    }
                    let (grants, api_keys) = (grants::of(tx, id).await?, api_keys::count(tx, id).await?);
                    let sessions = logins::count(tx, id).await?;
                    let action = match fate {
                        Fate::Disabled => "principal.disable",
                        Fate::Enabled => "principal.enable",
                        Fate::Deleted => "principal.delete",
                    };
                    let before = shown(&principal);
                    match fate {
                        Fate::Disabled => principal.disabled_at = principal.disabled_at.or(Some(now)),
                        Fate::Enabled => principal.disabled_at = None,
                        Fate::Deleted => {}
                    }
                    if !dry_run {
                        match fate {
                            Fate::Deleted => principals::delete(tx, id).await?,
                            _ => principals::set_disabled(tx, id, principal.disabled_at).await?,
                        }
                        // A session does not come back with its owner, as a key does: a person logs in again.
                        if fate == Fate::Disabled {
                            logins::delete_others(tx, id, None).await?;
                        }
                        let change = match fate {
                            Fate::Deleted => change(action, &principal).before(before),
                            _ => change(action, &principal).between(before, shown(&principal)),
                        };
                        audit::append(tx, &actor, now, change).await?;
                    }
                    Ok(Ok(Changed { principal, grants, api_keys, sessions }))
                })
            },
        )
        .await
    }
}

/// Whether a caller may do that to a principal.
async fn changeable(
    tx: &mut Tx,
    caller: &Caller,
    principal: &Principal,
    fate: Fate,
) -> Result<Result<(), Refusal>, StoreError> {
    let id = principal.id;
    let allowed = caller.require_at(principal.scope.as_ref(), "principal").and_then(|()| own(id));
    if let Err(refusal) = allowed {
        return Ok(Err(refusal));
    }
    match fate {
        // What it holds was nobody's while it was disabled: to enable it is to give it.
        Fate::Enabled => Ok(caller.require_cover(&held_by(tx, id, None).await?)),
        Fate::Disabled | Fate::Deleted => leave_an_admin(tx, |_, lost| lost == id).await,
    }
}

/// Whether a principal exists for a caller that changes something beside it.
pub(crate) fn visible(caller: &Caller, principal: &Principal) -> bool {
    let held = &caller.standing.held;
    let place = principal.scope.as_ref();
    held.holds(Permission::AccessView, place) || held.holds(Permission::AccessEdit, place)
}

async fn replayed(tx: &mut Tx, before: Result<String, Refusal>) -> Result<Result<Principal, Refusal>, StoreError> {
    let id = before.and_then(|id| id.parse::<PrincipalId>().map_err(|_| missing()));
    Ok(match id {
        Ok(id) => principals::get(tx, id).await?.ok_or_else(missing),
        Err(refusal) => Err(refusal),
    })
}

fn missing() -> Refusal {
    Refusal::not_found("principal")
}

/// A principal as people see it, and as audit records show what changed of it.
pub(crate) fn shown(principal: &Principal) -> legation_api::principals::Principal {
    legation_api::principals::Principal {
        id: principal.id,
        kind: principal.kind,
        scope: principal.scope.clone(),
        name: principal.name.clone(),
        description: principal.description.clone(),
        disabled_at: principal.disabled_at,
        created_at: principal.created_at,
        created_by: principal.created_by.clone(),
    }
}

fn change(action: &'static str, principal: &Principal) -> Change {
    Change::new(action, principal.id, principal.scope.clone()).detail(principal.name.to_string())
}

/// The refusal of a name that is in use; a user's is unique everywhere.
fn name_taken(refusal: Refusal) -> Refusal {
    if refusal.0.code != Code::NameTaken {
        return refusal;
    }
    Refusal::new(
        Code::NameTaken,
        "a user of this name, or a service account of this name in this scope, exists already",
    )
}
