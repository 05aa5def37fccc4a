//! What a real delegate shows of itself: its first complaint, its health, its log.

use legation_wire::{GoodbyeReason, ManagerEvent};

use crate::{
    manager::{Delegate, Manager, program, within},
    supervisor::script,
    support::eventually,
};

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
    within("it is ready", async { while get("/readyz").await.0 != 200 {} }).await;
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
