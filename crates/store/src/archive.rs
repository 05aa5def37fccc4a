//! The file of a backup: the same for both engines, so that what was saved on one is restored on the other.
//!
//! A line that says what it is; records, each with its length before it; and the SHA-256 of all that. The first record is
//! the header, then each table is followed by its rows, and the last record counts them. A file that was cut off, lengthened
//! or changed is refused. The hash proves no author: whoever can write the file can make another one.

use std::io::{self, Read, Write};

use legation_model::Millis;
use sha2::{Digest as _, Sha256};

use crate::StoreError;

const MAGIC: &[u8] = b"legation backup 1\n";
/// The largest record: a task with the largest script, input and secrets, several times.
const RECORD_MAX: usize = 32 << 20;
const DIGEST: usize = 32;

/// What a backup is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The migrations that had built the database: name and checksum of each, in order.
    pub migrations: Vec<(String, String)>,
    /// The epoch of the Manager at that time.
    pub epoch: i64,
    /// When its snapshot was taken, by the clock of the machine that took it.
    pub taken_at: Millis,
    /// Which database: the id of the data key that seals its secrets; empty for one that has no keys yet.
    pub database: String,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One record behind the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The rows that follow are of this table and have these columns.
    Table(String, Vec<String>),
    Row(Vec<Value>),
    /// How many rows there were.
    End(u64),
}

/// Writes a backup.
pub(crate) struct Writer<W> {
    to: W,
    digest: Sha256,
    rows: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(to: W, header: &Header) -> io::Result<Self> {
        let mut this = Self { to, digest: Sha256::new(), rows: 0, bytes: 0 };
        this.put(MAGIC)?;
        this.record(b'H', header.spell().as_bytes())?;
        Ok(this)
    }

    pub(crate) fn table(&mut self, name: &str, columns: &[&str]) -> io::Result<()> {
        self.record(b'T', [&[name], columns].concat().join(" ").as_bytes())
    }

    pub(crate) fn row(&mut self, row: &[Value]) -> io::Result<()> {
        let mut bytes = Vec::new();
        row.iter().for_each(|value| value.write(&mut bytes));
        self.rows += 1;
        self.record(b'R', &bytes)
    }

    /// Ends the file; how many rows and bytes it has.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        self.record(b'E', &self.rows.to_be_bytes())?;
        let digest = self.digest.finalize();
        self.to.write_all(&digest)?;
        self.to.flush()?;
        Ok((self.rows, self.bytes + DIGEST as u64))
    }

    fn record(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() + 1;
        if length > RECORD_MAX {
            return Err(io::Error::other(format!("a row has {length} bytes, more than a backup takes")));
        }
        self.put(&(length as u32).to_be_bytes())?;
        self.put(&[kind])?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// Reads a backup from its beginning to its end.
pub struct Reader<R> {
    from: R,
    digest: Sha256,
    header: Header,
    rows: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it is no backup of ours, or damaged.
    pub fn new(from: R) -> Result<Self, StoreError> {
        let mut this = Self { from, digest: Sha256::new(), header: Header::default(), rows: 0 };
        let mut magic = [0; MAGIC.len()];
        this.fill(&mut magic).map_err(|_| not_ours())?;
        if magic != MAGIC {
            return Err(not_ours());
        }
        let bytes = this.bytes()?;
        let text = bytes.strip_prefix(b"H").and_then(|text| std::str::from_utf8(text).ok());
        this.header = text.and_then(Header::read).ok_or_else(damaged)?;
        Ok(this)
    }

    /// The same, read through something that looks at what passes.
    pub fn map<S: Read>(self, through: impl FnOnce(R) -> S) -> Reader<S> {
        Reader { from: through(self.from), digest: self.digest, header: self.header, rows: self.rows }
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads all of it: how many rows each table has, when it is whole.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for one that is not.
    pub fn verify(mut self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut tables: Vec<(String, u64)> = Vec::new();
        while let Some(record) = self.next()? {
            match (record, tables.last_mut()) {
                (Record::Table(name, _), _) => tables.push((name, 0)),
                (Record::Row(_), Some((_, rows))) => *rows += 1,
                _ => return Err(damaged()),
            }
        }
        Ok(tables)
    }

    /// The next table or row; `None` behind the last, when the file is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, StoreError> {
        let bytes = self.bytes()?;
        let (kind, rest) = bytes.split_first().ok_or_else(damaged)?;
        let record = Record::read(*kind, rest).ok_or_else(damaged)?;
        match record {
            Record::End(rows) => self.end(rows).map(|()| None),
            record => {
                self.rows += u64::from(matches!(record, Record::Row(_)));
                Ok(Some(record))
            }
        }
    }

    fn end(&mut self, rows: u64) -> Result<(), StoreError> {
        let expected = std::mem::take(&mut self.digest).finalize();
        let mut found = Vec::new();
        let rest = (&mut self.from).take(DIGEST as u64 + 1).read_to_end(&mut found);
        rest.map_err(|error| unread(&error))?;
        if rows == self.rows && *found == *expected { Ok(()) } else { Err(damaged()) }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > RECORD_MAX {
            return Err(damaged());
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(),
            _ => unread(&error),
        })?;
        self.digest.update(&*bytes);
        Ok(())
    }
}

