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
    client::AuditExport,
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
/// As the Manager refuses; a file that is there, unless it is to be continued; one that ends with another chain.
pub async fn export(context: &Context, path: Option<PathBuf>, after: u64, resume: bool) -> Result<(), Failure> {
    let Some(path) = path else {
        return pour(context.client.export_audit(after).await?, &mut io::stdout().lock()).await;
    };
    let mut file = if resume { OpenOptions::new().read(true).write(true).open(&path) } else { created(&path) }
        .map_err(|error| unopened(&path, &error))?;
    if resume {
        proceed(context, &path, &mut file).await?;
    } else {
        pour(context.client.export_audit(after).await?, &mut file).await?;
    }
    file.sync_all().map_err(|error| unusable(&path, &error))
}

async fn pour(mut export: AuditExport, into: &mut impl Write) -> Result<(), Failure> {
    while let Some(bytes) = export.next().await? {
        into.write_all(&bytes)?;
    }
    Ok(into.flush()?)
}

fn created(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn unopened(path: &Path, error: &io::Error) -> Failure {
    let fix = match error.kind() {
        io::ErrorKind::AlreadyExists => "add --resume to continue the export in it, or name a new file",
        io::ErrorKind::NotFound => {
            "name a file in a directory that is there; --resume continues only a file that is there"
        }
        _ => return unusable(path, error),
    };
    Failure::settings(format!("{} cannot be used: {error}", path.display()), fix)
}

/// Continues an export. What comes first shows whether it is the same chain: until then the file stays as it is.
async fn proceed(context: &Context, path: &Path, file: &mut File) -> Result<(), Failure> {
    let failed = |error: io::Error| unusable(path, &error);
    let end = End::find(file).map_err(failed)?;
    let mut export = context.client.export_audit(end.after).await?;
    let mut first = Vec::new();
    while !first.contains(&b'\n')
        && let Some(bytes) = export.next().await?
    {
        first.extend(bytes);
    }
    end.is_continued_by(path, &first)?;
    file.set_len(end.kept).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.write_all(&first).map_err(failed)?;
    pour(export, file).await
}

/// Where an export ends, as far as nothing can be missing in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct End {
    /// How many bytes of it stay.
    kept: u64,
    /// Behind which number to go on.
    after: u64,
    /// The hash of the record with that number, where a signed line tells it.
    hash: Option<String>,
    /// Number and hash of the last record, which is fetched again unless a checkpoint follows: the one that belongs there
    /// may be what was cut off.
    again: Option<(u64, String)>,
}

impl End {
    fn find(file: &File) -> io::Result<Self> {
        let (mut reader, mut line, mut whole, mut end) = (BufReader::new(file), Vec::new(), 0_u64, Self::default());
        loop {
            line.clear();
            whole += reader.read_until(b'\n', &mut line)? as u64;
            match serde_json::from_slice(&line) {
                Ok(ExportLine::Base(place) | ExportLine::Checkpoint(place)) if line.ends_with(b"\n") => {
                    end = Self { kept: whole, after: place.number, hash: Some(place.hash), again: None };
                }
                Ok(ExportLine::Record(record)) if line.ends_with(b"\n") => {
                    let (kept, after) = (whole - line.len() as u64, record.number.saturating_sub(1));
                    end = Self { kept, after, hash: None, again: Some((record.number, record.hash)) };
                }
                _ if line.is_empty() || !line.ends_with(b"\n") => return Ok(end),
                _ => return Err(io::Error::other("it is not an export of the audit chain")),
            }
        }
    }

    /// Refuses the first line that the Manager has behind this end, unless it belongs there. A Manager that was restored
    /// goes on with other records of the same numbers.
    fn is_continued_by(&self, path: &Path, first: &[u8]) -> Result<(), Failure> {
        let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let same = match (serde_json::from_slice(line), &self.again, &self.hash) {
            (_, None, None) => true,
            (Ok(ExportLine::Record(record)), Some((number, hash)), _) => {
                (record.number, &record.hash) == (*number, hash)
            }
            (Ok(ExportLine::Record(record)), None, Some(hash)) => record.previous == *hash,
            (_, again, _) => line.is_empty() && again.is_none(),
        };
        if same {
            return Ok(());
        }
        let last = self.again.as_ref().map_or(self.after, |(number, _)| *number);
        let what = format!(
            "{} ends with record {last}, and what the Manager has does not follow it: it was restored from a backup \
             since, or has deleted records that are not in this file",
            path.display()
        );
        Err(Failure::settings(what, "keep this file as it is, and export to a new one"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> (&str, u64) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.rewind().expect("rewound");
        let end = End::find(&file).expect("an export");
        (&text[..usize::try_from(end.kept).expect("a length")], end.after)
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
        assert_eq!(after(""), ("", 0));
        assert_eq!(after(&two), (record(1).as_str(), 1), "its checkpoint may be missing");
        assert_eq!(after(&format!("{two}{checkpoint}")), (format!("{two}{checkpoint}").as_str(), 2));
        let cut = format!("{two}{checkpoint}{}", &record(3)[..20]);
        assert_eq!(after(&cut), (format!("{two}{checkpoint}").as_str(), 2), "half a line goes");
    }
}
