//! Rotation of the Manager's own keys, on its host while it stands still.
//!
//! Both commands can be killed at any moment and run again: each step leaves a state from which the next run, or the
//! next start of the Manager, goes on. They take the database for themselves, because a Manager that runs has its keys in
//! memory and would go on with the old ones.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use legation_model::{Clock, Entropy, Secret, ids::ManagerKeyId};
use legation_store::{Store, job, keys};
use legation_wire::key::KeyPair;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    audit::{Actor, Change, append},
    config::Config,
    keys::{DATA, Keys, MANAGER, open_data, place},
    seal::{KEK_FILE, KEK_NEXT_FILE, Sealer, create_kek, read_kek},
    start::database_url,
    whole_file,
};

/// Makes a new key pair, which tokens that are issued from now on pin; answers its id. Older pairs are accepted as long as
/// the secret of a token needs them.
///
/// # Errors
/// When a Manager runs, or the database or the key-encryption key cannot be read.
pub async fn manager_key(config: &Config, clock: &dyn Clock, entropy: &dyn Entropy) -> anyhow::Result<ManagerKeyId> {
    let store = Store::open(&database_url(config)?).await?;
    let made = add_manager_key(config, &store, clock, entropy).await;
    store.close().await;
    made
}

async fn add_manager_key(
    config: &Config,
    store: &Store,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> anyhow::Result<ManagerKeyId> {
    let loaded = Keys::load(config, store, clock, entropy).await?;
    let (id, pair) = (ManagerKeyId::random(entropy), KeyPair::generate(entropy));
    let (name, now) = (id.to_string(), clock.wall());
    let sealed = loaded.sealer.seal(&place(MANAGER, &name), pair.private.expose(), entropy);
    let (public, old) = (pair.public, loaded.manager_id);
    // One transaction: before its commit nothing has happened, and after it everything has.
    let put = job(move |tx| {
        Box::pin(async move {
            // The newest by its time, whatever the clock says now.
            let made_at = keys::newest(tx, MANAGER).await?.map_or(now, |newest| now.max(newest + 1));
            keys::put(tx, MANAGER, &name, &public, &sealed, made_at).await?;
            let change = Change::new("manager_key.rotate", &name, None)
                .before(json!({"pinned": old}))
                .after(json!({"pinned": name}));
            append(tx, &Actor::host(), now, change).await
        })
    });
    store.write(put).await.context("cannot store the new key")?;
    Ok(id)
}

/// Replaces the key-encryption key: a new file, under it the data key sealed anew, then the new file in the place of the
/// old one. Answers where the old one is kept: backups made before open with nothing else.
///
/// # Errors
/// When a Manager runs, or one of the files or the database cannot be read or written: run it again then.
pub async fn kek(config: &Config, clock: &dyn Clock, entropy: &dyn Entropy) -> anyhow::Result<PathBuf> {
    let store = Store::open(&database_url(config)?).await?;
    let done = replace_kek(config, &store, clock, entropy).await;
    store.close().await;
    done
}

async fn replace_kek(
    config: &Config,
    store: &Store,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> anyhow::Result<PathBuf> {
    // What an earlier run left when it was killed behind its transaction is finished by this.
    Keys::load(config, store, clock, entropy).await?;
    let next = draw_next(&config.config_dir, entropy)?;
    reseal(config, store, &next, clock, entropy).await?;
    replace(&config.config_dir)
}

/// The first step: the new key, in a file beside the old one. What an earlier run drew is used.
///
/// # Errors
/// When the file cannot be made, or holds something else.
pub fn draw_next(directory: &Path, entropy: &dyn Entropy) -> anyhow::Result<Secret<32>> {
    let path = directory.join(KEK_NEXT_FILE);
    match read_kek(&path)? {
        Some(key) => Ok(key),
        None => create_kek(&path, entropy),
    }
}

/// The second step: the data key, sealed under the new key. From its commit on only the new key opens the database.
///
/// # Errors
/// Those of the store, and when the present key does not open it.
pub async fn reseal(
    config: &Config,
    store: &Store,
    next: &Secret<32>,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> anyhow::Result<()> {
    let (id, data) = open_data(config, store).await?;
    let sealed = Sealer::new(next).seal(&place(DATA, &id), data.expose(), entropy);
    let now = clock.wall();
    let put = job(move |tx| {
        Box::pin(async move {
            keys::reseal(tx, DATA, &id, &sealed).await?;
            append(tx, &Actor::host(), now, Change::new("kek.rotate", &id, None)).await
        })
    });
    store.write(put).await.context("cannot seal the data key anew")
}

/// The last step: the new key in the place of the old one, which is kept beside it. The Manager's next start does it when
/// nobody else did. Answers where the old one is.
///
/// # Errors
/// When the directory cannot be written.
pub fn replace(directory: &Path) -> anyhow::Result<PathBuf> {
    let (next, path) = (directory.join(KEK_NEXT_FILE), directory.join(KEK_FILE));
    let kept = keep(&next, &path)?;
    fs::rename(&next, &path).with_context(|| {
        format!(
            "cannot rename {} to {}: make the directory writable and run this again",
            next.display(),
            path.display()
        )
    })?;
    whole_file::sync_directory(directory)
        .with_context(|| format!("cannot sync {}: run this again", directory.display()))?;
    Ok(kept)
}

/// Copies the old key to a name with the time at which the next one was drawn, so that a run that follows a killed one
/// finds the same name, and the copy that may be there already.
fn keep(next: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    let unread = |path: &Path| format!("cannot read {}: run this again as the Manager's user", path.display());
    let drawn = fs::metadata(next).and_then(|file| file.modified()).with_context(|| unread(next))?;
    let kept = path.with_added_extension(humantime::format_rfc3339_millis(drawn).to_string().replace(':', ""));
    let read = |path: &Path| fs::read_to_string(path).map(Zeroizing::new);
    let old = read(path).with_context(|| unread(path))?;
    match read(&kept) {
        Ok(there) if *there == *old => Ok(kept),
        Ok(_) => {
            bail!("{} holds another key: move it to where the backups' keys are, and run this again", kept.display())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            whole_file::create(&kept, &old, 0o600)?;
            Ok(kept)
        }
        Err(error) => Err(error).with_context(|| unread(&kept)),
    }
}
