//! Admission: who comes in, which start of a delegate counts, and what a stranger learns.

use legation_link::Ended;
use legation_model::{delegate::DelegateStatus, ids::BootId, task::TaskState};
use legation_testkit::{Engine, Inside, Puppet, eventually, inside::Attempted, world::Issued};
use legation_wire::{
    GoodbyeReason,
    message::{CAPACITY_MAX, FromDelegate, HeldAttempt, Phase, ToDelegate},
};
use sqlx::{Executor as _, Row as _};

super::on_both!(
    a_reconnect_supersedes_and_a_stale_connection_does_not,
    a_restart_loses_what_the_old_start_ran,
    an_attempt_of_a_start_that_is_over_is_lost,
    a_capacity_beyond_all_bounds_counts_as_the_largest,
    many_that_come_at_once_are_decided_one_after_the_other,
    a_copy_of_a_delegate_quarantines_both,
    limits_of_the_token_are_kept,
    a_full_token_has_room_again_when_leases_have_ended,
    a_wrong_secret_and_an_unknown_token_look_alike_and_leave_no_trace,
    a_silent_delegate_is_dropped_and_its_tasks_are_lost_when_the_lease_ends,
    a_lease_that_was_longer_before_a_restart_is_waited_for,
    an_assignment_that_never_arrived_is_sent_again,
    what_a_delegate_does_not_know_any_more_is_lost,
    a_stray_attempt_is_told_to_end,
    draining_delegates_get_nothing_new,
);

fn refused(attempted: &Attempted) -> GoodbyeReason {
    match attempted {
        Attempted::Goodbye(goodbye) => goodbye.reason,
        other => panic!("not refused: {other:?}"),
    }
}

async fn joined(inside: &Inside, name: &str, token: &Issued) -> Puppet {
    let mut puppet = inside.puppet(name, token);
    puppet.join().await;
    puppet
}

async fn a_reconnect_supersedes_and_a_stale_connection_does_not(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut old = joined(&inside, "one", &token).await;
    let mut newer = old.twin();
    let id = newer.join().await.delegate;
    assert_eq!(old.goodbye().await.reason, GoodbyeReason::Superseded);
    inside.sessions(&token, 1).await;
    // The old handle dials with the counter that the newer one used already.
    assert_eq!(refused(&old.connect().await), GoodbyeReason::Superseded);
    assert!(inside.manager.sessions.newest(id).is_some_and(|session| session.stopped().is_none()));
    newer.say(FromDelegate::Draining).await.expect("the newer one is still in");
}

async fn a_restart_loses_what_the_old_start_ran(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, _, task) = super::working(&inside, "one", &token).await;
    puppet.reboot();
    puppet.join().await;
    eventually("the old start's task is lost", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Lost).then_some(())
    })
    .await;
    super::submit(&inside, "one").await;
    assert!(matches!(puppet.message().await, ToDelegate::Assign(_)), "the new start works");
}

/// However it came about: no start of a delegate answers for another's attempts.
async fn an_attempt_of_a_start_that_is_over_is_lost(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (_puppet, _, task) = super::working(&inside, "one", &token).await;
    super::behind(&inside, &format!("UPDATE tasks SET boot = '{}'", BootId([1; 16]))).await;
    eventually("the task is lost", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Lost).then_some(())
    })
    .await;
}

/// Admissions share transactions. Two connections of one process, and a whole crowd, are decided as if each had its
/// own.
async fn many_that_come_at_once_are_decided_one_after_the_other(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token_with("a", |token| token.max_delegates = Some(40)).await;
    let free = inside.token("b").await;
    let mut crowd: Vec<Puppet> = (0..50).map(|number| inside.puppet(&format!("one{number}"), &token)).collect();
    crowd.extend((0..20).map(|number| inside.puppet(&format!("two{number}"), &free)));
    let mut twins: Vec<Puppet> = (0..5).map(|_| crowd[50].twin()).collect();
    for (counter, twin) in (1..).zip(&mut twins) {
        twin.hello.counter = counter;
    }
    let attempts = crowd.iter_mut().chain(&mut twins).map(Puppet::connect);
    let outcomes = futures_util::future::join_all(attempts).await;
    let full = outcomes.iter().filter(
        |outcome| matches!(outcome, Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::MaxDelegates),
    );
    assert_eq!(full.count(), 10, "40 of 50 have room");
    inside.sessions(&token, 40).await;
    inside.sessions(&free, 20).await;
    let joined = "SELECT COUNT(*), MAX(number) - MIN(number) + 1 FROM audit WHERE action = 'delegate.join'";
    let row = super::beside(&inside).await.fetch_one(joined).await.expect("a row");
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (60, 60), "each has its record, once");
}

