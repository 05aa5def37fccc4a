//! Accounts: each is born with its default token, in the same transaction.

use legation_model::{
    Scope,
    ids::{AuditId, TokenId},
    token::{DEFAULT_TOKEN, DelegateToken, TokenLimits, TokenStatus},
};
use legation_store::{
    Page, Paged, StoreError, Tx,
    accounts::{self, Account},
    tokens,
};

use crate::{
    Manager,
    access::Caller,
    audit::{self, Actor, Change},
    error::Refusal,
    idempotency::{self, Idempotency, Made},
};

/// The account that a new Manager is born with.
pub const DEFAULT_ACCOUNT: &str = "default";

impl Manager {
    /// Creates an account and its default token, unissued.
    ///
    /// # Errors
    /// `name_taken`, `idempotency_mismatch`, `store_unavailable`; `forbidden` for a key confined to a scope.
    pub async fn create_account(
        &self,
        caller: &Caller,
        account: Account,
        once: Option<Idempotency>,
    ) -> Result<Account, Refusal> {
        caller.require_sight(&account.scope, "account")?;
        let made = self.store_account(caller.actor(), account, once).await??;
        if let Some(account) = made.fresh() {
            return Ok(account);
        }
        self.stored_account(made.replayed()).await
    }

    /// Makes the account `default`, unless it is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn ensure_default_account(&self) -> Result<(), StoreError> {
        let there = self.store.read(|conn| Box::pin(accounts::get(conn, DEFAULT_ACCOUNT))).await?;
        if there.is_none() {
            let scope = DEFAULT_ACCOUNT.parse().map_err(|_| StoreError::Corrupt("the default account's name".into()))?;
            let account = Account { scope, description: Default::default(), created_at: self.clock.wall() };
            let _ = self.store_account(Actor::system(), account, None).await?;
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
        let token = default_token(TokenId::random(&*self.entropy), &account.scope, now);
        let audit_id = AuditId::random(&*self.entropy);
        let job = move |tx: &mut Tx| {
            Box::pin(async move {
                if let Some(before) = idempotency::replay(tx, &actor, once.as_ref()).await? {
                    return Ok(before.map(Made::Replayed));
                }
                accounts::insert(tx, &account).await?;
                tokens::insert(tx, &token).await?;
                let name = account.scope.to_string();
                let change =
                    Change { action: "account.create", object: name.clone(), scope: name.clone(), detail: String::new() };
                audit::append(tx, audit_id, &actor, now, change).await?;
                idempotency::keep(tx, &actor, once.as_ref(), &name, now).await?;
                Ok(Ok(Made::Fresh(account)))
            }) as _
        };
        self.store.write(job).await
    }

    /// One account.
    ///
    /// # Errors
    /// `not_found` for an account that the caller may not see.
    pub async fn account(&self, caller: &Caller, name: String) -> Result<Account, Refusal> {
        let account = self.stored_account(name).await?;
        caller.require_sight(&account.scope, "account")?;
        Ok(account)
    }

    async fn stored_account(&self, name: String) -> Result<Account, Refusal> {
        let found = self.store.read(move |conn| Box::pin(async move { accounts::get(conn, &name).await })).await?;
        found.ok_or_else(|| Refusal::not_found("account"))
    }

    /// Accounts that the caller may see.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_accounts(&self, caller: &Caller, page: Page) -> Result<Paged<Account>, Refusal> {
        let mut found = self.store.read(move |conn| Box::pin(async move { accounts::list(conn, &page).await })).await?;
        found.items.retain(|account| caller.sees(&account.scope));
        Ok(found)
    }
}

fn default_token(id: TokenId, scope: &Scope, now: legation_model::Millis) -> DelegateToken {
    DelegateToken {
        id,
        scope: scope.clone(),
        name: DEFAULT_TOKEN.parse().expect("the default token's name is a name"),
        description: Default::default(),
        status: TokenStatus::Unissued,
        generation: 0,
        limits: TokenLimits::default(),
        created_at: now,
        created_by: Actor::system().name,
        issued_at: None,
        revoked_at: None,
        revoked_reason: None,
        receipt: None,
        last_used_at: None,
    }
}
