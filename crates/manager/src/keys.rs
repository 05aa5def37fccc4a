//! The Manager's own keys, sealed in the store: the data key, the X25519 key that tokens pin, the signing key.

use std::sync::Arc;

use anyhow::Context;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use legation_model::{Clock, Entropy, Secret, ids::ManagerKeyId};
use legation_store::{Store, job, keys};
use legation_wire::key::KeyPair;

use crate::{
    config::Config,
    seal::{Sealer, load_kek},
};

const DATA: &str = "data";
const MANAGER: &str = "manager";
pub(crate) const SIGNING: &str = "signing";

/// All keys, opened.
pub struct Keys {
    /// Seals every value in the store.
    pub sealer: Sealer,
    /// Key pairs that tokens pin; new tokens pin the first.
    pub manager: Arc<[KeyPair]>,
    /// The id of the first of them in the store.
    pub manager_id: ManagerKeyId,
    /// Signs receipts.
    pub signing: Ed25519KeyPair,
}

impl Keys {
    /// Opens the keys of this store, or makes them when the store is new.
    ///
    /// # Errors
    /// When the key-encryption key is missing, readable by others, or does not belong to this store.
    pub async fn load(
        config: &Config,
        store: &Store,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> anyhow::Result<Self> {
        let rows = store.read(|conn| Box::pin(keys::all(conn))).await?;
        let kek = Sealer::new(&load_kek(&config.config_dir, rows.is_empty(), entropy)?);
        if rows.is_empty() {
            make(store, &kek, clock, entropy).await.context("cannot store the Manager's new keys")?;
        }
        let rows = store.read(|conn| Box::pin(keys::all(conn))).await?;
        let one = |kind: &str| {
            let row = rows.iter().find(|row| row.kind == kind);
            row.with_context(|| format!("the database has no {kind} key: restore it from a backup"))
        };
        let data = one(DATA)?;
        let sealer = Sealer::new(&kek.open_key(&place(DATA, &data.id), &data.sealed)?);
        let mut manager = Vec::new();
        for row in rows.iter().filter(|row| row.kind == MANAGER) {
            manager.push(KeyPair::from_private(sealer.open_key(&place(MANAGER, &row.id), &row.sealed)?));
        }
        let manager_id = one(MANAGER)?.id.parse().context("a manager key has an unreadable id")?;
        let signing = one(SIGNING)?;
        let seed = sealer.open_key(&place(SIGNING, &signing.id), &signing.sealed)?;
        Ok(Self { sealer, manager: manager.into(), manager_id, signing: signing_key(&seed)? })
    }

    /// The public key that new tokens pin.
    pub fn pinned(&self) -> [u8; 32] {
        self.manager[0].public
    }

    /// The public half of the signing key.
    pub fn signing_public(&self) -> [u8; 32] {
        self.signing.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }
}

fn signing_key(seed: &Secret<32>) -> anyhow::Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| anyhow::anyhow!("the signing key is not usable"))
}

fn place(kind: &str, id: &str) -> String {
    format!("manager_keys.sealed.{kind}.{id}")
}

/// Makes one key of each kind and stores them in one transaction.
async fn make(store: &Store, kek: &Sealer, clock: &dyn Clock, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let (data, signing, manager) = (Secret::random(entropy), Secret::random(entropy), KeyPair::generate(entropy));
    let sealer = Sealer::new(&data);
    let signing_public = signing_key(&signing)?.public_key().as_ref().to_vec();
    let mut rows = Vec::new();
    for (kind, sealer, public, secret) in [
        (DATA, kek, Vec::new(), &data),
        (MANAGER, &sealer, manager.public.to_vec(), &manager.private),
        (SIGNING, &sealer, signing_public, &signing),
    ] {
        let id = ManagerKeyId::random(entropy).to_string();
        let sealed = sealer.seal(&place(kind, &id), secret.expose(), entropy);
        rows.push((kind, id, public, sealed));
    }
    let now = clock.wall();
    let put = job(move |tx| {
        Box::pin(async move {
            for (kind, id, public, sealed) in rows {
                keys::put(tx, kind, &id, &public, &sealed, now).await?;
            }
            Ok(())
        })
    });
    Ok(store.write(put).await?)
}
