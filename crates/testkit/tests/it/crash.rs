//! Power cuts, at any moment and to anyone.

use std::{fs, time::Duration};

use legation_api::revoke::RevokeToken;
use legation_model::{ids::TokenId, task::TaskState, token::TokenStatus};
use legation_testkit::{
    Engine, World, eventually, seed, within,
    world::{LONG_WORK, LONG_WORK_PROCESSES, STOPPED_WITHIN},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

on_both!(
    a_revoke_that_returned_holds_although_the_manager_dies_at_once,
    what_was_answered_survives_a_manager_that_dies_at_random,
    a_result_survives_the_managers_restart,
    tasks_die_with_their_delegate_and_are_reported_lost,
    tasks_of_a_frozen_delegate_end_with_its_lease,
);

/// Code with which a delegate ends whose token is refused.
const REFUSED: i32 = 78;
/// The shortest lease an operator may choose, so that its end can be waited for.
const SHORT_LEASE: [(&str, &str); 2] = [("LEGATION_LEASE", "15s"), ("LEGATION_HEARTBEAT", "1s")];
const LEASE: Duration = Duration::from_secs(15);

async fn working(world: &World, name: &str) {
    let forked = async || (world.marked(name).len() >= LONG_WORK_PROCESSES).then_some(());
    eventually("the task has forked twice", forked).await;
}

async fn a_revoke_that_returned_holds_although_the_manager_dies_at_once(engine: Engine) {
    let mut world = World::start(engine).await;
    let token = world.token("doomed").await;
    let mut delegate = world.delegate("frozen", &token);
    world.connected(&delegate).await;
    let task = world.run("frozen", LONG_WORK).await;
    working(&world, "frozen").await;

    // A frozen delegate cannot hear the Goodbye: only what is durable can stop it later.
    delegate.process.pause();
    let receipt = world.revoke(&token).await;
    world.manager().kill().await;
    assert!(receipt.lines.iter().all(|line| line.cut_at.is_some()), "{receipt:?}");
    world.restart_manager().await;
    assert_eq!(world.client.token(token.id).await.expect("the token").status, TokenStatus::Revoked);
    assert_eq!(world.task(task.id).await.state, TaskState::Lost);

    delegate.process.resume();
    assert_eq!(delegate.process.exit(Duration::from_secs(20)).await.code(), Some(REFUSED));
    within(STOPPED_WITHIN, "no descendant is alive", async || world.marked("frozen").is_empty().then_some(())).await;
    eventually("the receipt has the delegate's own word", async || {
        let receipt = world.client.receipt(receipt.id).await.ok()?;
        receipt.lines.iter().all(|line| line.stopped_reported_at.is_some()).then_some(())
    })
    .await;
    assert_eq!(world.task(task.id).await.state, TaskState::Lost, "and nothing it said changed the task");
}

async fn what_was_answered_survives_a_manager_that_dies_at_random(engine: Engine) {
    /// Restarts of one run; each has its own moment.
    const DEATHS: u32 = 5;
    let seed = seed::seed();
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::start(engine).await;
    for death in 0..DEATHS {
        let token = world.token(&format!("token-{death}")).await;
        let delegate = world.delegate(&format!("delegate-{death}"), &token);
        world.connected(&delegate).await;
        let moment = Duration::from_micros(chance.random_range(0..40_000));
        let promised = tokio::spawn(promises(world.client.clone(), death, token.id));
        // The moment itself is what is tested.
        tokio::time::timeout(moment, std::future::pending::<()>()).await.expect_err("time passes");
        world.manager().kill().await;
        let (created, revoked) = promised.await.expect("the calls end with the connection");
        world.restart_manager().await;
        verify(&world, delegate, token.id, &created, revoked).await;
    }
}

/// Creates tokens and revokes one meanwhile, until the Manager is gone. What comes back was answered with OK.
async fn promises(client: legation_api::client::Client, death: u32, doomed: TokenId) -> (Vec<TokenId>, bool) {
    let revoke = RevokeToken::default();
    let creates = async {
        let mut created = Vec::new();
        for number in 0.. {
            let name = format!("made-{death}-{number}").parse().expect("a name");
            let request = legation_api::tokens::CreateToken::new(legation_testkit::world::scope(), name);
            match client.create_token(&request).await {
                Ok(issued) => created.push(issued.token.id),
                Err(_) => break,
            }
        }
        created
    };
    let (created, revoked) = tokio::join!(creates, client.revoke_token(doomed, &revoke));
    (created, revoked.is_ok())
}

async fn verify(
    world: &World,
    mut delegate: legation_testkit::delegate::Delegate,
    doomed: TokenId,
    created: &[TokenId],
    revoked: bool,
) {
    for id in created {
        let token = world.client.token(*id).await.expect("a token that was answered is there");
        assert_eq!(token.status, TokenStatus::Active);
    }
    let status = world.client.token(doomed).await.expect("the token").status;
    assert!(status == TokenStatus::Revoked || !revoked, "a revoke that returned holds");
    if status != TokenStatus::Revoked {
        world.client.revoke_token(doomed, &RevokeToken::default()).await.expect("it can be repeated");
    }
    assert_eq!(delegate.process.exit(Duration::from_secs(20)).await.code(), Some(REFUSED));
}

async fn a_result_survives_the_managers_restart(engine: Engine) {
    let mut world = World::start(engine).await;
    let token = world.token("durable").await;
    let delegate = world.delegate("keeper", &token);
    world.connected(&delegate).await;
    let gate = world.directory().join("gate");
    let script = format!("echo before; until [ -e {} ]; do :; done; echo after; exit 3", gate.display());
    let task = world.run("keeper", &script).await;
    eventually("the task runs", async || (!world.marked("keeper").is_empty()).then_some(())).await;

    world.manager().kill().await;
    fs::write(&gate, "").expect("a file");
    eventually("the task has ended meanwhile", async || world.marked("keeper").is_empty().then_some(())).await;
    world.restart_manager().await;

    let task = world.finished(task.id).await;
    assert_eq!((task.state, task.exit_code), (TaskState::Failed, Some(3)), "{task:?}");
    assert_eq!(String::from_utf8_lossy(&world.output(task.id).await), "before\nafter\n");
}

async fn tasks_die_with_their_delegate_and_are_reported_lost(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("mortal").await;
    let mut delegate = world.delegate("mortal", &token);
    world.connected(&delegate).await;
    let task = world.run("mortal", LONG_WORK).await;
    working(&world, "mortal").await;

    delegate.process.kill().await;
    within(STOPPED_WITHIN, "no descendant is alive", async || world.marked("mortal").is_empty().then_some(())).await;
    delegate.restart(&[]);
    assert_eq!(world.finished(task.id).await.state, TaskState::Lost, "never run again");
    world.connected(&delegate).await;
    let next = world.run("mortal", "echo alive").await;
    assert_eq!(world.finished(next.id).await.state, TaskState::Succeeded);
    assert_eq!(world.marked("mortal").len(), 0, "the lost task was not run again");
}

async fn tasks_of_a_frozen_delegate_end_with_its_lease(engine: Engine) {
    let world = World::with(engine, &SHORT_LEASE).await;
    let token = world.token("frozen").await;
    let delegate = world.delegate("frozen", &token);
    world.connected(&delegate).await;
    world.run("frozen", LONG_WORK).await;
    working(&world, "frozen").await;

    delegate.process.pause();
    let bound = LEASE + STOPPED_WITHIN;
    within(bound, "no descendant outlives the lease", async || world.marked("frozen").is_empty().then_some(())).await;
    delegate.process.resume();
}
