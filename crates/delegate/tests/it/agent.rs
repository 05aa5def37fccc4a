//! A real delegate process and a Manager that does what the test wants.

use std::time::Duration;

use legation_delegate::system::SystemEntropy;
use legation_model::{
    Secret,
    ids::{AttemptId, ReceiptId},
    secret::SecretText,
    task::TaskState,
    token::Token,
};
use legation_wire::{
    GoodbyeReason, ManagerEvent,
    message::{Assignment, FromDelegate, Phase, SecretVar, ToDelegate, Work},
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
        () = within("it forgets", until(|| std::fs::read_dir(&attempts).is_ok_and(|left| left.count() == 0))) => {}
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
async fn a_request_without_a_supervisor_ends_with_the_lease_too() {
    let manager = Manager { lease: 900, ..Manager::start().await };
    let delegate = Delegate::start(&manager);
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", server.local_addr().expect("bound"));
    let (mut session, _) = manager.session().await;
    let work = Work::Http { method: "GET".into(), url, headers: vec![], body: vec![] };
    session.assign(&Assignment { work, ..script("") });
    assert!(matches!(session.message().await, FromDelegate::Started { .. }));
    // Taken and never answered.
    let _held = within("a request", server.accept()).await;
    session.fall_silent();
    let ended = async { while session.event().await.is_ok() {} };
    within("it closes a silent link", ended).await;
    // A Welcome would renew the lease: this connection gets none until the lease is over.
    let held = within("it dials again", manager.socket()).await;
    eventually("the lease ends", || delegate.log().contains("the lease ended"));
    drop(held);
    let (mut session, _) = manager.session().await;
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
        () = within("it forgets", until(|| std::fs::read_dir(&attempts).is_ok_and(|left| left.count() == 0))) => {}
    }
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

#[tokio::test]
async fn an_http_task_gives_back_the_body_and_obeys_the_policy() {
    let manager = Manager::start().await;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = server.local_addr().expect("bound").port();
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.toml");
    std::fs::write(&policy, format!("hosts = ['127.0.0.1:{port}']")).expect("written");
    let _delegate = Delegate::start_with(&manager, |command| {
        command.env("DELEGATE_POLICY_FILE", &policy);
    });
    let (mut session, _) = manager.session().await;
    let request = |url: String| Assignment {
        attempt: AttemptId::random(&SystemEntropy),
        work: Work::Http {
            method: "POST".into(),
            url,
            headers: vec![("x-key".into(), "${KEY}".into())],
            body: b"question".to_vec(),
        },
        secrets: vec![SecretVar { name: "KEY".into(), value: SecretText::new("canary".into()) }],
        ..script("")
    };
    session.assign(&request("http://localhost:1/".into()));
    assert!(
        matches!(session.message().await, FromDelegate::Refused { reason, again: false, .. } if reason.contains("localhost"))
    );
    session.assign(&request(format!("http://127.0.0.1:{port}/x")));
    let serve = async {
        let (mut stream, _) = server.accept().await.expect("a request");
        let mut seen = Vec::new();
        while !seen.ends_with(b"question") {
            seen.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("bytes"));
        }
        assert!(String::from_utf8_lossy(&seen).contains("x-key: canary"));
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\nsaid: canary";
        stream.write_all(answer).await.expect("written");
        std::future::pending::<()>().await;
    };
    let read = async {
        session.await_output("said: ***").await;
        session.finished().await
    };
    let end = tokio::select! {
        () = serve => unreachable!("it never ends"),
        end = read => end,
    };
    assert_eq!((end.state, end.exit_code), (TaskState::Failed, Some(404)));
}

/// Answers one request with a redirect or with success; gives back the request's head.
async fn answer(server: &tokio::net::TcpListener, location: Option<&str>) -> String {
    let (mut stream, _) = server.accept().await.expect("a request");
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("bytes"));
    }
    let answer = match location {
        Some(to) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
        None => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    stream.write_all(answer.as_bytes()).await.expect("written");
    String::from_utf8(seen).expect("text")
}

