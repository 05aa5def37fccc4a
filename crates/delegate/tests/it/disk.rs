//! A state directory on a disk that gets full.

use legation_model::task::TaskState;
use legation_wire::message::{FromDelegate, ToDelegate};

use crate::{
    manager::{Delegate, Manager, Session, program, within},
    supervisor::script,
};

/// A delegate whose state directory is a small disk of its own, in a mount namespace of its own; `None` where
/// this user may not mount.
fn on_small_disk(manager: &Manager) -> Option<Delegate> {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    std::fs::create_dir(&state).expect("a directory");
    let mount = format!("mount -t tmpfs -o size=256k small {}", state.display());
    let may = std::process::Command::new("unshare").args(["-m", "sh", "-c", &mount]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let plain = program(manager, directory.path());
    let mut command = tokio::process::Command::new("unshare");
    let start = format!("{mount} && exec \"$0\"");
    command.args(["-m", "sh", "-c", &start]).arg(plain.as_std().get_program()).env_clear();
    command.envs(plain.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    let log = std::fs::File::options().append(true).open(directory.path().join("log")).expect("a log");
    command.stderr(log).stdin(std::process::Stdio::null()).kill_on_drop(true);
    Some(Delegate { child: command.spawn().expect("it starts"), directory })
}

/// Runs a script to its end and acknowledges it.
async fn done(session: &mut Session, text: &str) {
    let task = script(text);
    session.assign(&task);
    loop {
        let end = session.finished().await;
        session.say(ToDelegate::FinishedAck { attempt: end.attempt });
        if end.attempt == task.attempt {
            assert_eq!(end.state, TaskState::Succeeded, "{}", end.reason);
            return;
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_attempts_and_loses_no_result() {
    let manager = Manager::start().await;
    let Some(mut delegate) = on_small_disk(&manager) else {
        return;
    };
    let (mut session, _) = manager.session().await;
    let state = delegate.directory.path().join("state");
    let go = delegate.directory.path().join("go");
    let fill = format!("head -c 1000000 /dev/zero > {}/fill 2>/dev/null;", state.display());
    let running = script(&format!("{fill} echo full; until [ -e {} ]; do sleep 0.02; done; exit 3", go.display()));
    session.assign(&running);
    // That it is full shows in the next one's refusal; "full" itself may find no room.
    let late = loop {
        let late = script("echo late");
        session.assign(&late);
        match session.message().await {
            FromDelegate::Refused { reason, .. } => break reason,
            FromDelegate::Finished(end) => session.say(ToDelegate::FinishedAck { attempt: end.attempt }),
            _ => {}
        }
    };
    assert!(late.contains("is full: make room") || late.contains("already runs"), "{late}");
    std::fs::write(&go, b"").expect("written");
    let end = loop {
        let end = session.finished().await;
        session.say(ToDelegate::FinishedAck { attempt: end.attempt });
        if end.attempt == running.attempt {
            break end;
        }
    };
    assert_eq!((end.state, end.exit_code), (TaskState::Failed, Some(3)));
    assert!(!delegate.log().contains("only in memory"), "space was set aside for the result");
    assert!(delegate.child.try_wait().expect("a child").is_none());
    // Room again: root sees the other namespace through the process.
    let pid = delegate.child.id().expect("it runs");
    std::fs::remove_file(format!("/proc/{pid}/root{}/fill", state.display())).expect("removed");
    within("it works again", done(&mut session, "true")).await;
}
