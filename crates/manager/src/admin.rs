//! Break-glass on the host: whoever can read the database and the key file can make an API key.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use legation_model::{Clock, Entropy, Name, Secret, api_key::ApiKey, ids::ApiKeyId};
use legation_store::{Store, api_keys, job, principals::BREAK_GLASS};
use serde_json::json;

use crate::{
    audit::{self, Actor, Change},
    config::Config,
    keys::Keys,
    start::{database_url, embedded, prepare},
    whole_file,
};

/// What `admin reset` takes.
#[derive(Args, Clone, Debug)]
pub struct Reset {
    /// The key's name, as lists and audit records show it.
    #[arg(long, default_value = "admin-reset")]
    pub name: String,
    /// Write the key into this new file (0600) instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Make the embedded database if there is none: before the Manager's first start.
    #[arg(long)]
    pub create: bool,
}

/// Makes a new API key of the principal that is always there and admin everywhere, beside a running Manager or before its first start.
///
/// # Errors
/// When there is no database and none is to be made, when it or the key-encryption key cannot be read, or the file
/// exists already.
pub async fn reset(config: &Config, reset: Reset, clock: &dyn Clock, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let name: Name = reset.name.parse().context("--name")?;
    if !reset.create {
        refuse_without_database(config)?;
    }
    if let Some(path) = reset.key_file.as_ref().filter(|path| path.exists()) {
        // Found out only after the key is stored, it would leave a key that nobody has.
        bail!("{} is there already: choose a file that is not", path.display());
    }
    prepare(&config.config_dir)?;
    let store = Store::open_beside(&database_url(config)?).await?;
    let keys = Keys::load(config, &store, clock, entropy).await?;
    let key = ApiKey { id: ApiKeyId::random(entropy), secret: Secret::random(entropy) };
    let row = api_keys::ApiKey {
        id: key.id,
        owner: BREAK_GLASS,
        hash: keys.sealer.keyed_hash(key.secret.expose()),
        name: name.clone(),
        scope: None,
        created_at: clock.wall(),
        created_by: "host".to_owned(),
        expires_at: None,
        last_used_at: None,
    };
    let now = clock.wall();
    let work = job(move |tx| {
        Box::pin(async move {
            api_keys::insert(tx, &row).await?;
            let change = Change::new("admin.reset", row.id, None)
                .after(json!({"name": row.name, "owner": row.owner, "expires_at": row.expires_at}));
            audit::append(tx, &Actor::host(), now, change).await
        })
    });
    store.write(work).await?;
    show(&key, reset.key_file)
}

/// A key for an empty database helps nobody: most likely the directory is that of another user or service.
fn refuse_without_database(config: &Config) -> anyhow::Result<()> {
    if config.database_url.is_none() && !embedded(config).exists() {
        bail!(
            "there is no database in {}: name the Manager's own directory with --data-dir (LEGATION_DATA_DIR), or add \
             --create to make a new database there",
            config.data_dir.display()
        );
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the key is the command's output")]
fn show(key: &ApiKey, key_file: Option<PathBuf>) -> anyhow::Result<()> {
    let text = key.reveal();
    let Some(path) = key_file else {
        println!("{}", text.expose());
        return Ok(());
    };
    whole_file::create(&path, text.expose(), 0o600)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        config::Settings,
        system::{SystemClock, SystemEntropy},
    };

    async fn reset_in(directory: &Path, create: bool) -> anyhow::Result<()> {
        let (data, keys) = (directory.join("data"), directory.join("config"));
        let settings = Settings { data_dir: Some(data), config_dir: Some(keys), ..Settings::default() };
        let key_file = Some(directory.join(if create { "first" } else { "second" }));
        let wanted = Reset { name: "alice".to_owned(), key_file, create };
        reset(&Config::new(settings)?, wanted, &SystemClock, &SystemEntropy).await
    }

    #[tokio::test]
    async fn a_database_is_made_only_when_that_is_asked_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let refused = reset_in(directory.path(), false).await.expect_err("no database").to_string();
        assert!(refused.contains(&directory.path().join("data").display().to_string()), "{refused}");
        assert!(refused.contains("--data-dir") && refused.contains("--create"), "{refused}");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing was made");
        reset_in(directory.path(), true).await.expect("a new database");
        reset_in(directory.path(), false).await.expect("the same database");
    }
}