#[tokio::test]
async fn a_secret_in_a_header_is_not_carried_to_another_origin() {
    let manager = Manager::start().await;
    let (one, other) = (
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port"),
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    let url = |server: &tokio::net::TcpListener| format!("http://{}/", server.local_addr().expect("bound"));
    let _delegate = Delegate::start(&manager);
    let (mut session, _) = manager.session().await;
    let request = |value: &str| Assignment {
        attempt: AttemptId::random(&SystemEntropy),
        work: Work::Http {
            method: "GET".into(),
            url: format!("{}?q=private", url(&one)),
            headers: vec![("x-key".into(), value.into())],
            body: vec![],
        },
        secrets: vec![SecretVar { name: "KEY".into(), value: SecretText::new("canary".into()) }],
        ..script("")
    };
    session.assign(&request("Bearer ${KEY}"));
    let end = tokio::select! {
        end = session.finished() => end,
        seen = async {
            answer(&one, Some("/again")).await;
            // Within the origin it goes along.
            assert!(answer(&one, Some(&url(&other))).await.contains("canary"));
            answer(&other, None).await
        } => panic!("another origin was asked: {seen}"),
    };
    assert_eq!(end.state, TaskState::Failed);
    assert!(end.reason.contains("another origin"), "{}", end.reason);

    session.assign(&request("nothing secret"));
    let served = async {
        answer(&one, Some(&url(&other))).await;
        answer(&other, None).await
    };
    let (seen, end) = tokio::join!(served, session.finished());
    assert_eq!(end.state, TaskState::Succeeded, "{}", end.reason);
    assert!(seen.contains("nothing secret") && !seen.contains("private"), "no Referer either: {seen}");
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
async fn health_says_whether_it_is_connected() {
    let manager = Manager::start().await;
    let delegate = Delegate::start_with(&manager, |command| {
        command.env("DELEGATE_HEALTH_ADDR", "127.0.0.1:0");
    });
    let (session, _) = manager.session().await;
    let _pumped = tokio::spawn(async move {
        let mut session = session;
        while let Ok(ManagerEvent::Message(_)) = session.event().await {}
    });
    let address = || {
        let log = delegate.log();
        let rest = log.split_once("health checks are answered address=")?.1.to_owned();
        rest.lines().next().map(str::to_owned)
    };
    eventually("it says where", || address().is_some());
    let url = format!("http://{}", address().expect("said"));
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{url}{path}")).await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    while get("/readyz").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get("/healthz").await.0, 200);
    assert!(get("/metrics").await.1.contains("\nlegation_delegate_connected 1\n"));
    assert_eq!(get("/else").await.0, 404);
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_end_it() {
    let manager = Manager::start().await;
    let mut delegate = Delegate::start_with(&manager, |command| {
        command.stderr(std::process::Stdio::piped());
    });
    drop(delegate.child.stderr.take());
    let (mut session, _) = manager.session().await;
    session.assign(&script("echo still here"));
    session.await_output("still here\n").await;
    drop(session);
    let (mut session, again) = manager.session().await;
    assert_eq!(again.counter, 2, "the same process");
    session.goodbye(GoodbyeReason::DelegateStopped, None).await;
    assert_eq!(delegate.exit_code().await, Some(78));
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_one_sentence_and_a_code() {
    let manager = Manager::start().await;
    let delegate = Delegate::start(&manager);
    let (_session, _) = manager.session().await;
    let other = tempfile::tempdir().expect("a directory");
    let refused = async |change: &dyn Fn(&mut tokio::process::Command)| {
        let mut command = program(&manager, delegate.directory.path());
        command.stderr(std::process::Stdio::piped()).env("DELEGATE_LOG", "error");
        change(&mut command);
        let output = within("it ends", command.output()).await.expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = refused(&|_| {}).await;
    assert!(code == Some(69) && text.contains("another delegate uses") && text.lines().count() == 1, "{text}");
    let (code, text) = refused(&|command| {
        command.env("DELEGATE_TOKEN", "ldt_short");
    })
    .await;
    assert!(code == Some(64) && text.contains("9 characters"), "{text}");
    let (code, text) = refused(&|command| {
        command.env("MANAGER_HOST_AND_PORT", "manager:1").env("DELEGATE_STATE_DIR", other.path());
    })
    .await;
    assert!(code == Some(64) && text.contains("MANAGER_HOST_AND_PORT"), "{text}");
    let (code, text) = refused(&|command| {
        command.arg("--token=x");
    })
    .await;
    assert!(code == Some(64) && text.contains("must not be an argument"), "{text}");
    let (code, text) = refused(&|command| {
        command.args(["--name", "ldt_canary"]);
    })
    .await;
    assert!(code == Some(64) && text.contains("must not be an argument") && !text.contains("canary"), "{text}");
    let (code, text) = refused(&|command| {
        command.env("DELEGATE_TOKEN_FILE", "/no/such/file");
    })
    .await;
    assert!(code == Some(64) && text.contains("both DELEGATE_TOKEN and DELEGATE_TOKEN_FILE"), "{text}");
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
