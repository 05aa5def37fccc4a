//! `restore`: a backup becomes the database of a Manager that stands still.
//!
//! What was taken away after the backup was made is there again, tokens first of all. Nobody restores without having said what
//! is to become of that.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;
use legation_api::accounts::LEASE_MAX;
use legation_model::{Clock, Entropy, Millis};
use legation_store::{StoreError, Tx, audit, job, keys, restore, tokens};
use serde::Serialize;
use serde_json::json;

use crate::{
    audit::{Actor, Change, append},
    backup::{self, Contents, Output, spelled},
    config::Config,
    keys::check_kek,
    seal::load_kek,
    start::{database_url, prepare},
    taken_away::{Applied, TakenAway, revoke_all},
};

/// The longest lease that any Manager granted, as it counts it.
const LONGEST_LEASE: Millis = LEASE_MAX + LEASE_MAX / 100;
/// After how many bytes it is said how far it is.
const TOLD_EVERY: u64 = 64 << 20;

/// What `restore` takes.
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// File of `legation-manager backup`.
    pub file: PathBuf,
    /// Take away again what this file says was taken away: `legation audit export`, or `legation receipt show -o json`. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub revoked: Vec<PathBuf>,
    /// Revoke all tokens of the backup: each has to be issued anew.
    #[arg(long, conflicts_with = "accept_resurrected_tokens")]
    pub revoke_all_tokens: bool,
    /// Let what was revoked since the backup be accepted again.
    #[arg(long)]
    pub accept_resurrected_tokens: bool,
    /// Form of the result.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// What is in the backup.
    pub backup: Contents,
    /// When it was restored: what happened between `taken_at` and this is not in the database.
    pub restored_at: Millis,
    /// Up to when the files of `--revoked` say what was taken away; nothing is known of what came later.
    pub known_until: Option<Millis>,
    /// What was taken away again.
    pub taken_away: Applied,
    /// Tokens that are accepted now.
    pub accepted_tokens: u64,
}

/// Restores a backup into an empty database.
///
/// # Errors
/// One sentence: nobody said what is to become of resurrected tokens, the backup is damaged or of a newer version, the
/// database is in use or not empty, the key-encryption key is not the one of the backup.
pub async fn run(config: &Config, wanted: Restore, clock: &dyn Clock, entropy: Arc<dyn Entropy>) -> anyhow::Result<()> {
    let restored = restore(config, &wanted, clock, entropy).await?;
    backup::print(wanted.output, &restored, &told(&restored))
}

/// The same, without saying so.
///
/// # Errors
/// As [`run`].
pub async fn restore(
    config: &Config,
    wanted: &Restore,
    clock: &dyn Clock,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<Restored> {
    let contents = backup::verify(&wanted.file)?;
    let now = clock.wall();
    decided(wanted, &contents, now)?;
    let mut taken_away = TakenAway::default();
    wanted.revoked.iter().try_for_each(|path| taken_away.read(path))?;
    prepare(&config.config_dir)?;
    if !contents.database.is_empty() {
        load_kek(&config.config_dir).context("put the key-encryption key of the backup in its place first")?;
    }
    let (file, _) = backup::open(&wanted.file)?;
    let backup = file.map(|from| Told { from, total: contents.bytes, read: 0 });
    let (settings, decision, head) = (config.clone(), wanted.clone(), contents.clone());
    let finish = job(move |tx| {
        Box::pin(async move {
            let rows = keys::all(tx).await?;
            check_kek(&settings, &rows).map_err(|error| StoreError::Refused(format!("{error:#}")))?;
            finish(tx, &head, &taken_away, &decision, now, &*entropy).await
        })
    });
    let restored = restore::restore(&database_url(config)?, backup, LONGEST_LEASE, finish).await;
    let (known_until, taken_away, accepted_tokens) = restored.context("nothing is restored")?;
    Ok(Restored { backup: contents, restored_at: now, known_until, taken_away, accepted_tokens })
}

/// What else belongs into the transaction.
async fn finish(
    tx: &mut Tx,
    contents: &Contents,
    taken_away: &TakenAway,
    wanted: &Restore,
    now: Millis,
    entropy: &dyn Entropy,
) -> Result<(Option<Millis>, Applied, u64), StoreError> {
    let known_until = taken_away.known_until(audit::last(tx).await?);
    if known_until.is_none() && !wanted.revoke_all_tokens && !wanted.accept_resurrected_tokens {
        return Err(StoreError::refused(
            "no file of `--revoked` is an audit export that goes on from the last record of this backup, so nobody knows what \
             was taken away after it. Name a whole export of the same Manager that was made later; or, to take away only what \
             these files tell, add `--accept-resurrected-tokens`, or `--revoke-all-tokens`",
        ));
    }
    let change = Change::new("database.restore", &contents.database, None)
        .after(json!({"taken_at": contents.taken_at, "epoch": contents.epoch, "schema": contents.schema}))
        .detail(format!("what happened between {} and {} is not in it", spelled(contents.taken_at), spelled(now)));
    append(tx, &Actor::host(), now, change).await?;
    let mut applied = taken_away.apply(tx, now, entropy).await?;
    if wanted.revoke_all_tokens {
        applied.tokens += revoke_all(tx, now, entropy).await?;
    }
    let states = tokens::states(tx).await?;
    let accepted = states.iter().filter(|(_, status, _)| status.is_live()).count() as u64;
    Ok((known_until, applied, accepted))
}

fn decided(wanted: &Restore, contents: &Contents, now: Millis) -> anyhow::Result<()> {
    if wanted.revoke_all_tokens || wanted.accept_resurrected_tokens || !wanted.revoked.is_empty() {
        return Ok(());
    }
    bail!(
        "the backup is of {} and it is {} now: tokens, API keys, users and grants that were taken away in between would be \
         accepted again, and delegates that were stopped would come in. Say what is to become of them: \
         `--revoked FILE` takes away again what an audit export or receipts of the lost Manager tell, \
         `--revoke-all-tokens` revokes all tokens, `--accept-resurrected-tokens` lets them live",
        spelled(contents.taken_at),
        spelled(now)
    )
}

/// The dangerous part is said last, where it is read.
fn told(restored: &Restored) -> String {
    let Restored { backup, restored_at, known_until, taken_away, accepted_tokens } = restored;
    let Applied { tokens, delegates, api_keys, principals, grants } = taken_away;
    let until = match known_until {
        Some(until) => format!("Of what was taken away after {} nothing is known.", spelled(*until)),
        None => "Nothing is known of what was taken away since.".to_owned(),
    };
    format!(
        "{} is restored: {} rows.\nTaken away again: {tokens} tokens, {delegates} delegates, {api_keys} API keys, {principals} \
         users and service accounts, {grants} grants.\n\nWARNING: what happened between {} and {} is not in the database. \
         {until}\n{accepted_tokens} tokens are accepted. Revoke those that were revoked meanwhile, tighten limits and roles that \
         were tightened, and issue anew what was issued meanwhile.",
        backup.file.display(),
        backup.rows,
        spelled(backup.taken_at),
        spelled(*restored_at),
    )
}

/// Says now and then how far it is.
struct Told<R> {
    from: R,
    total: u64,
    read: u64,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        let before = self.read;
        self.read += read as u64;
        if before / TOLD_EVERY != self.read / TOLD_EVERY {
            tracing::info!(bytes = self.read, of = self.total, "restoring");
        }
        Ok(read)
    }
}
