//! The promise: a revoke stops every delegate of the token, and no other.

use std::time::{Duration, Instant};

use legation_api::{Code, receipts::Receipt, revoke::RevokeToken, tokens::TokensQuery};
use legation_model::{task::TaskState, token::TokenStatus};
use legation_testkit::{
    Engine, World,
    delegate::Delegate,
    eventually,
    proxy::Proxy,
    within,
    world::{Issued, LONG_WORK, LONG_WORK_PROCESSES, STOPPED_WITHIN},
};

on_both!(
    every_delegate_of_the_token_is_stopped_and_no_other,
    a_revoked_token_stays_refused_until_its_name_is_free_again,
    an_expired_token_ends_the_same_way,
    revoking_twice_tells_the_same_story,
);

/// Code with which a delegate ends whose token is refused (EX_CONFIG of sysexits).
const REFUSED: i32 = 78;

/// A delegate that runs long work with a grandchild that has left its family.
async fn busy(world: &World, name: &str, token: &Issued, environment: &[(&str, &str)]) -> Delegate {
    let delegate = world.delegate_with(name, &token.value, environment);
    world.connected(&delegate).await;
    world.run(name, LONG_WORK).await;
    let working = async || (world.marked(name).len() >= LONG_WORK_PROCESSES).then_some(());
    eventually("the task has forked twice", working).await;
    delegate
}

/// Waits until every line of the receipt says that its delegate reported itself stopped.
async fn all_reported(world: &World, receipt: &Receipt) -> Receipt {
    eventually("every delegate has reported that it stopped", async || {
        let receipt = world.client.receipt(receipt.id).await.ok()?;
        receipt.lines.iter().all(|line| line.stopped_reported_at.is_some()).then_some(receipt)
    })
    .await
}

async fn every_delegate_of_the_token_is_stopped_and_no_other(engine: Engine) {
    let world = World::with(engine, &[("LEGATION_HEARTBEAT", "1s")]).await;
    let (doomed, spared) = (world.token("doomed").await, world.token("spared").await);
    let proxy = Proxy::start(world.address(), 0).await.expect("a proxy");
    let beside = format!("http://{}", proxy.address());
    let mut lost = Vec::new();
    for name in ["lost-1", "lost-2", "lost-3"] {
        lost.push(busy(&world, name, &doomed, &[]).await);
    }
    let mut kept = Vec::new();
    for name in ["kept-1", "kept-2"] {
        kept.push(busy(&world, name, &spared, &[("MANAGER_HOST_AND_PORT", &beside)]).await);
    }

    let receipt = world.revoke(&doomed).await;
    let returned = Instant::now();
    assert_eq!(receipt.lines.len(), 3);
    assert!(receipt.lines.iter().all(|line| line.connected && line.cut_at.is_some()), "{receipt:?}");
    assert_eq!(receipt.attempts_lost, 3);

    for delegate in &mut lost {
        let left = STOPPED_WITHIN.saturating_sub(returned.elapsed());
        assert_eq!(delegate.process.exit(left).await.code(), Some(REFUSED), "{}", delegate.name);
    }
    for delegate in &lost {
        let left = STOPPED_WITHIN.saturating_sub(returned.elapsed());
        within(left, "no descendant is alive", async || world.marked(&delegate.name).is_empty().then_some(())).await;
    }
    let receipt = all_reported(&world, &receipt).await;
    assert!(receipt.lines.iter().all(|line| line.tasks_killed == Some(1)), "{receipt:?}");

    // Two more heartbeats are answered on the connections that the spared ones have had from the start.
    let before = proxy.record();
    eventually("heartbeats go on", async || {
        let now = proxy.record();
        (now.down.len() >= before.down.len() + 4 * HEARTBEAT_BYTES_MIN).then_some(())
    })
    .await;
    assert_eq!((proxy.accepted(), proxy.open()), (kept.len(), kept.len()), "nobody had to reconnect");
    for delegate in &mut kept {
        assert_eq!(delegate.process.ended(), None);
        assert!(world.marked(&delegate.name).len() >= LONG_WORK_PROCESSES, "{} still works", delegate.name);
        assert!(world.seen(&delegate.name).await.is_some_and(|seen| seen.connected));
    }
}