async fn a_capacity_beyond_all_bounds_counts_as_the_largest(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut greedy = inside.puppet("greedy", &token);
    greedy.hello.capacity = u32::MAX;
    greedy.join().await;
    assert_eq!(inside.manager.sessions.of_token(token.id)[0].free(), CAPACITY_MAX as usize);
}

async fn a_copy_of_a_delegate_quarantines_both(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut first = joined(&inside, "one", &token).await;
    let mut copy = first.twin();
    copy.reboot();
    let id = copy.join().await.delegate;
    assert_eq!(first.goodbye().await.reason, GoodbyeReason::Superseded);
    // Once may be a connection that was late; the second time the superseded start is still alive.
    assert_eq!(refused(&first.connect().await), GoodbyeReason::Superseded);
    assert!(inside.manager.sessions.newest(id).is_some_and(|session| session.stopped().is_none()));
    assert_eq!(refused(&first.connect().await), GoodbyeReason::DelegateStopped);
    assert_eq!(copy.goodbye().await.reason, GoodbyeReason::DelegateStopped);
    assert_eq!(refused(&copy.connect().await), GoodbyeReason::DelegateStopped);
    assert_eq!(inside.client.delegate(id).await.expect("a delegate").status, DelegateStatus::Quarantined);
}

async fn limits_of_the_token_are_kept(engine: Engine) {
    let inside = Inside::start(engine).await;
    let few = inside.token_with("few", |token| token.max_delegates = Some(1)).await;
    let mut one = joined(&inside, "one", &few).await;
    assert_eq!(refused(&inside.puppet("two", &few).connect().await), GoodbyeReason::MaxDelegates);
    one.join().await;

    let named =
        inside.token_with("named", |token| token.allowed_names = vec!["web-*".parse().expect("a pattern")]).await;
    assert_eq!(refused(&inside.puppet("db-1", &named).connect().await), GoodbyeReason::NameRefused);
    joined(&inside, "web-1", &named).await;

    let placed =
        inside.token_with("placed", |token| token.allowed_cidrs = vec!["10.0.0.0/8".parse().expect("a range")]).await;
    assert_eq!(refused(&inside.puppet("one", &placed).connect().await), GoodbyeReason::AddressRefused);

    let any = inside.token("any").await;
    let mut mistaken = inside.puppet("mistaken", &any);
    mistaken.hello.account = Some("other".to_owned());
    assert_eq!(refused(&mistaken.connect().await), GoodbyeReason::AccountMismatch);
    mistaken.hello.account = Some("default".to_owned());
    mistaken.join().await;
}

async fn a_full_token_has_room_again_when_leases_have_ended(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let few = inside.token_with("few", |token| token.max_delegates = Some(1)).await;
    joined(&inside, "one", &few).await.cut();
    inside.clock.advance(10 * 60 * 1000);
    inside.restart().await;
    inside.puppet("two", &few).join().await;
    assert_eq!(refused(&inside.puppet("three", &few).connect().await), GoodbyeReason::MaxDelegates);
}

async fn a_wrong_secret_and_an_unknown_token_look_alike_and_leave_no_trace(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut forger = inside.puppet("forger", &token);
    forger.forge_secret();
    let mut stranger = inside.puppet("stranger", &token);
    stranger.forge_id();
    let (forged, unknown) = (forger.connect().await, stranger.connect().await);
    let (Attempted::Ended(forged), Attempted::Ended(unknown)) = (forged, unknown) else { panic!("let in or told") };
    assert_eq!(format!("{forged:?}"), format!("{unknown:?}"));
    assert!(matches!(forged, Ended::Closed { .. }), "{forged:?}");
    assert!(inside.client.delegates(&Default::default()).await.expect("delegates").items.is_empty());
    assert_eq!(inside.client.token(token.id).await.expect("a token").last_used_at, None);
}

