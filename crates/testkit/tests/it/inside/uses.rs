//! Who used a token, when, and from where; and which tokens nobody uses.

use std::collections::BTreeSet;

use legation_api::{
    Code,
    client::ClientError,
    page::PageQuery,
    token_uses::TokenUse,
    tokens::{Token, TokensQuery},
};
use legation_manager::config::Settings;
use legation_model::{
    Clock as _,
    access::Role,
    ids::{DelegateId, TokenId},
    token::TokenStatus,
    token_use as model,
};
use legation_testkit::{Engine, Inside, eventually, world::Issued};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::{
    raw::{Raw, key},
    sources::through,
};

super::on_both!(
    a_token_says_who_used_it_when_and_from_where,
    what_a_token_was_used_for_is_complete_when_its_revocation_is_durable,
    a_connection_on_its_way_is_in_the_history_when_the_receipt_is,
    a_stopped_manager_leaves_nothing_out,
    a_session_that_lasts_is_noted_again,
    tokens_are_found_by_what_becomes_of_them,
    a_token_in_use_is_never_called_unused,
    filters_that_ask_for_nothing_are_refused,
);

const DAY: i64 = 24 * 60 * 60 * 1000;

async fn uses(inside: &Inside, token: &Issued) -> Vec<TokenUse> {
    inside.client.token_uses(token.id, &PageQuery::default()).await.expect("a list").items
}

/// How many connections the database knows of, past the Manager.
async fn stored(inside: &Inside, token: &Issued) -> i64 {
    let text = format!("SELECT CAST(COALESCE(SUM(uses), 0) AS BIGINT) FROM token_uses WHERE token = '{}'", token.id);
    super::beside(inside).await.fetch_one(AssertSqlSafe(text)).await.expect("a row").get(0)
}

