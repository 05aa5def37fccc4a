//! Passwords: who may set whose, what they must be, and that the old one opens nothing any more.

use legation_api::{
    Code, Problem,
    audit::AuditQuery,
    client::{Client, ClientError},
    logins::LogIn,
    passwords::{ChangePassword, SetPassword},
    principals::CreatePrincipal,
};
use legation_model::{access::PrincipalKind, ids::PrincipalId, secret::SecretText};
use legation_store::{job, passwords};
use legation_testkit::{Engine, Inside, eventually};
use tokio::sync::oneshot;

use super::{
    grants::{account, grant},
    raw::{key_of, login_of, principal},
    store::code,
};

super::on_both!(
    whatever_is_wrong_with_a_login_the_answer_is_the_same,
    an_unknown_name_costs_as_much_as_a_known_one,
    who_guesses_is_slowed,
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
    for (name, password) in [("nobody", PASSWORD), ("bob", PASSWORD), ("carol", PASSWORD), ("robot", PASSWORD)] {
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
    assert!(!format!("{records:?}").contains("nobody\""), "{records:?}");
    assert!(records.iter().any(|record| record.object.is_empty()), "{records:?}");
    assert!(inside.manager.metrics.logins_refused.get() >= 6);
}

async fn an_unknown_name_costs_as_much_as_a_known_one(engine: Engine) {
    let inside = Inside::start(engine).await;
    user(&inside, "alice", &[]).await;
    let hashes = async |name: &str| {
        let before = inside.manager.metrics.passwords_hashed.get();
        assert_eq!(code(log_in(&inside, name, "another sentence").await), Code::LoginRefused);
        inside.manager.metrics.passwords_hashed.get() - before
    };
    assert_eq!((hashes("alice").await, hashes("nobody").await), (1, 1));
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
    // Nor by the ways of one who has a session.
    let old = ChangePassword { old_password: secret("another sentence"), password: secret("yet another sentence") };
    assert_eq!(code(session.change_password(&old).await), Code::TooManyAttempts);
    session.whoami().await.expect("a session goes on");
    log_in(&inside, "bob", PASSWORD).await.expect("another name");
    inside.clock.advance(10_000);
    log_in(&inside, "alice", PASSWORD).await.expect("after a while");
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