async fn a_silent_delegate_is_dropped_and_its_tasks_are_lost_when_the_lease_ends(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (_silent, _, task) = super::working(&inside, "one", &token).await;
    inside.clock.advance(60_000);
    inside.sessions(&token, 0).await;
    assert!(!inside.client.task(task).await.expect("a task").state.is_final(), "the lease still runs");
    inside.clock.advance(5 * 60 * 1000);
    let task = eventually("the lease ends", async || {
        let task = inside.client.task(task).await.expect("a task");
        task.state.is_final().then_some(task)
    })
    .await;
    assert_eq!(task.state, TaskState::Lost);
    assert!(task.reason.contains("lease"), "{}", task.reason);
}

async fn a_lease_that_was_longer_before_a_restart_is_waited_for(engine: Engine) {
    const HOUR: i64 = 60 * 60 * 1000;
    let mut inside = Inside::start(engine).await;
    inside.restart_with(|config| config.timing = config.timing.with_lease(Some(HOUR))).await;
    let token = inside.token("a").await;
    let (_unreachable, _, task) = super::working(&inside, "one", &token).await;
    for _ in 0..2 {
        inside.restart_with(|config| config.timing = config.timing.with_lease(Some(15_000))).await;
    }
    inside.clock.advance(HOUR / 2);
    let preview = inside.client.preview_revoke(token.id).await.expect("a preview");
    assert_eq!(preview.delegates.len(), 1, "it may still act");
    assert!(!inside.client.task(task).await.expect("a task").state.is_final(), "it may still run");
    inside.clock.advance(HOUR);
    eventually("the lease ends", async || {
        inside.client.task(task).await.expect("a task").state.is_final().then_some(())
    })
    .await;
}

async fn an_assignment_that_never_arrived_is_sent_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = joined(&inside, "one", &token).await;
    let task = super::submit(&inside, "one").await;
    let ToDelegate::Assign(first) = puppet.message().await else { panic!("no assignment") };
    puppet.cut();
    puppet.join().await;
    let ToDelegate::Assign(again) = puppet.message().await else { panic!("no assignment") };
    assert_eq!((again.attempt, again.task), (first.attempt, task));
}

async fn what_a_delegate_does_not_know_any_more_is_lost(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    eventually("the start is recorded", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Running).then_some(())
    })
    .await;
    puppet.cut();
    let held = HeldAttempt { attempt, phase: Phase::Running };
    assert!(matches!(puppet.connect_holding(vec![held]).await, Attempted::Welcome(_)));
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Running, "held, so kept");
    puppet.cut();
    assert!(matches!(puppet.connect_holding(Vec::new()).await, Attempted::Welcome(_)));
    eventually("the forgotten attempt is lost", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Lost).then_some(())
    })
    .await;
}

async fn a_stray_attempt_is_told_to_end(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    let attempt = legation_model::ids::AttemptId([9; 16]);
    let held = HeldAttempt { attempt, phase: Phase::Running };
    assert!(matches!(puppet.connect_holding(vec![held]).await, Attempted::Welcome(_)));
    assert_eq!(puppet.message().await, ToDelegate::Cancel { attempt, grace: 0 });
}

async fn draining_delegates_get_nothing_new(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut leaving = joined(&inside, "leaving", &token).await;
    leaving.hello.tags = vec!["both".parse().expect("a tag")];
    leaving.join().await;
    let mut staying = inside.puppet("staying", &token);
    staying.hello.tags = vec!["both".parse().expect("a tag")];
    staying.join().await;
    leaving.say(FromDelegate::Draining).await.expect("said");
    let session = inside.manager.sessions.current().into_iter().find(|session| session.name.as_str() == "leaving");
    let session = session.expect("a session");
    eventually("the drain is heard", async || {
        session.draining.load(std::sync::atomic::Ordering::Relaxed).then_some(())
    })
    .await;
    for _ in 0..4 {
        super::submit(&inside, "both").await;
        assert!(matches!(staying.message().await, ToDelegate::Assign(_)));
    }
}
