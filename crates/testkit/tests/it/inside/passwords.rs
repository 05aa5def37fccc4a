//! Passwords: who may set whose, what they must be, and that the old one opens nothing any more.

use legation_api::{
    Code, Problem,
    audit::AuditQuery,
    client::{Client, ClientError},
    logins::{LogIn, Reauthenticate},
    passwords::{ChangePassword, SetPassword},
    principals::CreatePrincipal,
    routes,
};
use legation_manager::config::Settings;
use legation_model::{access::PrincipalKind, ids::PrincipalId, login::Login, secret::SecretText};
use legation_store::{job, passwords};
use legation_testkit::{Engine, Inside, eventually};
use reqwest::Method;
use tokio::sync::oneshot;

use super::{
    grants::{account, grant},
    raw::{Raw, answer, key_of, login_of, principal},
    store::code,
};

super::on_both!(
    whatever_is_wrong_with_a_login_the_answer_is_the_same,
    an_unknown_name_costs_as_much_as_a_known_one,
    who_guesses_is_slowed,
    strangers_do_not_keep_the_owner_of_a_session_from_showing_who_they_are,
    strangers_do_not_hide_each_others_refused_logins,
    a_login_whose_password_changes_meanwhile_is_refused,
    nobody_sets_the_password_of_one_who_holds_more,
    a_password_must_be_long_and_not_the_name,
    a_changed_password_ends_the_other_sessions,
);

pub(super) const PASSWORD: &str = "a sentence about horses";

pub(super) fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

/// A user with this password and these roles.
pub(super) async fn user(inside: &Inside, name: &str, grants: &[(&str, Option<&str>)]) -> PrincipalId {
    let request = CreatePrincipal { kind: PrincipalKind::User, ..account(name, None) };
    let id = inside.client.create_principal(&request).await.expect("a user").id;
    for (role, scope) in grants {
        inside.client.create_grant(&grant(id, role, *scope)).await.expect("a grant");
    }
    inside.client.set_password(id, &SetPassword { password: secret(PASSWORD) }).await.expect("a password");
    id
}

fn stranger(inside: &Inside) -> Client {
    Client::new(&inside.url, None, None).expect("a client")
}

/// Logs in; a client with the session.
pub(super) async fn log_in(inside: &Inside, name: &str, password: &str) -> Result<Client, ClientError> {
    let request = LogIn { name: name.parse().expect("a name"), password: secret(password), cookie: false };
    let value = stranger(inside).log_in(&request).await?.value;
    Ok(Client::new(&inside.url, value.as_ref(), None).expect("a client"))
}

fn problem<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Problem {
    match outcome {
        Err(ClientError::Problem(problem)) => problem,
        other => panic!("no problem but {other:?}"),
    }
}

async fn whatever_is_wrong_with_a_login_the_answer_is_the_same(engine: Engine) {
    let inside = Inside::start(engine).await;
    user(&inside, "alice", &[]).await;
    let disabled = user(&inside, "bob", &[]).await;
    inside.client.disable_principal(disabled).await.expect("disabled");
    let without = CreatePrincipal { kind: PrincipalKind::User, ..account("carol", None) };
    inside.client.create_principal(&without).await.expect("a user");
    inside.client.create_principal(&account("robot", None)).await.expect("a service account");
    let told = problem(log_in(&inside, "alice", "another sentence").await);
    assert_eq!((told.code, told.status), (Code::LoginRefused, 401));
    for (name, password) in [("mallory", PASSWORD), ("bob", PASSWORD), ("carol", PASSWORD), ("robot", PASSWORD)] {
        assert_eq!(problem(log_in(&inside, name, password).await), told, "{name}");
    }
    assert_eq!(problem(log_in(&inside, "alice", &"x".repeat(10_000)).await), told);
    log_in(&inside, "ALICE", PASSWORD).await.expect("a name in capital letters is the same name");
    // What was tried is recorded: whom it concerned where there is one, and no name that nobody has.
    let query = AuditQuery { action: Some("login.refuse".to_owned()), ..AuditQuery::default() };
    let records = eventually("the refusals are recorded", async || {
        Some(inside.client.audit(&query).await.expect("records").items).filter(|records| records.len() >= 6)
    })
    .await;
    assert!(records.iter().any(|record| record.object == disabled.to_string() && record.address.is_some()));
    assert!(!format!("{records:?}").contains("mallory"), "{records:?}");
    assert!(records.iter().any(|record| record.object.is_empty()), "{records:?}");
    assert!(inside.manager.metrics.logins_refused.get() >= 6);
}

