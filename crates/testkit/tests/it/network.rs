//! Networks that listen, stall, cut and stand in between.

use std::time::{Duration, Instant};

use legation_api::{
    client::Client,
    tasks::{Shell, SubmitTask, Work},
};
use legation_model::task::TaskState;
use legation_testkit::{
    Engine, World,
    canary::Canary,
    eventually,
    proxy::{Proxy, Weather},
    seed,
    tinyproxy::Tinyproxy,
    world::{STOPPED_WITHIN, scope},
};

on_both!(
    neither_token_nor_work_is_ever_on_the_wire,
    peers_that_do_not_read_hold_up_no_revoke,
    tasks_and_output_come_through_a_storm,
    a_delegate_connects_through_a_proxy_that_wants_a_password,
);

/// What no eye on the network may see.
const SECRET_TEXT: &str = "the-text-of-a-task-that-nobody-may-read";
/// A revoke with peers that do not read is allowed their write deadlines, but no more.
const REVOKE_WITHIN: Duration = Duration::from_secs(3);

async fn neither_token_nor_work_is_ever_on_the_wire(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("watched").await;
    let proxy = Proxy::start(world.address(), 0).await.expect("a proxy");
    let through = format!("http://{}", proxy.address());
    let delegate = world.delegate_with("watched", &token.value, &[("MANAGER_HOST_AND_PORT", &through)]);
    world.connected(&delegate).await;
    let script = format!("echo {SECRET_TEXT}");
    let task = world.run("watched", &script).await;
    assert_eq!(world.finished(task.id).await.state, TaskState::Succeeded);
    assert_eq!(world.output(task.id).await, format!("{SECRET_TEXT}\n").as_bytes());

    let record = proxy.record();
    assert!(record.up.len() > 500 && record.down.len() > 500, "the session went through the proxy");
    let text = Canary::text("the task's text", SECRET_TEXT);
    for canary in [&text, &Canary::token(token.value.expose())] {
        assert_eq!(canary.in_bytes(&record.up), None);
        assert_eq!(canary.in_bytes(&record.down), None);
    }

    // The same text, sent past the encryption, is found: the search would have seen it.
    let client = Client::new(&through, None, None).expect("a client");
    let shell = Shell { script, ..Shell::default() };
    let refused = client.submit_task(&SubmitTask::new(scope(), Work::Shell(shell))).await;
    assert!(refused.is_err(), "without a key");
    assert!(text.in_bytes(&proxy.record().up).is_some());
}

async fn peers_that_do_not_read_hold_up_no_revoke(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("doomed").await;
    let mut stalled = Proxy::start(world.address(), 0).await.expect("a proxy");
    let half_open = Proxy::start(world.address(), 0).await.expect("a proxy");
    let through = |proxy: &Proxy| format!("http://{}", proxy.address());
    let first = world.delegate_with("stalled", &token.value, &[("MANAGER_HOST_AND_PORT", &through(&stalled))]);
    let second = world.delegate_with("half-open", &token.value, &[("MANAGER_HOST_AND_PORT", &through(&half_open))]);
    let mut healthy = [world.delegate("healthy-1", &token), world.delegate("healthy-2", &token)];
    for delegate in [&first, &second].into_iter().chain(&healthy) {
        world.connected(delegate).await;
    }

    stalled.set(Weather::Stalled);
    second.process.pause();
    half_open.orphan();
    let asked = Instant::now();
    let receipt = world.revoke(&token).await;
    let took = asked.elapsed();
    assert!(took < REVOKE_WITHIN, "the revoke took {took:?}");
    assert_eq!(receipt.lines.len(), 4);
    assert!(receipt.lines.iter().all(|line| line.cut_at.is_some()), "{receipt:?}");
    for delegate in &mut healthy {
        assert_eq!(delegate.process.exit(STOPPED_WITHIN).await.code(), Some(78), "{}", delegate.name);
    }

    // Once they can be reached again they are told.
    stalled.set(Weather::Clear);
    second.process.resume();
    for mut delegate in [first, second] {
        assert_eq!(delegate.process.exit(Duration::from_secs(60)).await.code(), Some(78), "{}", delegate.name);
    }
}

async fn tasks_and_output_come_through_a_storm(engine: Engine) {
    /// Lines that each task prints; their order shows every gap and repetition.
    const LINES: usize = 2000;
    let seed = seed::seed();
    let world = World::with(engine, &[("LEGATION_HEARTBEAT", "1s"), ("LEGATION_FIRST_RETRY", "100ms")]).await;
    let token = world.token("stormy").await;
    let mut proxy = Proxy::start(world.address(), seed).await.expect("a proxy");
    let through = format!("http://{}", proxy.address());
    let delegate = world.delegate_with("stormy", &token.value, &[("MANAGER_HOST_AND_PORT", &through)]);
    world.connected(&delegate).await;

    proxy.storm();
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(world.run("stormy", &format!("seq {LINES}")).await);
    }
    let cuts = proxy.accepted() + 5;
    eventually("the storm has cut the link a few times", async || (proxy.accepted() >= cuts).then_some(())).await;
    proxy.set(Weather::Clear);
    proxy.cut();

    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    for task in tasks {
        let task = world.finished(task.id).await;
        assert_eq!(task.state, TaskState::Succeeded, "{task:?}");
        assert!(world.output(task.id).await == expected.as_bytes(), "output without gap or repetition");
    }
}

async fn a_delegate_connects_through_a_proxy_that_wants_a_password(engine: Engine) {
    let world = World::with(engine, &[("LEGATION_TLS_SELF_SIGNED", "true")]).await;
    let token = world.token("inside").await;
    let proxy = Tinyproxy::start(world.directory()).await;
    let ca = world.ca_file();
    let ca = ca.to_str().expect("a text");
    let environment =
        |url: &str| vec![("DELEGATE_CA_FILE".to_owned(), ca.to_owned()), ("HTTPS_PROXY".to_owned(), url.to_owned())];
    let start = |name: &str, url: &str| {
        let environment = environment(url);
        let environment: Vec<_> = environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        world.delegate_with(name, &token.value, &environment)
    };

    let delegate = start("polite", &proxy.url());
    world.connected(&delegate).await;
    let task = world.run("polite", "echo through").await;
    assert_eq!(world.finished(task.id).await.state, TaskState::Succeeded);
    let log = proxy.log(world.directory());
    assert!(log.contains("CONNECT"), "the link went through the proxy: {log}");

    // Without a password the proxy says 407. A wrong one gets another status from tinyproxy than from others.
    let mut rude = start("rude", &proxy.anonymous_url());
    let told = async || rude.process.log().contains("user:password@").then_some(());
    eventually("the log names the fix for a missing proxy password", told).await;
    assert_eq!(rude.process.ended(), None, "and it goes on trying");
    assert!(world.seen("rude").await.is_none());
}
