//! Tokens and addresses that are wrong in every way people get them wrong.

use std::{fs, time::Duration};

use legation_model::secret::SecretText;
use legation_testkit::{Engine, World, delegate::Delegate, eventually};

on_both!(a_token_of_another_manager_is_not_taken_and_stops_nobody);

/// Code for a setting that cannot be right (EX_USAGE of sysexits).
const USAGE: i32 = 64;
/// Settings are checked before anything is dialled.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A delegate's name, its token, further settings, and what its log must say.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// Waits until the delegate's log has the text, and sees that it goes on trying.
async fn keeps_trying(delegate: &mut Delegate, says: &str) {
    eventually(&format!("the log says {says:?}"), async || delegate.process.log().contains(says).then_some(())).await;
    assert_eq!(delegate.process.ended(), None, "only an authenticated Goodbye stops a delegate");
}

async fn a_token_of_another_manager_is_not_taken_and_stops_nobody(engine: Engine) {
    let (here, there) = (World::start(engine).await, World::start(engine).await);
    let foreign = there.token("foreign").await;
    let mut lost = here.delegate("lost", &foreign);
    keeps_trying(&mut lost, "key in the token").await;
    assert!(here.seen("lost").await.is_none());
}

#[tokio::test]
async fn mistyped_settings_end_at_once_and_name_the_fix() {
    let world = World::start(Engine::Sqlite).await;
    let token = world.token("typed").await;
    let text = token.value.expose();
    let file = world.directory().join("token");
    fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("a text");
    let last = if text.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("{}{last}", &text[..text.len() - 1]);
    let cases: [Case<'_>; 7] = [
        ("mistyped", &mistyped, &[], "mistyped"),
        ("short", &text[..60], &[], "60 characters"),
        ("key", "lak_0123456789", &[], "ldt_"),
        ("both", text, &[("DELEGATE_TOKEN_FILE", file)], "DELEGATE_TOKEN_FILE"),
        ("none", text, &[("DELEGATE_TOKEN", "")], "DELEGATE_TOKEN"),
        ("name", text, &[("DELEGATE_NAME", "a\u{202e}b")], "DELEGATE_NAME"),
        ("address", text, &[("MANAGER_HOST_AND_PORT", "")], "MANAGER_HOST_AND_PORT"),
    ];
    for (name, token, environment, says) in cases {
        let mut delegate = world.delegate_with(name, &SecretText::new(token.to_owned()), environment);
        let status = delegate.process.exit(AT_ONCE).await;
        let log = delegate.process.log();
        assert_eq!(status.code(), Some(USAGE), "{name}: {log}");
        assert!(log.contains(says), "{name}: {log}");
        assert!(!log.contains(&text[30..70]), "{name} repeats the token");
    }
}

#[tokio::test]
async fn wrong_addresses_are_tried_again_and_name_the_fix() {
    let world = World::start(Engine::Sqlite).await;
    let token = world.token("astray").await;
    let port = world.address().port();
    let cases = [
        ("scheme", format!("https://127.0.0.1:{port}"), "http://"),
        ("closed", "http://127.0.0.1:1".to_owned(), "host, port"),
    ];
    for (name, address, says) in cases {
        let mut delegate = world.delegate_with(name, &token.value, &[("MANAGER_HOST_AND_PORT", &address)]);
        keeps_trying(&mut delegate, says).await;
    }
    let mut delegate = world.delegate_with("account", &token.value, &[("ACCOUNT_ID", "somebody-else")]);
    let status = delegate.process.exit(AT_ONCE).await;
    assert_eq!(status.code(), Some(78), "the account is checked inside the session: {}", delegate.process.log());
}

#[tokio::test]
async fn a_token_file_is_as_good_as_a_variable() {
    let world = World::start(Engine::Sqlite).await;
    let token = world.token("filed").await;
    let file = world.directory().join("token");
    fs::write(&file, format!("{}\n", token.value.expose())).expect("a file");
    let file = file.to_str().expect("a text");
    let environment = [("DELEGATE_TOKEN", ""), ("DELEGATE_TOKEN_FILE", file), ("ACCOUNT_ID", "default")];
    let delegate = world.delegate_with("filed", &token.value, &environment);
    world.connected(&delegate).await;
}
