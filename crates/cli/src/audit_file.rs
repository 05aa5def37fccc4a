//! Exports of the audit chain as files: written, continued, and checked without the Manager.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use legation_api::{
    audit_export::ExportLine,
    audit_verify::{Anchor, Fault, Trusted, Verified, verify},
};
use serde::Serialize;

use crate::{
    Context, Failure,
    audit::spell,
    exit_codes,
    keys::Keys,
    ui::{Show, Ui},
};

/// How to check an export.
#[derive(Debug, Args)]
pub struct Verify {
    /// File of `legation audit export`
    file: PathBuf,
    /// Which keys may have signed.
    #[command(flatten)]
    keys: Keys,
    /// A record that must be in it as it is here; from the Manager's log, or what an earlier check said. Only so shows
    /// what was cut off behind the last checkpoint
    #[arg(long, value_name = "NUMBER:HASH")]
    expect: Vec<Anchor>,
    /// The last record of the export that this one continues
    #[arg(long, value_name = "NUMBER:HASH")]
    after: Option<Anchor>,
}

impl Verify {
    /// Checks the file.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing that is wrong with it.
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let trusted = Trusted { keys: self.keys.read()?, after: self.after, expect: self.expect };
        let file = File::open(&self.file).map_err(|error| unusable(&self.file, &error))?;
        let mut broken = None;
        let lines = BufReader::new(file).lines().map_while(|line| line.map_err(|error| broken = Some(error)).ok());
        let checked = verify(lines, &trusted);
        if let Some(error) = broken.filter(|error| error.kind() != io::ErrorKind::InvalidData) {
            return Err(unusable(&self.file, &error));
        }
        let checked = checked.map_err(|fault| wrong(&self.file, &fault))?;
        ui.show(&Checked::from(checked.clone()))?;
        ui.note(&format!(
            "what came behind record {} cannot be known from this file: compare with a later checkpoint in the Manager's \
             log (--expect NUMBER:HASH)",
            checked.last
        ));
        Ok(exit_codes::OK)
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    let fix = match error.kind() {
        io::ErrorKind::AlreadyExists => "add --resume to continue it, or name a new file",
        io::ErrorKind::NotFound => "check the name; a directory has to be there before",
        _ => "name a file of `legation audit export`",
    };
    Failure::settings(format!("{} cannot be used: {error}", path.display()), fix)
}

fn wrong(path: &Path, fault: &Fault) -> Failure {
    let fix = "keep this file as evidence; export again, and compare with copies and with the checkpoints in the \
               Manager's log";
    Failure::new(exit_codes::NOT_GENUINE, format!("{}: {fault}", path.display()), fix)
}

/// What was checked.
#[derive(Debug, Serialize)]
struct Checked {
    first: u64,
    last: u64,
    hash: String,
    records: u64,
    checkpoints: u64,
    base: Option<u64>,
}

impl From<Verified> for Checked {
    fn from(verified: Verified) -> Self {
        let Verified { first, last, hash, records, checkpoints, base } = verified;
        Self { first, last, hash, records, checkpoints, base }
    }
}

impl Show for Checked {
    fn name(&self) -> String {
        spell(&Anchor { number: self.last, hash: self.hash.clone() })
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("genuine", format!("{} records, {} to {}", self.records, self.first, self.last)),
            ("checkpoints", self.checkpoints.to_string()),
            ("deleted before", self.base.map(|base| format!("1 to {base}")).unwrap_or_default()),
            ("last", self.name()),
        ]
    }
}

/// Writes an export to a file or to standard output.
///
/// # Errors
/// As the Manager refuses; a file that is there, unless it is to be continued.
pub async fn export(context: &Context, path: Option<PathBuf>, after: u64, resume: bool) -> Result<(), Failure> {
    let Some(path) = path else { return copy(context, after, &mut io::stdout().lock()).await };
    let failed = |error: io::Error| unusable(&path, &error);
    let (mut file, after) = if resume { continued(&path)? } else { (created(&path).map_err(failed)?, after) };
    copy(context, after, &mut file).await?;
    file.sync_all().map_err(failed)
}

async fn copy(context: &Context, after: u64, into: &mut impl Write) -> Result<(), Failure> {
    let mut export = context.client.export_audit(after).await?;
    while let Some(bytes) = export.next().await? {
        into.write_all(&bytes)?;
    }
    Ok(into.flush()?)
}

fn created(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Opens an export for what is still missing in it, and finds out behind which number that is. Its last record is
/// fetched again unless a checkpoint follows: the one that belongs there may be what was cut off.
fn continued(path: &Path) -> Result<(File, u64), Failure> {
    let failed = |error: io::Error| unusable(path, &error);
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let (mut reader, mut line, mut whole, mut kept, mut after) = (BufReader::new(&file), Vec::new(), 0_u64, 0_u64, 0);
    loop {
        line.clear();
        whole += reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
        match serde_json::from_slice(&line) {
            Ok(ExportLine::Base(place) | ExportLine::Checkpoint(place)) if line.ends_with(b"\n") => {
                (kept, after) = (whole, place.number);
            }
            Ok(ExportLine::Record(record)) if line.ends_with(b"\n") => {
                (kept, after) = (whole - line.len() as u64, record.number.saturating_sub(1));
            }
            _ if line.is_empty() || !line.ends_with(b"\n") => break,
            _ => return Err(failed(io::Error::other("it is not an export of the audit chain"))),
        }
    }
    file.set_len(kept).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    Ok((file, after))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn after(text: &str) -> (String, u64) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("export");
        fs::write(&path, text).expect("a file");
        let (_, after) = continued(&path).expect("an export");
        (fs::read_to_string(&path).expect("a file"), after)
    }

    #[test]
    fn an_export_is_continued_where_nothing_can_be_missing() {
        let record = |number: u64| {
            format!(
                r#"{{"line":"record","number":{number},"format":2,"at":1,"actor":"a","address":null,"action":"b","object":"c","scope":null,"before":null,"after":null,"detail":"","outcome":"done","request":null,"previous":"","hash":""}}
"#
            )
        };
        let checkpoint = "{\"line\":\"checkpoint\",\"number\":2,\"hash\":\"\",\"at\":1,\"previous\":0,\"signature\":\"\",\"key\":\"\"}\n";
        let two = record(1) + &record(2);
        assert_eq!(after(""), (String::new(), 0));
        assert_eq!(after(&two), (record(1), 1), "its checkpoint may be missing");
        assert_eq!(after(&format!("{two}{checkpoint}")), (format!("{two}{checkpoint}"), 2));
        let cut = format!("{two}{checkpoint}{}", &record(3)[..20]);
        assert_eq!(after(&cut), (format!("{two}{checkpoint}"), 2), "half a line goes");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("other");
        fs::write(&path, "something else\n").expect("a file");
        assert!(continued(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("a file"), "something else\n", "another file stays as it is");
    }
}