async fn an_unknown_name_costs_as_much_as_a_known_one(engine: Engine) {
    let inside = Inside::start(engine).await;
    user(&inside, "alice", &[]).await;
    // Also longer than any password, where nobody needs to know whether it is the one.
    for password in ["another sentence", &"x".repeat(1_025)] {
        let hashes = async |name: &str| {
            let before = inside.manager.metrics.passwords_hashed.get();
            assert_eq!(code(log_in(&inside, name, password).await), Code::LoginRefused);
            inside.manager.metrics.passwords_hashed.get() - before
        };
        assert_eq!((hashes("alice").await, hashes("nobody").await), (1, 1), "{} bytes", password.len());
    }
}

async fn who_guesses_is_slowed(engine: Engine) {
    let inside = Inside::start(engine).await;
    user(&inside, "alice", &[]).await;
    user(&inside, "bob", &[]).await;
    let session = log_in(&inside, "alice", PASSWORD).await.expect("the first of ten");
    for _ in 1..10 {
        assert_eq!(code(log_in(&inside, "alice", "another sentence").await), Code::LoginRefused);
    }
    let told = problem(log_in(&inside, "alice", PASSWORD).await);
    assert_eq!((told.code, told.status), (Code::TooManyAttempts, 429));
    assert!(told.retry_after.is_some_and(|seconds| (1..=10).contains(&seconds)), "{told:?}");
    log_in(&inside, "bob", PASSWORD).await.expect("another name");
    // Who has stolen a session guesses no faster.
    let wrong = ChangePassword { old_password: secret("another sentence"), password: secret("yet another sentence") };
    for _ in 0..10 {
        assert_eq!(code(session.change_password(&wrong).await), Code::LoginRefused);
    }
    assert_eq!(code(session.change_password(&wrong).await), Code::TooManyAttempts);
    let right = Reauthenticate { password: secret(PASSWORD) };
    assert_eq!(code(session.reauthenticate(&right).await), Code::TooManyAttempts);
    session.whoami().await.expect("a session goes on");
    inside.clock.advance(10_000);
    log_in(&inside, "alice", PASSWORD).await.expect("after a while");
}

async fn strangers_do_not_keep_the_owner_of_a_session_from_showing_who_they_are(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[]).await;
    let (session, stolen) = (login_of(&inside, id).await, login_of(&inside, id).await);
    let of = |login: &Login| Client::new(&inside.url, Some(&login.reveal()), None).expect("a client");
    let (session, stolen) = (of(&session), of(&stolen));
    let wrong = Reauthenticate { password: secret("another sentence") };
    for _ in 0..10 {
        assert_eq!(code(log_in(&inside, "alice", "another sentence").await), Code::LoginRefused);
        assert_eq!(code(stolen.reauthenticate(&wrong).await), Code::LoginRefused);
    }
    assert_eq!(code(log_in(&inside, "alice", PASSWORD).await), Code::TooManyAttempts);
    assert_eq!(code(stolen.reauthenticate(&wrong).await), Code::TooManyAttempts);
    session.reauthenticate(&Reauthenticate { password: secret(PASSWORD) }).await.expect("shown");
    let change = ChangePassword { old_password: secret(PASSWORD), password: secret("a new sentence") };
    session.change_password(&change).await.expect("changed");
}

/// Each place from which somebody comes without a key has its own share of the records of a minute.
async fn strangers_do_not_hide_each_others_refused_logins(engine: Engine) {
    let trusted_proxies = Some(vec!["127.0.0.1".to_owned()]);
    let inside = Inside::with(engine, Settings { trusted_proxies, ..Settings::default() }).await;
    let id = user(&inside, "alice", &[]).await;
    let raw = Raw::of(&inside);
    let guess = async |from: &str, name: &str| {
        let body = serde_json::json!({ "name": name, "password": "another sentence" }).to_string();
        let post = raw.bare(Method::POST, routes::LOGIN).header("content-type", "application/json");
        let told = answer(post.header("x-forwarded-for", from).body(body)).await;
        assert_eq!(told.code(), Code::LoginRefused);
    };
    for number in 0..10 {
        guess("198.51.100.7", &format!("nobody{number}")).await;
    }
    guess("203.0.113.9", "alice").await;
    let query = AuditQuery { action: Some("login.refuse".to_owned()), ..AuditQuery::default() };
    let guessed = eventually("the guess at a user's password is recorded", async || {
        let records = inside.client.audit(&query).await.expect("records").items;
        records.into_iter().find(|record| record.object == id.to_string())
    })
    .await;
    assert_eq!((guessed.actor.as_str(), guessed.address.as_deref()), ("nobody", Some("203.0.113.9")));
}

