//! One program under test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// Lines of each log that a failed test prints.
const LOG_LINES_SHOWN: usize = 200;

/// A running program whose output goes into a file. Dropped, it is killed, also when it was paused.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says is appended to `log`. It gets no standard input.
    ///
    /// # Errors
    /// When the file cannot be opened or the program not started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::options().create(true).append(true).open(log).context("cannot open the log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id, while it has not been seen to end.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// All that it has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal, by its own process id; to a program that has ended none is sent.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.raw_pid() {
            // A program that ended a moment ago is a zombie until we wait for it: the id is still its own.
            kill_process(pid, signal).expect("a child of ours takes our signals");
        }
    }

    /// Ends it as a power cut would (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.child.wait().await.expect("a child can be waited for")
    }

    /// Stops it in its tracks (SIGSTOP): alive, connected, silent.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Process::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended after `bound`.
    pub async fn exit(&mut self, bound: Duration) -> ExitStatus {
        let ended = timeout(bound, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} did not end within {bound:?}", self.name))
            .expect("a child can be waited for")
    }

    fn raw_pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
    }

    #[expect(clippy::print_stderr, reason = "a failed test shows it where it shows its panic")]
    fn print_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        eprintln!("== {}: last {} of {} lines", self.name, shown.len(), lines.len());
        shown.iter().for_each(|line| eprintln!("{line}"));
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "nobody takes an error from a drop")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_log();
        }
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), self.raw_pid()) {
            let killed = kill_process(pid, Signal::KILL);
            // Waits for the end without taking it from tokio, so that nothing writes into a directory that
            // is about to be removed.
            let gone = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            if killed.is_err() || gone.is_err() {
                eprintln!("== {} may still run as process {}", self.name, pid.as_raw_nonzero());
            }
        }
    }
}
