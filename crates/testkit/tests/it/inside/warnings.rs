//! Warnings before a token expires.

use futures_util::FutureExt as _;
use legation_api::{
    revoke::{RevokeMode, RevokeToken},
    token_update::UpdateToken,
};
use legation_model::Clock as _;
use legation_testkit::{Engine, Inside, Puppet, world::Issued};
use legation_wire::DelegateEvent;
use sqlx::{Executor as _, Row as _};

super::on_both!(an_expiry_is_warned_of_once_at_each_threshold, a_delegate_hears_of_the_expiry_when_it_is_near,);

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;

async fn warnings(inside: &Inside, token: &Issued) -> Vec<String> {
    inside.manager.warn_of_expiry().await;
    let all = format!(
        "SELECT detail FROM audit WHERE action = 'token.expires_soon' AND object = '{}' ORDER BY number",
        token.id
    );
    let rows = super::beside(inside).await.fetch_all(sqlx::AssertSqlSafe(all)).await.expect("rows");
    rows.iter().map(|row| row.get::<String, _>(0).replace("it expires within ", "")).collect()
}

async fn gauges(inside: &Inside) -> Vec<i64> {
    inside.manager.warn_of_expiry().await;
    inside.manager.metrics.expiring.iter().map(|gauge| gauge.get()).collect()
}

async fn an_expiry_is_warned_of_once_at_each_threshold(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let expires_at = inside.clock.wall() + 20 * DAY;
    let token = inside.token_with("ends", |token| token.expires_at = Some(expires_at)).await;
    inside.token("lasts").await;
    assert_eq!(warnings(&inside, &token).await, [""; 0]);
    assert_eq!(gauges(&inside).await, [0, 0, 0, 0]);
    inside.clock.advance(6 * DAY);
    for _ in 0..2 {
        assert_eq!(warnings(&inside, &token).await, ["14 d"]);
    }
    assert_eq!(gauges(&inside).await, [0, 0, 0, 1], "within an hour, a day, a week, two weeks");
    inside.clock.advance(8 * DAY);
    assert_eq!(warnings(&inside, &token).await, ["14 d", "7 d"]);
    // Two thresholds at once: the nearest is said.
    inside.clock.advance(6 * DAY - HOUR);
    let all = ["14 d", "7 d", "1 h"];
    assert_eq!(warnings(&inside, &token).await, all);
    assert_eq!(gauges(&inside).await, [1, 1, 1, 1]);
    inside.restart().await;
    assert_eq!(warnings(&inside, &token).await, all, "a restart has not forgotten");

    // An expiry that was moved is another one.
    let later = UpdateToken { expires_at: Some(Some(inside.clock.wall() + 10 * DAY)), ..UpdateToken::default() };
    let version = inside.client.token(token.id).await.expect("a token").version;
    inside.client.update_token(token.id, version, &later).await.expect("changed");
    assert_eq!(warnings(&inside, &token).await, ["14 d", "7 d", "1 h", "14 d"]);
    inside.clock.jump(9 * DAY);
    assert_eq!(warnings(&inside, &token).await.len(), 4, "a clock in doubt warns of nothing");
    inside.clock.jump(-9 * DAY);
    inside.client.revoke_token(token.id, &Default::default()).await.expect("revoked");
    inside.clock.advance(8 * DAY);
    assert_eq!(warnings(&inside, &token).await.len(), 4, "one that has ended does not expire");
    assert_eq!(gauges(&inside).await, [0, 0, 0, 0]);
}

/// In how many hours, rounded up, the token expires by what the next answered heartbeat says.
async fn heard(inside: &Inside, delegate: &mut Puppet) -> Option<i64> {
    assert!(delegate.beat(inside.manager.config.timing).await, "answered");
    // What an answer says beside the lease comes with it.
    match delegate.next().now_or_never() {
        Some(Ok(DelegateEvent::TokenExpires { left })) => Some((left + HOUR - 1) / HOUR),
        None => None,
        other => panic!("{other:?}"),
    }
}

async fn a_delegate_hears_of_the_expiry_when_it_is_near(engine: Engine) {
    let inside = Inside::start(engine).await;
    let expires_at = inside.clock.wall() + 20 * DAY;
    let token = inside.token_with("ends", |token| token.expires_at = Some(expires_at)).await;
    let mut delegate = inside.puppet("one", &token);
    delegate.join().await;
    assert_eq!(heard(&inside, &mut delegate).await, None);
    inside.clock.advance(6 * DAY);
    assert_eq!(heard(&inside, &mut delegate).await, Some(14 * 24));
    // A revocation that is to come is not told: the thief of a token would listen.
    let reason = "stolen".parse().expect("a reason");
    let at = RevokeToken { reason, mode: RevokeMode::At, drain_ms: None, at: Some(inside.clock.wall() + HOUR) };
    inside.client.schedule_revoke(token.id, &at).await.expect("set");
    assert_eq!(heard(&inside, &mut delegate).await, Some(14 * 24));
    let later = UpdateToken { expires_at: Some(None), ..UpdateToken::default() };
    let version = inside.client.token(token.id).await.expect("a token").version;
    inside.client.update_token(token.id, version, &later).await.expect("changed");
    assert_eq!(heard(&inside, &mut delegate).await, None);
}
