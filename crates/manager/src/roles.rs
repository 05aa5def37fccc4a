//! Roles: the built-in ones, and those that people make of permissions.

use legation_api::{
    Code, Problem,
    roles::{CreateRole, words},
};
use legation_model::{
    Name, Text,
    access::{Held, Holding, Permissions, Role},
};
use legation_store::{
    Page, Paged, StoreError, Tx, grants, job,
    roles::{self, CustomRole},
};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Change},
    error::Refusal,
    idempotency::{self, Idempotency},
};

/// What a role holds: one of the built-in ones, or one that is stored.
///
/// # Errors
/// Those of the store.
pub(crate) async fn permissions(tx: &mut Tx, name: &Name) -> Result<Option<Permissions>, StoreError> {
    match name.as_str().parse::<Role>() {
        Ok(role) => Ok(Some(role.permissions())),
        Err(_) => Ok(roles::get(tx, name).await?.map(|role| role.permissions)),
    }
}

impl Manager {
    /// Creates a role. Roles belong to the whole tree, and so do those who may make them.
    ///
    /// # Errors
    /// `name_taken`, `forbidden` for what the caller does not hold everywhere, `idempotency_mismatch`,
    /// `store_unavailable`.
    pub async fn create_role(
        &self,
        caller: &Caller,
        new: CreateRole,
        permissions: Permissions,
        once: Option<Idempotency>,
    ) -> Result<CustomRole, Refusal> {
        caller.require_everywhere()?;
        let taken = Role::ALL.into_iter().any(|role| new.name.as_str().eq_ignore_ascii_case(role.as_str()));
        if taken {
            return Err(Refusal::new(Code::NameTaken, "a built-in role has this name"));
        }
        let (actor, created_at) = (caller.actor(), self.clock.wall());
        let created_by = actor.name.clone();
        let CreateRole { name, description, .. } = new;
        let role = CustomRole { name, description, permissions, created_at, created_by };
        self.change_access(
            caller,
            |_| false,
            move |tx, caller| {
                Box::pin(async move {
                    if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                        return replayed(tx, before).await;
                    }
                    let allowed =
                        caller.require_everywhere().and_then(|()| caller.require_cover(&everywhere(permissions)));
                    if let Err(refusal) = allowed {
                        return Ok(Err(refusal));
                    }
                    roles::insert(tx, &role).await?;
                    audit::append(tx, &actor, created_at, change("role.create", &role.name).after(shown(&role)))
                        .await?;
                    idempotency::keep(tx, &actor, once.as_ref(), role.name.as_str(), created_at).await?;
                    Ok(Ok(role))
                })
            },
        )
        .await
    }

    /// Replaces what a role holds, for all who have it. What is added must be held everywhere by who adds it, wherever
    /// the role was given.
    ///
    /// # Errors
    /// `not_found`, `built_in`, `forbidden`, `store_unavailable`.
    pub async fn update_role(
        &self,
        caller: &Caller,
        name: Name,
        description: Text,
        permissions: Permissions,
    ) -> Result<CustomRole, Refusal> {
        caller.require_everywhere()?;
        changeable(&name)?;
        let (actor, now, concerned) = (caller.actor(), self.clock.wall(), name.clone());
        let has_it = move |standing: &legation_store::standing::Standing| {
            standing.grants.iter().any(|grant| grant.role == concerned)
        };
        self.change_access(caller, has_it, move |tx, caller| {
            Box::pin(async move {
                let Some(role) = roles::get(tx, &name).await? else { return Ok(Err(Refusal::not_found("role"))) };
                let added = everywhere(permissions.without(role.permissions));
                if let Err(refusal) = caller.require_everywhere().and_then(|()| caller.require_cover(&added)) {
                    return Ok(Err(refusal));
                }
                roles::update(tx, &name, &description, permissions).await?;
                let updated = CustomRole { description, permissions, ..role.clone() };
                let change = change("role.update", &name).between(shown(&role), shown(&updated));
                audit::append(tx, &actor, now, change).await?;
                Ok(Ok(updated))
            })
        })
        .await
    }

    /// A stored role. The built-in ones are constants.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn role(&self, name: Name) -> Result<CustomRole, Refusal> {
        let find = job(move |conn: &mut Tx| Box::pin(async move { roles::get(conn, &name).await }));
        self.store.read(find).await?.ok_or_else(|| Refusal::not_found("role"))
    }

    /// The stored roles, by name. Whoever may look at access anywhere sees them all: they say what grants mean.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_roles(&self, page: Page) -> Result<Paged<CustomRole>, Refusal> {
        let list = job(move |conn: &mut Tx| Box::pin(async move { roles::list(conn, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// Deletes a role that nobody has.
    ///
    /// # Errors
    /// `not_found`, `built_in`, `role_in_use` naming what to do first.
    pub async fn delete_role(&self, caller: &Caller, name: Name, dry_run: bool) -> Result<CustomRole, Refusal> {
        caller.require_everywhere()?;
        changeable(&name)?;
        let (actor, now) = (caller.actor(), self.clock.wall());
        self.change_access(
            caller,
            |_| false,
            move |tx, caller| {
                Box::pin(async move {
                    if let Err(refusal) = caller.require_everywhere() {
                        return Ok(Err(refusal));
                    }
                    let Some(role) = roles::get(tx, &name).await? else { return Ok(Err(Refusal::not_found("role"))) };
                    let uses = grants::uses(tx, &name).await?;
                    if uses > 0 {
                        return Ok(Err(in_use(&name, uses)));
                    }
                    if !dry_run {
                        roles::delete(tx, &name).await?;
                        audit::append(tx, &actor, now, change("role.delete", &name).before(shown(&role))).await?;
                    }
                    Ok(Ok(role))
                })
            },
        )
        .await
    }
}

async fn replayed(tx: &mut Tx, before: Result<String, Refusal>) -> Result<Result<CustomRole, Refusal>, StoreError> {
    let name = before.and_then(|name| name.parse::<Name>().map_err(|_| Refusal::not_found("role")));
    Ok(match name {
        Ok(name) => roles::get(tx, &name).await?.ok_or_else(|| Refusal::not_found("role")),
        Err(refusal) => Err(refusal),
    })
}

fn changeable(name: &Name) -> Result<(), Refusal> {
    match name.as_str().parse::<Role>() {
        Ok(role) => Err(Refusal::new(Code::BuiltIn, format!("the role {role} is built in"))),
        Err(_) => Ok(()),
    }
}

fn in_use(name: &Name, uses: u64) -> Refusal {
    let fix = format!("see `legation grant ls --role {name}`, and take each away with `legation grant rm`");
    Problem::new(Code::RoleInUse, format!("the role {name} has {uses} grants")).with_fix(fix).into()
}

fn everywhere(permissions: Permissions) -> Held {
    Held::new([Holding { permissions, scope: None }], None)
}

/// A stored role as people see it, and as audit records show what changed of it.
pub(crate) fn shown(role: &CustomRole) -> legation_api::roles::Role {
    legation_api::roles::Role {
        name: role.name.clone(),
        built_in: false,
        description: role.description.to_string(),
        permissions: words(role.permissions),
        created_at: Some(role.created_at),
        created_by: Some(role.created_by.clone()),
    }
}

fn change(action: &'static str, name: &Name) -> Change {
    Change::new(action, name, None)
}
