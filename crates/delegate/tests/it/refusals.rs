//! What a real delegate refuses, and how the Manager hears of it.

use legation_model::task::TaskState;
use legation_wire::message::{FromDelegate, ToDelegate};

use crate::{
    manager::{Delegate, Manager},
    supervisor::script,
};

#[tokio::test]
async fn what_the_owner_forbids_is_not_offered_and_refused_with_the_reason() {
    let manager = Manager::start().await;
    for (policy, offered, reason) in [
        ("kinds = ['http']", &["http"][..], "does not allow shell tasks"),
        ("interpreters = ['/bin/bash']", &["shell", "http"], "does not allow the interpreter \"/bin/sh\""),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("policy.toml");
        std::fs::write(&file, policy).expect("written");
        let _delegate = Delegate::start_with(&manager, |command| {
            command.env("DELEGATE_POLICY_FILE", &file);
        });
        let (mut session, hello) = manager.session().await;
        assert_eq!(hello.capabilities, offered);
        let ran = directory.path().join("ran");
        session.assign(&script(&format!(": > {}", ran.display())));
        let said = session.message().await;
        assert!(matches!(&said, FromDelegate::Refused { reason: why, .. } if why.contains(reason)), "{said:?}");
        assert!(!ran.exists());
    }
}

#[tokio::test]
async fn a_cancelled_task_ends_and_capacity_is_a_limit() {
    let manager = Manager::start().await;
    let _delegate = Delegate::start_with(&manager, |command| {
        command.env("DELEGATE_CAPACITY", "1");
    });
    let (mut session, _) = manager.session().await;
    let task = script("echo up; sleep 600");
    session.assign(&task);
    session.await_output("up\n").await;
    session.assign(&script("true"));
    let FromDelegate::Refused { reason, again: true, .. } = session.message().await else { panic!("not refused") };
    assert!(reason.contains("already runs"), "{reason}");
    session.say(ToDelegate::Cancel { attempt: task.attempt, grace: 10_000 });
    assert_eq!(session.finished().await.state, TaskState::Cancelled);
}

#[tokio::test]
async fn a_refusal_that_was_not_heard_leaves_the_attempt_to_be_assigned_again() {
    let manager = Manager::start().await;
    let _delegate = Delegate::start_with(&manager, |command| {
        command.env("DELEGATE_CAPACITY", "1");
    });
    let (mut session, _) = manager.session().await;
    let (first, second) = (script("echo up; sleep 600"), script("echo second"));
    session.assign(&first);
    session.await_output("up\n").await;
    session.assign(&second);
    assert!(matches!(session.message().await, FromDelegate::Refused { again: true, .. }));
    // As if the Manager had died before it stored the refusal.
    drop(session);
    let (mut session, hello) = manager.session().await;
    assert_eq!(hello.attempts.iter().map(|held| held.attempt).collect::<Vec<_>>(), [first.attempt]);
    session.say(ToDelegate::Cancel { attempt: first.attempt, grace: 0 });
    assert_eq!(session.finished().await.attempt, first.attempt);
    session.say(ToDelegate::FinishedAck { attempt: first.attempt });
    session.assign(&second);
    session.await_output("second\n").await;
    assert_eq!(session.finished().await.attempt, second.attempt);
}
