//! What people and programs see of each noun.

use insta::assert_snapshot;
use legation_api::{List, delegates::Delegate, token_uses::TokenUse, tokens::Token};
use legation_model::task::TaskState;

use crate::{
    fake::Fake,
    nouns::{AT, RECEIPT, TASK, TOKEN, delegate, list, receipt, task, token},
    run::{Home, KEY},
};

async fn shown(line: &str, answer: &impl serde::Serialize, arguments: &str) -> String {
    let fake = Fake::start().await;
    fake.on(line, answer);
    let ran = Home::of(&fake).run(&arguments.split(' ').collect::<Vec<_>>()).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_eq!(fake.asked()[0].key.as_deref(), Some(format!("Bearer {KEY}").as_str()));
    ran.out
}

const TOKENS: &str = "GET /api/v1/tokens?include_revoked=false&limit=500";
const DELEGATES: &str = "GET /api/v1/delegates?connected=false&limit=500";

#[tokio::test]
async fn tokens_in_every_format() {
    let tokens = list(vec![token()]);
    assert_snapshot!("token_ls_table", shown(TOKENS, &tokens, "token ls").await);
    let json = shown(TOKENS, &tokens, "token ls -o json").await;
    assert_eq!(serde_json::from_str::<legation_api::List<Token>>(&json).expect("JSON"), tokens);
    let yaml = shown(TOKENS, &tokens, "token ls -o yaml").await;
    assert_eq!(serde_norway::from_str::<legation_api::List<Token>>(&yaml).expect("YAML"), tokens);
    assert_snapshot!("token_ls_yaml", yaml);
    assert_eq!(shown(TOKENS, &tokens, "token ls -o name").await, format!("{TOKEN}\n"));
}

#[tokio::test]
async fn one_of_each() {
    let line = |noun: &str, id: &dyn std::fmt::Display| format!("GET /api/v1/{noun}/{id}");
    let id = delegate().id;
    assert_snapshot!(
        "delegate_show",
        shown(&line("delegates", &id), &delegate(), &format!("delegate show {id}")).await
    );
    let failed = task(TaskState::Failed);
    assert_snapshot!("task_show", shown(&line("tasks", &TASK), &failed, &format!("task show {TASK}")).await);
    let receipt = receipt(true);
    assert_snapshot!(
        "receipt_show",
        shown(&line("receipts", &RECEIPT), &receipt, &format!("receipt show {RECEIPT}")).await
    );
}

fn held(connected: bool, address: &str) -> TokenUse {
    TokenUse {
        delegate: delegate().id,
        name: delegate().name,
        address: address.parse().expect("an address"),
        first_used_at: AT,
        last_used_at: AT + 65_000,
        uses: 2,
        connected,
    }
}

#[tokio::test]
async fn a_token_with_those_who_hold_it() {
    let fake = Fake::start().await;
    fake.on(&format!("GET /api/v1/tokens/{TOKEN}"), &token());
    let holders = List { items: vec![held(true, "10.0.0.7"), held(false, "2001:db8::7")], next: Some("x".to_owned()) };
    fake.on(&format!("GET /api/v1/tokens/{TOKEN}/uses?limit=20"), &holders);
    let home = Home::of(&fake);
    let token = TOKEN.to_string();
    let ran = home.run(&["token", "show", &token]).await;
    assert_eq!((ran.code, ran.err), (0, format!("there are more; `legation token uses {TOKEN}` shows them\n")));
    assert_snapshot!("token_show", ran.out);
    let json: serde_json::Value =
        serde_json::from_str(&home.run(&["token", "show", &token, "-o", "json"]).await.out).expect("JSON");
    assert_eq!((&json["name"], &json["holders"]["items"][1]["connected"]), (&"build".into(), &false.into()));

    fake.on(&format!("GET /api/v1/tokens/{TOKEN}/uses?limit=500"), &list(holders.items));
    let ran = home.run(&["token", "uses", &token]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_snapshot!("token_uses", ran.out);
    let names = home.run(&["token", "uses", &token, "-o", "name"]).await.out;
    assert_eq!(names.lines().collect::<Vec<_>>(), vec![delegate().id.to_string(); 2]);
}

#[tokio::test]
async fn tokens_that_are_looked_for() {
    let wanted = "GET /api/v1/tokens?name=build&include_revoked=false&status=active&expiring_within_ms=604800000\
                  &unused_since=1800000000000&limit=500";
    let arguments =
        "token ls --name build --status active --expiring-within 7d --unused-since 2027-01-15T08:00:00Z -o name";
    assert_eq!(shown(wanted, &list(vec![token()]), arguments).await, format!("{TOKEN}\n"));
    for wrong in [["--status", "lost"], ["--expiring-within", "soon"], ["--unused-since", "then"]] {
        let fake = Fake::start().await;
        let ran = Home::of(&fake).run(&[["token", "ls"], wrong].concat()).await;
        assert!(ran.code != 0 && ran.err.contains(wrong[0]), "{ran:?}");
    }
}

#[tokio::test]
async fn delegates_and_tasks_in_columns() {
    assert_snapshot!("delegate_ls", shown(DELEGATES, &list(vec![delegate()]), "delegate ls").await);
    let tasks = list(vec![task(TaskState::Succeeded)]);
    assert_snapshot!("task_ls", shown("GET /api/v1/tasks?limit=500", &tasks, "task ls").await);
}

#[tokio::test]
async fn nothing_the_manager_says_can_steer_the_terminal() {
    let evil = Delegate { version: "1\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}".to_owned(), ..delegate() };
    for format in ["table", "json", "yaml"] {
        let out = shown(DELEGATES, &list(vec![evil.clone()]), &format!("delegate ls -o {format}")).await;
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
    }
}

#[tokio::test]
async fn an_empty_list_says_so_beside_the_result() {
    let fake = Fake::start().await;
    fake.on(TOKENS, &list(Vec::<Token>::new()));
    let ran = Home::of(&fake).run(&["token", "ls"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", "nothing to list\n"));
}
