//! What the Manager has not acknowledged yet: start marks, output and results of attempts, on disk.
//!
//! Each attempt has a directory: `started` is written durably before its first process exists, so that no
//! attempt ever runs twice; `output` is appended to without waiting for the disk; `finished` is durable
//! before it is sent. A result is never given up; output is, beyond [`SPOOL_MAX`], and the output says so.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use legation_model::{ids::AttemptId, task::TaskState};
use legation_wire::message::{Finished, HeldAttempt, OUTPUT_CHUNK_MAX, Phase, Stream};

use crate::{output::Chunk, state::write_durably, tree::Process};

/// Bytes of output of all attempts together that wait on disk: four attempts of the largest output limit.
pub const SPOOL_MAX: u64 = 256 << 20;
/// Attempts that wait for an acknowledgement; at this number no new one is taken.
pub const ATTEMPTS_MAX: usize = 512;
/// A record's offset (8), stream (1) and length (4), little endian.
const HEADER: usize = 13;

/// All attempts that the Manager may still hear of.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    attempts: BTreeMap<AttemptId, Record>,
    bytes: u64,
    supervisors: Vec<Process>,
}

/// One attempt.
#[derive(Debug)]
struct Record {
    path: PathBuf,
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
    finished: Option<Finished>,
    told: Told,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    offset: u64,
    position: u64,
}

/// What was already said in this session.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    started: bool,
    finished: bool,
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

impl Spool {
    /// Reads what an earlier process left. Attempts without a result are lost: they are never run again.
    ///
    /// # Errors
    /// What the system says of the directory.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let mut spool = Self { path, attempts: BTreeMap::new(), bytes: 0, supervisors: Vec::new() };
        for entry in fs::read_dir(&spool.path)?.flatten() {
            let Some(attempt) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            spool.supervisors.extend(supervisor(&entry.path()));
            if spool.restore(attempt, entry.path()).is_err() {
                // Without a readable start there is nothing to report.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(spool)
    }

    /// The supervisors that an earlier process started; some may still run.
    pub fn supervisors(&self) -> &[Process] {
        &self.supervisors
    }

    /// Whether no further attempt should be taken.
    pub fn is_full(&self) -> bool {
        self.attempts.len() >= ATTEMPTS_MAX
    }

    /// Whether the attempt is known, running or ended.
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.attempts.contains_key(&attempt)
    }

    /// Whether the Manager has everything.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Every attempt, as Hello names them.
    pub fn held(&self) -> Vec<HeldAttempt> {
        let phase = |record: &Record| if record.finished.is_some() { Phase::Finished } else { Phase::Running };
        self.attempts.iter().map(|(id, record)| HeldAttempt { attempt: *id, phase: phase(record) }).collect()
    }

