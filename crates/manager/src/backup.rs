//! `backup`: a file with everything that is in the database, also while the Manager runs.
//!
//! It is written under another name until it is whole and synced; a run that was killed is repeated. The key-encryption key
//! is not in it: without that one the file opens nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use legation_model::{Clock, Millis};
use legation_store::{Header, Reader, backup};
use rustix::{fs::OFlags, process::geteuid};
use serde::Serialize;

use crate::{config::Config, start::database_url, whole_file::sync_directory};

/// What `backup` takes.
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// New file to write, readable by its owner alone; with --verify, the file to check.
    pub file: PathBuf,
    /// Write nothing: check that a backup is whole, and say what is in it.
    #[arg(long)]
    pub verify: bool,
    /// Form of the result.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// The form of a command's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// The file.
    pub file: PathBuf,
    /// When its snapshot was taken.
    pub taken_at: Millis,
    /// Of which database: the id of its data key.
    pub database: String,
    /// The epoch of the Manager at that time.
    pub epoch: i64,
    /// The version of the schema: how many migrations had built it.
    pub schema: usize,
    /// Its length.
    pub bytes: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Rows by table; those without any are left out.
    pub tables: Vec<(String, u64)>,
}

/// Writes a backup, or checks one, and says what is in it.
///
/// # Errors
/// One sentence: the file is there already or cannot be written, the database cannot be read, the backup is damaged.
pub async fn run(config: &Config, wanted: Backup, clock: &dyn Clock) -> anyhow::Result<()> {
    let contents = if wanted.verify { verify(&wanted.file)? } else { save(config, &wanted.file, clock.wall()).await? };
    let done = if wanted.verify { "is whole" } else { "is written" };
    let Contents { rows, bytes, schema, .. } = &contents;
    let text = format!(
        "{} {done}: the database as it was at {}, {rows} rows in {bytes} bytes, schema {schema}.\nWithout the key-encryption \
         key of that time it opens nothing. Keep that one, and keep it elsewhere.",
        wanted.file.display(),
        spelled(contents.taken_at),
    );
    print(wanted.output, &contents, &text)
}

/// Writes a backup.
///
/// # Errors
/// As [`run`].
pub async fn save(config: &Config, path: &Path, now: Millis) -> anyhow::Result<Contents> {
    let half = path.with_added_extension("half");
    let unwritable =
        || format!("cannot write {}: choose a new file in a directory that this user can write", path.display());
    if path.exists() {
        bail!("{} is there already: choose a file that is not", path.display());
    }
    let file = alone(&half).with_context(unwritable)?;
    let progress = |table: &str, rows: u64| tracing::info!(table, rows, "saved");
    let mut to = BufWriter::new(&file);
    let saved = backup::save(&database_url(config)?, &mut to, now, progress).await.with_context(|| {
        "cannot back the database up: name the Manager's own directory (--data-dir) or database (--database-url), or repeat"
    });
    let written = to.flush();
    drop(to);
    let saved = saved.and_then(|saved| {
        written.and_then(|()| file.sync_all()).and_then(|()| publish(&half, path)).with_context(unwritable)?;
        Ok(saved)
    });
    // Of a whole backup another name, of a half one of no use. The lock on it ends with the file.
    let _ = fs::remove_file(&half);
    let saved = saved?;
    Ok(contents(path, &saved.header, saved.tables, saved.bytes))
}

/// The file that nobody else writes; what a killed run left in it is gone.
fn alone(half: &Path) -> anyhow::Result<File> {
    // No link is followed: it may lead into a file of somebody else.
    let open = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        options.open(half)
    };
    let mut file = open()?;
    file.try_lock().context("another backup is being written into it")?;
    if file.metadata()?.uid() != geteuid().as_raw() {
        bail!("{} is another user's, who could read the backup: remove it", half.display());
    }
    if file.metadata()?.nlink() != 1 {
        // A run that was killed at its very end: under another name this is a backup.
        fs::remove_file(half)?;
        file = open()?;
        file.try_lock().context("another backup is being written into it")?;
    }
    if fs::metadata(half)?.ino() != file.metadata()?.ino() {
        bail!("another backup has just been written into it: repeat");
    }
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(file)
}

/// A link instead of a rename: it takes no other file's place.
fn publish(half: &Path, path: &Path) -> std::io::Result<()> {
    fs::hard_link(half, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(directory.unwrap_or(Path::new(".")))
}

/// Reads all of a backup.
///
/// # Errors
/// When it cannot be read, is no backup, or is damaged.
pub fn verify(path: &Path) -> anyhow::Result<Contents> {
    let (reader, bytes) = open(path)?;
    let header = reader.header().clone();
    let tables = reader.verify().with_context(|| path.display().to_string())?;
    Ok(contents(path, &header, tables, bytes))
}

/// The header of a backup, and the rest to be read.
pub(crate) fn open(path: &Path) -> anyhow::Result<(Reader<BufReader<File>>, u64)> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let bytes = file.metadata().with_context(cannot)?.len();
    let reader = Reader::new(BufReader::new(file)).with_context(|| path.display().to_string())?;
    Ok((reader, bytes))
}

fn contents(path: &Path, header: &Header, tables: Vec<(String, u64)>, bytes: u64) -> Contents {
    Contents {
        file: path.to_owned(),
        taken_at: header.taken_at,
        database: header.database.clone(),
        epoch: header.epoch,
        schema: header.migrations.len(),
        bytes,
        rows: tables.iter().map(|(_, rows)| rows).sum(),
        tables: tables.into_iter().filter(|(_, rows)| *rows > 0).collect(),
    }
}

/// A time as people write it, in UTC.
pub(crate) fn spelled(at: Millis) -> String {
    let since = Duration::from_millis(at.max(0).unsigned_abs());
    UNIX_EPOCH
        .checked_add(since)
        .filter(|_| at < 253_402_300_800_000)
        .map_or_else(|| format!("{at} ms"), |at| humantime::format_rfc3339_seconds(at).to_string())
}

#[expect(clippy::print_stdout, reason = "it is the command's output")]
pub(crate) fn print(output: Output, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
    match output {
        Output::Text => println!("{text}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn nobody_else_has_the_file_beforehand() {
        let directory = tempfile::tempdir().expect("a directory");
        let (half, other) = (directory.path().join("half"), directory.path().join("other"));
        fs::write(&other, "theirs").expect("written");
        symlink(&other, &half).expect("a link");
        assert!(alone(&half).is_err(), "a link");
        assert_eq!(fs::read_to_string(&other).expect("a file"), "theirs");
        fs::remove_file(&half).expect("removed");
        fs::write(&half, "of a killed run").expect("written");
        assert_eq!(alone(&half).expect("our own").metadata().expect("metadata").len(), 0);
        // Only root can give a file away.
        if geteuid().is_root() {
            chown(&half, Some(65_534), None).expect("given away");
            let refused = alone(&half).expect_err("another user's");
            assert!(refused.to_string().contains("another user's"), "{refused}");
        }
    }
}
