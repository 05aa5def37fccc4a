//! Grants: who has which role where. Nobody gives what they do not hold, and somebody always may do everything.

use legation_api::{Code, grants::CreateGrant};
use legation_model::{
    Scope,
    access::{Held, Holding},
    ids::{GrantId, PrincipalId},
    scope::WITHIN_MAX,
};
use legation_store::{
    Page, Paged, StoreError, Tx,
    grants::{self, Grant, GrantFilter},
    job,
    principals::{self, BREAK_GLASS},
    scopes,
};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Change},
    error::Refusal,
    idempotency::{self, Idempotency},
    principals::visible,
    roles::permissions,
};

/// Grants of one principal: as many as a list can be confined by.
pub const GRANTS_MAX: usize = WITHIN_MAX;

impl Manager {
    /// Gives a principal a role.
    ///
    /// # Errors
    /// `forbidden` for what the caller does not hold at that place; `not_found` for a principal, role or scope that is
    /// not there; `already_granted`, `limit_reached`, `idempotency_mismatch`, `store_unavailable`.
    pub async fn create_grant(
        &self,
        caller: &Caller,
        new: CreateGrant,
        once: Option<Idempotency>,
    ) -> Result<Grant, Refusal> {
        caller.require_home(new.scope.as_ref())?;
        let (actor, created_at) = (caller.actor(), self.clock.wall());
        let created_by = actor.name.clone();
        let CreateGrant { principal, role, scope } = new;
        let id = GrantId::random(&*self.entropy);
        let grant = Grant { id, principal, role, scope, created_at, created_by };
        self.change_access(
            caller,
            move |standing| standing.owner() == principal,
            move |tx, caller| {
                Box::pin(async move {
                    if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                        return replayed(tx, before).await;
                    }
                    if let Err(refusal) = grantable(tx, &caller, &grant).await? {
                        return Ok(Err(refusal));
                    }
                    grants::insert(tx, &grant).await?;
                    audit::append(tx, &actor, created_at, change("grant.create", &grant).after(shown(&grant))).await?;
                    idempotency::keep(tx, &actor, once.as_ref(), &grant.id.to_string(), created_at).await?;
                    Ok(Ok(grant))
                })
            },
        )
        .await
    }

    /// One grant.
    ///
    /// # Errors
    /// `not_found` for a grant that the caller may not see.
    pub async fn grant(&self, caller: &Caller, id: GrantId) -> Result<Grant, Refusal> {
        let found = self.store.read(job(move |conn: &mut Tx| Box::pin(grants::get(conn, id)))).await?;
        let grant = found.ok_or_else(|| Refusal::not_found("grant"))?;
        caller.require_at(grant.scope.as_ref(), "grant")?;
        Ok(grant)
    }

    /// Grants, oldest first.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_grants(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        filter: GrantFilter,
        page: Page,
    ) -> Result<Paged<Grant>, Refusal> {
        let within = caller.confine(scope)?;
        let list = job(move |conn: &mut Tx| Box::pin(async move { grants::list(conn, &within, &filter, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// Takes a grant away: what its principal does by it ends at once.
    ///
    /// # Errors
    /// `not_found`, `built_in`, `last_admin`, `store_unavailable`.
    pub async fn delete_grant(&self, caller: &Caller, id: GrantId, dry_run: bool) -> Result<Grant, Refusal> {
        let grant = self.grant(caller, id).await?;
        let (actor, now) = (caller.actor(), self.clock.wall());
        self.change_access(
            caller,
            move |standing| !dry_run && standing.owner() == grant.principal,
            move |tx, caller| {
                Box::pin(async move {
                    let Some(grant) = grants::get(tx, id).await? else { return Ok(Err(Refusal::not_found("grant"))) };
                    let allowed = caller.require_at(grant.scope.as_ref(), "grant").and_then(|()| own(grant.principal));
                    if let Err(refusal) = allowed {
                        return Ok(Err(refusal));
                    }
                    if let Err(refusal) = leave_an_admin(tx, |lost, _| lost == id).await? {
                        return Ok(Err(refusal));
                    }
                    if !dry_run {
                        grants::delete(tx, id).await?;
                        audit::append(tx, &actor, now, change("grant.delete", &grant).before(shown(&grant))).await?;
                    }
                    Ok(Ok(grant))
                })
            },
        )
        .await
    }
}

/// Whether a caller may make this grant, and there is room for it.
async fn grantable(tx: &mut Tx, caller: &Caller, grant: &Grant) -> Result<Result<(), Refusal>, StoreError> {
    if let Err(refusal) = caller.require_home(grant.scope.as_ref()) {
        return Ok(Err(refusal));
    }
    let Some(principal) = principals::get(tx, grant.principal).await?.filter(|found| visible(caller, found)) else {
        return Ok(Err(Refusal::not_found("principal")));
    };
    if let Some(scope) = &grant.scope
        && scopes::get(tx, scope).await?.is_none()
    {
        return Ok(Err(Refusal::not_found("scope")));
    }
    let Some(permissions) = permissions(tx, &grant.role).await? else {
        return Ok(Err(Refusal::not_found("role")));
    };
    let given = Held::new([Holding { permissions, scope: grant.scope.clone() }], None);
    if let Err(refusal) = own(principal.id).and_then(|()| caller.require_cover(&given)) {
        return Ok(Err(refusal));
    }
    let present = grants::of(tx, grant.principal).await?;
    if present.iter().any(|other| other.role == grant.role && other.scope == grant.scope) {
        return Ok(Err(Refusal::new(Code::AlreadyGranted, "the principal has this role there already")));
    }
    if present.len() >= GRANTS_MAX {
        let detail = format!("the principal has {GRANTS_MAX} grants");
        return Ok(Err(Refusal::new(Code::LimitReached, detail)));
    }
    Ok(Ok(()))
}

/// Refuses to change the principal that owns the keys made on the host.
pub(crate) fn own(principal: PrincipalId) -> Result<(), Refusal> {
    if principal != BREAK_GLASS {
        return Ok(());
    }
    let detail =
        "this principal owns the keys that `legation-manager admin reset` makes, and is always admin everywhere";
    Err(Refusal::new(Code::BuiltIn, detail))
}

/// Everything that a principal holds now, disabled or not.
///
/// # Errors
/// Those of the store.
pub(crate) async fn held_by(tx: &mut Tx, principal: PrincipalId, narrowed: Option<&Scope>) -> Result<Held, StoreError> {
    let mut holdings = Vec::new();
    for grant in grants::of(tx, principal).await? {
        let permissions = permissions(tx, &grant.role).await?.unwrap_or_default();
        holdings.push(Holding { permissions, scope: grant.scope });
    }
    Ok(Held::new(holdings, narrowed))
}

/// Refuses a change after which nobody enabled would be admin everywhere although somebody is now; `lost` says which of
/// the grants that make one would count no more. The keys made on the host do not count: they are for when everything
/// else is lost.
///
/// # Errors
/// Those of the store; inside, `last_admin`.
pub(crate) async fn leave_an_admin(
    tx: &mut Tx,
    lost: impl Fn(GrantId, PrincipalId) -> bool,
) -> Result<Result<(), Refusal>, StoreError> {
    let admins = grants::admins(tx).await?;
    let left = admins.iter().filter(|(grant, principal)| !lost(*grant, *principal)).count();
    if left == admins.len() || left > 0 {
        return Ok(Ok(()));
    }
    let detail = "this is the last enabled principal, besides break-glass, that is admin everywhere";
    Ok(Err(Refusal::new(Code::LastAdmin, detail)))
}

async fn replayed(tx: &mut Tx, before: Result<String, Refusal>) -> Result<Result<Grant, Refusal>, StoreError> {
    let id = before.and_then(|id| id.parse::<GrantId>().map_err(|_| Refusal::not_found("grant")));
    Ok(match id {
        Ok(id) => grants::get(tx, id).await?.ok_or_else(|| Refusal::not_found("grant")),
        Err(refusal) => Err(refusal),
    })
}

/// A grant as people see it, and as audit records show it.
pub(crate) fn shown(grant: &Grant) -> legation_api::grants::Grant {
    legation_api::grants::Grant {
        id: grant.id,
        principal: grant.principal,
        role: grant.role.clone(),
        scope: grant.scope.clone(),
        created_at: grant.created_at,
        created_by: grant.created_by.clone(),
    }
}

fn change(action: &'static str, grant: &Grant) -> Change {
    Change::new(action, grant.id, grant.scope.clone())
}
