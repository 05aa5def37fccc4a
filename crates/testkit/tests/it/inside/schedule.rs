//! Revocations that come later, of many tokens, and what they would hit.

use legation_api::{
    Code,
    client::ClientError,
    revoke::{RevokeMany, RevokeMode, RevokeToken},
};
use legation_model::{Clock as _, receipt::Cause, task::TaskState, token::TokenStatus};
use legation_testkit::{Engine, Inside, Puppet, eventually, inside::Attempted, world::Issued};
use legation_wire::{
    Action, DelegateEvent,
    close::GoodbyeReason,
    message::{Finished, FromDelegate, HeldAttempt, Phase, ToDelegate},
};

super::on_both!(
    a_draining_token_lets_its_delegates_finish_and_then_ends,
    a_draining_token_is_one_after_a_restart_too,
    a_kill_does_not_wait_for_the_drain,
    a_set_time_ends_a_token_and_can_be_taken_back,
    the_preview_names_what_would_be_left_alone,
    all_tokens_of_a_scope_end_with_a_receipt_each,
);

const HOUR: i64 = 60 * 60 * 1000;

fn drain(drain_ms: i64) -> RevokeToken {
    let reason = "too old".parse().expect("a text");
    RevokeToken { reason, mode: RevokeMode::Drain, drain_ms: Some(drain_ms), at: None }
}

fn at(at: i64) -> RevokeToken {
    let reason = "planned".parse().expect("a text");
    RevokeToken { reason, mode: RevokeMode::At, drain_ms: None, at: Some(at) }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Code {
    match outcome {
        Err(ClientError::Problem(problem)) => problem.code,
        other => panic!("no refusal but {other:?}"),
    }
}

/// Refused for now, with a word that no delegate stops for.
async fn turned_away(puppet: &mut Puppet) {
    let Attempted::Goodbye(goodbye) = puppet.connect().await else { panic!("no Goodbye") };
    assert_eq!(goodbye.reason.action(), Action::Retry, "{goodbye:?}");
}

/// Ended with this cause, and said so to who comes late.
async fn ended(inside: &Inside, token: &Issued, cause: Cause) {
    let receipt = eventually("the token has ended", async || {
        let token = inside.client.token(token.id).await.expect("a token");
        (token.status == TokenStatus::Revoked).then_some(token.receipt).flatten()
    })
    .await;
    let receipt = inside.client.receipt(receipt).await.expect("a receipt");
    assert_eq!(receipt.cause, cause);
    eventually("delegates are told", async || match inside.puppet("late", token).connect().await {
        Attempted::Goodbye(goodbye) => (goodbye.reason == GoodbyeReason::TokenRevoked).then_some(()),
        Attempted::Welcome(_) => panic!("a token that has ended lets somebody in"),
        Attempted::Ended(_) => None,
    })
    .await;
}

async fn a_draining_token_lets_its_delegates_finish_and_then_ends(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let from = inside.clock.wall() + HOUR;
    let draining = inside.client.schedule_revoke(token.id, &drain(HOUR)).await.expect("it drains");
    assert_eq!(draining.status, TokenStatus::Draining);
    assert!((from..=inside.clock.wall() + HOUR).contains(&draining.revoke_at.expect("a time")), "{draining:?}");

    turned_away(&mut inside.puppet("new", &token)).await;
    let waiting = super::submit(&inside, "one").await;
    puppet.cut();
    let held = HeldAttempt { attempt, phase: Phase::Running };
    let attempted = puppet.connect_holding(vec![held]).await;
    assert!(matches!(attempted, Attempted::Welcome(_)), "a process that is known may come back: {attempted:?}");
    puppet.say(FromDelegate::Finished(finished(attempt))).await.expect("said");
    eventually("what ran is finished", async || {
        let task = inside.client.task(task).await.expect("a task");
        (task.state == TaskState::Succeeded).then_some(())
    })
    .await;
    assert_eq!(inside.client.task(waiting).await.expect("a task").state, TaskState::Queued, "no new work");
    let mut second = inside.puppet("one", &other);
    second.join().await;
    let ToDelegate::Assign(_) = second.message().await else { panic!("another token's delegate gets it") };
    puppet.reboot();
    turned_away(&mut puppet).await;

    let again = inside.client.schedule_revoke(token.id, &drain(2 * HOUR)).await.expect("for longer");
    assert!(again.revoke_at >= Some(from + HOUR), "{again:?}");
    assert_eq!(code(inside.client.cancel_revoke(token.id).await), Code::TokenDraining);
    assert_eq!(
        code(inside.client.schedule_revoke(token.id, &at(inside.clock.wall() + HOUR)).await),
        Code::TokenDraining
    );
    inside.clock.advance(2 * HOUR);
    ended(&inside, &token, Cause::Drained).await;
    let receipt = inside.client.token(token.id).await.expect("a token").receipt.expect("a receipt");
    let receipt = inside.client.receipt(receipt).await.expect("a receipt");
    assert_eq!(receipt.reason, "too old");
    assert!(receipt.actor.starts_with("break-glass/test ("), "who asked for it: {}", receipt.actor);
}

fn finished(attempt: legation_model::ids::AttemptId) -> Finished {
    Finished {
        attempt,
        state: TaskState::Succeeded,
        exit_code: Some(0),
        reason: String::new(),
        output_bytes: 0,
        dropped_bytes: 0,
    }
}

async fn a_draining_token_is_one_after_a_restart_too(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    inside.client.schedule_revoke(token.id, &drain(HOUR)).await.expect("it drains");
    inside.restart().await;
    puppet.redirect(&inside.url);
    puppet.join().await;
    let task = super::submit(&inside, "one").await;
    turned_away(&mut inside.puppet("new", &token)).await;
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Queued, "no new work");
    inside.clock.advance(HOUR);
    ended(&inside, &token, Cause::Drained).await;
}

