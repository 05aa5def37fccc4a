//! One attempt on disk: its start mark, its output as numbered records, and its result.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use legation_wire::message::{Finished, OUTPUT_CHUNK_MAX, Stream};

use crate::{state::write_durably, tree::Process};

/// A record's offset (8), stream (1) and length (4), little endian.
pub(super) const HEADER: usize = 13;
/// Bytes set aside on disk for a result, when the attempt starts: a block of most file systems, and more than any
/// result has that a supervisor writes.
const RESERVE: usize = 4 << 10;
/// The files of an attempt beside its output: its start mark with its supervisor, its result, and the place where
/// the result is written until it is whole.
const STARTED: &str = "started";
const FINISHED: &str = "finished";
const HALF: &str = "finished.new";

/// One attempt.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: PathBuf,
    output: File,
    /// The next output byte, and where its record goes.
    end: Place,
    /// Where to read the next record to send.
    next: Place,
    /// What the Manager has.
    acked: u64,
    /// Bytes that were not kept here.
    dropped: u64,
    cut: bool,
    pub(super) finished: Option<Finished>,
    /// Whether nothing of it is left that takes up room; its result is not said before.
    pub(super) gone: bool,
    told: Told,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    offset: u64,
    position: u64,
}

/// What was already said in this session.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    started: bool,
    finished: bool,
}

/// A piece of output that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the attempt's output before it, both streams together.
    pub offset: u64,
    /// Where the task wrote it.
    pub stream: Stream,
    /// The piece, 1 to [`OUTPUT_CHUNK_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// What to say next about an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It began.
    Started,
    /// A piece of output.
    Output(Chunk),
    /// Its end.
    Finished(Finished),
}

