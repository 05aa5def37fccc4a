//! The ends of sessions, when the wall clock is set.

use legation_api::{Code, client::Client};
use legation_manager::logins::SESSIONS_MAX;
use legation_model::{Millis, login::Login};
use legation_testkit::{Engine, Inside};

use super::{
    passwords::{PASSWORD, log_in, user},
    raw::{key_of, login_of, principal},
    store::code,
};

super::on_both!(
    a_clock_that_is_set_back_lengthens_nothing,
    a_session_from_the_future_is_none,
    sessions_from_the_future_do_not_end_the_next,
);

const MINUTE: Millis = 60_000;

fn client(inside: &Inside, login: &Login) -> Client {
    Client::new(&inside.url, Some(&login.reveal()), None).expect("a client")
}

async fn a_clock_that_is_set_back_lengthens_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[]).await;
    let login = client(&inside, &login_of(&inside, id).await);
    let key = key_of(&inside, id, None, Some(legation_model::Clock::wall(&*inside.clock) + 30 * MINUTE)).await;
    let key = Client::new(&inside.url, Some(&key.reveal()), None).expect("a client");
    inside.clock.jump(-120 * MINUTE);
    login.whoami().await.expect("its time is not over");
    key.whoami().await.expect("its time is not over");
    let new = log_in(&inside, "alice", PASSWORD).await.expect("a session");
    inside.clock.advance(20 * MINUTE);
    new.whoami().await.expect("it was used");
    inside.clock.advance(20 * MINUTE);
    assert_eq!(code(login.whoami().await), Code::Unauthenticated, "nobody used it");
    assert_eq!(code(key.whoami().await), Code::Unauthenticated, "its time came");
    new.whoami().await.expect("it was used");
    inside.clock.advance(31 * MINUTE);
    assert_eq!(code(new.whoami().await), Code::Unauthenticated, "nobody used it");
}

/// As it is when the Manager was started again after the clock was set back.
async fn a_session_from_the_future_is_none(engine: Engine) {
    let inside = Inside::start(engine).await;
    let owner = principal(&inside, &[]).await;
    let almost_now = client(&inside, &at(&inside, owner, MINUTE / 2).await);
    almost_now.whoami().await.expect("clocks drift");
    let ahead = client(&inside, &at(&inside, owner, 120 * MINUTE).await);
    assert_eq!(code(ahead.whoami().await), Code::Unauthenticated);
}

async fn sessions_from_the_future_do_not_end_the_next(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[]).await;
    for _ in 0..SESSIONS_MAX {
        at(&inside, id, 120 * MINUTE).await;
    }
    let session = log_in(&inside, "alice", PASSWORD).await.expect("a session");
    session.whoami().await.expect("it is what was given");
}

/// A session that was begun this far ahead of now.
async fn at(inside: &Inside, owner: legation_model::ids::PrincipalId, ahead: Millis) -> Login {
    let login = login_of(inside, owner).await;
    let now = legation_model::Clock::wall(&*inside.clock);
    let set = format!(
        "UPDATE logins SET created_at = {0}, last_used_at = {0}, expires_at = {0} + 43200000 WHERE id = '{1}'",
        now + ahead,
        login.id
    );
    super::behind(inside, &set).await;
    login
}
