//! Delegates, as people see them; how they come in is in `admission.rs`.

use legation_model::{delegate::Delegate, ids::DelegateId};
use legation_store::{
    Page, Paged,
    delegates::{self, DelegateFilter},
};

use crate::{Manager, access::Caller, error::Refusal};

impl Manager {
    /// One delegate.
    ///
    /// # Errors
    /// `not_found` for a delegate that the caller may not see.
    pub async fn delegate(&self, caller: &Caller, id: DelegateId) -> Result<Delegate, Refusal> {
        let found = self.store.read(move |conn| Box::pin(delegates::get(conn, id))).await?;
        let delegate = found.ok_or_else(|| Refusal::not_found("delegate"))?;
        caller.require_sight(&delegate.scope, "delegate")?;
        Ok(delegate)
    }

    /// Delegates.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_delegates(
        &self,
        caller: &Caller,
        mut filter: DelegateFilter,
        page: Page,
    ) -> Result<Paged<Delegate>, Refusal> {
        filter.scope = caller.confine(filter.scope)?;
        Ok(self.store.read(move |conn| Box::pin(async move { delegates::list(conn, &filter, &page).await })).await?)
    }
}
