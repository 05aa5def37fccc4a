//! Logging in and out, sessions and passwords.

use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;
use legation_api::{
    Code,
    logins::{ConsoleSession, EndedSession, LoggedIn},
    passwords::PasswordSet,
    principals::Principal,
};
use legation_cli::{exit_codes, private_file};
use legation_model::{
    access::PrincipalKind,
    ids::{LoginId, PrincipalId},
    login::LoginMethod,
    secret::SecretText,
};
use serde_json::json;

use crate::{
    fake::Fake,
    nouns::{AT, list},
    run::{Home, KEY, finish},
};

const VALUE: &str = "lcs_value-of-the-session";
const PASSWORD: &str = "a sentence about horses";
const ALICE: PrincipalId = PrincipalId([7; 16]);

fn session() -> ConsoleSession {
    ConsoleSession {
        id: LoginId([7; 16]),
        principal: ALICE,
        name: "alice".parse().expect("a name"),
        method: LoginMethod::Password,
        address: "192.0.2.1".to_owned(),
        agent: "legation/0.1.0".to_owned(),
        created_at: AT,
        authenticated_at: AT,
        last_used_at: AT + 60_000,
        expires_at: AT + 3_600_000,
        current: true,
    }
}

/// A home where somebody has logged in.
async fn logged_in(fake: &Fake) -> Home {
    let home = Home::of(fake);
    let value = Some(SecretText::new(VALUE.to_owned()));
    fake.on("POST /api/v1/login", &LoggedIn { session: session(), value });
    private_file::write(&home.config().join("password"), &format!("{PASSWORD}\n")).expect("a file");
    let file = home.config().join("password").display().to_string();
    let ran = home.run(&["login", "alice", "--password-file", &file]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains(VALUE) && !ran.err.contains(VALUE), "{ran:?}");
    home
}

#[tokio::test]
async fn a_session_is_kept_for_what_follows_and_ended() {
    let fake = Fake::start().await;
    let home = logged_in(&fake).await;
    let asked = fake.asked();
    assert_eq!(asked[0].key, None, "a key has no place in a login");
    let body: serde_json::Value = serde_json::from_slice(&asked[0].body).expect("JSON");
    assert_eq!(body, json!({"name": "alice", "password": PASSWORD, "cookie": false}));
    let kept = home.config().join("session.toml");
    assert_eq!(std::fs::metadata(&kept).expect("a file").permissions().mode() & 0o777, 0o600);

    fake.on("GET /api/v1/sessions?limit=500", &list(vec![session()]));
    let ls = home.run(&["session", "ls"]).await;
    assert_eq!(fake.asked()[1].key, Some(format!("Bearer {VALUE}")));
    fake.on("POST /api/v1/logout", &EndedSession { session: session() });
    let out = home.run(&["logout"]).await;
    assert_eq!(fake.asked()[2].key, Some(format!("Bearer {VALUE}")));
    assert!(!kept.exists());
    assert_snapshot!("session", format!("$ legation session ls\n{}\n$ legation logout\n{}", ls.out, out.out));
    home.run(&["session", "ls"]).await;
    assert_eq!(fake.asked()[3].key, Some(format!("Bearer {KEY}")), "the key is as it was");
    assert_eq!(home.run(&["logout"]).await.code, i32::from(exit_codes::SETTINGS));
}

#[tokio::test]
async fn a_session_that_ended_says_how_to_come_back_to_the_key_it_hides() {
    let fake = Fake::start().await;
    let home = logged_in(&fake).await;
    let file = home.config().join("password").display().to_string();
    let again = home.run(&["login", "alice", "--password-file", &file]).await;
    assert!(
        again.err.contains("until `legation logout` commands run as alice and not with the API key in"),
        "{again:?}"
    );
    fake.refuse("GET /api/v1/sessions?limit=500", Code::Unauthenticated);
    let ran = home.run(&["session", "ls"]).await;
    assert_eq!(ran.code, i32::from(exit_codes::NOT_ALLOWED), "{ran:?}");
    let back = format!("API key in {} with `legation logout`", home.config().join("cli.toml").display());
    assert!(
        ran.err.contains("session that `legation login` kept here has ended") && ran.err.contains(&back),
        "{ran:?}"
    );
    // A key that is given goes before the session, which then is not to blame.
    let mut command = home.command(&["session", "ls"]);
    command.env("LEGATION_API_KEY", "lak_given");
    let ran = finish(command).await;
    assert!(!ran.err.contains("has ended\n") && ran.err.contains("set LEGATION_API_KEY"), "{ran:?}");
}