impl Record {
    /// Begins one, durably, and sets disk space aside for its result.
    pub(super) fn start(path: PathBuf, supervisor: Option<Process>) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        let begun = Self::mark(&path, supervisor).and_then(|()| Self::new(path.clone()));
        // A start that failed leaves nothing behind, so that it can be tried again.
        begun.inspect_err(|_| drop(fs::remove_dir_all(&path)))
    }

    fn mark(path: &Path, supervisor: Option<Process>) -> io::Result<()> {
        let mut reserve = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(HALF))?;
        reserve.write_all(&[0; RESERVE])?;
        reserve.sync_all()?;
        let mark = supervisor.map_or_else(String::new, |process| format!("{} {}", process.pid, process.started));
        write_durably(path, STARTED, mark.as_bytes())
    }

    /// What an earlier process left.
    pub(super) fn restore(path: PathBuf) -> io::Result<Self> {
        fs::metadata(path.join(STARTED))?;
        let finished = fs::read(path.join(FINISHED)).ok().and_then(|bytes| minicbor::decode(&bytes).ok());
        let mut record = Self::new(path)?;
        record.recover();
        record.finished = finished;
        Ok(record)
    }

    /// Keeps the first result. It is known from now on, even if that could not be made durable.
    pub(super) fn finish(&mut self, mut finished: Finished) -> io::Result<()> {
        if self.finished.is_some() {
            return Ok(());
        }
        // What is kept is what is here, whatever the supervisor counted.
        finished.output_bytes = self.end.offset;
        finished.dropped_bytes += self.dropped;
        let bytes = minicbor::to_vec(&finished).expect("writing to memory does not fail");
        self.finished = Some(finished);
        self.write_finished(&bytes)
    }

    /// Writes into the space that was set aside, which a full disk cannot take back.
    fn write_finished(&self, bytes: &[u8]) -> io::Result<()> {
        let half = self.path.join(HALF);
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&half)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        fs::rename(half, self.path.join(FINISHED))?;
        File::open(&self.path)?.sync_all()
    }

    fn new(path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let output =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join("output"))?;
        Ok(Self {
            path,
            output,
            end: Place::default(),
            next: Place::default(),
            acked: 0,
            dropped: 0,
            cut: false,
            finished: None,
            gone: false,
            told: Told::default(),
        })
    }

    /// Keeps a piece of output, if there is `room`, or else a mark that it was dropped.
    pub(super) fn append(&mut self, stream: Stream, bytes: &[u8], room: bool) {
        if self.cut {
            self.dropped += bytes.len() as u64;
        } else if !room || self.write(stream, bytes).is_err() {
            self.cut = true;
            self.dropped += bytes.len() as u64;
            let mark = b"\n[legation: no room on the delegate's disk; what follows was dropped]\n";
            // On a full disk even the mark may not fit; the count of dropped bytes still tells.
            let _ = self.write(stream, mark);
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut record = Vec::with_capacity(HEADER + bytes.len());
        record.extend_from_slice(&self.end.offset.to_le_bytes());
        record.push(stream as u8);
        record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        record.extend_from_slice(bytes);
        self.output.write_all_at(&record, self.end.position)?;
        self.end.offset += bytes.len() as u64;
        self.end.position += record.len() as u64;
        Ok(())
    }

    /// What to say next, with at most `window` unacknowledged bytes in flight, and where to go on after it.
    pub(super) fn next(&self, window: u64) -> Option<(Next, Place)> {
        if !self.told.started {
            return Some((Next::Started, self.next));
        }
        if self.next.position < self.end.position {
            let open = self.next.offset.saturating_sub(self.acked) < window;
            let (chunk, after) = self.read(self.next).filter(|_| open)?;
            return Some((Next::Output(chunk), after));
        }
        let finished = self.finished.clone().filter(|_| self.gone && !self.told.finished)?;
        Some((Next::Finished(finished), self.next))
    }

    /// It was said.
    pub(super) fn said(&mut self, next: &Next, after: Place) {
        match next {
            Next::Started => self.told.started = true,
            Next::Output(_) => self.next = after,
            Next::Finished(_) => self.told.finished = true,
        }
    }

    /// Takes an acknowledgement; answers how many bytes of disk became free.
    pub(super) fn ack(&mut self, offset: u64) -> u64 {
        self.acked = self.acked.max(offset.min(self.end.offset));
        if self.acked < self.end.offset || self.next.position < self.end.position || self.end.position == 0 {
            return 0;
        }
        let freed = self.end.position;
        if self.output.set_len(0).is_err() {
            return 0;
        }
        (self.end.position, self.next) = (0, Place { offset: self.end.offset, position: 0 });
        freed
    }

    /// Bytes of disk that its output takes.
    pub(super) const fn size(&self) -> u64 {
        self.end.position
    }

    /// A new session: everything unacknowledged is said again.
    pub(super) fn rewind(&mut self) {
        self.told = Told::default();
        self.next = Place::default();
        self.skip_acked();
    }

    fn skip_acked(&mut self) {
        while self.next.position < self.end.position {
            match self.read(self.next) {
                Some((_, after)) if after.offset <= self.acked => self.next = after,
                _ => return,
            }
        }
    }

    /// The record at a place, and the place after it.
    fn read(&self, at: Place) -> Option<(Chunk, Place)> {
        let mut header = [0; HEADER];
        self.output.read_exact_at(&mut header, at.position).ok()?;
        let offset = u64::from_le_bytes(*header.first_chunk()?);
        let stream = if header[8] == Stream::Stdout as u8 { Stream::Stdout } else { Stream::Stderr };
        let length = u32::from_le_bytes(*header.last_chunk()?) as usize;
        if length == 0 || length > OUTPUT_CHUNK_MAX {
            return None;
        }
        let mut bytes = vec![0; length];
        self.output.read_exact_at(&mut bytes, at.position + HEADER as u64).ok()?;
        let after = Place { offset: offset + length as u64, position: at.position + (HEADER + length) as u64 };
        Some((Chunk { offset, stream, bytes }, after))
    }

    /// Finds the end of what was written before a crash; a record that is not whole is left out.
    fn recover(&mut self) {
        while let Some((chunk, after)) = self.read(self.end) {
            if self.end.position == 0 {
                self.acked = chunk.offset;
            } else if chunk.offset != self.end.offset {
                break;
            }
            self.end = after;
        }
    }
}

/// The supervisor in a start mark.
pub(super) fn supervisor(path: &Path) -> Option<Process> {
    let mark = fs::read_to_string(path.join(STARTED)).ok()?;
    let (pid, started) = mark.split_once(' ')?;
    Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
}
