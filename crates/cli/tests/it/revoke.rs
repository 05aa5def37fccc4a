//! Tokens: the value is printed once and alone; a revoke asks, shows and waits.

use insta::assert_snapshot;
use legation_cli::exit_codes;
use legation_model::secret::Secret;
use legation_model::token::Token as TokenValue;

use crate::{
    fake::Fake,
    nouns::{RECEIPT, TOKEN, issued, list, preview, receipt, token},
    run::Home,
};

fn show() -> String {
    format!("GET /api/v1/tokens/{TOKEN}")
}

fn revoke(dry_run: bool) -> String {
    format!("POST /api/v1/tokens/{TOKEN}/revoke?dry_run={dry_run}")
}

async fn ready() -> Fake {
    let fake = Fake::start().await;
    fake.on(&show(), &token())
        .on(&revoke(true), &preview())
        .on(&revoke(false), &receipt(false))
        .on(&format!("GET /api/v1/receipts/{RECEIPT}"), &receipt(false))
        .on(&format!("GET /api/v1/receipts/{RECEIPT}"), &receipt(true));
    fake
}

#[tokio::test]
async fn the_value_stands_alone_on_standard_output() {
    for format in ["table", "name"] {
        let fake = Fake::start().await;
        fake.on("POST /api/v1/tokens", &issued(Some("ldt_value")));
        let ran = Home::of(&fake).run(&["token", "create", "build", "-o", format]).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, "ldt_value\n"));
        assert!(ran.err.contains("only this once") && !ran.err.contains("ldt_value"), "{ran:?}");
    }
    let fake = Fake::start().await;
    fake.on("POST /api/v1/tokens", &issued(None));
    let ran = Home::of(&fake).run(&["token", "create", "build", "--idempotency-key", "k"]).await;
    assert!(ran.err.contains("shown before"), "{ran:?}");
}

#[tokio::test]
async fn what_to_paste_goes_beside_the_value_and_never_holds_it() {
    for place in ["env", "docker", "kubectl", "systemd"] {
        let fake = Fake::start().await;
        fake.on("POST /api/v1/tokens", &issued(Some("ldt_value")));
        let ran = Home::of(&fake).run(&["token", "create", "build", "--commands", place]).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, "ldt_value\n"), "{ran:?}");
        assert!(ran.err.contains("legation-delegate") && !ran.err.contains("ldt_value"), "{ran:?}");
    }
}

#[tokio::test]
async fn without_a_yes_nothing_happens() {
    let fake = ready().await;
    let ran = Home::of(&fake).run(&["token", "revoke", &TOKEN.to_string()]).await;
    assert_eq!(ran.code, i32::from(exit_codes::NOT_CONFIRMED), "{ran:?}");
    assert!(ran.err.contains("add --yes"), "{ran:?}");
    assert!(fake.asked().iter().all(|asked| asked.line != revoke(false)));
}

#[tokio::test]
async fn a_dry_run_shows_and_does_nothing() {
    let fake = ready().await;
    let ran = Home::of(&fake).run(&["token", "revoke", &TOKEN.to_string(), "--dry-run", "--yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_snapshot!("revoke_dry_run", ran.out);
    assert!(fake.asked().iter().all(|asked| asked.line != revoke(false)));
}

#[tokio::test]
async fn a_revoke_waits_for_the_delegates_own_word() {
    let fake = ready().await;
    let ran = Home::of(&fake).run(&["token", "revoke", &TOKEN.to_string(), "--yes", "--reason", "leaked"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_snapshot!("revoke_receipt", ran.out);
    let deed = fake.asked().into_iter().find(|asked| asked.line == revoke(false)).expect("a revoke");
    assert_eq!(deed.body, r#"{"reason":"leaked"}"#);
}

#[tokio::test]
async fn a_silent_delegate_is_named_and_no_failure() {
    let fake = ready().await;
    let ran = Home::of(&fake).run(&["token", "revoke", &TOKEN.to_string(), "--yes", "--wait", "0s"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("1 have not reported"), "{ran:?}");
}

#[tokio::test]
async fn a_leaked_value_is_enough_and_its_secret_is_not_sent() {
    let value = TokenValue { id: TOKEN, generation: 1, secret: Secret::new([7; 32]), manager_key: [8; 32] };
    let value = value.reveal();
    let fake = ready().await;
    let ran = Home::of(&fake).run(&["token", "revoke", value.expose(), "--yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let secret = &value.expose()[30..70];
    assert!(fake.asked().iter().all(|asked| !format!("{asked:?}").contains(secret)));
    assert!(!format!("{ran:?}").contains(secret));
}

#[tokio::test]
async fn a_name_is_looked_up_in_its_scope_only() {
    let fake = Fake::start().await;
    let mut below = token();
    below.scope = "default/eng".parse().expect("a scope");
    fake.on("GET /api/v1/tokens?scope=default&name=build&include_revoked=true", &list(vec![below, token()]));
    fake.on(&format!("GET /api/v1/tokens/{TOKEN}/uses?limit=20"), &list(Vec::<()>::new()));
    let ran = Home::of(&fake).run(&["token", "show", "build", "-o", "name"]).await;
    assert_eq!((ran.code, ran.out), (0, format!("{TOKEN}\n")));
}

#[tokio::test]
async fn rm_asks_too() {
    let fake = Fake::start().await;
    let line = |dry_run: bool| format!("DELETE /api/v1/tokens/{TOKEN}?dry_run={dry_run}");
    let deleted = legation_api::tokens::DeletedToken { token: token() };
    fake.on(&show(), &token()).on(&line(true), &deleted).on(&line(false), &deleted);
    let home = Home::of(&fake);
    assert_eq!(home.run(&["token", "rm", &TOKEN.to_string()]).await.code, i32::from(exit_codes::NOT_CONFIRMED));
    assert!(fake.asked().iter().all(|asked| asked.line != line(false)));
    assert_eq!(home.run(&["token", "rm", &TOKEN.to_string(), "--yes", "-o", "name"]).await.code, 0);
    assert!(fake.asked().iter().any(|asked| asked.line == line(false)));
}
