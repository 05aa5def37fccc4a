//! Which keys may join, which are stopped, and what becomes of those that are let in again.

use legation_api::{
    delegates::{AllowDelegate, Delegate, DelegatesQuery, StopDelegate},
    revoke::RevokeToken,
    tokens::Token,
};
use legation_manager::enrolment::{COME_AGAIN, PENDING_KEPT, PENDING_MAX};
use legation_model::{
    delegate::DelegateStatus,
    ids::{BootId, DelegateId},
    task::TaskState,
    token::Enrolment,
};
use legation_testkit::{Engine, Inside, Puppet, eventually, inside::Attempted, world::Issued};
use legation_wire::{GoodbyeReason, message::Goodbye};
use sqlx::{Executor as _, Row as _};

super::on_both!(
    a_key_waits_until_a_person_lets_it_in_or_refuses_it,
    those_that_wait_are_bounded_and_forgotten,
    a_closed_token_takes_known_keys_only,
    an_opened_token_asks_nobody_any_more,
    a_stopped_delegate_is_out_until_it_is_allowed,
    a_stop_and_a_connection_at_the_same_moment_end_without_a_session,
    an_allow_and_a_connection_at_the_same_moment_end_with_one,
    an_approval_and_connections_at_the_same_moment_end_with_one_session,
    who_was_approved_and_has_not_come_holds_nothing,
    two_processes_with_one_key_are_told_apart_and_let_in_again,
    an_ephemeral_delegate_is_forgotten_when_its_lease_has_ended,
);

const HOUR: i64 = 60 * 60 * 1000;
/// Rounds of a race: enough to meet both outcomes.
const ROUNDS: usize = 12;

fn goodbye(attempted: Attempted) -> Goodbye {
    match attempted {
        Attempted::Goodbye(goodbye) => goodbye,
        other => panic!("not refused: {other:?}"),
    }
}

async fn token(inside: &Inside, enrolment: Enrolment) -> Issued {
    inside.token_with(enrolment.as_str(), |token| token.enrolment = enrolment).await
}

async fn of_status(inside: &Inside, status: DelegateStatus) -> Vec<Delegate> {
    let query = DelegatesQuery { status: Some(status), limit: Some(1000), ..DelegatesQuery::default() };
    inside.client.delegates(&query).await.expect("delegates").items
}

async fn allow(inside: &Inside, id: DelegateId) -> Delegate {
    inside.client.allow_delegate(id, &AllowDelegate::default()).await.expect("allowed")
}

async fn stop(inside: &Inside, id: DelegateId, reason: &str) -> legation_api::delegates::StoppedDelegate {
    let reason = reason.parse().expect("a text");
    inside.client.stop_delegate(id, &StopDelegate { reason }).await.expect("stopped")
}

async fn recorded(inside: &Inside, action: &'static str) -> i64 {
    let count = format!("SELECT COUNT(*) FROM audit WHERE action = '{action}'");
    let row = super::beside(inside).await.fetch_one(sqlx::AssertSqlSafe(count)).await.expect("a row");
    row.get::<i64, _>(0)
}

