//! One session after another: a new one takes over while the old one still works.

use legation_delegate::system::SystemEntropy;
use legation_model::{
    ids::{AttemptId, TokenId},
    task::TaskState,
    token::Token,
};
use legation_wire::{
    GoodbyeReason, ManagerEvent,
    message::{FromDelegate, Phase, ToDelegate},
};

use crate::{
    manager::{Delegate, Manager, Session, until, within},
    supervisor::script,
};

/// What the log says of a message to the old session that is kept until the new one is open.
const HELD: &str = "waits for the new session";

/// Serves a session until the future is done; what the delegate says meanwhile is dropped.
async fn meanwhile<T>(session: &mut Session, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return done,
            event = session.event() => assert!(event.is_ok(), "the old session must stay: {event:?}"),
        }
    }
}

/// Serves a session that may end, until the future is done.
async fn whatever<T>(session: &mut Session, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    let serve = async {
        while session.event().await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = &mut future => done,
        () = serve => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn a_new_session_takes_over_while_the_old_one_works_and_tasks_notice_nothing() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start_restless(&manager);
    let (mut old, first) = manager.session().await;
    let go = delegate.directory.path().join("go");
    let task = script(&format!("echo one; until [ -e {} ]; do sleep 0.02; done; echo two", go.display()));
    old.assign(&task);
    old.await_output("one\n").await;
    let (mut new, again) = meanwhile(&mut old, manager.session()).await;
    assert_eq!((again.boot, again.counter), (first.boot, 2));
    assert_eq!(again.attempts.iter().map(|held| held.phase).collect::<Vec<_>>(), [Phase::Running]);
    // As a Manager does: the Goodbye races the Welcome, and must not count as trouble.
    old.goodbye(GoodbyeReason::Superseded, None).await;
    drop(old);
    std::fs::write(&go, b"").expect("written");
    // Another may take over already; whichever session is in use hears of the end.
    let watch = async {
        loop {
            let next = manager.session();
            tokio::pin!(next);
            let finished = async {
                loop {
                    match new.event().await {
                        Ok(ManagerEvent::Message(FromDelegate::Finished(finished))) => return finished,
                        Ok(_) => {}
                        // The next one is on its way.
                        Err(_) => std::future::pending().await,
                    }
                }
            };
            new = tokio::select! {
                end = finished => return end,
                (session, _) = &mut next => session,
            };
        }
    };
    let end = within("the task ends", watch).await;
    assert_eq!((end.state, end.output_bytes), (TaskState::Succeeded, 8));
    assert!(!delegate.log().contains("not connected"), "nothing was ever wrong: {}", delegate.log());
    assert!(delegate.child.try_wait().expect("a child").is_none());
}

#[tokio::test]
async fn a_new_session_that_fails_leaves_the_old_one_in_use_and_is_tried_again() {
    let manager = Manager::start().await;
    let delegate = Delegate::start_restless(&manager);
    let (mut old, _) = manager.session().await;
    // Gone before the handshake; then proven, and sent away.
    drop(meanwhile(&mut old, manager.socket()).await);
    let (mut refused, hello) = meanwhile(&mut old, manager.hello(&manager.token)).await;
    assert_eq!(hello.counter, 3);
    meanwhile(&mut old, refused.goodbye(GoodbyeReason::MaxDelegates, None)).await;
    let task = script("echo still here");
    old.assign(&task);
    old.await_output("still here\n").await;
    assert_eq!(old.finished().await.state, TaskState::Succeeded);
    old.say(ToDelegate::FinishedAck { attempt: task.attempt });
    let (_new, hello) = meanwhile(&mut old, manager.session()).await;
    assert!(hello.counter == 4 && delegate.log().contains("the old one stays"));
}

#[tokio::test]
async fn an_assignment_to_the_old_session_waits_for_the_new_one_and_runs_once() {
    let manager = Manager::start().await;
    let delegate = Delegate::start_restless(&manager);
    let (mut old, _) = manager.session().await;
    let (mut new, hello) = meanwhile(&mut old, manager.hello(&manager.token)).await;
    // Hello is sent, Welcome is not: had the task begun now, the Manager would take it for lost.
    let ran = delegate.directory.path().join("ran");
    let task = script(&format!("echo x >> {}", ran.display()));
    old.assign(&task);
    meanwhile(&mut old, until("it has heard", || delegate.log().contains(HELD))).await;
    assert!(hello.attempts.is_empty() && !ran.exists());
    new.welcome(&manager);
    new.assign(&task);
    let end = whatever(&mut old, new.finished()).await;
    assert_eq!(end.state, TaskState::Succeeded);
    assert_eq!(std::fs::read_to_string(&ran).expect("it ran"), "x\n", "once");
}

/// Acknowledges an attempt to the old session after the new one's Hello has named it, and awaits that it was heard.
async fn acknowledge_late(old: &mut Session, delegate: &Delegate, attempt: AttemptId) {
    old.say(ToDelegate::FinishedAck { attempt });
    // Held for sure, and heard after what was said before it.
    let another = AttemptId::random(&SystemEntropy);
    old.say(ToDelegate::Cancel { attempt: another, grace: 0 });
    meanwhile(old, until("it has heard", || delegate.log().contains(HELD))).await;
}

#[tokio::test]
async fn an_attempt_that_the_new_session_named_ends_there_although_the_old_one_acknowledged_it() {
    let manager = Manager::start().await;
    let delegate = Delegate::start_restless(&manager);
    let (mut old, _) = manager.session().await;
    let task = script("exit 3");
    old.assign(&task);
    old.finished().await;
    let (mut new, hello) = meanwhile(&mut old, manager.hello(&manager.token)).await;
    // A slot of the new session from here on, until it hears of the end.
    assert_eq!(hello.attempts.iter().map(|held| held.attempt).collect::<Vec<_>>(), [task.attempt]);
    acknowledge_late(&mut old, &delegate, task.attempt).await;
    new.welcome(&manager);
    let end = whatever(&mut old, new.finished()).await;
    assert_eq!((end.attempt, end.exit_code), (task.attempt, Some(3)));
}

#[tokio::test]
async fn an_acknowledgement_that_waited_counts_when_the_old_session_stays() {
    let manager = Manager::start().await;
    let delegate = Delegate::start_restless(&manager);
    let (mut old, _) = manager.session().await;
    let task = script("exit 3");
    old.assign(&task);
    old.finished().await;
    let (mut refused, hello) = meanwhile(&mut old, manager.hello(&manager.token)).await;
    acknowledge_late(&mut old, &delegate, task.attempt).await;
    let kept = delegate.directory.path().join("state/attempts").join(task.attempt.to_string());
    assert!(hello.attempts.len() == 1 && kept.exists());
    meanwhile(&mut old, refused.goodbye(GoodbyeReason::MaxDelegates, None)).await;
    meanwhile(&mut old, until("it forgets", || !kept.exists())).await;
}

#[tokio::test]
async fn an_old_session_that_ends_early_is_no_reason_to_dial_once_more() {
    let manager = Manager::start().await;
    let delegate = Delegate::start_restless(&manager);
    let (mut old, _) = manager.session().await;
    let (mut new, hello) = meanwhile(&mut old, manager.hello(&manager.token)).await;
    old.goodbye(GoodbyeReason::Superseded, None).await;
    drop(old);
    new.welcome(&manager);
    let task = script("echo in");
    new.assign(&task);
    new.await_output("in\n").await;
    assert_eq!(hello.counter, 2);
    assert!(!delegate.log().contains("not connected"), "{}", delegate.log());
}

#[tokio::test]
async fn a_stop_that_meets_the_new_session_stops_the_delegate() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start_restless(&manager);
    let (mut old, _) = manager.session().await;
    let (mut new, _) = meanwhile(&mut old, manager.hello(&manager.token)).await;
    new.goodbye(GoodbyeReason::DelegateStopped, None).await;
    assert_eq!(whatever(&mut old, delegate.exit_code()).await, Some(78));
}

