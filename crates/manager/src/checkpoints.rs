//! Checkpoints: the Manager's signature over the audit chain as it is, and the deletion of what is old enough.
//!
//! A hash alone binds nobody who can write the whole chain anew. A signature over number and hash that was logged, or
//! exported, before that does.

use legation_api::{
    audit_export::{Signed, statement},
    proof::{PublicKey, hex},
};
use legation_model::{Millis, audit::Checkpoint};
use legation_store::{
    StoreError,
    audit::{self, Place},
    job,
};
use serde_json::json;

use crate::{
    Manager,
    audit::{Actor, Change, append},
    keys::Keys,
};

/// Records after which a checkpoint is signed without waiting for its time.
pub const CHECKPOINT_RECORDS: u64 = 1_000;
/// How long a record may be without a checkpoint behind it: 10 minutes.
pub const CHECKPOINT_EVERY: Millis = 10 * 60 * 1000;
/// Deletions, each up to the next checkpoint, in one round: other writers get their turn, and the next round goes on.
const PRUNES_MAX: usize = 100;

impl Keys {
    /// Signs a place in the chain.
    pub fn sign_place(&self, signed: Signed, number: u64, hash: Vec<u8>, at: Millis, previous: u64) -> Checkpoint {
        let mut place = Checkpoint { number, hash, at, previous, signature: Vec::new(), key: self.signing_public() };
        place.signature = self.signing.sign(statement(signed, &place).as_bytes()).as_ref().to_vec();
        place
    }
}

impl Manager {
    /// Signs a checkpoint when there are many records since the last one, or it is long ago.
    pub(crate) async fn checkpoint_when_due(&self) {
        let read = job(|conn| {
            Box::pin(async move { Ok((audit::last(conn).await?, audit::last_place(conn, Place::Checkpoint).await?)) })
        });
        let Ok((Some((number, _)), before)) = self.store.read(read).await else { return };
        let (signed, at) = before.map_or((0, Millis::MIN), |before| (before.number, before.at));
        let waited = self.clock.wall().saturating_sub(at);
        // A clock that was set back must not keep checkpoints away.
        let long_ago = !(0..CHECKPOINT_EVERY).contains(&waited);
        if number > signed
            && (long_ago || number - signed >= CHECKPOINT_RECORDS)
            && let Err(error) = self.checkpoint().await
        {
            tracing::warn!(%error, "a checkpoint of the audit chain waits for the store");
        }
    }

    /// Signs the chain as it is now, unless its last record has a checkpoint; answers the one that it has then.
    ///
    /// # Errors
    /// Those of the store. `NotFound` for a chain without any record.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let (keys, now) = (self.keys.clone(), self.clock.wall());
        let work = job(move |tx| {
            Box::pin(async move {
                let before = audit::last_place(tx, Place::Checkpoint).await?;
                let base = audit::last_place(tx, Place::Base).await?;
                let (number, hash) = audit::last(tx).await?.ok_or(StoreError::NotFound)?;
                let previous = before.as_ref().or(base.as_ref()).map_or(0, |place| place.number);
                match before {
                    Some(before) if before.number == number => Ok((before, false)),
                    _ => {
                        let signed = keys.sign_place(Signed::Checkpoint, number, hash, now, previous);
                        audit::sign(tx, Place::Checkpoint, &signed).await?;
                        Ok((signed, true))
                    }
                }
            })
        });
        let (checkpoint, new) = self.store.write(work).await?;
        if new {
            let (hash, key) = (hex(&checkpoint.hash), PublicKey::from(checkpoint.key));
            let signature = hex(&checkpoint.signature);
            tracing::info!(number = checkpoint.number, %hash, at = checkpoint.at, %key, %signature, "audit checkpoint");
        }
        Ok(checkpoint)
    }

    /// Deletes records that are older than they are to be kept, up to a checkpoint, and leaves a signed base there.
    ///
    /// # Errors
    /// Those of the store; what was deleted until then stays so, and what is left verifies.
    pub async fn prune_audit(&self) -> Result<(), StoreError> {
        let Some(keep) = self.config.audit_keep else { return Ok(()) };
        for _ in 0..PRUNES_MAX {
            if !self.prune_once(keep).await? {
                break;
            }
        }
        Ok(())
    }

    /// Deletes up to the next checkpoint that is old enough; whether there was one.
    async fn prune_once(&self, keep: Millis) -> Result<bool, StoreError> {
        // A clock that jumped ahead must not delete what is not old.
        let (keys, now, until) = (self.keys.clone(), self.clock.wall(), self.clock.earliest() - keep);
        let work = job(move |tx| {
            Box::pin(async move {
                let before = audit::last_place(tx, Place::Base).await?.map_or(0, |base| base.number);
                let Some(due) = audit::due(tx, before, until).await? else { return Ok(false) };
                let base = keys.sign_place(Signed::Base, due.number, due.hash, now, before);
                // First, so that there is always a record left that the next one follows.
                let change = Change::new("audit.prune", base.number, None)
                    .before(json!({"first": before + 1}))
                    .after(json!({"first": base.number + 1}));
                append(tx, &Actor::system(), now, change).await?;
                audit::sign(tx, Place::Base, &base).await?;
                audit::forget(tx, base.number).await?;
                Ok(true)
            })
        });
        self.store.write(work).await
    }
}