async fn a_key_waits_until_a_person_lets_it_in_or_refuses_it(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = token(&inside, Enrolment::Approval).await;
    let shown: Token = inside.client.token(token.id).await.expect("a token");
    assert_eq!((shown.enrolment, shown.ephemeral), (Enrolment::Approval, false));
    let (mut good, mut bad) = (inside.puppet("good", &token), inside.puppet("bad", &token));
    for puppet in [&mut good, &mut bad] {
        let told = goodbye(puppet.connect().await);
        assert_eq!((told.reason, told.retry_after), (GoodbyeReason::AwaitingApproval, Some(COME_AGAIN)));
        assert!(told.text.contains("legation delegate approve dlg_"), "{}", told.text);
    }
    inside.sessions(&token, 0).await;
    let waiting = of_status(&inside, DelegateStatus::Pending).await;
    let names: Vec<_> = waiting.iter().map(|delegate| delegate.name.as_str()).collect();
    assert_eq!(names, ["good", "bad"]);
    // It comes again and again, with a new start too, and waits in the same place.
    good.reboot();
    assert_eq!(goodbye(good.connect().await).reason, GoodbyeReason::AwaitingApproval);
    assert_eq!(of_status(&inside, DelegateStatus::Pending).await.len(), 2);
    // Nobody who waits holds a place or a lease.
    assert_eq!(inside.client.preview_revoke(token.id).await.expect("a preview").delegates, []);

    let dry = inside.client.preview_allow_delegate(waiting[0].id).await.expect("a preview");
    assert_eq!(dry.status, DelegateStatus::Pending);
    assert_eq!(goodbye(good.connect().await).reason, GoodbyeReason::AwaitingApproval, "a preview lets nobody in");
    let allowed = allow(&inside, waiting[0].id).await;
    assert_eq!((allowed.status, allowed.status_by.is_some()), (DelegateStatus::Allowed, true));
    assert_eq!(good.join().await.delegate, waiting[0].id);
    stop(&inside, waiting[1].id, "not ours").await;
    let told = goodbye(bad.connect().await);
    assert_eq!(told.reason, GoodbyeReason::DelegateStopped);
    assert!(told.text.contains("not ours"), "{}", told.text);
    assert_eq!((recorded(&inside, "delegate.wait").await, recorded(&inside, "delegate.approve").await), (2, 1));
    assert_eq!((recorded(&inside, "delegate.refuse").await, recorded(&inside, "delegate.join").await), (1, 0));
    assert!(inside.client.metrics().await.expect("metrics").contains("legation_delegates_not_enrolled_total 4"));
}

async fn those_that_wait_are_bounded_and_forgotten(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = token(&inside, Enrolment::Approval).await;
    // As many at once as share a transaction.
    let mut crowd: Vec<Puppet> =
        (0..PENDING_MAX + 3).map(|number| inside.puppet(&format!("one{number}"), &token)).collect();
    let told = futures_util::future::join_all(crowd.iter_mut().map(Puppet::connect)).await;
    let full = told.into_iter().map(goodbye).filter(|goodbye| goodbye.text.contains("as many")).count();
    assert_eq!(full, 3);
    assert_eq!(of_status(&inside, DelegateStatus::Pending).await.len(), PENDING_MAX as usize);
    inside.clock.advance(PENDING_KEPT + HOUR);
    inside.restart().await;
    eventually("they are forgotten", async || {
        of_status(&inside, DelegateStatus::Pending).await.is_empty().then_some(())
    })
    .await;
    let mut late = inside.puppet("late", &token);
    assert!(goodbye(late.connect().await).text.contains("approve"), "there is room again");
}

async fn a_closed_token_takes_known_keys_only(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (open, closed) = (token(&inside, Enrolment::Open).await, token(&inside, Enrolment::Closed).await);
    let mut stranger = inside.puppet("stranger", &closed);
    let told = goodbye(stranger.connect().await);
    assert_eq!(told.reason, GoodbyeReason::AwaitingApproval, "a reason that every delegate knows, and retries");
    assert!(told.text.contains("closed"), "{}", told.text);
    assert!(inside.client.delegates(&DelegatesQuery::default()).await.expect("delegates").items.is_empty());
    let mut known = inside.puppet("known", &open);
    let id = known.join().await.delegate;
    known.switch(&closed);
    assert_eq!(known.join().await.delegate, id, "its key is known in the scope");
    known.reboot();
    assert_eq!(known.join().await.delegate, id, "with a new start too");
    eventually("the refusal is recorded", async || {
        let refused = "SELECT COUNT(*) FROM audit WHERE action = 'delegate.join' AND outcome = 'refused'";
        let row = super::beside(&inside).await.fetch_one(refused).await.expect("a row");
        (row.get::<i64, _>(0) == 1).then_some(())
    })
    .await;
    assert!(inside.client.metrics().await.expect("metrics").contains("legation_delegates_not_enrolled_total 1"));
}