async fn a_login_whose_password_changes_meanwhile_is_refused(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[]).await;
    let (release, held) = oneshot::channel::<()>();
    let (begin, running) = oneshot::channel::<()>();
    let change = job(move |tx| {
        Box::pin(async move {
            let _ = begin.send(());
            let _ = held.await;
            passwords::set(tx, id, b"another one", 0, "test").await
        })
    });
    let store = inside.manager.store.clone();
    let changing = tokio::spawn(async move { store.write(change).await });
    running.await.expect("begun");
    let url = inside.url.clone();
    let logging_in = tokio::spawn(async move {
        let request = LogIn { name: "alice".parse().expect("a name"), password: secret(PASSWORD), cookie: false };
        Client::new(&url, None, None).expect("a client").log_in(&request).await
    });
    eventually("the login waits to be written", async || (inside.manager.store.waiting() >= 1).then_some(())).await;
    release.send(()).expect("waiting");
    changing.await.expect("no panic").expect("written");
    assert_eq!(code(logging_in.await.expect("no panic")), Code::LoginRefused);
}

async fn nobody_sets_the_password_of_one_who_holds_more(engine: Engine) {
    let inside = Inside::start(engine).await;
    let accessor = super::grants::role("accessor", &["core_access_view", "core_access_edit"]);
    inside.client.create_role(&accessor).await.expect("a role");
    let setter = principal(&inside, &[("accessor", None)]).await;
    let setter = Client::new(&inside.url, Some(&key_of(&inside, setter, None, None).await.reveal()), None);
    let setter = setter.expect("a client");
    let (weak, strong) = (user(&inside, "weak", &[]).await, user(&inside, "strong", &[("viewer", None)]).await);
    let new = SetPassword { password: secret("another sentence") };
    setter.set_password(weak, &new).await.expect("who holds nothing");
    assert_eq!(code(setter.set_password(strong, &new).await), Code::Forbidden);
    log_in(&inside, "strong", PASSWORD).await.expect("it is what it was");
    assert_eq!(code(setter.set_password(PrincipalId([9; 16]), &new).await), Code::NotFound);
    let robot = inside.client.create_principal(&account("robot", None)).await.expect("made").id;
    assert_eq!(code(setter.set_password(robot, &new).await), Code::NoPassword);
    assert_eq!(code(setter.set_password(PrincipalId([0; 16]), &new).await), Code::BuiltIn);
}

async fn a_password_must_be_long_and_not_the_name(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alexandra-maria", &[]).await;
    let session = log_in(&inside, "alexandra-maria", PASSWORD).await.expect("a session");
    for bad in ["", "eleven char", &"x".repeat(257), "Alexandra-Maria"] {
        let set = problem(inside.client.set_password(id, &SetPassword { password: secret(bad) }).await);
        let change = ChangePassword { old_password: secret(PASSWORD), password: secret(bad) };
        let change = problem(session.change_password(&change).await);
        for told in [set, change] {
            assert_eq!(told.code, Code::InvalidRequest, "{bad}");
            assert!(bad.is_empty() || !format!("{told:?}").contains(bad), "a refusal repeats the password");
        }
    }
    for good in ["twelve chars", &"é".repeat(256)] {
        inside.client.set_password(id, &SetPassword { password: secret(good) }).await.expect("long enough");
        log_in(&inside, "alexandra-maria", good).await.expect("it is the password");
    }
}

async fn a_changed_password_ends_the_other_sessions(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[]).await;
    let key = key_of(&inside, id, None, None).await.reveal();
    let key = Client::new(&inside.url, Some(&key), None).expect("a client");
    let own = log_in(&inside, "alice", PASSWORD).await.expect("a session");
    let other = log_in(&inside, "alice", PASSWORD).await.expect("another session");
    let wrong = ChangePassword { old_password: secret("another sentence"), password: secret("a new sentence") };
    assert_eq!(code(own.change_password(&wrong).await), Code::LoginRefused);
    other.whoami().await.expect("nothing has happened");
    let change = ChangePassword { old_password: secret(PASSWORD), password: secret("a new sentence") };
    assert_eq!(own.change_password(&change).await.expect("changed").ended_sessions, 1);
    assert_eq!(code(other.whoami().await), Code::Unauthenticated);
    own.whoami().await.expect("the one that asked goes on");
    key.whoami().await.expect("a key is no session");
    assert_eq!(code(log_in(&inside, "alice", PASSWORD).await), Code::LoginRefused);
    log_in(&inside, "alice", "a new sentence").await.expect("the new one");
    // Set by somebody else it ends them all.
    let set = SetPassword { password: secret("yet another sentence") };
    assert_eq!(inside.client.set_password(id, &set).await.expect("set").ended_sessions, 2);
    assert_eq!(code(own.whoami().await), Code::Unauthenticated);
    // Somebody who never had one cannot change it.
    let without = principal(&inside, &[]).await;
    let without = Client::new(&inside.url, Some(&login_of(&inside, without).await.reveal()), None).expect("a client");
    assert_eq!(code(without.change_password(&change).await), Code::NoPassword);
}
