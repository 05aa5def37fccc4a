//! API keys: made for principals, shown once, revoked at once.

use legation_api::{Code, api_keys::CreateApiKey};
use legation_model::{
    Scope, Secret,
    api_key::ApiKey as KeyValue,
    ids::{ApiKeyId, PrincipalId},
    secret::SecretText,
};
use legation_store::{
    Page, Paged, StoreError, Tx,
    api_keys::{self, ApiKey},
    job, principals, scopes,
    standing::CredentialId,
};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Change},
    error::Refusal,
    grants::{held_by, own},
    idempotency::{self, Idempotency, Made},
    principals::visible,
};

/// Keys of one principal: more than machines that one program runs on should share one.
pub const KEYS_MAX: u64 = 256;

/// A key, and its value if it is shown this once.
#[derive(Debug)]
pub struct IssuedKey {
    /// The key.
    pub key: ApiKey,
    /// Present only in the answer to the call that made it.
    pub value: Option<SecretText>,
}

impl Manager {
    /// Makes a key.
    ///
    /// # Errors
    /// `forbidden` for a key that would do more than the caller; `not_found` for an owner or scope that is not there;
    /// `built_in`, `limit_reached`, `idempotency_mismatch`, `store_unavailable`.
    pub async fn create_api_key(
        &self,
        caller: &Caller,
        new: CreateApiKey,
        once: Option<Idempotency>,
    ) -> Result<IssuedKey, Refusal> {
        let (actor, created_at) = (caller.actor(), self.clock.wall());
        let value = KeyValue { id: ApiKeyId::random(&*self.entropy), secret: Secret::random(&*self.entropy) };
        let CreateApiKey { owner, name, scope, expires_at } = new;
        let key = ApiKey {
            id: value.id,
            owner,
            name,
            hash: self.keys.sealer.keyed_hash(value.secret.expose()),
            scope,
            created_at,
            created_by: actor.name.clone(),
            expires_at,
            last_used_at: None,
        };
        let made = self.change_access(
            caller,
            |_| false,
            move |tx, caller| {
                Box::pin(async move {
                    if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                        return Ok(before.map(Made::Replayed));
                    }
                    let home = match makeable(tx, &caller, &key).await? {
                        Ok(home) => home,
                        Err(refusal) => return Ok(Err(refusal)),
                    };
                    api_keys::insert(tx, &key).await?;
                    audit::append(
                        tx,
                        &actor,
                        created_at,
                        change("api_key.create", &key, home.clone()).after(shown(&key)),
                    )
                    .await?;
                    idempotency::keep(tx, &actor, once.as_ref(), &key.id.to_string(), created_at).await?;
                    Ok(Ok(Made::Fresh(key)))
                })
            },
        );
        match made.await? {
            Made::Fresh(key) => Ok(IssuedKey { key, value: Some(value.reveal()) }),
            Made::Replayed(id) => {
                let id = id.parse().map_err(|_| missing())?;
                Ok(IssuedKey { key: self.stored_key(id).await?, value: None })
            }
        }
    }

    /// One key.
    ///
    /// # Errors
    /// `not_found` for a key of somebody whom the caller may not see.
    pub async fn api_key(&self, caller: &Caller, id: ApiKeyId) -> Result<ApiKey, Refusal> {
        let key = self.stored_key(id).await?;
        let owner = key.owner;
        let owner = self.store.read(job(move |conn: &mut Tx| Box::pin(principals::get(conn, owner)))).await?;
        caller.require_at(owner.ok_or_else(missing)?.scope.as_ref(), "API key")?;
        Ok(key)
    }

    async fn stored_key(&self, id: ApiKeyId) -> Result<ApiKey, Refusal> {
        self.store.read(job(move |conn: &mut Tx| Box::pin(api_keys::get(conn, id)))).await?.ok_or_else(missing)
    }

    /// Keys, oldest first.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_api_keys(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        owner: Option<PrincipalId>,
        page: Page,
    ) -> Result<Paged<ApiKey>, Refusal> {
        let within = caller.confine(scope)?;
        let list = job(move |conn: &mut Tx| Box::pin(async move { api_keys::list(conn, &within, owner, &page).await }));
        Ok(self.store.read(list).await?)
    }

    /// Ends a key, and what is done through it, at once.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn revoke_api_key(&self, caller: &Caller, id: ApiKeyId, dry_run: bool) -> Result<ApiKey, Refusal> {
        let key = self.api_key(caller, id).await?;
        if dry_run {
            return Ok(key);
        }
        let (actor, now) = (caller.actor(), self.clock.wall());
        self.change_access(
            caller,
            move |standing| standing.credential.id() == CredentialId::Key(id),
            move |tx, caller| {
                Box::pin(async move {
                    let Some(key) = api_keys::get(tx, id).await? else { return Ok(Err(missing())) };
                    let Some(owner) = principals::get(tx, key.owner).await? else { return Ok(Err(missing())) };
                    if let Err(refusal) = caller.require_at(owner.scope.as_ref(), "API key") {
                        return Ok(Err(refusal));
                    }
                    api_keys::delete(tx, id).await?;
                    audit::append(tx, &actor, now, change("api_key.revoke", &key, owner.scope).before(shown(&key)))
                        .await?;
                    Ok(Ok(key))
                })
            },
        )
        .await
    }
}

/// Whether a caller may make this key; if so, where its owner belongs.
async fn makeable(tx: &mut Tx, caller: &Caller, key: &ApiKey) -> Result<Result<Option<Scope>, Refusal>, StoreError> {
    let Some(owner) = principals::get(tx, key.owner).await?.filter(|found| visible(caller, found)) else {
        return Ok(Err(Refusal::not_found("principal")));
    };
    let allowed = caller.require_at(owner.scope.as_ref(), "principal").and_then(|()| own(owner.id));
    let allowed =
        allowed.and_then(|()| key.scope.as_ref().map_or(Ok(()), |scope| caller.require_sight(scope, "scope")));
    if let Err(refusal) = allowed {
        return Ok(Err(refusal));
    }
    if let Some(scope) = &key.scope
        && scopes::get(tx, scope).await?.is_none()
    {
        return Ok(Err(Refusal::not_found("scope")));
    }
    if let Err(refusal) = caller.require_cover(&held_by(tx, owner.id, key.scope.as_ref()).await?) {
        return Ok(Err(refusal));
    }
    if api_keys::count(tx, owner.id).await? >= KEYS_MAX {
        return Ok(Err(Refusal::new(Code::LimitReached, format!("the principal has {KEYS_MAX} API keys"))));
    }
    Ok(Ok(owner.scope))
}

fn missing() -> Refusal {
    Refusal::not_found("API key")
}

/// A key as people see it, and as audit records show it.
pub(crate) fn shown(key: &ApiKey) -> legation_api::api_keys::ApiKey {
    legation_api::api_keys::ApiKey {
        id: key.id,
        owner: key.owner,
        name: key.name.clone(),
        scope: key.scope.clone(),
        created_at: key.created_at,
        created_by: key.created_by.clone(),
        expires_at: key.expires_at,
        last_used_at: key.last_used_at,
    }
}

/// A change of a key, in the scope where its owner belongs.
fn change(action: &'static str, key: &ApiKey, home: Option<Scope>) -> Change {
    Change::new(action, key.id, home)
}
