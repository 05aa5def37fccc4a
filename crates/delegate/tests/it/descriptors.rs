//! A delegate that has no file descriptor left to read `/proc` with, and what it does about its limit.

use legation_delegate::system::SystemEntropy;
use legation_model::{ids::ReceiptId, task::TaskState};
use legation_wire::{GoodbyeReason, message::Assignment};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::{
    agent::marked,
    manager::{Delegate, Manager, prepared},
    supervisor::script,
    support::{Mark, eventually},
};

/// What the log says when processes cannot be seen.
const BLIND: &str = "cannot be seen: looking again";

/// Lets a delegate open this many files; those that it has stay open.
fn limit(delegate: &Delegate, current: Option<u64>) {
    let pid = delegate.child.id().and_then(|pid| Pid::from_raw(pid as i32));
    let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(pid, Resource::Nofile, limit).expect("ours");
}

/// Takes the descriptors away, does something that makes the delegate look for processes, and gives them back
/// when it has looked in vain.
async fn blinded(delegate: &Delegate, act: impl AsyncFnOnce()) {
    limit(delegate, Some(0));
    act().await;
    eventually("it looks in vain", || delegate.log().contains(BLIND));
    limit(delegate, getrlimit(Resource::Nofile).current);
}

/// A task that kills its supervisor when the file is there, and leaves a daemon.
fn orphan(go: &std::path::Path, mark: &Mark) -> Assignment {
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    marked(&format!("setsid sleep 600 & echo up; {wait}; kill -9 $PPID; sleep 600"), mark)
}

#[tokio::test]
async fn an_attempt_is_not_said_to_have_ended_while_its_processes_cannot_be_seen() {
    let manager = Manager::start().await;
    let delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    let go = delegate.directory.path().join("go");
    session.assign(&orphan(&go, &mark));
    session.await_output("up\n").await;
    blinded(&delegate, async || std::fs::write(&go, b"").expect("written")).await;
    assert_eq!(session.finished().await.state, TaskState::Lost);
    assert_eq!(mark.alive(), 0, "dead before it says so");
}

#[tokio::test]
async fn a_stop_is_not_reported_while_processes_cannot_be_seen() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&marked("setsid sleep 600 & echo up; sleep 600", &mark));
    session.await_output("up\n").await;
    let receipt = ReceiptId::random(&SystemEntropy);
    blinded(&delegate, async || session.goodbye(GoodbyeReason::TokenRevoked, Some(receipt)).await).await;
    let stopped = manager.stopped().await;
    assert_eq!((stopped.receipt, stopped.tasks_killed, mark.alive()), (receipt, 1, 0));
    assert_eq!(delegate.exit_code().await, Some(78));
}

#[tokio::test]
async fn the_delegate_may_open_what_the_machine_allows_and_a_task_what_the_delegate_was_started_with() {
    let manager = Manager::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", "ulimit -Sn 123 && exec \"$0\"", env!("CARGO_BIN_EXE_legation-delegate")]);
    let child = prepared(shell, &manager, directory.path()).spawn().expect("it starts");
    let (mut session, _) = manager.session().await;
    session.assign(&script("ulimit -Sn"));
    session.await_output("123\n").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().expect("it runs"))).expect("/proc");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let [soft, hard, ..] = files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert_eq!(soft, hard);
}
