//! Break-glass on the host: whoever can read the database and the key file can make an API key.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::Context;
use legation_model::{Clock, Entropy, Name, Secret, access::Role, api_key::ApiKey, ids::ApiKeyId};
use legation_store::{Store, api_keys, job};

use crate::{
    audit::{self, Actor, Change},
    config::Config,
    keys::Keys,
    start::{database_url, prepare},
};

/// Makes a new API key with the role admin, beside a running Manager or before its first start.
///
/// # Errors
/// When the database or the key-encryption key cannot be read, or the file exists already.
pub async fn reset(
    config: &Config,
    name: &str,
    key_file: Option<PathBuf>,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> anyhow::Result<()> {
    let name: Name = name.parse().context("--name")?;
    prepare(&config.config_dir)?;
    let store = Store::open_beside(&database_url(config)?).await?;
    let keys = Keys::load(config, &store, clock, entropy).await?;
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    entropy.fill(secret.as_mut_slice());
    let key = ApiKey { id: ApiKeyId::random(entropy), secret: Secret::new(*secret) };
    let row = api_keys::ApiKey {
        id: key.id,
        hash: keys.sealer.keyed_hash(key.secret.expose()),
        name: name.clone(),
        role: Role::Admin,
        scope: None,
        created_at: clock.wall(),
        expires_at: None,
    };
    let now = clock.wall();
    let work = job(move |tx| {
        Box::pin(async move {
            api_keys::insert(tx, &row).await?;
            let actor = Actor { name: "host".to_owned(), request: String::new() };
            let (object, detail) = (row.id.to_string(), format!("role admin, name {}", row.name));
            let change = Change {
                action: "admin.reset",
                object,
                scope: legation_model::scope::DEFAULT_ACCOUNT.parse().expect("the default account's name is a scope"),
                detail,
            };
            audit::append(tx, &actor, now, change).await
        })
    });
    store.write(work).await?;
    show(&key, key_file)
}

#[expect(clippy::print_stdout, reason = "the key is the command's output")]
fn show(key: &ApiKey, key_file: Option<PathBuf>) -> anyhow::Result<()> {
    let text = key.reveal();
    let Some(path) = key_file else {
        println!("{}", text.expose());
        return Ok(());
    };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot create {}: choose a file that is not there yet", path.display()))?;
    file.write_all(text.expose().as_bytes())?;
    Ok(file.sync_all()?)
}