async fn a_token_says_who_used_it_when_and_from_where(engine: Engine) {
    let trusted = Some(vec!["127.0.0.1".to_owned()]);
    let mut inside = Inside::with(engine, Settings { trusted_proxies: trusted, ..Settings::default() }).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let from = inside.clock.wall();
    let mut mover = through(&inside, &token, "X-Forwarded-For: 203.0.113.7").await;
    let id = mover.join().await.delegate;
    mover.cut();
    mover.join().await;
    inside.sessions(&token, 1).await;
    inside.clock.advance(1000);
    let moved = through(&inside, &token, "X-Forwarded-For: 2001:db8::7").await;
    mover.follow(&moved);
    mover.join().await;
    let mut still = inside.puppet("two", &token);
    let second = still.join().await.delegate;
    inside.sessions(&token, 2).await;

    let found = uses(&inside, &token).await;
    let seen = |address: &str| found.iter().find(|one| one.address.to_string() == address).expect("that address");
    let (old, new, two) = (seen("203.0.113.7"), seen("2001:db8::7"), seen("127.0.0.1"));
    assert_eq!((found.len(), old.delegate, new.delegate, two.delegate), (3, id, id, second), "{found:?}");
    assert_eq!((old.uses, new.uses, two.uses), (2, 1, 1));
    assert_eq!((old.connected, new.connected, two.connected), (false, true, true));
    assert_eq!((old.name.as_str(), two.name.as_str()), ("one", "two"));
    assert!(from <= old.first_used_at && old.first_used_at <= old.last_used_at);
    assert!(old.last_used_at + 900 < new.first_used_at, "{found:?}");
    assert_eq!(inside.client.token(token.id).await.expect("a token").uses, 4);
    assert_eq!(uses(&inside, &other).await, []);

    // Page by page the same, newest first.
    let mut paged = Vec::new();
    let mut query = PageQuery { limit: Some(1), cursor: None };
    loop {
        let page = inside.client.token_uses(token.id, &query).await.expect("a page");
        paged.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    let places = |list: &[TokenUse]| list.iter().map(|one| one.address).collect::<Vec<_>>();
    assert_eq!((places(&paged), paged[2].address), (places(&found), old.address));

    // It switches to another token: the first one still says that it was there.
    mover.switch(&other);
    mover.join().await;
    inside.sessions(&token, 1).await;
    assert!(uses(&inside, &token).await.iter().all(|one| one.connected == (one.delegate == second)));
    inside.client.revoke_token(token.id, &Default::default()).await.expect("revoked");
    inside.client.delete_token(token.id).await.expect("deleted");
    inside.restart().await;
    let kept = uses(&inside, &token).await;
    assert_eq!(kept.iter().map(|one| one.uses).sum::<u64>(), 4, "it is proof, and stays with the tombstone");
    assert!(kept.iter().all(|one| !one.connected));
    let foreign = Raw::of(&inside);
    let key = key(&inside, Role::Admin, Some("default/none"), None).await.reveal().expose().to_owned();
    let path = format!("/api/v1/tokens/{}/uses", token.id);
    let answer = super::raw::answer(foreign.with(&key, reqwest::Method::GET, &path)).await;
    assert_eq!((answer.status, answer.code()), (404, Code::NotFound));
}

async fn what_a_token_was_used_for_is_complete_when_its_revocation_is_durable(engine: Engine) {
    let inside = Inside::start(engine).await;
    for round in 0..3 {
        let token = inside.token(&format!("token-{round}")).await;
        let mut puppet = inside.puppet("one", &token);
        puppet.join().await;
        // An effect that is under way holds the call up behind its transaction.
        let entered = inside.manager.tokens.get(token.id).expect("it is live").gate.enter().expect("open");
        let client = inside.client.clone();
        let revoking = tokio::spawn(async move { client.revoke_token(token.id, &Default::default()).await });
        eventually("the revocation is durable", async || {
            let status = inside.client.token(token.id).await.expect("a token").status;
            (status == TokenStatus::Revoked).then_some(())
        })
        .await;
        assert_eq!(stored(&inside, &token).await, 1, "a Manager that dies now has not lost it");
        drop(entered);
        revoking.await.expect("it ends").expect("revoked");
        assert_eq!(stored(&inside, &token).await, 1);
    }
}

async fn a_connection_on_its_way_is_in_the_history_when_the_receipt_is(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    assert_eq!(uses(&inside, &token).await.len(), 1);
    let live = inside.manager.tokens.get(token.id).expect("it is live");
    let entered = live.gate.enter().expect("open");
    let client = inside.client.clone();
    let revoking = tokio::spawn(async move { client.revoke_token(token.id, &Default::default()).await });
    live.gate.closed().await;
    // As an admission does that entered before the gate was closed.
    inside.manager.token_uses.note(elsewhere(&inside, &token));
    drop(entered);
    revoking.await.expect("it ends").expect("revoked");
    assert_eq!(stored(&inside, &token).await, 2);
    inside.manager.token_uses.note(elsewhere(&inside, &token));
    assert_eq!(uses(&inside, &token).await.len(), 2);
    assert_eq!(inside.client.token(token.id).await.expect("a token").uses, 2, "after the call nothing comes of it");
}

/// A use that no session stands behind.
fn elsewhere(inside: &Inside, token: &Issued) -> model::TokenUse {
    let (name, address) = ("one".parse().expect("a name"), "192.0.2.9".parse().expect("an address"));
    let (at, delegate) = (inside.clock.wall(), DelegateId([7; 16]));
    model::TokenUse { token: token.id, delegate, name, address, first_at: at, last_at: at, uses: 1 }
}

async fn a_stopped_manager_leaves_nothing_out(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    for round in 1..=3 {
        let mut puppet = inside.puppet("one", &token);
        puppet.join().await;
        inside.restart().await;
        assert_eq!(stored(&inside, &token).await, round);
    }
}

async fn a_session_that_lasts_is_noted_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let first = uses(&inside, &token).await.remove(0);
    // Its delegate is heard, so that the session is not dropped as silent.
    for _ in 0..3 {
        inside.clock.advance(25_000);
        assert!(puppet.beat(inside.manager.config.timing).await);
    }
    let last = "SELECT last_at FROM token_uses";
    eventually("the sweep has noted that it lasts", async || {
        let row = super::beside(&inside).await.fetch_one(last).await.expect("a row");
        (row.get::<i64, _>(0) > first.first_used_at + 40_000).then_some(())
    })
    .await;
    let after = uses(&inside, &token).await.remove(0);
    assert_eq!((after.first_used_at, after.uses), (first.first_used_at, 1));
}

async fn found(inside: &Inside, query: TokensQuery) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut query = TokensQuery { limit: Some(2), ..query };
    loop {
        let page = inside.client.tokens(&query).await.expect("a page");
        let fresh = |token: Token| assert!(names.insert(token.name.to_string()), "{} twice", token.name);
        page.items.into_iter().filter(|token| token.name.as_str() != "default_token").for_each(fresh);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return names;
        }
    }
}

