//! One-time codes: made in the place of a value, and opened by somebody without a key.

use std::process::Stdio;

use legation_api::{
    Code,
    tokens::{IssuedToken, NoValue, Token},
    wraps::{Unwrapped, Wrap, WrapCode},
};
use legation_cli::{exit_codes, private_file};
use legation_model::{Secret, ids::WrapId, secret::SecretText, wrap};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{
    fake::Fake,
    nouns::{AT, TOKEN, issued, list, token},
    run::{Home, Ran},
};

const OPEN: &str = "POST /api/v1/unwrap";

fn code() -> SecretText {
    wrap::WrapCode { id: WrapId([6; 16]), secret: Secret::new([7; 32]) }.reveal()
}

fn wrapped() -> IssuedToken {
    let wrapped = Some(WrapCode { id: WrapId([6; 16]), code: code(), expires_at: AT });
    IssuedToken { code: Some(NoValue::Wrapped), wrapped, ..issued(None) }
}

fn opened() -> Unwrapped {
    let value = SecretText::new("ldt_the-value".to_owned());
    let token = token();
    Unwrapped { token: TOKEN, name: token.name, scope: token.scope, generation: 1, value }
}

async fn with_input(home: &Home, arguments: &[&str], input: &str) -> Ran {
    let mut child = home.command(arguments).stdin(Stdio::piped()).spawn().expect("the program");
    let mut pipe = child.stdin.take().expect("its input");
    pipe.write_all(input.as_bytes()).await.expect("written");
    drop(pipe);
    let output = child.wait_with_output().await.expect("the program");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn a_code_is_printed_in_the_place_of_the_value() {
    let fake = Fake::start().await;
    fake.on("POST /api/v1/tokens", &wrapped()).on(&format!("GET /api/v1/tokens/{TOKEN}"), &token());
    fake.on(&format!("POST /api/v1/tokens/{TOKEN}/issue?dry_run=false"), &wrapped());
    let home = Home::of(&fake);
    for arguments in
        [["token", "create", "build", "--wrap", "10m"], ["token", "issue", &TOKEN.to_string(), "--wrap", "10m"]]
    {
        let ran = home.run(&arguments).await;
        assert_eq!((ran.code, ran.out.trim()), (0, code().expose()), "{ran:?}");
        assert!(!ran.err.contains(code().expose()), "{ran:?}");
        let command = format!("(umask 077; legation token unwrap --url {} > delegate.token)", fake.url);
        assert!(ran.err.contains(&command) && ran.err.contains("until 2027-01-15"), "{ran:?}");
        let asked = fake.asked().pop().expect("a request");
        let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
        assert_eq!(body["wrap_ttl_ms"], json!(600_000), "{}", asked.line);
    }
}

#[tokio::test]
async fn it_is_opened_without_a_key_and_not_by_an_argument() {
    let fake = Fake::start().await;
    fake.on(OPEN, &opened());
    let home = Home::of(&fake);
    let ran = with_input(&home, &["token", "unwrap", "--commands", "env"], &format!("{}\n", code().expose())).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "ldt_the-value\n"), "{ran:?}");
    assert!(ran.err.contains("does not open again") && ran.err.contains("DELEGATE_TOKEN_FILE"), "{ran:?}");
    assert!(!ran.err.contains("ldt_the-value"), "{ran:?}");
    let asked = fake.asked().pop().expect("a request");
    assert_eq!(asked.key, None, "a key that is there is for something else");
    assert_eq!(serde_json::from_slice::<Value>(&asked.body).expect("JSON"), json!({"code": code().expose()}));

    let file = home.dir.path().join("code");
    private_file::write(&file, code().expose()).expect("written");
    let named = file.to_str().expect("text");
    let ran = home.run(&["token", "unwrap", "--code-file", named, "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Unwrapped>(&ran.out).expect("JSON"), opened());
}

#[tokio::test]
async fn what_is_no_code_is_not_sent() {
    let fake = Fake::start().await;
    let home = Home::of(&fake);
    for wrong in ["", "ldw_", &code().expose()[1..], "ldt_the-value"] {
        let ran = with_input(&home, &["token", "unwrap"], wrong).await;
        assert_eq!(ran.code, i32::from(exit_codes::USAGE), "{ran:?}");
        assert!(ran.err.contains("ldw_") && !ran.err.contains(&code().expose()[30..40]), "{ran:?}");
    }
    assert!(fake.asked().is_empty());
    fake.refuse(OPEN, Code::AlreadyOpened);
    let ran = with_input(&home, &["token", "unwrap"], code().expose()).await;
    assert_eq!((ran.code, ran.out.as_str()), (i32::from(exit_codes::REFUSED), ""));
    assert!(ran.err.contains("revoke the token now"), "{ran:?}");
}

#[tokio::test]
async fn a_token_shows_what_became_of_its_code() {
    let line = format!("GET /api/v1/tokens/{TOKEN}");
    let wrap = Wrap {
        id: WrapId([6; 16]),
        generation: 1,
        created_at: AT,
        created_by: "up".to_owned(),
        expires_at: AT,
        ended_at: None,
        opened_at: None,
        opened_from: None,
        refused: 0,
    };
    let waits = wrap.clone();
    let expired = Wrap { ended_at: Some(AT), ..wrap.clone() };
    let opened_from = Some("10.0.0.7".to_owned());
    let stolen = Wrap { ended_at: Some(AT), opened_at: Some(AT), opened_from, refused: 2, ..wrap };
    for (wrap, words) in [
        (waits, "waits until 2027-01-15T08:00:00Z"),
        (expired, "erased 2027-01-15T08:00:00Z, opened by nobody"),
        (stolen, "opened 2027-01-15T08:00:00Z from 10.0.0.7; tried 2 times after that"),
    ] {
        let fake = Fake::start().await;
        fake.on(&line, &Token { wrap: Some(wrap), ..token() });
        fake.on(&format!("{line}/uses?limit=20"), &list(Vec::<()>::new()));
        let ran = Home::of(&fake).run(&["token", "show", &TOKEN.to_string()]).await;
        assert!(ran.out.contains(words), "{ran:?}");
    }
}
