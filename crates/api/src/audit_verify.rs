//! Checking an export of the audit chain, line by line, with nothing but the Manager's public key.

use legation_model::audit as model;

use crate::{
    audit::{AuditRecord, Misspelled, hash},
    audit_export::{Checkpoint, ExportLine, Signed, statement},
    json,
    proof::{PublicKey, hex},
};

/// What is wrong with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A record or a signature is not what it was.
    Altered,
    /// A record or a checkpoint is missing.
    Removed,
    /// There is one too many.
    Inserted,
    /// Records stand in another order.
    Reordered,
    /// It ends before its end.
    Truncated,
    /// It is signed with a key that was not named.
    WrongKey,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Altered, Self::Removed, Self::Inserted, Self::Reordered, Self::Truncated, Self::WrongKey];

    /// The word for people and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::WrongKey => "wrong key",
        }
    }
}

/// The first thing that is wrong with an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {number} (line {line}): {}: {why}", .kind.as_str())]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The number of the first record that is concerned.
    pub number: u64,
    /// The line, from 1.
    pub line: u64,
    /// In one sentence.
    pub why: String,
}

/// What a good export holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its first record.
    pub first: u64,
    /// Its last record, which a checkpoint signs.
    pub last: u64,
    /// The hash of that.
    pub hash: String,
    /// How many records it has.
    pub records: u64,
    /// How many checkpoints it has.
    pub checkpoints: u64,
    /// The last record that had been deleted before its first one.
    pub base: Option<u64>,
}

/// A record that the reader knows from elsewhere: from the Manager's log, or from an earlier export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Its number.
    pub number: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// What an export is checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Keys that may have signed it.
    pub keys: Vec<PublicKey>,
    /// The record that comes before its first one, for an export that continues another.
    pub after: Option<Anchor>,
    /// Records that must be in it as they are here: what was cut off behind the last checkpoint shows only so.
    pub expect: Vec<Anchor>,
}

/// Checks an export.
///
/// # Errors
/// The first fault; what lies behind it was looked at only to tell of which kind it is.
pub fn verify<T: AsRef<str>>(lines: impl IntoIterator<Item = T>, trusted: &Trusted) -> Result<Verified, Fault> {
    let mut lines = lines.into_iter();
    let mut chain = Chain::new(trusted);
    while let Some(line) = lines.next() {
        if let Err(mut fault) = chain.line(line.as_ref()) {
            fault.kind = told_apart(&fault, lines);
            return Err(fault);
        }
    }
    chain.end()
}

/// What a missing, broken or second record is can only be told by what follows.
fn told_apart<T: AsRef<str>>(fault: &Fault, rest: impl Iterator<Item = T>) -> FaultKind {
    let mut rest = rest.peekable();
    let last = rest.peek().is_none();
    let mut again = || {
        let number = |line: &str| match serde_json::from_str(line) {
            Ok(ExportLine::Record(record)) => Some(record.number),
            _ => None,
        };
        rest.any(|line| number(line.as_ref()) == Some(fault.number))
    };
    match fault.kind {
        FaultKind::Removed if again() => FaultKind::Reordered,
        FaultKind::Altered if again() => FaultKind::Inserted,
        FaultKind::Altered if last && fault.why == CUT_SHORT => FaultKind::Truncated,
        kind => kind,
    }
}

const CUT_SHORT: &str = "the line is not one of an export, or it is cut short";

/// The chain as far as it was read.
struct Chain<'a> {
    trusted: &'a Trusted,
    expect: Vec<&'a Anchor>,
    line: u64,
    /// The record before the first one: its number, and its hash unless it is the beginning of all.
    start: Option<u64>,
    last: u64,
    hash: String,
    records: u64,
    checkpoints: u64,
    /// The number of the newest checkpoint or base.
    signed: Option<u64>,
    base: Option<u64>,
}

impl<'a> Chain<'a> {
    fn new(trusted: &'a Trusted) -> Self {
        let after = trusted.after.as_ref();
        Self {
            trusted,
            expect: trusted.expect.iter().collect(),
            line: 0,
            start: after.map(|anchor| anchor.number),
            last: after.map_or(0, |anchor| anchor.number),
            hash: after.map(|anchor| anchor.hash.clone()).unwrap_or_default(),
            records: 0,
            checkpoints: 0,
            signed: None,
            base: None,
        }
    }

    fn fault(&self, kind: FaultKind, number: u64, why: impl Into<String>) -> Fault {
        Fault { kind, number, line: self.line, why: why.into() }
    }

    fn line(&mut self, text: &str) -> Result<(), Fault> {
        self.line += 1;
        match self.read(text)? {
            ExportLine::Base(base) => self.begin_behind(&base),
            ExportLine::Record(record) => self.record(&record),
            ExportLine::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
        }
    }

    /// Reads a line that says all that it says in the fields of an export: another one would be signed by nobody.
    fn read(&self, text: &str) -> Result<ExportLine, Fault> {
        let next = self.last + 1;
        let cut = |_| self.fault(FaultKind::Altered, next, CUT_SHORT);
        let line: ExportLine = json::parse(text.as_bytes()).map_err(cut)?;
        let (said, kept) = (serde_json::from_str::<serde_json::Value>(text), serde_json::to_value(&line));
        match (said, kept) {
            (Ok(said), Ok(kept)) if said == kept => Ok(line),
            _ => Err(self.fault(FaultKind::Altered, next, "the line has fields that no export has")),
        }
    }