#[tokio::test]
async fn a_session_goes_to_no_other_address_and_a_given_key_before_it() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    let home = logged_in(&fake).await;
    home.run(&["--url", &other.url, "session", "ls"]).await;
    assert_eq!(other.asked()[0].key, None);
    let mut command = home.command(&["session", "ls"]);
    command.env("LEGATION_API_KEY", "lak_given");
    finish(command).await;
    assert_eq!(fake.asked()[1].key.as_deref(), Some("Bearer lak_given"));
}

#[tokio::test]
async fn logging_out_of_what_has_ended_forgets_it_and_out_of_reach_keeps_it() {
    let fake = Fake::start().await;
    let home = logged_in(&fake).await;
    let kept = home.config().join("session.toml");
    fake.refuse("POST /api/v1/logout", Code::StoreUnavailable);
    assert_eq!(home.run(&["logout"]).await.code, i32::from(exit_codes::UNAVAILABLE));
    assert!(kept.exists(), "it has not ended");
    let other = Fake::start().await;
    let home = logged_in(&other).await;
    other.refuse("POST /api/v1/logout", Code::Unauthenticated);
    assert_eq!(home.run(&["logout"]).await.code, 0);
    assert!(!home.config().join("session.toml").exists());
}

#[tokio::test]
async fn a_refused_login_keeps_nothing_and_says_what_to_do() {
    let fake = Fake::start().await;
    fake.refuse("POST /api/v1/login", Code::LoginRefused);
    let home = Home::of(&fake);
    private_file::write(&home.config().join("password"), PASSWORD).expect("a file");
    let file = home.config().join("password").display().to_string();
    let ran = home.run(&["login", "alice", "--password-file", &file]).await;
    assert_eq!(ran.code, i32::from(exit_codes::NOT_ALLOWED), "{ran:?}");
    assert!(ran.err.contains("legation user password") && !home.config().join("session.toml").exists(), "{ran:?}");
    // Without a terminal and with nothing on standard input there is no password.
    let ran = home.run(&["login", "alice"]).await;
    assert_eq!(ran.code, i32::from(exit_codes::USAGE), "{ran:?}");
    let file = home.config().join("none").display().to_string();
    let ran = home.run(&["login", "alice", "--password-file", &file]).await;
    assert_eq!(ran.code, i32::from(exit_codes::SETTINGS), "{ran:?}");
}

#[tokio::test]
async fn a_password_comes_from_a_file_and_never_from_an_argument() {
    let fake = Fake::start().await;
    let home = Home::of(&fake);
    let alice = Principal {
        id: ALICE,
        kind: PrincipalKind::User,
        scope: None,
        name: "alice".parse().expect("a name"),
        description: Default::default(),
        disabled_at: None,
        created_at: AT,
        created_by: "bob".to_owned(),
    };
    fake.on("GET /api/v1/principals?kind=user&name=alice", &list(vec![alice]))
        .on(&format!("PUT /api/v1/principals/{ALICE}/password"), &PasswordSet { principal: ALICE, ended_sessions: 2 })
        .on("PUT /api/v1/password", &PasswordSet { principal: ALICE, ended_sessions: 0 });
    let file = home.config().join("password");
    private_file::write(&file, &format!("{PASSWORD}\n")).expect("a file");
    let file = file.display().to_string();
    let ran = home.run(&["user", "password", "alice", "--password-file", &file]).await;
    assert_eq!((ran.code, ran.out.contains("sessions ended:  2")), (0, true), "{ran:?}");
    let body = |at: usize| serde_json::from_slice::<serde_json::Value>(&fake.asked()[at].body).expect("JSON");
    assert_eq!(body(1), json!({"password": PASSWORD}));
    let old = home.config().join("old");
    private_file::write(&old, "the one before").expect("a file");
    let old = old.display().to_string();
    let ran = home.run(&["password", "--old-password-file", &old, "--password-file", &file]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(body(2), json!({"old_password": "the one before", "password": PASSWORD}));
    assert_eq!(home.run(&["user", "password", "alice", PASSWORD]).await.code, i32::from(exit_codes::USAGE));
    assert_eq!(home.run(&["service-account", "password", "x"]).await.code, i32::from(exit_codes::USAGE));
}