async fn an_opened_token_asks_nobody_any_more(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (asks, open) = (token(&inside, Enrolment::Approval).await, token(&inside, Enrolment::Open).await);
    let mut puppet = inside.puppet("one", &asks);
    goodbye(puppet.connect().await);
    let waiting = of_status(&inside, DelegateStatus::Pending).await;
    puppet.switch(&open);
    assert_eq!(puppet.join().await.delegate, waiting[0].id);
    assert_eq!(inside.client.delegate(waiting[0].id).await.expect("a delegate").status, DelegateStatus::Allowed);
    puppet.switch(&asks);
    puppet.join().await;
}

async fn a_stopped_delegate_is_out_until_it_is_allowed(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, _, task) = super::working(&inside, "one", &token).await;
    let id = inside.manager.sessions.of_token(token.id)[0].delegate;
    let mut other = inside.puppet("other", &token);
    other.join().await;

    let preview = inside.client.preview_stop_delegate(id).await.expect("a preview");
    assert_eq!((preview.attempts_lost, preview.delegate.status), (1, DelegateStatus::Allowed));
    assert!(preview.could_come_back(), "enrolment is open");
    assert_eq!(inside.manager.sessions.of_token(token.id).iter().filter(|s| s.stopped().is_none()).count(), 2);
    let stopped = stop(&inside, id, "moves out").await;
    assert_eq!((stopped.attempts_lost, stopped.delegate.status), (1, DelegateStatus::Stopped));
    assert!(!stopped.delegate.connected, "its session is closed when the call returns");
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Lost);
    let told = puppet.goodbye().await;
    assert_eq!(told.reason, GoodbyeReason::DelegateStopped);
    assert!(told.text.contains("moves out"), "{}", told.text);
    inside.sessions(&token, 1).await;
    assert_eq!(stop(&inside, id, "again").await.delegate.status_reason.as_deref(), Some("moves out"), "no second time");
    puppet.reboot();
    assert_eq!(goodbye(puppet.connect().await).reason, GoodbyeReason::DelegateStopped);
    inside.restart().await;
    for puppet in [&mut puppet, &mut other] {
        puppet.redirect(&inside.url);
    }
    assert_eq!(goodbye(puppet.connect().await).reason, GoodbyeReason::DelegateStopped, "a restart remembers it");
    other.join().await;

    let allowed = allow(&inside, id).await;
    assert_eq!(allowed.status, DelegateStatus::Allowed);
    assert_eq!(allow(&inside, id).await, allowed, "no second time");
    assert_eq!(puppet.join().await.delegate, id);
    super::submit(&inside, "one").await;
    puppet.message().await;
    assert_eq!((recorded(&inside, "delegate.stop").await, recorded(&inside, "delegate.allow").await), (1, 1));
}

/// The connection is decided in the transaction before the stop's, and is on its way to be registered when that has its
/// consequence.
async fn a_stop_and_a_connection_at_the_same_moment_end_without_a_session(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    let id = puppet.join().await.delegate;
    for _ in 0..ROUNDS {
        puppet.cut();
        inside.sessions(&token, 0).await;
        let (release, running) = super::hold_writer(&inside);
        running.await.expect("the writer is held");
        let connecting = tokio::spawn(async move {
            let attempted = puppet.connect().await;
            (puppet, attempted)
        });
        let client = inside.client.clone();
        let stopping = tokio::spawn(async move { client.stop_delegate(id, &StopDelegate::default()).await });
        eventually("both wait for the writer", async || (inside.manager.store.waiting() >= 2).then_some(())).await;
        release.send(()).expect("the writer waits");
        stopping.await.expect("no panic").expect("stopped");
        let (back, attempted) = connecting.await.expect("no panic");
        puppet = back;
        match attempted {
            Attempted::Welcome(_) => assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::DelegateStopped),
            other => assert_eq!(goodbye(other).reason, GoodbyeReason::DelegateStopped),
        }
        inside.sessions(&token, 0).await;
        allow(&inside, id).await;
        puppet.join().await;
    }
}