    fn begin_behind(&mut self, base: &Checkpoint) -> Result<(), Fault> {
        if self.line > 1 {
            let why = "records were deleted by the rule of retention before this export had them";
            return Err(self.fault(FaultKind::Removed, self.last + 1, why));
        }
        self.signature(Signed::Base, base)?;
        (self.start, self.last, self.base) = (Some(base.number), base.number, Some(base.number));
        self.hash.clone_from(&base.hash);
        self.signed = Some(base.number);
        self.expected(base.number)
    }

    fn record(&mut self, record: &AuditRecord) -> Result<(), Fault> {
        let next = self.last + 1;
        let start = *self.start.get_or_insert(self.last);
        if record.number > next {
            let why = match self.records {
                0 if start == 0 => format!(
                    "it begins with record {}; a part of the chain needs what comes before it (--after NUMBER:HASH)",
                    record.number
                ),
                _ => format!("record {} comes next", record.number),
            };
            return Err(self.fault(FaultKind::Removed, next, why));
        }
        if record.number < next {
            let why = format!("a record of this number comes behind record {}", self.last);
            return Err(self.fault(FaultKind::Inserted, record.number, why));
        }
        let whole = |error: Misspelled| self.fault(FaultKind::Altered, next, error.to_string());
        let whole = model::AuditRecord::try_from(record).map_err(whole)?;
        match hash(&whole) {
            Some(hash) if hash.as_slice() == whole.hash => {}
            Some(_) => return Err(self.fault(FaultKind::Altered, next, "its hash is not that of what it says")),
            None => {
                let why = format!("its format {} is not known, or it has fields of a later one", record.format);
                return Err(self.fault(FaultKind::Altered, next, why));
            }
        }
        if record.previous != self.hash {
            return Err(self.fault(FaultKind::Altered, next, "it does not follow the record before it"));
        }
        (self.last, self.records) = (next, self.records + 1);
        self.hash.clone_from(&record.hash);
        self.expected(next)
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let number = checkpoint.number;
        if number != self.last {
            let (kind, first) = match number > self.last {
                true => (FaultKind::Removed, self.last + 1),
                false => (FaultKind::Inserted, number),
            };
            return Err(self.fault(
                kind,
                first,
                format!("the checkpoint of record {number} comes behind {}", self.last),
            ));
        }
        self.signature(Signed::Checkpoint, checkpoint)?;
        if checkpoint.hash != self.hash {
            return Err(self.fault(FaultKind::Altered, number, "the checkpoint signs another record of this number"));
        }
        match self.signed {
            Some(signed) if signed == number && self.base != Some(number) => {
                return Err(self.fault(FaultKind::Inserted, number, "there are two checkpoints of this record"));
            }
            Some(signed) if checkpoint.previous != signed => {
                let why = format!("the checkpoint of record {} is missing", checkpoint.previous);
                return Err(self.fault(FaultKind::Removed, checkpoint.previous, why));
            }
            None if checkpoint.previous > self.start.unwrap_or_default() => {
                let why = format!("the checkpoint of record {} is missing", checkpoint.previous);
                return Err(self.fault(FaultKind::Removed, checkpoint.previous, why));
            }
            _ => {}
        }
        self.signed = Some(number);
        self.checkpoints += 1;
        Ok(())
    }

    fn signature(&self, signed: Signed, place: &Checkpoint) -> Result<(), Fault> {
        let number = place.number;
        let wrong = |error: Misspelled| self.fault(FaultKind::Altered, number, error.to_string());
        let whole = model::Checkpoint::try_from(place).map_err(wrong)?;
        let Some(key) = self.trusted.keys.iter().find(|key| key.bytes() == whole.key) else {
            let why = "it is signed with a key that is none of those that you named";
            return Err(self.fault(FaultKind::WrongKey, number, why));
        };
        match key.has_signed(statement(signed, &whole).as_bytes(), &whole.signature) {
            true => Ok(()),
            false => Err(self.fault(FaultKind::Altered, number, "its signature is not the Manager's")),
        }
    }

    /// Compares with what the reader knows of this record.
    fn expected(&mut self, number: u64) -> Result<(), Fault> {
        let other = self.expect.iter().any(|anchor| anchor.number == number && anchor.hash != self.hash);
        self.expect.retain(|anchor| anchor.number != number);
        if other {
            return Err(self.fault(FaultKind::Altered, number, "it is not the record that is expected here"));
        }
        Ok(())
    }

    fn end(self) -> Result<Verified, Fault> {
        if self.records == 0 || self.signed != Some(self.last) {
            let why = "a whole export ends with a checkpoint, and this one does not";
            return Err(self.fault(FaultKind::Truncated, self.last + 1, why));
        }
        let start = self.start.unwrap_or_default();
        if let Some(anchor) = self.expect.first() {
            let (kind, why) = match anchor.number > self.last {
                true => (FaultKind::Truncated, "it ends before the record that is expected"),
                false => (FaultKind::Removed, "it begins behind the record that is expected"),
            };
            let first = if anchor.number > self.last { self.last + 1 } else { anchor.number };
            return Err(self.fault(kind, first, why));
        }
        Ok(Verified {
            first: start + 1,
            last: self.last,
            hash: self.hash,
            records: self.records,
            checkpoints: self.checkpoints,
            base: self.base,
        })
    }
}

impl std::str::FromStr for Anchor {
    type Err = &'static str;

    /// Reads `NUMBER:HASH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write a record's number and hash like 1000:9f86d0…, 64 hexadecimal digits";
        let (number, hash) = text.trim().split_once(':').ok_or(wrong)?;
        let bytes = crate::proof::unhex(hash).filter(|bytes| bytes.len() == 32).ok_or(wrong)?;
        Ok(Self { number: number.parse().map_err(|_| wrong)?, hash: hex(&bytes) })
    }
}
