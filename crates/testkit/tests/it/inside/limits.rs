//! A token is changed while its delegates are connected: what is tightened holds for them when the call returns.

use legation_api::{Code, client::ClientError, token_update::UpdateToken, tokens::IssueToken};
use legation_model::Clock as _;
use legation_testkit::{Engine, Inside, eventually, inside::Attempted, world::Issued};
use legation_wire::{close::GoodbyeReason, message::ToDelegate};
use reqwest::Method;

use super::raw::{Raw, answer};

super::on_both!(
    a_tightened_limit_holds_for_who_is_connected,
    connections_that_are_on_their_way_meet_the_new_limits,
    a_change_between_admission_and_registration_is_met,
    a_change_whose_call_did_not_hear_of_it_holds_all_the_same,
    an_expiry_can_be_moved_both_ways,
    tags_that_a_token_vouches_for_count_from_the_next_assignment_on,
    nobody_overwrites_what_he_has_not_seen,
    what_has_ended_cannot_be_changed,
);

const HOUR: i64 = 60 * 60 * 1000;

async fn change(inside: &Inside, token: &Issued, patch: &str) -> Result<legation_api::tokens::Token, ClientError> {
    let update: UpdateToken = serde_json::from_str(patch).expect("a patch");
    let version = inside.client.token(token.id).await.expect("a token").version;
    inside.client.update_token(token.id, version, &update).await
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Code {
    match outcome {
        Err(ClientError::Problem(problem)) => problem.code,
        other => panic!("no refusal but {other:?}"),
    }
}

async fn a_tightened_limit_holds_for_who_is_connected(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let mut puppets = Vec::new();
    for name in ["web-1", "web-2", "db-1", "web-3"] {
        let mut puppet = inside.puppet(name, &token);
        puppet.join().await;
        puppets.push(puppet);
    }
    let mut neighbour = inside.puppet("db-9", &other);
    neighbour.join().await;

    change(&inside, &token, r#"{"allowed_names":["web-*"]}"#).await.expect("changed");
    assert_eq!(inside.manager.sessions.of_token(token.id).len(), 3, "when the call returns");
    assert_eq!(puppets[2].goodbye().await.reason, GoodbyeReason::NameRefused);
    let Attempted::Goodbye(goodbye) = puppets[2].connect().await else { panic!("no Goodbye") };
    assert_eq!(goodbye.reason, GoodbyeReason::NameRefused);

    change(&inside, &token, r#"{"max_delegates":2}"#).await.expect("changed");
    assert_eq!(inside.manager.sessions.of_token(token.id).len(), 2);
    assert_eq!(puppets[3].goodbye().await.reason, GoodbyeReason::MaxDelegates, "the newest goes");

    change(&inside, &token, r#"{"allowed_cidrs":["127.0.0.0/8"]}"#).await.expect("changed");
    assert_eq!(inside.manager.sessions.of_token(token.id).len(), 2, "who is inside stays");
    change(&inside, &token, r#"{"allowed_cidrs":["192.0.2.0/24"]}"#).await.expect("changed");
    assert_eq!(inside.manager.sessions.of_token(token.id).len(), 0);
    assert_eq!(puppets[0].goodbye().await.reason, GoodbyeReason::AddressRefused);

    change(&inside, &token, r#"{"allowed_cidrs":null,"allowed_names":null,"max_delegates":null}"#).await.expect("open");
    puppets[2].join().await;
    assert_eq!(inside.manager.sessions.of_token(other.id).len(), 1, "another token's delegate is untouched");
    neighbour.say(legation_wire::message::FromDelegate::Draining).await.expect("its link is in use");
}

async fn connections_that_are_on_their_way_meet_the_new_limits(engine: Engine) {
    const ROUNDS: usize = 8;
    const CROWD: usize = 12;
    let inside = Inside::start(engine).await;
    for round in 0..ROUNDS {
        let token = inside.token(&format!("t{round}")).await;
        let version = inside.client.token(token.id).await.expect("a token").version;
        let crowd = (0..CROWD).map(|number| {
            let mut puppet = inside.puppet(&format!("db-{number}"), &token);
            tokio::spawn(async move { (puppet.connect().await, puppet) })
        });
        let crowd: Vec<_> = crowd.collect();
        let client = inside.client.clone();
        let update: UpdateToken = serde_json::from_str(r#"{"allowed_names":["web-*"]}"#).expect("a patch");
        // Some are in by then, some on their way, some not here yet.
        eventually("one is on its way", async || {
            (crowd.iter().any(tokio::task::JoinHandle::is_finished) || round % 2 == 0).then_some(())
        })
        .await;
        client.update_token(token.id, version, &update).await.expect("changed");
        let crowd = futures_util::future::join_all(crowd).await;
        eventually("nobody is in who is not allowed", async || {
            inside.manager.sessions.of_token(token.id).is_empty().then_some(())
        })
        .await;
        drop(crowd);
    }
}

/// Bytes that a session's id takes of the Manager's entropy.
const SESSION_ID_BYTES: usize = 16;

async fn a_change_between_admission_and_registration_is_met(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("db-1", &token);
    puppet.join().await;
    puppet.reboot();
    inside.sessions(&token, 0).await;
    // Of a delegate that is known the session's id is the first that takes so many bytes: it is admitted by then, and not
    // registered.
    let mut pause = inside.entropy.pause(SESSION_ID_BYTES);
    let connecting = tokio::spawn(async move { puppet.connect().await });
    pause.begun().await;
    change(&inside, &token, r#"{"allowed_names":["web-*"]}"#).await.expect("changed");
    drop(pause);
    let met = connecting.await.expect("no panic");
    assert!(!matches!(met, Attempted::Welcome(_)), "{met:?}");
    inside.sessions(&token, 0).await;
}

async fn a_change_whose_call_did_not_hear_of_it_holds_all_the_same(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("db-1", &token);
    puppet.join().await;
    super::behind(&inside, "UPDATE tokens SET allowed_names = 'web-*', version = version + 1 WHERE name = 'a'").await;
    assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::NameRefused, "the sweep follows the store");
}

async fn an_expiry_can_be_moved_both_ways(engine: Engine) {
    let inside = Inside::start(engine).await;
    let soon = inside.clock.wall() + HOUR;
    let token = inside.token_with("a", |token| token.expires_at = Some(soon)).await;
    change(&inside, &token, &format!(r#"{{"expires_at":{}}}"#, soon + HOUR)).await.expect("extended");
    inside.clock.advance(HOUR);
    inside.puppet("a1", &token).join().await;
    let at = inside.clock.wall() + HOUR;
    change(&inside, &token, &format!(r#"{{"expires_at":{at}}}"#)).await.expect("shortened");
    inside.clock.advance(HOUR / 2);
    inside.puppet("a2", &token).join().await;
    inside.clock.advance(HOUR / 2);
    assert!(!matches!(inside.puppet("a3", &token).connect().await, Attempted::Welcome(_)), "from its millisecond on");
    eventually("it has ended", async || {
        let token = inside.client.token(token.id).await.expect("a token");
        token.revoked_at.map(|_| ())
    })
    .await;
    assert_eq!(code(change(&inside, &token, r#"{"expires_at":null}"#).await), Code::TokenEnded);

    let unissued = inside.client.create_token(&unissued("late", inside.clock.wall() + HOUR)).await.expect("created");
    inside.clock.advance(HOUR);
    assert_eq!(
        code(inside.client.issue_token(unissued.token.id, &IssueToken::default()).await),
        Code::TokenEnded,
        "its time has come"
    );
}

fn unissued(name: &str, expires_at: i64) -> legation_api::tokens::CreateToken {
    let (scope, name) = ("default".parse().expect("a scope"), name.parse().expect("a name"));
    let mut request = legation_api::tokens::CreateToken::new(scope, name);
    (request.issue, request.expires_at) = (false, Some(expires_at));
    request
}

async fn tags_that_a_token_vouches_for_count_from_the_next_assignment_on(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    let task = super::submit(&inside, "pinned:gpu").await;
    change(&inside, &token, r#"{"pinned_tags":["gpu"]}"#).await.expect("changed");
    let ToDelegate::Assign(_) = puppet.message().await else { panic!("no assignment") };
    let task = inside.client.task(task).await.expect("a task");
    assert_eq!(task.state, legation_model::task::TaskState::Assigned);
}

async fn nobody_overwrites_what_he_has_not_seen(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let raw = Raw::of(&inside);
    let path = legation_api::routes::fill(legation_api::routes::TOKEN, &token.id);
    let patch = |tag: Option<&'static str>, body: &'static str| {
        let mut request =
            raw.with(inside.key.expose(), Method::PATCH, &path).header("content-type", "application/json");
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        answer(request.body(body))
    };
    assert_eq!(patch(None, "{}").await.code(), Code::PreconditionRequired);
    for wrong in ["1", "\"x\"", "W/\"1\"", ""] {
        assert_eq!(patch(Some(wrong), "{}").await.code(), Code::Stale, "{wrong}");
    }
    let response = raw.with(inside.key.expose(), Method::GET, &path).send().await.expect("an answer");
    assert_eq!(response.headers()["etag"], "\"1\"");
    assert_eq!(patch(Some("\"2\""), "{}").await.code(), Code::Stale);
    let changed = patch(Some("\"1\""), r#"{"description":"new"}"#).await;
    assert_eq!((changed.status, changed.json()["version"].as_u64()), (200, Some(2)));
    assert_eq!(patch(Some("\"1\""), r#"{"description":"newer"}"#).await.code(), Code::Stale);
    for (body, what) in [
        (r#"{"name":"default_token"}"#, Code::NameTaken),
        (r#"{"expires_at":1}"#, Code::InvalidRequest),
        (r#"{"max_delegates":0}"#, Code::InvalidRequest),
        (r#"{"allowed_cidrs":["10.0.0.0/99"]}"#, Code::InvalidRequest),
        (r#"{"scope":"other"}"#, Code::InvalidRequest),
        (r#"{"description":"a","description":"b"}"#, Code::InvalidRequest),
    ] {
        assert_eq!(patch(Some("\"2\""), body).await.code(), what, "{body}");
    }
    let stored = inside.client.token(token.id).await.expect("a token");
    assert_eq!((stored.version, &*stored.description.to_string()), (2, "new"), "nothing was half done");
}

async fn what_has_ended_cannot_be_changed(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    inside.client.revoke_token(token.id, &Default::default()).await.expect("revoked");
    assert_eq!(code(change(&inside, &token, r#"{"description":"x"}"#).await), Code::TokenEnded);
    inside.clock.jump(2 * HOUR);
    let other = inside.token("b").await;
    let at = inside.clock.wall() + HOUR;
    assert_eq!(code(change(&inside, &other, &format!(r#"{{"expires_at":{at}}}"#)).await), Code::ClockInDoubt);
    change(&inside, &other, r#"{"description":"x"}"#).await.expect("no time in it");
}
