//! A real delegate process and a Manager that does what the test wants.

use std::time::Duration;

use legation_delegate::system::SystemEntropy;
use legation_model::{Secret, ids::ReceiptId, task::TaskState, token::Token};
use legation_wire::{
    GoodbyeReason,
    message::{Assignment, FromDelegate, Phase, ToDelegate, Work},
};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

use crate::{
    manager::{Delegate, Manager, program, until, within},
    supervisor::script,
    support::{Mark, eventually},
};

/// A task that leaves a daemon behind and stays, all of it marked.
fn stubborn(mark: &Mark) -> Assignment {
    marked("setsid sh -c 'setsid sleep 600 & exec sleep 600' & trap '' TERM; echo up; sleep 600", mark)
}

pub(crate) fn marked(text: &str, mark: &Mark) -> Assignment {
    let mut task = script(text);
    if let Work::Shell { env, .. } = &mut task.work {
        env.push(mark.variable());
    }
    task
}

#[tokio::test]
async fn it_connects_runs_a_task_and_forgets_it_when_acknowledged() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let (mut session, hello) = manager.session().await;
    assert_eq!((hello.name.as_str(), hello.counter, hello.capacity), ("one", 1, 4));
    let task = script("echo hello; exit 3");
    session.assign(&task);
    session.assign(&task);
    session.await_output("hello\n").await;
    let end = session.finished().await;
    assert_eq!((end.state, end.exit_code, end.output_bytes), (TaskState::Failed, Some(3), 6));
    session.say(ToDelegate::FinishedAck { attempt: task.attempt });
    let attempts = delegate.directory.path().join("state/attempts");
    // The acknowledgement goes out while the session is waited on.
    tokio::select! {
        _ = session.event() => panic!("nothing more to say"),
        () = until("it forgets", || std::fs::read_dir(&attempts).is_ok_and(|left| left.count() == 0)) => {}
    }
    delegate.signal(Signal::TERM);
    assert!(matches!(session.message().await, FromDelegate::Draining));
    assert_eq!(delegate.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_running_task_survives_a_reconnect_and_its_result_is_repeated_until_acknowledged() {
    let manager = Manager::start().await;
    let _delegate = Delegate::start(&manager);
    let (mut session, first) = manager.session().await;
    let directory = tempfile::tempdir().expect("a directory");
    let go = directory.path().join("go");
    let task = script(&format!("echo one; until [ -e {} ]; do sleep 0.02; done; echo two", go.display()));
    session.assign(&task);
    session.await_output("one\n").await;
    drop(session);
    let (mut session, again) = manager.session().await;
    assert_eq!((again.boot, again.counter), (first.boot, 2));
    assert_eq!(again.attempts.iter().map(|held| held.phase).collect::<Vec<_>>(), [Phase::Running]);
    std::fs::write(&go, b"").expect("written");
    assert_eq!(session.finished().await.output_bytes, 8);
    drop(session);
    let (mut session, third) = manager.session().await;
    assert_eq!(third.attempts[0].phase, Phase::Finished);
    session.await_output("two\n").await;
    assert_eq!(session.finished().await.state, TaskState::Succeeded);
}

#[tokio::test]
async fn a_revoked_token_ends_every_process_and_the_delegate_says_so() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&stubborn(&mark));
    session.await_output("up\n").await;
    eventually("the daemons run", || mark.alive() >= 3);
    let receipt = ReceiptId::random(&SystemEntropy);
    session.goodbye(GoodbyeReason::TokenRevoked, Some(receipt)).await;
    let stopped = manager.stopped().await;
    assert_eq!((stopped.receipt, stopped.tasks_killed), (receipt, 1));
    assert_eq!(mark.alive(), 0, "dead before it says so");
    assert_eq!(delegate.exit_code().await, Some(78));
    let left = std::fs::read_dir(delegate.directory.path().join("state/attempts")).expect("there").count();
    assert_eq!(left, 0, "the spool is erased");
}

#[tokio::test]
async fn a_parked_delegate_waits_for_another_token() {
    let mut manager = Manager::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, manager.token.reveal().expose()).expect("written");
    let mut delegate = Delegate::start_with(&manager, |command| {
        command.env_remove("DELEGATE_TOKEN").env("DELEGATE_TOKEN_FILE", &file).env("DELEGATE_ON_REVOKED", "park");
    });
    let (mut session, _) = manager.hello(&manager.token).await;
    session.goodbye(GoodbyeReason::TokenExpired, None).await;
    assert!(!delegate.ends_within(Duration::from_millis(300)).await);
    manager.token = Token { generation: 2, secret: Secret::new([5; 32]), ..manager.token.clone() };
    std::fs::write(&file, manager.token.reveal().expose()).expect("written");
    let (_session, _) = manager.session().await;
    delegate.signal(Signal::TERM);
    assert_eq!(delegate.exit_code().await, Some(0));
}