async fn tokens_are_found_by_what_becomes_of_them(engine: Engine) {
    let inside = Inside::start(engine).await;
    let now = inside.clock.wall();
    let mut ids: Vec<TokenId> = Vec::new();
    for (name, days) in [("soon", Some(2)), ("late", Some(30)), ("never", None), ("gone", Some(2)), ("buried", Some(2))]
    {
        let expires_at = days.map(|days| now + days * DAY);
        ids.push(inside.token_with(name, |token| token.expires_at = expires_at).await.id);
    }
    inside.client.revoke_token(ids[3], &Default::default()).await.expect("revoked");
    inside.client.revoke_token(ids[4], &Default::default()).await.expect("revoked");
    inside.client.delete_token(ids[4]).await.expect("deleted");
    let all = TokensQuery::default;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found(&inside, all()).await, names(&["soon", "late", "never"]));
    let revoked = TokensQuery { include_revoked: true, ..all() };
    assert_eq!(found(&inside, revoked.clone()).await, names(&["soon", "late", "never", "gone"]));
    let of = |status| TokensQuery { status: Some(status), ..all() };
    assert_eq!(found(&inside, of(TokenStatus::Active)).await, names(&["soon", "late", "never"]));
    assert_eq!(found(&inside, of(TokenStatus::Revoked)).await, names(&["gone"]));
    assert_eq!(found(&inside, of(TokenStatus::Deleted)).await, names(&["buried"]));
    assert_eq!(found(&inside, of(TokenStatus::Draining)).await, names(&[]));
    let unissued = inside.client.tokens(&of(TokenStatus::Unissued)).await.expect("a list").items;
    assert_eq!(unissued.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), ["default_token"]);
    let expiring = |days: i64| TokensQuery { expiring_within_ms: Some(days * DAY), ..all() };
    assert_eq!(found(&inside, expiring(1)).await, names(&[]));
    assert_eq!(found(&inside, expiring(3)).await, names(&["soon"]));
    assert_eq!(found(&inside, expiring(31)).await, names(&["soon", "late"]));
    assert_eq!(found(&inside, TokensQuery { include_revoked: true, ..expiring(3) }).await, names(&["soon"]));
    assert_eq!(found(&inside, TokensQuery { status: Some(TokenStatus::Revoked), ..expiring(3) }).await, names(&[]));
    let named = |name: &str| TokensQuery { name: name.parse().ok(), ..expiring(31) };
    assert_eq!(found(&inside, named("late")).await, names(&["late"]));
    assert_eq!(found(&inside, named("never")).await, names(&[]));
    let elsewhere = TokensQuery { scope: "default/eng".parse().ok(), ..expiring(31) };
    assert!(matches!(inside.client.tokens(&elsewhere).await, Ok(list) if list.items.is_empty()));
}

async fn a_token_in_use_is_never_called_unused(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (busy, idle, former) = (inside.token("busy").await, inside.token("idle").await, inside.token("former").await);
    let created = inside.clock.wall();
    inside.clock.advance(DAY);
    let unused =
        async |since| found(&inside, TokensQuery { unused_since: Some(since), ..TokensQuery::default() }).await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(unused(created - DAY).await, names(&[]), "created later");
    assert_eq!(unused(created + DAY / 2).await, names(&["busy", "idle", "former"]), "never used");
    let mut puppet = inside.puppet("one", &busy);
    puppet.join().await;
    // Only memory knows of it yet.
    assert_eq!(unused(created + DAY / 2).await, names(&["idle", "former"]));
    let mut gone = inside.puppet("two", &former);
    gone.join().await;
    gone.cut();
    inside.sessions(&former, 0).await;
    assert_eq!(unused(inside.clock.wall() - 10_000).await, names(&["idle"]));
    inside.clock.advance(20_000);
    // One session lasts, the other one was over.
    let since = inside.clock.wall() - 1;
    assert_eq!(unused(since).await, names(&["idle", "former"]));
    assert_eq!(unused(created + DAY / 2).await, names(&["idle"]));
    drop(idle);
}

async fn filters_that_ask_for_nothing_are_refused(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let later = inside.clock.wall() + DAY;
    for (query, field) in [
        ("expiring_within_ms=0".to_owned(), "expiring_within_ms"),
        ("expiring_within_ms=-5".to_owned(), "expiring_within_ms"),
        (format!("expiring_within_ms={}", i64::MAX), "expiring_within_ms"),
        ("expiring_within_ms=7d".to_owned(), ""),
        (format!("unused_since={later}"), "unused_since"),
        ("unused_since=yesterday".to_owned(), ""),
        ("status=lost".to_owned(), ""),
        ("status=".to_owned(), ""),
        ("expires_within_ms=5".to_owned(), ""),
    ] {
        let answer = raw.get(&format!("/api/v1/tokens?{query}")).await;
        assert_eq!((answer.status, answer.code()), (400, Code::InvalidRequest), "{query}");
        assert!(answer.text().contains(field), "{query}: {}", answer.text());
    }
    let nobody = inside.client.token_uses(TokenId([9; 16]), &PageQuery::default()).await;
    assert!(matches!(nobody, Err(ClientError::Problem(problem)) if problem.code == Code::NotFound));
}
