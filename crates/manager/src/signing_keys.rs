//! The public halves of the signing keys.

use legation_api::{
    proof::PublicKey,
    signing_keys::{ALGORITHM, SigningKey},
};
use legation_store::{
    StoreError,
    keys::{self, StoredKey},
};

use crate::{Manager, error::Refusal, keys::SIGNING};

impl Manager {
    /// Every key that something was signed with, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, Refusal> {
        let rows = self.store.read(|conn| Box::pin(keys::all(conn))).await?;
        Ok(rows.iter().filter(|row| row.kind == SIGNING).map(public).collect::<Result<_, _>>()?)
    }
}

fn public(row: &StoredKey) -> Result<SigningKey, StoreError> {
    let unreadable = || StoreError::Corrupt("a signing key".to_owned());
    let bytes: [u8; 32] = row.public.clone().try_into().map_err(|_| unreadable())?;
    Ok(SigningKey {
        id: row.id.parse().map_err(|_| unreadable())?,
        algorithm: ALGORITHM.to_owned(),
        public_key: PublicKey::from(bytes),
        valid_from_at: row.created_at,
        retired_at: row.retired_at,
    })
}