async fn an_allow_and_a_connection_at_the_same_moment_end_with_one(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    let id = puppet.join().await.delegate;
    // So that nothing else waits for the writer below.
    let key = inside.client.whoami().await.expect("itself").key.expect("a key");
    let used = async || inside.client.api_key(key).await.expect("a key").last_used_at;
    eventually("the use of the key is noted", used).await;
    for _ in 0..ROUNDS {
        stop(&inside, id, "").await;
        let (release, running) = super::hold_writer(&inside);
        running.await.expect("the writer is held");
        let client = inside.client.clone();
        let allowing = tokio::spawn(async move { client.allow_delegate(id, &AllowDelegate::default()).await });
        eventually("the allow waits for the writer", async || (inside.manager.store.waiting() >= 1).then_some(()))
            .await;
        let connecting = tokio::spawn(async move {
            let attempted = puppet.connect().await;
            (puppet, attempted)
        });
        eventually("both wait for the writer", async || (inside.manager.store.waiting() >= 2).then_some(())).await;
        release.send(()).expect("the writer waits");
        allowing.await.expect("no panic").expect("allowed");
        let (back, mut attempted) = connecting.await.expect("no panic");
        puppet = back;
        if let Attempted::Goodbye(goodbye) = &attempted {
            // The Manager's own writes wait too, so that the connection may have been decided first.
            assert_eq!(goodbye.reason, GoodbyeReason::DelegateStopped);
            attempted = puppet.connect().await;
        }
        // Decided after the allow, it is in and stays in, whatever was remembered of the stop.
        assert!(matches!(attempted, Attempted::Welcome(_)), "{attempted:?}");
        let session = inside.manager.sessions.newest(id).expect("a session");
        assert!(session.stopped().is_none());
    }
}

async fn an_approval_and_connections_at_the_same_moment_end_with_one_session(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = token(&inside, Enrolment::Approval).await;
    for round in 0..ROUNDS {
        let mut puppet = inside.puppet(&format!("one{round}"), &token);
        goodbye(puppet.connect().await);
        let id = of_status(&inside, DelegateStatus::Pending).await[0].id;
        let client = inside.client.clone();
        let allowing = tokio::spawn(async move { client.allow_delegate(id, &AllowDelegate::default()).await });
        let mut attempted = puppet.connect().await;
        allowing.await.expect("no panic").expect("allowed");
        if let Attempted::Goodbye(goodbye) = &attempted {
            assert_eq!(goodbye.reason, GoodbyeReason::AwaitingApproval);
            attempted = puppet.connect().await;
        }
        let Attempted::Welcome(welcome) = attempted else { panic!("not let in: {attempted:?}") };
        assert_eq!(welcome.delegate, id);
        assert_eq!(of_status(&inside, DelegateStatus::Pending).await, []);
        inside.sessions(&token, 1).await;
        puppet.cut();
        inside.sessions(&token, 0).await;
    }
}

async fn who_was_approved_and_has_not_come_holds_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside
        .token_with("a", |token| {
            token.enrolment = Enrolment::Approval;
            token.max_delegates = Some(1);
        })
        .await;
    let (mut absent, mut present) = (inside.puppet("absent", &token), inside.puppet("present", &token));
    for puppet in [&mut absent, &mut present] {
        goodbye(puppet.connect().await);
    }
    for waiting in of_status(&inside, DelegateStatus::Pending).await {
        inside.client.allow_delegate(waiting.id, &AllowDelegate::default()).await.expect("approved");
    }
    present.join().await;
    assert_eq!(goodbye(absent.connect().await).reason, GoodbyeReason::MaxDelegates);
    let receipt = inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked");
    assert_eq!(receipt.lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["present"]);
}

