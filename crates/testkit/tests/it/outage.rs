//! A database that is gone for a while: nothing that was promised is lost, nobody is told a lie, no process dies.

use std::{net::SocketAddr, time::Duration};

use legation_api::{Code, revoke::RevokeToken, tokens::CreateToken};
use legation_model::{task::TaskState, token::TokenStatus};
use legation_testkit::{
    Engine, World, eventually,
    proxy::{Proxy, Weather},
    within,
    world::{STOPPED_WITHIN, scope},
};

/// A caller is told that the store does not answer, instead of waiting for it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(45);

/// The address in a PostgreSQL URL.
fn place(url: &str) -> SocketAddr {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("a URL");
    authority.rsplit('@').next().and_then(|place| place.parse().ok()).expect("the test cluster has a numeric address")
}

/// A world whose PostgreSQL is behind a proxy of ours.
async fn behind_a_proxy() -> (World, Proxy) {
    let url = Engine::Postgres.create(std::path::Path::new("/")).await;
    let address = place(&url);
    let proxy = Proxy::start(address, 0).await.expect("a proxy");
    let through = url.replace(&address.to_string(), &proxy.address().to_string());
    let world =
        World::with(Engine::Postgres, &[("LEGATION_DATABASE_URL", &through), ("LEGATION_HEARTBEAT", "1s")]).await;
    (world, proxy)
}

async fn gone(proxy: &mut Proxy) {
    proxy.set(Weather::Stalled);
    proxy.cut();
    eventually("every connection to the database is cut", async || (proxy.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn connected_delegates_stay_and_changes_are_refused_until_it_is_back() {
    let (mut world, mut database) = behind_a_proxy().await;
    let token = world.token("patient").await;
    let link = Proxy::start(world.address(), 0).await.expect("a proxy");
    let through = format!("http://{}", link.address());
    let mut delegate = world.delegate_with("patient", &token.value, &[("MANAGER_HOST_AND_PORT", &through)]);
    world.connected(&delegate).await;

    gone(&mut database).await;
    let request = CreateToken::new(scope(), "late".parse().expect("a name"));
    let refused = tokio::time::timeout(ANSWERED_WITHIN, world.client.create_token(&request)).await;
    let refused = refused.expect("an answer in time").expect_err("no token can be made");
    assert_eq!(refused.code(), Some(Code::StoreUnavailable), "{refused}");
    let before = link.record();
    eventually("heartbeats are still answered", async || {
        (link.record().down.len() > before.down.len() + 60).then_some(())
    })
    .await;
    assert_eq!((link.accepted(), link.open()), (1, 1), "the delegate kept its connection");
    assert_eq!((world.manager().ended(), delegate.process.ended()), (None, None));

    database.set(Weather::Clear);
    let created = async || world.client.create_token(&request).await.ok();
    within(ANSWERED_WITHIN, "the database is found again", created).await;
    let task = world.run("patient", "echo alive").await;
    assert_eq!(world.finished(task.id).await.state, TaskState::Succeeded);
}

#[tokio::test]
async fn a_revoke_that_cannot_be_written_cuts_all_the_same_and_says_so() {
    let (world, mut database) = behind_a_proxy().await;
    let token = world.token("doomed").await;
    let link = Proxy::start(world.address(), 0).await.expect("a proxy");
    let through = format!("http://{}", link.address());
    let mut delegate = world.delegate_with("doomed", &token.value, &[("MANAGER_HOST_AND_PORT", &through)]);
    world.connected(&delegate).await;

    gone(&mut database).await;
    let revoke = RevokeToken::default();
    let refused = tokio::time::timeout(ANSWERED_WITHIN, world.client.revoke_token(token.id, &revoke)).await;
    let refused = refused.expect("an answer in time").expect_err("it is not durable");
    assert_eq!(refused.code(), Some(Code::RevokedNotDurable), "{refused}");
    eventually("the delegate is cut and tries again", async || (link.accepted() > 1).then_some(())).await;
    assert_eq!(delegate.process.ended(), None, "what a restart would unsay is no verdict");

    database.set(Weather::Clear);
    let repeated = async || world.client.revoke_token(token.id, &revoke).await.ok();
    let receipt = within(ANSWERED_WITHIN, "the repetition is written", repeated).await;
    assert_eq!(receipt.lines.len(), 1);
    assert_eq!(delegate.process.exit(STOPPED_WITHIN + Duration::from_secs(10)).await.code(), Some(78));
    assert_eq!(world.client.token(token.id).await.expect("the token").status, TokenStatus::Revoked);
}

#[tokio::test]
async fn a_second_manager_on_the_same_postgresql_is_refused() {
    let world = World::start(Engine::Postgres).await;
    let output = world.manager_command(&["--listen", "127.0.0.1:0"]).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("another") || said.contains("process"), "it says who holds the database: {said}");
    world.token("still-served").await;
}
