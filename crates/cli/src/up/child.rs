//! A child process: started, its words kept within bounds, stopped.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    task::JoinHandle,
    time::timeout,
};

use super::{DELEGATE_NAME, places::Places};
use crate::{Failure, exit_codes};

/// A log file is put aside at this size, the one put aside before it is dropped: at most twice this per child.
const LOG_MAX: u64 = 8 << 20;
/// What is remembered of a child's last words.
const TAIL_MAX: usize = 4 << 10;
/// How many of them are shown.
const TAIL_LINES: usize = 8;
/// How long the rest of a dead child's words may take to arrive.
const DRAIN: Duration = Duration::from_secs(1);
/// Settings of a person's shell that are meant for the CLI or for another delegate.
const NOT_FOR_CHILDREN: [&str; 9] = [
    "LEGATION_API_KEY",
    "LEGATION_URL",
    "LEGATION_CA_FILE",
    "LEGATION_DATABASE_URL",
    "LEGATION_LINK_LISTEN",
    "DELEGATE_TOKEN",
    "DELEGATE_TOKEN_FILE",
    "DELEGATE_CA_FILE",
    "ACCOUNT_ID",
];

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    tail: Arc<Mutex<VecDeque<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

/// The Manager, serving.
pub(super) fn manager(places: &Places) -> Result<Child, Failure> {
    let mut command = command(&places.manager);
    command.arg("serve").arg("--listen").arg(&places.listen).arg("--ready-file").arg(places.ready_file());
    in_places(&mut command, places);
    start(command, &places.log("manager"))
}

/// The delegate, connecting to that address.
pub(super) fn delegate(places: &Places, url: &str) -> Result<Child, Failure> {
    let mut command = command(&places.delegate);
    command
        .env("DELEGATE_TOKEN_FILE", places.token())
        .env("MANAGER_HOST_AND_PORT", url)
        .env("DELEGATE_NAME", DELEGATE_NAME)
        .env("DELEGATE_STATE_DIR", places.data.join("delegate"))
        .env("DELEGATE_ON_REVOKED", "exit")
        // The Manager is on this machine: whatever proxy the shell names leads elsewhere.
        .env("NO_PROXY", "127.0.0.1,localhost,::1");
    start(command, &places.log("delegate"))
}

/// The Manager program with the data and configuration directories, for any of its commands.
pub(super) fn in_places(command: &mut Command, places: &Places) {
    command.arg("--data-dir").arg(&places.data).arg("--config-dir").arg(&places.config);
}

/// A program in a process group of its own that ends when this process does.
pub(super) fn command(program: &Path) -> Command {
    let mut command = std::process::Command::new(program);
    command.env("LEGATION_EXIT_WITH_PARENT", "1").process_group(0);
    for name in NOT_FOR_CHILDREN {
        command.env_remove(name);
    }
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn start(mut command: Command, log: &Path) -> Result<Child, Failure> {
    let mut process = command.spawn().map_err(|error| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        Failure::new(exit_codes::CHILD_DIED, format!("{program} cannot be started: {error}"), "build it again")
    })?;
    let tail = Arc::new(Mutex::new(VecDeque::new()));
    let log = Arc::new(Mutex::new(Log::open(log.to_owned())?));
    let out = process.stdout.take().map(|out| tokio::spawn(keep(out, Arc::clone(&log), Arc::clone(&tail))));
    let err = process.stderr.take().map(|err| tokio::spawn(keep(err, Arc::clone(&log), Arc::clone(&tail))));
    Ok(Child { process, tail, readers: out.into_iter().chain(err).collect() })
}

impl Child {
    /// Waits for the end; the exit code, `None` after a signal. Safe to drop and call again.
    pub(super) async fn wait(&mut self) -> Option<i32> {
        let status = self.process.wait().await;
        let readers = std::mem::take(&mut self.readers);
        // A grandchild may hold the pipe open; its words are not the child's last ones.
        let _ = timeout(DRAIN, async {
            for reader in readers {
                let _ = reader.await;
            }
        })
        .await;
        status.ok().and_then(|status| status.code())
    }

    /// `Some` with the exit code if it has ended.
    pub(super) async fn ended(&mut self) -> Option<Option<i32>> {
        match self.process.try_wait() {
            Ok(None) => None,
            _ => Some(self.wait().await),
        }
    }

    /// Asks it to stop and waits that long, then kills it.
    pub(super) async fn stop(&mut self, limit: Duration) {
        if let Some(pid) = self.pid() {
            // It may have ended by itself a moment ago.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(limit, self.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills it.
    pub(super) async fn kill(&mut self) {
        let _ = self.process.kill().await;
    }

    fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// The last lines it wrote.
    pub(super) fn last_lines(&self) -> String {
        let bytes: Vec<u8> = self.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Moves a child's words into its log and remembers the last ones.
async fn keep(mut from: impl AsyncRead + Unpin, log: Arc<Mutex<Log>>, tail: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        log.lock().unwrap_or_else(PoisonError::into_inner).write(&buffer[..read]);
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&buffer[..read]);
        let excess = tail.len().saturating_sub(TAIL_MAX);
        tail.drain(..excess);
    }
}

/// A log file with a bound.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let opened = append(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|error| {
            Failure::settings(
                format!("{} cannot be written: {error}", path.display()),
                "make room, or the directory writable",
            )
        })?;
        Ok(Self { path, file, size })
    }

    /// A log that cannot be written (a full disk) must not stop what it tells about.
    fn write(&mut self, bytes: &[u8]) {
        if self.size >= LOG_MAX && fs::rename(&self.path, self.path.with_extension("log.1")).is_ok() {
            if let Ok(file) = append(&self.path) {
                self.file = file;
            }
            self.size = 0;
        }
        if self.file.write_all(bytes).is_ok() {
            self.size += bytes.len() as u64;
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_childs_last_words_and_exit_code_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut shell = command(Path::new("/bin/sh"));
        shell.arg("-c").arg("for n in 1 2 3 4 5 6 7 8 9; do echo line $n; done; echo last >&2; exit 7");
        let mut child = start(shell, &dir.path().join("sh.log")).expect("a child");
        assert_eq!(child.wait().await, Some(7));
        let last = child.last_lines();
        assert!(last.contains("last") && !last.contains("line 1\n"), "{last}");
        assert!(fs::read_to_string(dir.path().join("sh.log")).expect("a log").contains("line 1\n"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_child_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut shell = command(Path::new("/bin/sh"));
        shell.arg("-c").arg("trap '' TERM; echo ready; while :; do sleep 1; done");
        let mut child = start(shell, &dir.path().join("sh.log")).expect("a child");
        while child.last_lines().is_empty() {
            tokio::task::yield_now().await;
        }
        child.stop(Duration::from_millis(50)).await;
        assert!(child.ended().await.is_some());
    }

    #[test]
    fn a_log_stays_within_its_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.log");
        let mut log = Log::open(path.clone()).expect("a log");
        for _ in 0..40 {
            log.write(&vec![b'x'; 1 << 20]);
        }
        let size = |path: &Path| fs::metadata(path).expect("a file").len();
        assert!(size(&path) <= LOG_MAX && size(&path.with_extension("log.1")) <= LOG_MAX);
    }
}
