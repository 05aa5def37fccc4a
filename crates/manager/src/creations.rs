//! The transaction of new tokens, which they share: whoever provisions a site creates hundreds at once.

use std::sync::Arc;

use legation_model::{
    ids::ManagerKeyId,
    token::{DelegateToken, TokenStatus},
};
use legation_store::{
    StoreError, Tx, job,
    tokens::{self, TokenSecret},
    wraps::{self, NewWrap},
};

use crate::{
    Manager,
    audit::{self, Actor},
    error::Refusal,
    idempotency::{self, Idempotency, Made},
    scopes::KnownScopes,
    tokens::{change, shown},
    wraps::created as wrap_created,
};

/// Creations in one transaction. Each has a call that waits for it, which bounds them.
const CREATIONS_MAX: usize = 128;

/// A token on its way into the store.
#[derive(Clone)]
pub(crate) struct Creation {
    pub(crate) actor: Actor,
    pub(crate) token: DelegateToken,
    /// The sealed key of its first generation, where it has one at once.
    pub(crate) sealed: Option<Vec<u8>>,
    /// Its value, where that is put under a one-time code.
    pub(crate) wrap: Option<NewWrap>,
    pub(crate) once: Option<Idempotency>,
}

/// What became of it: it is there, or was created before under the same key.
pub(crate) type Created = Result<Made<DelegateToken>, Refusal>;

impl Manager {
    /// Writes creations until the Manager stops.
    pub(crate) async fn creation_loop(self: Arc<Self>) {
        let write = |creations: Vec<Creation>| {
            let (store, manager_key) = (self.store.clone(), self.keys.manager_id);
            let work = job(move |tx| Box::pin(async move { create_all(tx, creations, manager_key).await }));
            async move { store.write(work).await }
        };
        self.creations.serve(&self.stopping, CREATIONS_MAX, |_| 1, write).await;
    }
}

async fn create_all(
    tx: &mut Tx,
    creations: Vec<Creation>,
    manager_key: ManagerKeyId,
) -> Result<Vec<Created>, StoreError> {
    let known = KnownScopes::read(tx, creations.iter().map(|new| new.token.scope.clone()).collect()).await?;
    let (mut tokens, mut secrets, mut wrapped) = (Vec::new(), Vec::new(), Vec::new());
    let (mut changes, mut created) = (Vec::new(), Vec::new());
    for Creation { actor, mut token, sealed, wrap, once } in creations {
        if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
            created.push(before.map(Made::Replayed));
            continue;
        }
        if let Err(refusal) = known.require(&token.scope) {
            created.push(Err(refusal));
            continue;
        }
        if let Some(sealed_psk) = sealed {
            (token.status, token.generation, token.issued_at) = (TokenStatus::Active, 1, Some(token.created_at));
            secrets.push(TokenSecret { token: token.id, generation: 1, sealed_psk });
        }
        idempotency::keep(tx, &actor, once.as_ref(), &token.id.to_string(), token.created_at).await?;
        changes.push((actor.clone(), change("token.create", &token, String::new()).after(shown(&token))));
        changes.extend(wrap.iter().map(|new| (actor.clone(), wrap_created(&new.wrap, &token.scope))));
        wrapped.extend(wrap);
        created.push(Ok(Made::Fresh(token.clone())));
        tokens.push(token);
    }
    tokens::insert_all(tx, &tokens).await?;
    tokens::add_secrets(tx, &secrets, manager_key).await?;
    wraps::insert_all(tx, &wrapped).await?;
    if let Some(last) = tokens.last() {
        audit::append_all(tx, last.created_at, changes).await?;
    }
    Ok(created)
}
