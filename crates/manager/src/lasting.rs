//! Callers that go on for long, such as live streams: they end with their access.

use std::sync::Arc;

use legation_model::Scope;
use legation_store::{Tx, job, standing};
use tokio::sync::watch;

use crate::{Manager, access::Caller};

/// A caller that goes on for long, such as a live stream: it ends with its access.
pub(crate) struct Lasting {
    manager: Arc<Manager>,
    caller: Caller,
    changes: watch::Receiver<u64>,
}

impl Lasting {
    /// From now on.
    pub(crate) fn new(manager: Arc<Manager>, caller: Caller) -> Self {
        let changes = manager.vouched.changes();
        Self { manager, caller, changes }
    }

    /// The caller, as it was last looked up.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller may still see this scope. Doubt denies.
    pub(crate) async fn sees(&mut self, scope: &Scope) -> bool {
        self.stands().await && self.caller.sees(scope)
    }

    /// Whether the caller may still do somewhere what its route needs; after a change of access it is looked up anew.
    /// Doubt denies.
    pub(crate) async fn stands(&mut self) -> bool {
        let epoch = *self.changes.borrow_and_update();
        // That a session was used meanwhile may be in the store alone.
        if (epoch != self.caller.epoch || !self.is_current()) && !self.look_again(epoch).await {
            return false;
        }
        let caller = &self.caller;
        self.is_current() && caller.needs.is_some_and(|needed| caller.standing.held.holds_somewhere(needed))
    }

    fn is_current(&self) -> bool {
        self.manager.is_current(&self.caller.standing.credential)
    }

    async fn look_again(&mut self, epoch: u64) -> bool {
        let id = self.caller.credential();
        let read = job(move |conn: &mut Tx| Box::pin(standing::standing(conn, id)));
        let Ok(Some(standing)) = self.manager.store.read(read).await else { return false };
        self.caller.standing = Arc::new(standing);
        self.caller.epoch = epoch;
        true
    }

    /// Waits for a change of anybody's access.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The Manager is gone, and this with it.
            std::future::pending::<()>().await;
        }
    }
}