fn not_ours() -> StoreError {
    StoreError::refused("this is no backup that this version can read: name a file of `legation-manager backup`")
}

fn damaged() -> StoreError {
    StoreError::refused("the backup is cut off or damaged: take another copy of it, or an older backup")
}

fn unread(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the backup cannot be read: {error}"))
}

impl Header {
    fn spell(&self) -> String {
        let Self { migrations, epoch, taken_at, database } = self;
        let migrations: String = migrations.iter().map(|(name, sum)| format!("migration {name} {sum}\n")).collect();
        format!("epoch {epoch}\ntaken_at {taken_at}\ndatabase {database}\n{migrations}")
    }

    fn read(text: &str) -> Option<Self> {
        let mut header = Self::default();
        for line in text.lines() {
            match line.split_once(' ')? {
                ("epoch", epoch) => header.epoch = epoch.parse().ok()?,
                ("taken_at", at) => header.taken_at = at.parse().ok()?,
                ("database", database) => database.clone_into(&mut header.database),
                ("migration", migration) => {
                    let (name, sum) = migration.split_once(' ')?;
                    header.migrations.push((name.to_owned(), sum.to_owned()));
                }
                _ => return None,
            }
        }
        Some(header)
    }
}

impl Record {
    fn read(kind: u8, bytes: &[u8]) -> Option<Self> {
        match kind {
            b'T' => {
                let mut words = std::str::from_utf8(bytes).ok()?.split(' ').map(str::to_owned);
                Some(Self::Table(words.next()?, words.collect()))
            }
            b'R' => {
                let (mut rest, mut row) = (bytes, Vec::new());
                while !rest.is_empty() {
                    row.push(Value::read(&mut rest)?);
                }
                Some(Self::Row(row))
            }
            b'E' => Some(Self::End(u64::from_be_bytes(bytes.try_into().ok()?))),
            _ => None,
        }
    }
}

impl Value {
    /// Bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        let long = |kind: u8, bytes: &[u8], to: &mut Vec<u8>| {
            to.push(kind);
            // A row that is longer than this counts to is refused as a whole.
            to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            to.extend_from_slice(bytes);
        };
        match self {
            Self::Null => to.push(b'n'),
            Self::Integer(number) => {
                to.push(b'i');
                to.extend_from_slice(&number.to_be_bytes());
            }
            Self::Text(text) => long(b't', text.as_bytes(), to),
            Self::Bytes(bytes) => long(b'b', bytes, to),
        }
    }

    fn read(from: &mut &[u8]) -> Option<Self> {
        let kind = take(from, 1)?[0];
        match kind {
            b'n' => Some(Self::Null),
            b'i' => Some(Self::Integer(i64::from_be_bytes(take(from, 8)?.try_into().ok()?))),
            b't' | b'b' => {
                let length = u32::from_be_bytes(take(from, 4)?.try_into().ok()?) as usize;
                let bytes = take(from, length)?.to_vec();
                if kind == b'b' { Some(Self::Bytes(bytes)) } else { String::from_utf8(bytes).ok().map(Self::Text) }
            }
            _ => None,
        }
    }
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let migrations = vec![("first".to_owned(), "aa".to_owned()), ("second".to_owned(), "bb".to_owned())];
        Header { migrations, epoch: 7, taken_at: 1_800_000_000_000, database: String::new() }
    }

    fn rows() -> Vec<Vec<Value>> {
        let text = |text: &str| Value::Text(text.to_owned());
        vec![
            vec![Value::Null, Value::Integer(i64::MIN), text("")],
            vec![Value::Bytes(vec![0, 255]), Value::Integer(-1), text("a b\n\u{1F4A5}\0")],
        ]
    }

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        writer.table("empty", &["a"]).unwrap();
        writer.table("full", &["a", "b", "c"]).unwrap();
        rows().iter().for_each(|row| writer.row(row).unwrap());
        let (rows, length) = writer.finish().unwrap();
        assert_eq!((rows, length), (2, bytes.len() as u64));
        bytes
    }

    fn verify(bytes: &[u8]) -> Result<Vec<(String, u64)>, StoreError> {
        Reader::new(bytes)?.verify()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = file();
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        assert_eq!(*reader.header(), header());
        let table = |name: &str, columns: &[&str]| {
            Record::Table(name.to_owned(), columns.iter().map(|column| (*column).to_owned()).collect())
        };
        assert_eq!(reader.next(), Ok(Some(table("empty", &["a"]))));
        assert_eq!(reader.next(), Ok(Some(table("full", &["a", "b", "c"]))));
        for row in rows() {
            assert_eq!(reader.next(), Ok(Some(Record::Row(row))));
        }
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(verify(&bytes), Ok(vec![("empty".to_owned(), 0), ("full".to_owned(), 2)]));
    }

    #[test]
    fn whatever_happens_to_a_file_is_noticed() {
        let bytes = file();
        for length in 0..bytes.len() {
            assert!(matches!(verify(&bytes[..length]), Err(StoreError::Refused(_))), "cut off at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(matches!(verify(&changed), Err(StoreError::Refused(_))), "changed at {at}");
        }
        assert!(verify(&[&bytes[..], b"x"].concat()).is_err(), "lengthened");
        assert!(verify(b"SQLite format 3\0 and so on").is_err());
    }
}
