//! `legation up`: from nothing to a first task, again and again, and what stands in its way.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use legation_testkit::{Process, binaries::Binaries, eventually, procfs, within};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

/// Stopping lets a delegate finish its tasks; nothing runs here.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
/// Killed it cannot stop anything in order, but its children notice, and a task still has its 25 s.
const GONE_WITHIN: Duration = Duration::from_secs(40);
/// Whatever is in the way is found before anything runs for long.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);
/// What it says when everything runs.
const READY: &str = "Everything runs";

/// A person's home on an empty machine.
struct Home {
    directory: TempDir,
    binaries: Binaries,
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory"), binaries: Binaries::built() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.directory.path());
        command
    }

    fn up(&self, log: &str, arguments: &[&str]) -> Process {
        let mut command = self.command(&self.binaries.cli);
        command.arg("up").args(arguments);
        Process::spawn("up", &mut command, &self.path(log)).expect("it starts")
    }

    /// What a person sees who asks for that.
    async fn cli(&self, arguments: &[&str]) -> String {
        let output = self.command(&self.binaries.cli).args(arguments).output().await.expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text")
    }
}

async fn ready(up: &mut Process) {
    eventually("everything runs", async || {
        assert_eq!(up.ended(), None, "up ended: {}", up.log());
        up.log().contains(READY).then_some(())
    })
    .await;
}

/// Ends it as Ctrl-C does, and sees that nothing of it stays.
async fn stop(mut up: Process) {
    let family = procfs::descendants(up.pid().expect("it runs"));
    assert!(family.len() >= 2, "a Manager and a delegate");
    up.signal(Signal::INT);
    assert_eq!(up.exit(STOPPED_WITHIN).await.code(), Some(0), "{}", up.log());
    within(Duration::from_secs(2), "nothing of it is left", async || all_gone(&family).then_some(())).await;
}

/// A zombie that its new parent has not collected yet is gone as well.
fn all_gone(family: &BTreeSet<u32>) -> bool {
    family.iter().all(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with(['Z', 'X']))
    })
}

/// It ends with a failure that a person can read: one sentence and, perhaps, its fix.
async fn refused(mut process: Process, says: &[&str]) {
    let status = process.exit(REFUSED_WITHIN).await;
    let log = process.log();
    assert!(!status.success(), "{log}");
    assert!(says.iter().all(|word| log.contains(word)), "says {says:?}: {log}");
    assert!(!log.contains("panicked") && !log.contains("RUST_BACKTRACE") && log.lines().count() <= 6, "{log}");
}

#[tokio::test]
async fn a_second_run_finds_everything_as_it_was() {
    let home = Home::new();
    let mut first = home.up("first.log", &["--listen", "127.0.0.1:0"]);
    ready(&mut first).await;
    let log = first.log();
    assert!(log.contains("hello from delegate"), "the first task's output is shown: {log}");
    let tokens = home.cli(&["token", "ls", "-o", "name"]).await;
    let delegates = home.cli(&["delegate", "ls", "-o", "name"]).await;
    assert_eq!((tokens.lines().count(), delegates.lines().count()), (1, 1));
    stop(first).await;

    let mut second = home.up("second.log", &["--listen", "127.0.0.1:0"]);
    ready(&mut second).await;
    assert_eq!(home.cli(&["token", "ls", "-o", "name"]).await, tokens);
    assert_eq!(home.cli(&["delegate", "ls", "-o", "name"]).await, delegates);
    stop(second).await;

    let said = fs::read_to_string(home.path("first.log")).expect("a log")
        + &fs::read_to_string(home.path("second.log")).expect("a log");
    assert!(!said.contains("lak_") && !said.contains("ldt_"), "neither key nor token is printed: {said}");
}

#[tokio::test]
async fn nothing_outlives_it_even_when_it_is_killed() {
    let home = Home::new();
    let mut up = home.up("up.log", &["--listen", "127.0.0.1:0"]);
    ready(&mut up).await;
    let mark = home.path("outlives").display().to_string();
    home.cli(&["task", "run", "--detach", "--env", &format!("MARK={mark}"), "--", "setsid sleep 600 & sleep 600"])
        .await;
    let works = async || (procfs::marked(&mark).len() >= 3).then_some(());
    eventually("the task and what it left behind run", works).await;
    let family = procfs::descendants(up.pid().expect("it runs"));
    assert!(family.len() >= 6, "a Manager, a delegate, a supervisor and a task: {family:?}");
    up.kill().await;
    within(GONE_WITHIN, "nothing of it is left", async || all_gone(&family).then_some(())).await;
    assert_eq!(procfs::marked(&mark).len(), 0);
}

#[tokio::test]
async fn whatever_is_in_the_way_is_told_in_one_sentence() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = taken.local_addr().expect("an address").to_string();
    refused(home.up("busy.log", &["--listen", &busy]), &[&busy]).await;

    // Below a file nobody can make a directory, not even root.
    let file = home.path("file");
    fs::write(&file, "").expect("a file");
    let below = file.join("data").display().to_string();
    refused(home.up("unwritable.log", &["--listen", "127.0.0.1:0", "--data-dir", &below]), &["file"]).await;
}

#[tokio::test]
async fn a_second_manager_on_the_same_data_is_refused() {
    let home = Home::new();
    let mut first = home.up("first.log", &["--listen", "127.0.0.1:0"]);
    ready(&mut first).await;
    refused(home.up("second.log", &["--listen", "127.0.0.1:0"]), &[]).await;
    let mut manager = home.command(&home.binaries.manager);
    manager.args(["--listen", "127.0.0.1:0"]);
    let manager = Process::spawn("manager", &mut manager, &home.path("manager.log")).expect("it starts");
    refused(manager, &["Manager"]).await;
    assert_eq!(first.ended(), None, "the first one never noticed");
    stop(first).await;
}
