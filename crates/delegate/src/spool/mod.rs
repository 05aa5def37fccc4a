//! What the Manager has not acknowledged yet: start marks, output and results of attempts, on disk.
//!
//! Each attempt has a directory: `started` is written durably while its supervisor still waits, so that no
//! attempt ever runs twice; `output` is appended to without waiting for the disk; `finished` is durable
//! before it is sent. A result is never given up; output is, beyond [`SPOOL_MAX`], and the output says so.

mod record;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

use legation_model::{ids::AttemptId, task::TaskState};
use legation_wire::message::{Finished, HeldAttempt, Phase, Stream};

pub use self::record::{Chunk, Next};
use self::record::{HEADER, Record};
use crate::{runner::ended, tree::Process};

/// Bytes of output of all attempts together that wait on disk: four attempts of the largest output limit.
pub const SPOOL_MAX: u64 = 256 << 20;
/// Attempts that wait for an acknowledgement; at this number no new one is taken.
pub const ATTEMPTS_MAX: usize = 512;

/// All attempts that the Manager may still hear of.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    attempts: BTreeMap<AttemptId, Record>,
    bytes: u64,
    supervisors: Vec<Process>,
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
            spool.supervisors.extend(record::supervisor(&entry.path()));
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
        let record = Record::start(self.path.join(attempt.to_string()), supervisor)?;
        File::open(&self.path)?.sync_all()?;
        self.attempts.insert(attempt, record);
        Ok(())
    }

    /// Keeps a piece of output, if there is room.
    pub fn append(&mut self, attempt: AttemptId, stream: Stream, bytes: &[u8]) {
        let room = self.bytes + (bytes.len() + HEADER) as u64 <= SPOOL_MAX;
        let Some(record) = self.attempts.get_mut(&attempt) else { return };
        let before = record.size();
        record.append(stream, bytes, room);
        self.bytes += record.size() - before;
    }

    /// Keeps a result durably. It stays until it is acknowledged.
    pub fn finish(&mut self, finished: Finished) {
        let attempt = finished.attempt;
        let Some(record) = self.attempts.get_mut(&attempt) else { return };
        if let Err(error) = record.finish(finished) {
            tracing::warn!(%attempt, %error, "a result is only in memory: make room on the disk");
        }
    }

    /// Nothing of an attempt is left: its result may be said. Whoever hears it may count on the room.
    pub fn release(&mut self, attempt: AttemptId) {
        if let Some(record) = self.attempts.get_mut(&attempt) {
            record.gone = true;
        }
    }

    /// A new session: everything unacknowledged is said again.
    pub fn rewind(&mut self) {
        self.attempts.values_mut().for_each(Record::rewind);
    }

    /// Says what there is to say about each attempt, with at most `window` unacknowledged output bytes in flight,
    /// until `say` takes no more; the rest stays for later.
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
            self.bytes = self.bytes.saturating_sub(record.size());
            let _ = fs::remove_dir_all(record.path);
        }
        true
    }

    /// Erases everything: the Manager no longer wants to hear of it. Answers which attempts that were.
    pub fn erase(&mut self) -> Vec<AttemptId> {
        self.bytes = 0;
        let erased = std::mem::take(&mut self.attempts);
        for record in erased.values() {
            let _ = fs::remove_dir_all(&record.path);
        }
        erased.into_keys().collect()
    }

    fn restore(&mut self, attempt: AttemptId, path: PathBuf) -> io::Result<()> {
        let record = Record::restore(path)?;
        self.bytes += record.size();
        self.attempts.insert(attempt, record);
        self.finish(ended(attempt, TaskState::Lost, "the delegate restarted while it ran"));
        self.release(attempt);
        Ok(())
    }
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
        assert_eq!(said(&mut spool), [], "while its supervisor is there");
        spool.release(ATTEMPT);
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
        let own = Process::find(std::process::id() as i32).expect("/proc");
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
        spool.release(ATTEMPT);
        let told = said(&mut spool);
        assert!(matches!(&told[1], Next::Output(chunk) if chunk.bytes.ends_with(b"dropped]\n")));
        assert!(matches!(&told[2], Next::Finished(end) if end.dropped_bytes == 6));
    }
}