#[tokio::test]
async fn nothing_but_the_managers_own_goodbye_stops_it() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    // Not HTTP; then an upgrade with garbage and a forged close; then someone without the pinned key.
    let (mut stream, _) = within("a connection", manager.listener.accept()).await.expect("accepted");
    stream.write_all(b"SSH-2.0-what\r\n\r\n").await.expect("written");
    drop(stream);
    let mut stream = within("a connection", manager.socket()).await;
    let forged = 4100_u16.to_be_bytes();
    let bytes = [0x82, 4, b'L', b'G', b'T', b'N', 0x88, 2, forged[0], forged[1]];
    stream.write_all(&bytes).await.expect("written");
    drop(stream);
    assert!(within("a connection", manager.pose()).await.is_err());
    let (_session, hello) = manager.session().await;
    assert!(hello.counter >= 2, "it tried again each time");
    assert!(delegate.child.try_wait().expect("a child").is_none());
    assert!(delegate.log().contains("does not speak HTTP"));
}

#[tokio::test]
async fn when_the_lease_ends_without_a_word_its_tasks_end_too() {
    let manager = Manager { lease: 900, ..Manager::start().await };
    let _delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    let task = stubborn(&mark);
    session.assign(&task);
    session.await_output("up\n").await;
    session.fall_silent();
    let ended = async { while session.event().await.is_ok() {} };
    within("it closes a silent link", ended).await;
    eventually("nothing is left", || mark.alive() == 0);
    let (mut session, hello) = manager.session().await;
    assert_eq!(hello.attempts.len(), 1);
    assert_eq!(session.finished().await.state, TaskState::Lost);
}

#[tokio::test]
async fn a_delegate_that_is_stopped_keeps_its_lease_all_the_same() {
    let manager = Manager { lease: 1_200, ..Manager::start().await };
    let delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&stubborn(&mark));
    session.await_output("up\n").await;
    delegate.signal(Signal::STOP);
    eventually("nothing is left", || mark.alive() == 0);
}

#[tokio::test]
async fn a_delegate_that_is_killed_takes_its_tasks_along() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&stubborn(&mark));
    session.await_output("up\n").await;
    delegate.signal(Signal::KILL);
    delegate.child.wait().await.expect("killed");
    eventually("nothing is left", || mark.alive() == 0);
    // The next start reports the attempt as lost and does not run it again.
    let _again = program(&manager, delegate.directory.path()).spawn().expect("it starts");
    drop(session);
    let (mut session, hello) = manager.session().await;
    assert_eq!((hello.attempts.len(), hello.attempts[0].phase), (1, Phase::Finished));
    assert_eq!(session.finished().await.state, TaskState::Lost);
}

#[tokio::test]
async fn a_task_whose_supervisor_is_killed_falls_to_the_delegate_and_dies() {
    let manager = Manager::start().await;
    let _delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&marked("setsid sleep 600 & echo up; kill -9 $PPID; sleep 600", &mark));
    assert_eq!(session.finished().await.state, TaskState::Lost);
    eventually("nothing is left", || mark.alive() == 0);
}

#[tokio::test]
async fn leftovers_of_an_earlier_start_die_before_it_connects() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    let flag = delegate.directory.path().join("flag");
    session.assign(&marked(&format!("sleep 600 & kill -STOP $PPID; : > {}; sleep 600", flag.display()), &mark));
    assert!(matches!(session.message().await, FromDelegate::Started { .. }));
    eventually("the supervisor is stopped", || flag.exists());
    delegate.signal(Signal::KILL);
    delegate.child.wait().await.expect("killed");
    assert!(mark.alive() > 0, "its stopped supervisor could do nothing");
    drop(session);
    let _again = program(&manager, delegate.directory.path()).spawn().expect("it starts");
    let (_session, _) = manager.hello(&manager.token).await;
    assert_eq!(mark.alive(), 0);
}

