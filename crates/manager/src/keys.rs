//! The Manager's own keys, sealed in the store: the data key, the X25519 key that tokens pin, the signing key.

use std::sync::Arc;

use anyhow::Context;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use legation_model::{Clock, Entropy, Secret, ids::ManagerKeyId};
use legation_store::{
    Store, job,
    keys::{self, StoredKey},
};
use legation_wire::key::KeyPair;

use crate::{
    config::Config,
    rotate,
    seal::{KEK_NEXT_FILE, Sealer, load_kek, make_kek, read_kek},
};

pub(crate) const DATA: &str = "data";
pub(crate) const MANAGER: &str = "manager";
pub(crate) const SIGNING: &str = "signing";

/// All keys, opened.
pub struct Keys {
    /// Seals every value in the store.
    pub sealer: Sealer,
    /// Key pairs that tokens pin, oldest first; new tokens pin the last.
    pub manager: Arc<[KeyPair]>,
    /// The id of the last of them in the store.
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
        if rows.is_empty() {
            let kek = Sealer::new(&make_kek(&config.config_dir, entropy)?);
            make(store, &kek, clock, entropy).await.context("cannot store the Manager's new keys")?;
        }
        let (_, data) = open_data(config, store).await?;
        if config.config_dir.join(KEK_NEXT_FILE).exists() {
            tracing::warn!(
                "a rotation of the key-encryption key was interrupted: run `legation-manager kek rotate` again"
            );
        }
        let rows = store.read(|conn| Box::pin(keys::all(conn))).await?;
        let one = |kind: &str| {
            let row = rows.iter().find(|row| row.kind == kind);
            row.with_context(|| format!("the database has no {kind} key: restore it from a backup"))
        };
        let sealer = Sealer::new(&data);
        let (mut manager, mut newest) = (Vec::new(), None);
        for row in rows.iter().filter(|row| row.kind == MANAGER && row.retired_at.is_none()) {
            manager.push(KeyPair::from_private(sealer.open_key(&place(MANAGER, &row.id), &row.sealed)?));
            newest = Some(&row.id);
        }
        let newest = newest.context("the database has no manager key: restore it from a backup")?;
        let manager_id = newest.parse().context("a manager key has an unreadable id")?;
        let signing = one(SIGNING)?;
        let seed = sealer.open_key(&place(SIGNING, &signing.id), &signing.sealed)?;
        Ok(Self { sealer, manager: manager.into(), manager_id, signing: signing_key(&seed)? })
    }

    /// The public key that new tokens pin.
    pub fn pinned(&self) -> [u8; 32] {
        self.manager.last().expect("they are not loaded without any").public
    }

    /// The public half of the signing key.
    pub fn signing_public(&self) -> [u8; 32] {
        self.signing.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }
}

fn signing_key(seed: &Secret<32>) -> anyhow::Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| anyhow::anyhow!("the signing key is not usable"))
}

/// The data key and its id. A rotation of the key-encryption key that was killed behind its transaction is finished
/// first: then only the next key opens it.
pub(crate) async fn open_data(config: &Config, store: &Store) -> anyhow::Result<(String, Secret<32>)> {
    let rows = store.read(|conn| Box::pin(keys::all(conn))).await?;
    let row = rows.into_iter().find(|row| row.kind == DATA);
    let row = row.context("the database has no data key: restore it from a backup")?;
    let open = |kek: &Secret<32>| Sealer::new(kek).open_key(&place(DATA, &row.id), &row.sealed);
    let directory = &config.config_dir;
    let next = read_kek(&directory.join(KEK_NEXT_FILE))?;
    let data = match (open(&load_kek(directory)?), next) {
        (Ok(data), _) => data,
        (Err(error), None) => return Err(error.into()),
        (Err(_), Some(next)) => {
            let data = open(&next)?;
            let kept = rotate::replace(directory)?;
            tracing::info!(
                old_key = %kept.display(),
                "a rotation of the key-encryption key that was interrupted is finished; move the old key to where the \
                 backups' keys are"
            );
            data
        }
    };
    Ok((row.id, data))
}

/// Refuses when neither the key-encryption key nor one that is about to take its place opens the data key among these.
pub(crate) fn check_kek(config: &Config, rows: &[StoredKey]) -> anyhow::Result<()> {
    let Some(row) = rows.iter().find(|row| row.kind == DATA) else { return Ok(()) };
    let open = |kek: &Secret<32>| Sealer::new(kek).open_key(&place(DATA, &row.id), &row.sealed);
    let next = read_kek(&config.config_dir.join(KEK_NEXT_FILE))?;
    if next.as_ref().is_some_and(|next| open(next).is_ok()) {
        return Ok(());
    }
    Ok(open(&load_kek(&config.config_dir)?).map(drop)?)
}

pub(crate) fn place(kind: &str, id: &str) -> String {
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
