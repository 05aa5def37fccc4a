//! One-time codes: the value of a token goes to one of those who have the code, and who that was is seen.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use legation_api::{
    Code,
    client::{Client, ClientError},
    routes,
    tokens::{CreateToken, IssueToken, IssuedToken, NoValue},
    wraps::{OpenWrap, Unwrapped, WRAP_TTL_MAX, WRAP_TTL_MIN},
};
use legation_manager::{
    config::Settings,
    seal::{Sealer, derive},
};
use legation_model::{
    Millis, Secret,
    audit::{AuditRecord, Outcome},
    ids::WrapId,
    secret::SecretText,
    token::Token,
    wrap::WrapCode,
};
use legation_store::{job, wraps};
use legation_testkit::{Engine, Inside, canary::Canary, world::Issued};
use reqwest::Method;

use super::{
    audit::records,
    raw::{Answer, Raw, answer},
};

super::on_both!(
    a_code_opens_once_and_who_comes_second_is_told_and_seen,
    of_many_who_open_at_once_one_gets_the_value,
    what_the_manager_keeps_opens_nothing,
    what_nobody_opens_in_time_is_lost_and_said,
    the_value_of_a_revoked_token_is_not_handed_out,
    a_code_takes_the_place_of_the_value_in_every_answer,
    who_guesses_learns_nothing_and_is_slowed,
    a_guess_does_not_wait_for_the_one_writer,
    a_clock_in_doubt_opens_and_erases_nothing,
);

const TTL: Millis = 10 * 60 * 1000;

fn request(name: &str) -> CreateToken {
    let mut request = CreateToken::new("default".parse().expect("a scope"), name.parse().expect("a name"));
    request.wrap_ttl_ms = Some(TTL);
    request
}

/// Creates a token whose value is under a code.
async fn wrapped(inside: &Inside, name: &str) -> (IssuedToken, SecretText) {
    let issued = inside.client.create_token(&request(name)).await.expect("a token");
    assert_eq!((issued.value.as_ref(), issued.code), (None, Some(NoValue::Wrapped)));
    let code = issued.wrapped.clone().expect("a code").code;
    (issued, code)
}

/// Somebody without a key.
fn nobody(inside: &Inside) -> Client {
    Client::new(&inside.url, None, None).expect("a client")
}

async fn open(inside: &Inside, code: &SecretText) -> Result<Unwrapped, ClientError> {
    nobody(inside).unwrap(&OpenWrap { code: code.clone() }).await
}