async fn two_processes_with_one_key_are_told_apart_and_let_in_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut first = inside.puppet("one", &token);
    let id = first.join().await.delegate;
    let mut copy = first.twin();
    copy.reboot();
    copy.hello.host = "elsewhere".parse().expect("a host");
    copy.hello.version = "9".to_owned();
    copy.join().await;
    assert_eq!(first.goodbye().await.reason, GoodbyeReason::Superseded);
    assert_eq!(goodbye(first.connect().await).reason, GoodbyeReason::Superseded);
    assert_eq!(goodbye(first.connect().await).reason, GoodbyeReason::DelegateStopped);
    assert_eq!(copy.goodbye().await.reason, GoodbyeReason::DelegateStopped);

    let shown = inside.client.delegate(id).await.expect("a delegate");
    let clone = shown.clone.expect("an account of the two");
    assert_eq!(shown.status, DelegateStatus::Quarantined);
    assert_eq!((clone.counted.boot, clone.returned.boot), (copy.hello.boot, first.hello.boot));
    assert_eq!((clone.counted.host.as_str(), clone.returned.host.as_str()), ("elsewhere", "puppet"));
    assert_eq!(clone.differs, ["host", "version"]);
    assert!(clone.advice.contains(&format!("legation token revoke {}", token.id)), "{}", clone.advice);
    assert!(clone.advice.contains(&format!("legation delegate allow {id}")), "{}", clone.advice);
    let row = "SELECT new_values, detail FROM audit WHERE action = 'delegate.quarantine'";
    let row = super::beside(&inside).await.fetch_one(row).await.expect("a record");
    let (after, detail): (String, String) = (row.get(0), row.get(1));
    assert!(after.contains("elsewhere") && after.contains(&first.hello.boot.to_string()), "{after}");
    assert!(detail.contains("two processes use one delegate key"), "{detail}");

    // A person has looked. The first one comes back with the start that it always had, and is no clone for that.
    allow(&inside, id).await;
    assert_eq!(first.join().await.delegate, id);
    assert_eq!(inside.manager.sessions.newest(id).map(|session| session.boot), Some(first.hello.boot));
    // Should the other one live on, it is found out again.
    assert_eq!(goodbye(copy.connect().await).reason, GoodbyeReason::Superseded, "once may be a late connection");
    assert_eq!(goodbye(copy.connect().await).reason, GoodbyeReason::DelegateStopped);
    assert_eq!(first.goodbye().await.reason, GoodbyeReason::DelegateStopped);
    assert_eq!(inside.client.delegate(id).await.expect("a delegate").status, DelegateStatus::Quarantined);
}

async fn an_ephemeral_delegate_is_forgotten_when_its_lease_has_ended(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token_with("brief", |token| token.ephemeral = true).await;
    let lasting = inside.token("lasting").await;
    let (mut gone, mut stays, mut refused) =
        (inside.puppet("gone", &token), inside.puppet("stays", &token), inside.puppet("refused", &token));
    let mut old = inside.puppet("old", &lasting);
    gone.join().await;
    old.join().await;
    let refused_id = refused.join().await.delegate;
    stop(&inside, refused_id, "").await;
    gone.cut();
    old.cut();
    inside.clock.advance(HOUR);
    stays.join().await;
    let names = async || {
        let all = inside.client.delegates(&DelegatesQuery::default()).await.expect("delegates").items;
        all.into_iter().map(|delegate| delegate.name.to_string()).collect::<Vec<_>>()
    };
    eventually("it is forgotten", async || (!names().await.contains(&"gone".to_owned())).then_some(())).await;
    let mut left = names().await;
    left.sort();
    assert_eq!(left, ["old", "refused", "stays"], "the connected one, the stopped one and the lasting one stay");
    gone.hello.boot = BootId([7; 16]);
    gone.join().await;
}
