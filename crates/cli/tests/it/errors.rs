//! Each failure has its exit code, one sentence and the fix.

use std::{fs, os::unix::fs::PermissionsExt as _};

use legation_api::Code;
use legation_cli::exit_codes;
use tokio::net::TcpListener;

use crate::{
    fake::Fake,
    run::{Home, KEY, Ran, finish},
};

fn is_told(ran: &Ran, code: u8, words: &str) {
    assert_eq!(ran.code, i32::from(code), "{ran:?}");
    assert!(ran.out.is_empty() && ran.err.starts_with("error: "), "{ran:?}");
    assert!(ran.err.contains("\nfix: ") && ran.err.lines().count() == 2, "{ran:?}");
    assert!(ran.err.contains(words), "{ran:?}");
}

#[tokio::test]
async fn what_the_manager_refuses() {
    let cases = [
        (Code::Unauthenticated, exit_codes::NOT_ALLOWED, "LEGATION_API_KEY"),
        (Code::Forbidden, exit_codes::NOT_ALLOWED, "role"),
        (Code::NotFound, exit_codes::NOT_FOUND, "because the test says so"),
        (Code::NameTaken, exit_codes::REFUSED, "choose another name"),
        (Code::StoreUnavailable, exit_codes::UNAVAILABLE, "try again"),
    ];
    for (code, exit, words) in cases {
        let fake = Fake::start().await;
        fake.refuse("POST /api/v1/tokens", code);
        is_told(&Home::of(&fake).run(&["token", "create", "x"]).await, exit, words);
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_where_the_key_goes() {
    let fake = Fake::start().await;
    fake.refuse("GET /api/v1/whoami", Code::Unauthenticated);
    let home = Home::of(&fake);
    let ran = home.run(&["whoami"]).await;
    is_told(&ran, exit_codes::NOT_ALLOWED, &home.config().join("cli.toml").display().to_string());
    assert!(!ran.err.contains("Authorization"), "{ran:?}");
}

#[tokio::test]
async fn a_relative_xdg_directory_is_ignored_as_by_the_manager() {
    let fake = Fake::start().await;
    fake.refuse("GET /api/v1/whoami", Code::Unauthenticated);
    let home = Home::of(&fake);
    let usual = home.dir.path().join(".config/legation");
    fs::create_dir(home.dir.path().join(".config")).expect("a directory");
    fs::rename(home.config(), &usual).expect("moved");
    let mut command = home.command(&["whoami"]);
    command.env_remove("LEGATION_CONFIG_DIR").env("XDG_CONFIG_HOME", "elsewhere");
    is_told(&finish(command).await, exit_codes::NOT_ALLOWED, &usual.join("cli.toml").display().to_string());
}

#[tokio::test]
async fn nobody_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    is_told(&Home::empty().run(&["--url", &url, "token", "ls"]).await, exit_codes::UNREACHABLE, &url);
    is_told(&Home::empty().run(&["--url", "nonsense", "token", "ls"]).await, exit_codes::SETTINGS, "http://");
}

#[tokio::test]
async fn settings_that_others_can_read_are_refused_with_the_command() {
    let fake = Fake::start().await;
    let home = Home::of(&fake);
    let path = home.config().join("cli.toml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let ran = home.run(&["token", "ls"]).await;
    is_told(&ran, exit_codes::SETTINGS, &format!("chmod 600 {}", path.display()));
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn the_key_goes_to_no_other_address() {
    let (own, other) = (Fake::start().await, Fake::start().await);
    let home = Home::of(&own);
    home.run(&["--url", &other.url, "whoami"]).await;
    assert_eq!(other.asked()[0].key, None);
    let mut command = home.command(&["--url", &other.url, "whoami"]);
    command.env("LEGATION_API_KEY", "lak_of_the_other");
    finish(command).await;
    assert_eq!(other.asked()[1].key.as_deref(), Some("Bearer lak_of_the_other"));
    home.run(&["whoami"]).await;
    assert_eq!(own.asked()[0].key, Some(format!("Bearer {KEY}")));
}

#[tokio::test]
async fn a_wrong_command_line_is_told_by_the_parser() {
    for arguments in [&["token", "show"][..], &["task", "run"], &["token", "create", "../x"], &["nonsense"]] {
        assert_eq!(Home::empty().run(arguments).await.code, i32::from(exit_codes::USAGE), "{arguments:?}");
    }
}