    /// Marks an attempt as started, durably, before anything of it runs.
    ///
    /// # Errors
    /// What the system says; then the attempt must not start.
    pub fn start(&mut self, attempt: AttemptId, supervisor: Option<Process>) -> io::Result<()> {
        let path = self.path.join(attempt.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        let mark = supervisor.map_or_else(String::new, |process| format!("{} {}", process.pid, process.started));
        write_durably(&path, "started", mark.as_bytes())?;
        File::open(&self.path)?.sync_all()?;
        let record = Record::new(path)?;
        self.attempts.insert(attempt, record);
        Ok(())
    }

    /// Keeps a piece of output, if there is room.
    pub fn append(&mut self, attempt: AttemptId, stream: Stream, bytes: &[u8]) {
        let room = self.bytes + (bytes.len() + HEADER) as u64 <= SPOOL_MAX;
        let Some(record) = self.attempts.get_mut(&attempt) else { return };
        let before = record.end.position;
        record.append(stream, bytes, room);
        self.bytes += record.end.position - before;
    }

    /// Keeps a result durably. It stays until it is acknowledged.
    pub fn finish(&mut self, mut finished: Finished) {
        let Some(record) = self.attempts.get_mut(&finished.attempt) else { return };
        if record.finished.is_some() {
            return;
        }
        // What is kept is what is here, whatever the supervisor counted.
        finished.output_bytes = record.end.offset;
        finished.dropped_bytes += record.dropped;
        let bytes = minicbor::to_vec(&finished).expect("writing to memory does not fail");
        if let Err(error) = write_durably(&record.path, "finished", &bytes) {
            tracing::warn!(attempt = %finished.attempt, %error, "a result is only in memory: make room on the disk");
        }
        record.finished = Some(finished);
    }

    /// A new session: everything unacknowledged is said again.
    pub fn rewind(&mut self) {
        for record in self.attempts.values_mut() {
            record.told = Told::default();
            record.next = Place::default();
            record.skip_acked();
        }
    }

    /// The next thing to say about each attempt, with at most `window` unacknowledged output bytes in flight.
    /// Answers what `say` refused to take, for later.
    pub fn drain(&mut self, window: u64, mut say: impl FnMut(AttemptId, &Next) -> bool) {
        for (attempt, record) in &mut self.attempts {
            while let Some((next, after)) = record.next(window) {
                if !say(*attempt, &next) {
                    return;
                }
                record.said(&next, after);
            }
        }
    }

    /// The Manager has the output before this offset.
    pub fn ack_output(&mut self, attempt: AttemptId, offset: u64) {
        let Some(record) = self.attempts.get_mut(&attempt) else { return };
        let freed = record.ack(offset);
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// The Manager has the result; answers whether there was one.
    pub fn forget(&mut self, attempt: AttemptId) -> bool {
        if self.attempts.get(&attempt).is_none_or(|record| record.finished.is_none()) {
            return false;
        }
        if let Some(record) = self.attempts.remove(&attempt) {
            self.bytes = self.bytes.saturating_sub(record.end.position);
            let _ = fs::remove_dir_all(record.path);
        }
        true
    }

    /// Erases everything: the Manager no longer wants to hear of it.
    pub fn erase(&mut self) {
        for record in std::mem::take(&mut self.attempts).into_values() {
            let _ = fs::remove_dir_all(record.path);
        }
        self.bytes = 0;
    }

    fn restore(&mut self, attempt: AttemptId, path: PathBuf) -> io::Result<()> {
        fs::metadata(path.join("started"))?;
        let finished = fs::read(path.join("finished")).ok().and_then(|bytes| minicbor::decode(&bytes).ok());
        let mut record = Record::new(path)?;
        record.recover();
        self.bytes += record.end.position;
        record.finished = finished;
        self.attempts.insert(attempt, record);
        let reason = "the delegate restarted while it ran".to_owned();
        let state = TaskState::Lost;
        self.finish(Finished { attempt, state, exit_code: None, reason, output_bytes: 0, dropped_bytes: 0 });
        Ok(())
    }
}

impl Record {
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
            told: Told::default(),
        })
    }

    fn append(&mut self, stream: Stream, bytes: &[u8], room: bool) {
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

    fn next(&self, window: u64) -> Option<(Next, Place)> {
        if !self.told.started {
            return Some((Next::Started, self.next));
        }
        if self.next.position < self.end.position {
            let open = self.next.offset.saturating_sub(self.acked) < window;
            let (chunk, after) = self.read(self.next).filter(|_| open)?;
            return Some((Next::Output(chunk), after));
        }
        let finished = self.finished.clone().filter(|_| !self.told.finished)?;
        Some((Next::Finished(finished), self.next))
    }

    fn said(&mut self, next: &Next, after: Place) {
        match next {
            Next::Started => self.told.started = true,
            Next::Output(_) => self.next = after,
            Next::Finished(_) => self.told.finished = true,
        }
    }

    /// Takes an acknowledgement; answers how many bytes of disk became free.
    fn ack(&mut self, offset: u64) -> u64 {
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

fn supervisor(path: &Path) -> Option<Process> {
    let mark = fs::read_to_string(path.join("started")).ok()?;
    let (pid, started) = mark.split_once(' ')?;
    Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: AttemptId = AttemptId([1; 16]);

    fn finished() -> Finished {
        let state = TaskState::Succeeded;
        Finished {
            attempt: ATTEMPT,
            state,
            exit_code: Some(0),
            reason: String::new(),
            output_bytes: 0,
            dropped_bytes: 0,
        }
    }

    fn said(spool: &mut Spool) -> Vec<Next> {
        let mut said = Vec::new();
        spool.drain(1 << 20, |_, next| {
            said.push(match next {
                Next::Started => Next::Started,
                Next::Output(chunk) => Next::Output(chunk.clone()),
                Next::Finished(finished) => Next::Finished(finished.clone()),
            });
            true
        });
        said
    }

    fn spool(directory: &tempfile::TempDir) -> Spool {
        Spool::open(directory.path().join("attempts")).expect("usable")
    }

    #[test]
    fn everything_is_said_in_order_and_again_in_the_next_session_until_acknowledged() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut spool = spool(&directory);
        spool.start(ATTEMPT, None).expect("marked");
        spool.append(ATTEMPT, Stream::Stdout, b"abc");
        spool.append(ATTEMPT, Stream::Stderr, b"de");
        assert_eq!(said(&mut spool).len(), 3);
        spool.ack_output(ATTEMPT, 3);
        spool.finish(finished());
        assert!(matches!(&said(&mut spool)[..], [Next::Finished(end)] if end.output_bytes == 5));
        spool.rewind();
        let again = said(&mut spool);
        assert!(matches!(&again[..], [Next::Started, Next::Output(chunk), Next::Finished(_)] if chunk.offset == 3));
        spool.forget(ATTEMPT);
        assert!(spool.is_empty() && !directory.path().join("attempts").join(ATTEMPT.to_string()).exists());
    }

    #[test]
    fn after_a_crash_results_are_kept_and_unfinished_attempts_are_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut first = spool(&directory);
        let own = Process::find(std::process::id() as i32);
        first.start(ATTEMPT, own).expect("marked");
        first.append(ATTEMPT, Stream::Stdout, b"abc");
        drop(first);
        let mut second = spool(&directory);
        assert_eq!(second.supervisors().first(), own.as_ref());
        let told = said(&mut second);
        assert!(matches!(&told[2], Next::Finished(end) if end.state == TaskState::Lost && end.output_bytes == 3));
        second.ack_output(ATTEMPT, 3);
        drop(second);
        assert!(spool(&directory).holds(ATTEMPT), "until the result is acknowledged");
    }

    #[test]
    fn no_more_output_than_the_window_is_in_flight() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut spool = spool(&directory);
        spool.start(ATTEMPT, None).expect("marked");
        for _ in 0..10 {
            spool.append(ATTEMPT, Stream::Stdout, &[b'x'; 100]);
        }
        let mut count = 0;
        spool.drain(250, |_, next| {
            count += usize::from(matches!(next, Next::Output(_)));
            true
        });
        assert_eq!(count, 3);
        spool.ack_output(ATTEMPT, 300);
        assert_eq!(said(&mut spool).len(), 7);
        spool.ack_output(ATTEMPT, 1000);
        assert_eq!(spool.bytes, 0, "what is acknowledged needs no disk");
        spool.append(ATTEMPT, Stream::Stdout, b"y");
        assert!(matches!(&said(&mut spool)[..], [Next::Output(chunk)] if chunk.offset == 1000));
    }

    #[test]
    fn beyond_the_bound_output_is_dropped_with_a_mark_but_the_result_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut spool = spool(&directory);
        spool.start(ATTEMPT, None).expect("marked");
        spool.bytes = SPOOL_MAX;
        spool.append(ATTEMPT, Stream::Stdout, b"abc");
        spool.append(ATTEMPT, Stream::Stdout, b"def");
        spool.finish(finished());
        let told = said(&mut spool);
        assert!(matches!(&told[1], Next::Output(chunk) if chunk.bytes.ends_with(b"dropped]\n")));
        assert!(matches!(&told[2], Next::Finished(end) if end.dropped_bytes == 6));
    }
}
