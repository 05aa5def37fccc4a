//! Accounts: each is born with its default token, in the same transaction.

use std::collections::{BTreeMap, btree_map::Entry};

use legation_model::{
    Millis, Scope, Text,
    ids::TokenId,
    scope::DEFAULT_ACCOUNT,
    token::{DEFAULT_TOKEN, DelegateToken},
};
use legation_store::{
    Page, Paged, StoreError, Tx,
    accounts::{self, Account},
    job, leases, tokens,
};
use serde_json::json;

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor, Change},
    error::Refusal,
    idempotency::{self, Idempotency, Made},
};

impl Manager {
    /// Creates an account and its default token, unissued.
    ///
    /// # Errors
    /// `name_taken`, `idempotency_mismatch`, `store_unavailable`; `not_found` for a key confined to another scope.
    pub async fn create_account(
        &self,
        caller: &Caller,
        scope: Scope,
        description: Text,
        lease: Option<Millis>,
        once: Option<Idempotency>,
    ) -> Result<Account, Refusal> {
        caller.require_sight(&scope, "account")?;
        let actor = caller.actor();
        let account =
            Account { scope, description, lease, created_at: self.clock.wall(), created_by: actor.name.clone() };
        let made = self.store_account(actor, account, once).await??;
        match made {
            Made::Fresh(account) => Ok(account),
            Made::Replayed(scope) => {
                self.stored_account(scope.parse().map_err(|_| Refusal::not_found("account"))?).await
            }
        }
    }

    /// Makes the account `default`, unless it is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn ensure_default_account(&self) -> Result<(), StoreError> {
        let scope: Scope = DEFAULT_ACCOUNT.parse().expect("the default account's name is a scope");
        let wanted = scope.clone();
        let find = job(move |conn| Box::pin(async move { accounts::get(conn, &wanted).await }));
        if self.store.read(find).await?.is_none() {
            let (actor, created_at) = (Actor::system(), self.clock.wall());
            let description = Text::default();
            let account = Account { scope, description, lease: None, created_at, created_by: actor.name.clone() };
            // The only refusal would be of an idempotency key, and there is none.
            let _made = self.store_account(actor, account, None).await?;
        }
        Ok(())
    }

    async fn store_account(
        &self,
        actor: Actor,
        account: Account,
        once: Option<Idempotency>,
    ) -> Result<Result<Made<Account>, Refusal>, StoreError> {
        let now = self.clock.wall();
        let lease = account.lease.map(|lease| self.config.timing.with_lease(Some(lease)).lease_counted());
        let (id, scope) = (TokenId::random(&*self.entropy), account.scope.clone());
        let name = DEFAULT_TOKEN.parse().expect("the default token's name is a name");
        let token = DelegateToken::unissued(id, scope, name, now, Actor::system().name);
        let work = job(move |tx| {
            Box::pin(async move {
                if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                    return Ok(before.map(Made::Replayed));
                }
                accounts::insert(tx, &account).await?;
                if let Some(lease) = lease {
                    leases::raise(tx, lease).await?;
                }
                tokens::insert(tx, &token).await?;
                let change = Change::new("account.create", &account.scope, account.scope.clone())
                    .after(json!({"description": account.description, "lease_ms": account.lease}));
                audit::append(tx, &actor, now, change).await?;
                idempotency::keep(tx, &actor, once.as_ref(), account.scope.as_str(), now).await?;
                Ok(Ok(Made::Fresh(account)))
            })
        });
        self.store.write(work).await
    }

    /// One account.
    ///
    /// # Errors
    /// `not_found` for an account that the caller may not see.
    pub async fn account(&self, caller: &Caller, scope: Scope) -> Result<Account, Refusal> {
        caller.require_sight(&scope, "account")?;
        self.stored_account(scope).await
    }

    async fn stored_account(&self, scope: Scope) -> Result<Account, Refusal> {
        let find = job(move |conn| Box::pin(async move { accounts::get(conn, &scope).await }));
        self.store.read(find).await?.ok_or_else(|| Refusal::not_found("account"))
    }

    /// Accounts that the caller may see.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_accounts(&self, caller: &Caller, page: Page) -> Result<Paged<Account>, Refusal> {
        let within = caller.scope.clone();
        let list = job(move |conn| Box::pin(async move { accounts::list(conn, within.as_ref(), &page).await }));
        Ok(self.store.read(list).await?)
    }
}

/// Accounts that were asked for in one transaction.
#[derive(Default)]
pub(crate) struct KnownAccounts(BTreeMap<Scope, Option<Account>>);

impl KnownAccounts {
    /// The account at the top of a scope, if there is one.
    pub(crate) async fn get(&mut self, tx: &mut Tx, scope: &Scope) -> Result<Option<&Account>, StoreError> {
        match self.0.entry(scope.top()) {
            Entry::Occupied(known) => Ok(known.into_mut().as_ref()),
            Entry::Vacant(unknown) => {
                let found = accounts::get(tx, unknown.key()).await?;
                Ok(unknown.insert(found).as_ref())
            }
        }
    }
}