async fn a_kill_does_not_wait_for_the_drain(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    inside.client.schedule_revoke(token.id, &drain(HOUR)).await.expect("it drains");
    let receipt = inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked");
    assert_eq!((receipt.cause, receipt.lines.len()), (Cause::Kill, 1));
    assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::TokenRevoked);
    assert_eq!(code(inside.client.schedule_revoke(token.id, &drain(HOUR)).await), Code::TokenEnded);
    let again = inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("the same");
    assert_eq!(again, receipt);
}

async fn a_set_time_ends_a_token_and_can_be_taken_back(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (token, kept) = (inside.token("a").await, inside.token("b").await);
    let when = inside.clock.wall() + HOUR;
    for token in [&token, &kept] {
        let scheduled = inside.client.schedule_revoke(token.id, &at(when)).await.expect("set");
        assert_eq!((scheduled.status, scheduled.revoke_at), (TokenStatus::Active, Some(when)));
    }
    let back = inside.client.cancel_revoke(kept.id).await.expect("taken back");
    assert_eq!((back.status, back.revoke_at), (TokenStatus::Active, None));
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    inside.clock.jump(2 * HOUR);
    assert_eq!(code(inside.client.schedule_revoke(token.id, &at(when + 3 * HOUR)).await), Code::ClockInDoubt);
    turned_away(&mut inside.puppet("two", &token)).await;
    assert_eq!(
        inside.client.token(token.id).await.expect("a token").status,
        TokenStatus::Active,
        "doubt is no verdict"
    );
    inside.clock.jump(-2 * HOUR);
    inside.clock.advance(HOUR / 2);
    inside.puppet("three", &token).join().await;
    inside.clock.advance(HOUR / 2);
    let refused = inside.puppet("four", &token).connect().await;
    assert!(!matches!(refused, Attempted::Welcome(_)), "from its millisecond on nobody comes in");
    ended(&inside, &token, Cause::Scheduled).await;
    inside.puppet("five", &kept).join().await;
    while !matches!(puppet.next().await, Ok(DelegateEvent::Goodbye(_)) | Err(_)) {}
}

async fn the_preview_names_what_would_be_left_alone(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let (mut one, _, task) = super::working(&inside, "group", &token).await;
    inside.puppet("group", &other).join().await;
    let mut second = inside.puppet("group", &other);
    second.join().await;
    // One with room that nobody has, one that the other token's delegates could take as well.
    one.hello.tags = vec!["gpu".parse().expect("a tag")];
    one.hello.capacity = 1;
    one.cut();
    let attempt = inside.client.task(task).await.expect("a task").attempt.expect("an attempt").id;
    one.connect_holding(vec![HeldAttempt { attempt, phase: Phase::Running }]).await;
    super::submit(&inside, "gpu").await;
    super::submit(&inside, "nobody").await;
    let preview = inside.client.preview_revoke(token.id).await.expect("a preview");
    let [line] = &preview.delegates[..] else { panic!("{preview:?}") };
    assert_eq!((line.tasks_running, &line.tasks[..]), (1, &[task][..]));
    assert_eq!(preview.queued_without_capacity, 1);
    assert_eq!(preview.conditions_without_capacity[0].selectors, ["gpu"]);
    let [covering] = &preview.covered_by[..] else { panic!("{preview:?}") };
    assert_eq!((&*covering.name.to_string(), covering.token, covering.delegates), ("group", other.id, 1));
    drop(second);
}

async fn all_tokens_of_a_scope_end_with_a_receipt_each(engine: Engine) {
    let inside = Inside::start(engine).await;
    let old = [inside.token("a").await, inside.token("b").await];
    let mut puppet = inside.puppet("one", &old[0]);
    puppet.join().await;
    inside.clock.advance(1_000);
    let created_before = Some(inside.clock.wall());
    let young = inside.token("c").await;
    let reason = "leaked".parse().expect("a text");
    let request = RevokeMany { scope: "default".parse().expect("a scope"), created_before, reason };
    let preview = inside.client.preview_revoke_many(&request).await.expect("a preview");
    // The account's own default token is one of them.
    assert_eq!((preview.tokens.len(), preview.more), (3, false));
    assert_eq!(preview.tokens.iter().map(|one| one.connected).sum::<u32>(), 1);
    assert_eq!(inside.manager.sessions.all().len(), 1, "a preview ends nothing");

    let done = inside.client.revoke_many(&request).await.expect("revoked");
    assert_eq!(done.tokens.len(), 3);
    assert!(inside.manager.sessions.all().is_empty(), "when the call returns");
    for one in &done.tokens {
        let receipt = inside.client.receipt(one.receipt.expect("a receipt")).await.expect("a receipt");
        assert_eq!((receipt.token, receipt.lines.len() as u32, &*receipt.reason), (one.token, one.connected, "leaked"));
    }
    assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::TokenRevoked);
    inside.puppet("two", &young).join().await;
    assert!(inside.client.revoke_many(&request).await.expect("nothing is left").tokens.is_empty());
    let elsewhere = RevokeMany { scope: "never".parse().expect("a scope"), ..request };
    assert!(inside.client.revoke_many(&elsewhere).await.expect("an empty scope").tokens.is_empty());
}