#[tokio::test]
async fn sigterm_lets_tasks_finish_and_a_second_one_does_not() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let (mut session, _) = manager.session().await;
    let task = script("echo up; sleep 0.3; echo done");
    session.assign(&task);
    session.await_output("up\n").await;
    delegate.signal(Signal::TERM);
    assert!(matches!(session.message().await, FromDelegate::Draining));
    let late = script("echo late");
    session.assign(&late);
    assert!(
        matches!(session.message().await, FromDelegate::Refused { attempt, again: true, .. } if attempt == late.attempt)
    );
    session.await_output("done\n").await;
    assert_eq!(session.finished().await.state, TaskState::Succeeded);
    session.say(ToDelegate::FinishedAck { attempt: task.attempt });
    let ended = async { while session.event().await.is_ok() {} };
    within("it goes", ended).await;
    assert_eq!(delegate.exit_code().await, Some(0));

    let mut delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&stubborn(&mark));
    session.await_output("up\n").await;
    delegate.signal(Signal::TERM);
    assert!(matches!(session.message().await, FromDelegate::Draining));
    delegate.signal(Signal::TERM);
    assert_eq!(session.finished().await.state, TaskState::Lost);
    assert_eq!(delegate.exit_code().await, Some(0));
    assert_eq!(mark.alive(), 0);
}

#[tokio::test]
async fn an_acknowledged_result_makes_room_at_once_and_leaves_nothing() {
    const TASKS: usize = 60;
    let manager = Manager::start().await;
    let delegate = Delegate::start(&manager);
    let (mut session, hello) = manager.session().await;
    // What stays behind takes the supervisor a moment to clear away after the task has ended.
    let task = || script("(sleep 600) & true");
    (0..hello.capacity).for_each(|_| session.assign(&task()));
    let (mut assigned, mut ended) = (hello.capacity as usize, 0);
    while ended < TASKS {
        match session.message().await {
            FromDelegate::Finished(end) => {
                assert_eq!(end.state, TaskState::Succeeded);
                ended += 1;
                session.say(ToDelegate::FinishedAck { attempt: end.attempt });
                if assigned < TASKS {
                    session.assign(&task());
                    assigned += 1;
                }
            }
            FromDelegate::Started { .. } => {}
            other => panic!("{other:?} after {ended} tasks"),
        }
    }
    let attempts = delegate.directory.path().join("state/attempts");
    tokio::select! {
        _ = session.event() => panic!("nothing more to say"),
        () = until("it forgets", || std::fs::read_dir(&attempts).is_ok_and(|left| left.count() == 0)) => {}
    }
}

#[tokio::test]
async fn the_token_is_in_no_child_no_argument_and_no_log() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start(&manager);
    let (mut session, _) = manager.session().await;
    let task = script("cat /proc/$PPID/environ /proc/self/environ | tr '\\0' '\\n'; echo; echo over; sleep 600");
    session.assign(&task);
    let token = manager.token.reveal();
    let secret = &token.expose()[27..73];
    let mut seen = String::new();
    while !seen.contains("over\n") {
        if let FromDelegate::Output { bytes, .. } = session.message().await {
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(
        seen.contains("LEGATION_DELEGATE=") && !seen.contains("DELEGATE_TOKEN") && !seen.contains(secret),
        "{seen}"
    );
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(secret));
    }
    session.goodbye(GoodbyeReason::DelegateStopped, None).await;
    assert_eq!(delegate.exit_code().await, Some(78));
    let log = delegate.log();
    assert!(log.contains("TRACE") && log.contains("delegate_stopped") && !log.contains(secret));
}

#[tokio::test]
async fn a_task_that_runs_too_long_ends_with_everything_it_started() {
    let manager = Manager::start().await;
    let _delegate = Delegate::start(&manager);
    let mark = Mark::new();
    let (mut session, _) = manager.session().await;
    session.assign(&Assignment { timeout: 400, ..stubborn(&mark) });
    let end = session.finished().await;
    assert_eq!((end.state, mark.alive()), (TaskState::TimedOut, 0));
    assert!(end.reason.contains("400 ms"), "{}", end.reason);
    // A cancelled one as well, although it ignores being asked.
    let task = stubborn(&mark);
    session.assign(&task);
    session.await_output("up\n").await;
    session.say(ToDelegate::Cancel { attempt: task.attempt, grace: 100 });
    let end = loop {
        let end = session.finished().await;
        if end.attempt == task.attempt {
            break end;
        }
    };
    assert_eq!((end.state, mark.alive()), (TaskState::Cancelled, 0));
}