async fn refused(inside: &Inside, code: &SecretText) -> legation_api::Problem {
    match open(inside, code).await {
        Err(ClientError::Problem(problem)) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

async fn of(inside: &Inside, id: WrapId) -> Vec<AuditRecord> {
    records(inside).await.into_iter().filter(|record| record.object == id.to_string()).collect()
}

fn actions(records: &[AuditRecord]) -> Vec<&str> {
    records.iter().map(|record| record.action.as_str()).collect()
}

async fn sealed(inside: &Inside, id: WrapId) -> Option<Vec<u8>> {
    let find = job(move |conn| Box::pin(async move { wraps::get(conn, id).await }));
    inside.manager.store.read(find).await.expect("read").expect("a row").sealed
}

async fn a_code_opens_once_and_who_comes_second_is_told_and_seen(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (issued, code) = wrapped(&inside, "farm").await;
    let wrap = issued.token.wrap.clone().expect("its state");
    assert_eq!((wrap.expires_at, wrap.opened_at), (wrap.created_at + TTL, None));
    assert_eq!(inside.client.token(issued.token.id).await.expect("a token").wrap, Some(wrap.clone()));

    let opened = open(&inside, &code).await.expect("opened");
    assert_eq!((opened.token, opened.name.as_str(), opened.generation), (issued.token.id, "farm", 1));
    let token: Token = opened.value.expose().parse().expect("a token");
    assert_eq!((token.id, token.generation), (issued.token.id, 1));
    inside.puppet("one", &Issued { id: opened.token, value: opened.value.clone() }).join().await;
    assert_eq!(sealed(&inside, wrap.id).await, None, "it is erased");

    let told = refused(&inside, &code).await;
    assert_eq!((told.code, told.status), (Code::AlreadyOpened, 410));
    assert!(told.detail.contains("127.0.0.1"), "{told:?}");
    assert!(told.fix.contains(&format!("legation token revoke {}", issued.token.id)), "{told:?}");
    assert!(!format!("{told:?}").contains(&code.expose()[30..40]));

    let state = inside.client.token(issued.token.id).await.expect("a token").wrap.expect("its state");
    assert_eq!((state.opened_from.as_deref(), state.refused), (Some("127.0.0.1"), 1));
    assert_eq!((state.opened_at, state.opened_at.is_some()), (state.ended_at, true));
    let records = of(&inside, wrap.id).await;
    assert_eq!(actions(&records), ["wrap.create", "wrap.open", "wrap.refuse"]);
    let [made, opened, late] = &records[..] else { panic!("three records") };
    assert!(made.actor.contains("test") && made.after.contains(&issued.token.id.to_string()), "{made:?}");
    for record in [opened, late] {
        assert_eq!((record.actor.as_str(), record.address.as_str()), ("nobody", "127.0.0.1"));
        assert!(!record.request.is_empty() && record.after.contains(&issued.token.id.to_string()), "{record:?}");
    }
    assert_eq!((opened.outcome, late.outcome), (Outcome::Done, Outcome::Refused));
    let metrics = inside.client.metrics().await.expect("metrics");
    assert!(metrics.contains("legation_wraps_opened_total 1") && metrics.contains("legation_wraps_refused_total 1"));

    // Whoever tries for ever fills the row's counter and not the chain.
    for _ in 0..30 {
        assert_eq!(refused(&inside, &code).await.code, Code::AlreadyOpened);
    }
    let state = inside.client.token(issued.token.id).await.expect("a token").wrap.expect("its state");
    assert_eq!((state.refused, of(&inside, wrap.id).await.len()), (31, 18));
}

async fn of_many_who_open_at_once_one_gets_the_value(engine: Engine) {
    let inside = Inside::start(engine).await;
    for round in 0..4 {
        let (issued, code) = wrapped(&inside, &format!("race{round}")).await;
        let (release, held) = super::hold_writer(&inside);
        held.await.expect("the writer is busy");
        let opening = join_all((0..16).map(|_| open(&inside, &code)));
        let (outcomes, ()) = tokio::join!(opening, async move { drop(release) });
        let (opened, late): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(opened.len(), 1, "{opened:?}");
        let codes: BTreeSet<_> = late.into_iter().map(|late| late.expect_err("late").code()).collect();
        assert_eq!(codes, [Some(Code::AlreadyOpened)].into());
        let state = inside.client.token(issued.token.id).await.expect("a token").wrap.expect("its state");
        assert_eq!(state.refused, 15);
    }
}

async fn what_the_manager_keeps_opens_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (issued, code) = wrapped(&inside, "farm").await;
    let code: WrapCode = code.expose().parse().expect("a code");
    let sealed = sealed(&inside, code.id).await.expect("it waits");
    let place = format!("wraps.sealed.{}.{}.1", code.id, issued.token.id);

    // With the database and the key-encryption key one gets this far, and only the code opens the rest.
    let inner = inside.manager.keys.sealer.open(&place, &sealed).expect("the data key fits");
    assert!(inside.manager.keys.sealer.open(&place, &inner).is_err());
    let with = |secret: &Secret<32>| Sealer::new(&derive(secret, "legation one-time code v1")).open(&place, &inner);
    assert!(with(&Secret::new([7; 32])).is_err());
    let value = with(&code.secret).expect("opened");
    let value = std::str::from_utf8(&value).expect("a text");
    assert_eq!(value.parse::<Token>().expect("a token").id, issued.token.id);
    // With the database and the code alone one gets nowhere.
    assert!(Sealer::new(&derive(&code.secret, "legation one-time code v1")).open(&place, &sealed).is_err());

    let of_code = Canary::bytes("the code's secret", code.secret.expose());
    for canary in [Canary::token(value), of_code] {
        assert_eq!(canary.in_bytes(&sealed).or(canary.in_bytes(&inner)), None);
        assert_eq!(canary.in_bytes(format!("{:?}", records(&inside).await).as_bytes()), None);
    }
}

async fn what_nobody_opens_in_time_is_lost_and_said(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (issued, code) = wrapped(&inside, "slow").await;
    let id = issued.wrapped.expect("a code").id;
    inside.clock.advance(TTL - 10_000);
    inside.manager.expire_wraps().await;
    assert!(sealed(&inside, id).await.is_some());
    inside.clock.advance(10_000);
    assert_eq!(refused(&inside, &code).await.code, Code::CodeExpired, "at its millisecond, sweep or no sweep");
    inside.manager.expire_wraps().await;
    assert_eq!(sealed(&inside, id).await, None);
    assert_eq!(refused(&inside, &code).await.code, Code::CodeExpired);
    let state = inside.client.token(issued.token.id).await.expect("a token").wrap.expect("its state");
    assert!(state.ended_at.is_some() && state.opened_at.is_none() && state.refused == 2, "{state:?}");
    let records = of(&inside, id).await;
    assert_eq!(actions(&records), ["wrap.create", "wrap.refuse", "wrap.expire", "wrap.refuse"]);
    assert_eq!(records[2].actor, "system");
    inside.manager.expire_wraps().await;
    assert_eq!(of(&inside, id).await.len(), 4, "it is said once");
    assert!(inside.client.metrics().await.expect("metrics").contains("legation_wraps_expired_total 1"));
}

async fn the_value_of_a_revoked_token_is_not_handed_out(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (issued, code) = wrapped(&inside, "gone").await;
    let id = issued.wrapped.expect("a code").id;
    inside.client.revoke_token(issued.token.id, &Default::default()).await.expect("revoked");
    assert_eq!(sealed(&inside, id).await, None, "it is erased with the end of the token");
    assert_eq!(refused(&inside, &code).await.code, Code::TokenEnded);
    inside.client.delete_token(issued.token.id).await.expect("deleted");
    assert_eq!(refused(&inside, &code).await.code, Code::TokenEnded);
    assert_eq!(actions(&of(&inside, id).await), ["wrap.create", "wrap.refuse", "wrap.refuse"]);
    // As long as its delegates are told to stop a late holder is told as well, and then it is forgotten.
    inside.clock.advance(91 * 24 * 60 * 60 * 1000);
    inside.manager.forget_old().await;
    assert_eq!(refused(&inside, &code).await.code, Code::NotFound);
}

async fn a_code_takes_the_place_of_the_value_in_every_answer(engine: Engine) {
    let inside = Inside::start(engine).await;
    // Issued later.
    let unissued = CreateToken { issue: false, wrap_ttl_ms: None, ..request("later") };
    let token = inside.client.create_token(&unissued).await.expect("created").token.id;
    let issued = inside.client.issue_token(token, &IssueToken { wrap_ttl_ms: Some(TTL) }).await.expect("issued");
    assert_eq!((issued.value, issued.code), (None, Some(NoValue::Wrapped)));
    let code = issued.wrapped.expect("a code").code;
    assert_eq!(open(&inside, &code).await.expect("opened").token, token);

    // Said again.
    let client = inside.client.idempotent("once");
    let first = client.create_token(&request("once")).await.expect("created");
    let again = client.create_token(&request("once")).await.expect("the same");
    assert_eq!((again.token.id, again.code), (first.token.id, Some(NoValue::ValueAlreadyShown)));
    assert_eq!((again.value, again.wrapped), (None, None));
    assert_eq!(open(&inside, &first.wrapped.expect("a code").code).await.expect("opened").token, first.token.id);

    // Out of bounds.
    let raw = Raw::of(&inside);
    let ask = async |fields: &str| {
        raw.post(routes::TOKENS, format!(r#"{{"scope":"default","name":"bound",{fields}}}"#)).await
    };
    for ttl in [WRAP_TTL_MIN - 1, WRAP_TTL_MAX + 1, 0, -1, Millis::MAX] {
        let told = ask(&format!(r#""wrap_ttl_ms":{ttl}"#)).await.problem();
        assert!(told.code == Code::InvalidRequest && told.detail.contains("wrap_ttl_ms"), "{ttl}: {told:?}");
    }
    let told = ask(r#""issue":false,"wrap_ttl_ms":60000"#).await.problem();
    assert!(told.detail.contains("not issued"), "{told:?}");
    for ttl in [WRAP_TTL_MIN, WRAP_TTL_MAX] {
        let name = format!("bound{ttl}");
        inside.client.create_token(&CreateToken { wrap_ttl_ms: Some(ttl), ..request(&name) }).await.expect("created");
    }
}

async fn try_from(raw: &Raw, address: &str, code: &str) -> Answer {
    let body = format!(r#"{{"code":"{code}"}}"#);
    let request = raw.bare(Method::POST, routes::UNWRAP).header("x-forwarded-for", address);
    answer(request.header("content-type", "application/json").body(body)).await
}

async fn who_guesses_learns_nothing_and_is_slowed(engine: Engine) {
    let trusted = Some(vec!["127.0.0.1".to_owned()]);
    let inside = Inside::with(engine, Settings { trusted_proxies: trusted, ..Settings::default() }).await;
    let (issued, code) = wrapped(&inside, "farm").await;
    let raw = Raw::of(&inside);
    let id = issued.wrapped.expect("a code").id;
    let guess = |id| WrapCode { id, secret: Secret::new([9; 32]) }.reveal();
    let (right, wrong) = (guess(id), guess(WrapId([9; 16])));
    let told = try_from(&raw, "192.0.2.1", right.expose()).await;
    let never = try_from(&raw, "192.0.2.1", wrong.expose()).await;
    assert_eq!((told.code(), &told.body), (Code::NotFound, &never.body), "{}", told.text());
    assert_eq!(try_from(&raw, "192.0.2.1", &code.expose()[1..]).await.code(), Code::InvalidRequest);
    // After it was opened a guess still learns nothing.
    let opened = try_from(&raw, "192.0.2.7", code.expose()).await;
    assert_eq!(opened.status, 200, "{}", opened.text());
    assert_eq!(try_from(&raw, "192.0.2.1", right.expose()).await.body, never.body);

    let mut slowed = None;
    for _ in 0..200 {
        let answer = try_from(&raw, "192.0.2.1", wrong.expose()).await;
        if answer.status == 429 {
            slowed = Some(answer);
            break;
        }
    }
    let slowed = slowed.expect("slowed in the end");
    assert_eq!((slowed.code(), slowed.retry.as_str()), (Code::TooManyAttempts, "2"));
    assert_eq!(try_from(&raw, "192.0.2.8", wrong.expose()).await.code(), Code::NotFound, "others do not notice");
    // It is in the chain, and does not fill it.
    let refusals = records(&inside).await.into_iter().filter(|record| record.action == "wrap.refuse").count();
    assert!((1..=30).contains(&refusals), "{refusals}");
}

async fn a_guess_does_not_wait_for_the_one_writer(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (issued, code) = wrapped(&inside, "farm").await;
    let id = issued.wrapped.expect("a code").id;
    let (release, held) = super::hold_writer(&inside);
    held.await.expect("the writer is busy");
    for id in [id, WrapId([9; 16])] {
        let guess = WrapCode { id, secret: Secret::new([9; 32]) }.reveal();
        assert_eq!(refused(&inside, &guess).await.code, Code::NotFound);
    }
    release.send(()).expect("the writer was busy all the while");
    assert_eq!(open(&inside, &code).await.expect("opened").token, issued.token.id);
}

async fn a_clock_in_doubt_opens_and_erases_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (issued, code) = wrapped(&inside, "farm").await;
    inside.clock.jump(2 * TTL);
    inside.manager.expire_wraps().await;
    assert_eq!(refused(&inside, &code).await.code, Code::ClockInDoubt);
    let told = inside.client.create_token(&request("other")).await.expect_err("refused");
    assert_eq!(told.code(), Some(Code::ClockInDoubt));
    inside.clock.jump(-2 * TTL);
    assert_eq!(open(&inside, &code).await.expect("opened").token, issued.token.id);
}