/// No encrypted message is shorter: two bytes of WebSocket header, one flag, sixteen of authentication.
const HEARTBEAT_BYTES_MIN: usize = 19;

async fn a_revoked_token_stays_refused_until_its_name_is_free_again(engine: Engine) {
    let mut world = World::start(engine).await;
    let token = world.token("field").await;
    let mut delegate = world.delegate("field-1", &token);
    world.connected(&delegate).await;
    let refused = world.client.delete_token(token.id).await.expect_err("an active token cannot be deleted");
    assert_eq!(refused.code(), Some(Code::TokenNotRevoked));

    world.revoke(&token).await;
    assert_eq!(delegate.process.exit(STOPPED_WITHIN).await.code(), Some(REFUSED));
    for _ in 0..2 {
        delegate.restart(&[]);
        assert_eq!(delegate.process.exit(Duration::from_secs(10)).await.code(), Some(REFUSED), "still refused");
        world.manager().kill().await;
        world.restart_manager().await;
    }
    let listed = world.client.tokens(&TokensQuery::default()).await.expect("a list");
    assert!(listed.items.iter().all(|listed| listed.id != token.id), "a revoked token is hidden");
    let query = TokensQuery { include_revoked: true, ..TokensQuery::default() };
    let listed = world.client.tokens(&query).await.expect("a list");
    assert!(listed.items.iter().any(|listed| listed.id == token.id), "unless asked for");

    let deleted = world.client.delete_token(token.id).await.expect("a revoked token can be deleted");
    assert_eq!(deleted.token.status, TokenStatus::Deleted);
    delegate.restart(&[]);
    assert_eq!(delegate.process.exit(Duration::from_secs(10)).await.code(), Some(REFUSED), "a deleted one too");
    let again = world.token("field").await;
    assert_ne!(again.id, token.id);
    delegate.restart(&[("DELEGATE_TOKEN", again.value.expose())]);
    world.connected(&delegate).await;
}

async fn an_expired_token_ends_the_same_way(engine: Engine) {
    /// Long enough to connect and fork on a busy machine.
    const LIFE: Duration = Duration::from_secs(8);
    let world = World::start(engine).await;
    let life = i64::try_from(LIFE.as_millis()).expect("a few seconds");
    let expires = legation_model::Clock::wall(&legation_manager::system::SystemClock) + life;
    let token = world.token_with("short-lived", |request| request.expires_at = Some(expires)).await;
    let mut delegate = busy(&world, "mayfly", &token, &[]).await;

    assert_eq!(delegate.process.exit(LIFE + STOPPED_WITHIN + Duration::from_secs(5)).await.code(), Some(REFUSED));
    within(STOPPED_WITHIN, "no descendant is alive", async || world.marked("mayfly").is_empty().then_some(())).await;
    let ended = eventually("the token is revoked by itself", async || {
        world.client.token(token.id).await.ok().filter(|token| token.status == TokenStatus::Revoked)
    })
    .await;
    let receipt = world.client.receipt(ended.receipt.expect("a receipt")).await.expect("the receipt");
    assert_eq!(all_reported(&world, &receipt).await.lines.len(), 1);
}

async fn revoking_twice_tells_the_same_story(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("twice").await;
    let delegate = world.delegate("twice-1", &token);
    world.connected(&delegate).await;
    // It may not have been assigned by then, and waits for nobody afterwards.
    let task = world.run_with("twice-1", LONG_WORK, |task| task.queue_timeout_ms = Some(1_000)).await;
    let (first, second) = tokio::join!(world.revoke(&token), world.revoke(&token));
    assert_eq!(first.id, second.id, "one revocation, one receipt");
    let third = world.client.revoke_token(token.id, &RevokeToken::default()).await.expect("a repetition is harmless");
    assert_eq!(third.id, first.id);
    let task = world.finished(task.id).await;
    assert!(matches!(task.state, TaskState::Lost | TaskState::Rejected), "{task:?}");
}