#[tokio::test]
async fn an_attempt_that_was_erased_with_its_token_is_not_run_for_another() {
    let mut manager = Manager::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let (file, ran) = (directory.path().join("token"), directory.path().join("ran"));
    std::fs::write(&file, manager.token.reveal().expose()).expect("written");
    let _delegate = Delegate::start_with(&manager, |command| {
        command.env_remove("DELEGATE_TOKEN").env("DELEGATE_TOKEN_FILE", &file).env("DELEGATE_ON_REVOKED", "park");
    });
    let (mut session, _) = manager.session().await;
    let task = script(&format!("echo x >> {}; echo up", ran.display()));
    session.assign(&task);
    session.await_output("up\n").await;
    session.goodbye(GoodbyeReason::TokenRevoked, None).await;
    manager.token = Token { id: TokenId::random(&SystemEntropy), ..manager.token.clone() };
    std::fs::write(&file, manager.token.reveal().expose()).expect("written");
    let (mut session, hello) = manager.session().await;
    assert_eq!(hello.attempts, []);
    // As a Manager does that has not stored that it began.
    session.assign(&task);
    let end = session.finished().await;
    assert_eq!((end.attempt, end.state), (task.attempt, TaskState::Lost));
    assert!(end.reason.contains("was stopped"), "{}", end.reason);
    assert_eq!(std::fs::read_to_string(&ran).expect("it ran"), "x\n", "once");
}

#[tokio::test]
async fn a_manager_with_another_clock_is_mentioned_once_and_changes_nothing() {
    let hours = 5 * 60 * 60 * 1000;
    for ahead in [hours, -hours] {
        let manager = Manager { ahead, lease: 1_200, ..Manager::start().await };
        let delegate = Delegate::start(&manager);
        let (mut session, _) = manager.session().await;
        // Longer than the lease, which heartbeats renew on the boot clock.
        session.assign(&script("sleep 1.5; echo done"));
        session.await_output("done\n").await;
        assert_eq!(session.finished().await.state, TaskState::Succeeded);
        drop(session);
        let (mut session, _) = manager.session().await;
        session.finished().await;
        assert_eq!(delegate.log().matches("clock and the Manager's differ").count(), 1);
    }
}

#[tokio::test]
async fn an_expiry_that_comes_near_is_logged_once_and_changes_nothing() {
    let manager = Manager { expires_in: Some(50 * 60 * 1000), lease: 1_200, ..Manager::start().await };
    let delegate = Delegate::start(&manager);
    let (mut session, _) = manager.session().await;
    // Longer than the lease, so that several answers came.
    session.assign(&script("sleep 1.5; echo done"));
    session.await_output("done\n").await;
    assert_eq!(session.finished().await.state, TaskState::Succeeded);
    assert_eq!(delegate.log().matches("the token expires within 1 h").count(), 1, "{}", delegate.log());
}
