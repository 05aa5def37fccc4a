//! The audit chain: what is written down, that it holds together, and what never gets into it.

use legation_api::{
    Code,
    accounts::CreateAccount,
    audit::hash,
    revoke::RevokeToken,
    tasks::{Shell, SubmitTask, Work},
    tokens::CreateToken,
};
use legation_manager::audit::{Actor, Change, append_all};
use legation_model::{
    Clock as _,
    access::Role,
    audit::{AuditRecord, Outcome},
    secret::SecretText,
};
use legation_store::{
    Page,
    audit::{self, AuditFilter},
    job,
};
use legation_testkit::{Engine, Inside, canary::Canary, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::raw::{Raw, answer, key, key_of, principal};

super::on_both!(
    each_change_is_a_record_of_a_chain_that_holds,
    records_of_the_first_format_still_hold,
    refusals_are_recorded_until_there_are_too_many,
    a_refusal_at_one_place_is_recorded_too,
    no_secret_is_in_any_record,
);

/// The whole chain, oldest first.
pub(super) async fn records(inside: &Inside) -> Vec<AuditRecord> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = Page { limit: 1000, after };
        let list = job(move |conn| Box::pin(async move { audit::list(conn, &AuditFilter::default(), &page).await }));
        let part = inside.manager.store.read(list).await.expect("read");
        all.extend(part.items);
        after = part.next;
        if after.is_none() {
            all.reverse();
            return all;
        }
    }
}

pub(super) fn assert_chained(records: &[AuditRecord]) {
    let mut previous = Vec::new();
    for (number, record) in (1..).zip(records) {
        assert_eq!((record.number, &record.previous), (number, &previous), "{record:?}");
        assert_eq!(hash(record).map(Vec::from).as_ref(), Some(&record.hash), "{record:?}");
        previous.clone_from(&record.hash);
    }
}

/// The one record of an action on an object.
fn the<'a>(records: &'a [AuditRecord], action: &str, object: impl std::fmt::Display) -> &'a AuditRecord {
    let object = object.to_string();
    let mut found = records.iter().filter(|record| record.action == action && record.object == object);
    let record = found.next().unwrap_or_else(|| panic!("no {action} of {object} in {records:#?}"));
    assert!(found.next().is_none(), "{action} of {object} twice");
    record
}

fn fields(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { serde_json::from_str(text).expect("JSON") }
}

async fn each_change_is_a_record_of_a_chain_that_holds(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let account = CreateAccount {
        id: "acme".parse().expect("a scope"),
        description: "tools".parse().expect("a text"),
        lease_ms: None,
    };
    inside.client.create_account(&account).await.expect("created");
    let mut new = CreateToken::new("acme".parse().expect("a scope"), "t".parse().expect("a name"));
    (new.issue, new.max_delegates) = (false, Some(3));
    let token = inside.client.create_token(&new).await.expect("created").token.id;
    let issued = raw.post(&format!("/api/v1/tokens/{token}/issue"), "").await;
    let holder = inside.token("holder").await;
    let mut puppet = inside.puppet("one", &holder);
    let delegate = puppet.join().await.delegate;
    let task = super::submit(&inside, "nobody").await;
    inside.client.cancel_task(task).await.expect("cancelled");
    let why = RevokeToken::kill("it leaked".parse().expect("a text"));
    let receipt = inside.client.revoke_token(token, &why).await.expect("revoked");
    inside.client.delete_token(token).await.expect("deleted");
    let three: Vec<_> = (0..3).map(|number| (Actor::system(), Change::new("test.many", number, None))).collect();
    let now = inside.clock.wall();
    let many = job(move |tx| Box::pin(async move { append_all(tx, now, three).await }));
    inside.manager.store.write(many).await.expect("written");

    let records = records(&inside).await;
    assert_chained(&records);
    for (action, object, scope, before, after) in [
        ("account.create", "acme".to_owned(), "acme", Value::Null, json!({"description": "tools", "reveal": "never"})),
        (
            "token.issue",
            token.to_string(),
            "acme",
            json!({"status": "unissued", "generation": 0, "issued_at": null, "version": 1}),
            json!({
                "status": "active", "generation": 1, "issued_at": the(&records, "token.issue", token).at, "version": 2,
            }),
        ),
        (
            "token.revoke",
            token.to_string(),
            "acme",
            json!({"status": "active"}),
            json!({"status": "revoked", "cause": "kill", "receipt": receipt.id, "attempts_lost": 0}),
        ),
        ("token.delete", token.to_string(), "acme", json!({"status": "revoked"}), json!({"status": "deleted"})),
        ("task.cancel", task.to_string(), "default", json!({"state": "queued"}), json!({"state": "cancelled"})),
    ] {
        let record = the(&records, action, object);
        assert_eq!((fields(&record.before), fields(&record.after)), (before, after), "{record:?}");
        assert_eq!(record.scope.as_ref().map(|scope| scope.as_str()), Some(scope));
        assert_eq!((record.address.as_str(), record.outcome), ("127.0.0.1", Outcome::Done), "{record:?}");
        assert!(record.actor.starts_with("break-glass/test (prn_"), "{record:?}");
        assert!(!record.request.is_empty(), "{record:?}");
    }
    assert_eq!(the(&records, "token.issue", token).request, issued.request);
    assert_eq!(the(&records, "token.revoke", token).detail, "it leaked");
    let created = fields(&the(&records, "token.create", token).after);
    assert_eq!((&created["name"], &created["max_delegates"]), (&json!("t"), &json!(3)), "{created}");
    let joined = the(&records, "delegate.join", delegate);
    assert_eq!((joined.actor.as_str(), joined.address.as_str()), ("system", "127.0.0.1"));
    assert_eq!(fields(&joined.after)["token"], json!(holder.id));
    let reset = records.iter().find(|record| record.action == "admin.reset").expect("the first key");
    assert_eq!((reset.actor.as_str(), &reset.scope, reset.address.as_str()), ("host", &None, ""));
    assert_eq!(fields(&reset.after)["owner"], json!(legation_store::principals::BREAK_GLASS));
}

async fn records_of_the_first_format_still_hold(engine: Engine) {
    let inside = Inside::start(engine).await;
    let last = records(&inside).await.pop().expect("a record");
    let mut old = AuditRecord {
        number: last.number + 1,
        format: 1,
        actor: "someone (key_x)".to_owned(),
        address: String::new(),
        action: "token.create".to_owned(),
        object: "it".to_owned(),
        scope: "default".parse().ok(),
        before: String::new(),
        after: String::new(),
        detail: "its name".to_owned(),
        outcome: Outcome::Done,
        request: "r".to_owned(),
        previous: last.hash.clone(),
        hash: Vec::new(),
        ..last
    };
    old.hash = hash(&old).expect("a format that is known").to_vec();
    let bytes = |bytes: &[u8]| {
        let hex = legation_api::proof::hex(bytes);
        if engine == Engine::Sqlite { format!("x'{hex}'") } else { format!("'\\x{hex}'") }
    };
    let insert = format!(
        "INSERT INTO audit (number, at, actor, action, object, scope, detail, request, previous, hash) VALUES \
         ({}, {}, 'someone (key_x)', 'token.create', 'it', 'default', 'its name', 'r', {}, {})",
        old.number,
        old.at,
        bytes(&old.previous),
        bytes(&old.hash)
    );
    super::behind(&inside, &insert).await;
    inside.token("new").await;
    let records = records(&inside).await;
    assert_chained(&records);
    assert_eq!(records[old.number as usize - 1], old);
    assert_eq!(records.last().map(|record| record.format), Some(2));
}

async fn refusals_are_recorded_until_there_are_too_many(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let viewer = key(&inside, Role::Viewer, None, None).await.reveal();
    let refused = async |path: &str| {
        let request = raw.with(viewer.expose(), Method::POST, path);
        assert_eq!(answer(request.body("{}")).await.code(), Code::Forbidden);
    };
    const TIMES: usize = 100;
    for _ in 0..TIMES {
        refused("/api/v1/tokens").await;
    }
    let of = |records: &[AuditRecord], action: &str| {
        records.iter().filter(|record| record.action == action).cloned().collect::<Vec<_>>()
    };
    let first = eventually("the first refusals are recorded", async || {
        let found = of(&records(&inside).await, "access.refuse");
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!((first[0].outcome, first[0].object.as_str()), (Outcome::Refused, "POST /api/v1/tokens"));
    assert_eq!((first[0].address.as_str(), first[0].detail.as_str()), ("127.0.0.1", "needs core_delegate_edit"));
    assert!(first[0].actor.contains("/test-key (prn_"));

    inside.clock.advance(61_000);
    let sum = eventually("the rest is summed up", async || of(&records(&inside).await, "refusals.more").pop()).await;
    let all = records(&inside).await;
    assert_chained(&all);
    let written = of(&all, "access.refuse").len();
    assert!((1..20).contains(&written), "{written} records of a storm");
    let counted = fields(&sum.after);
    assert_eq!(counted["refused"], json!(TIMES - written));
    assert_eq!(counted["by"][&first[0].actor], json!(TIMES - written), "{counted}");
}

/// A permission that is held somewhere passes the guard; that it is not held here is found out later.
async fn a_refusal_at_one_place_is_recorded_too(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let token = inside.token("t").await.id;
    let owner = principal(&inside, &[("viewer", Some("default")), ("operator", Some("elsewhere"))]).await;
    let caller = key_of(&inside, owner, None, None).await.reveal();
    let path = format!("/api/v1/tokens/{token}/revoke");
    let request = raw.with(caller.expose(), Method::POST, &path).header("content-type", "application/json");
    let refused = answer(request.body("{}")).await;
    assert_eq!(refused.code(), Code::Forbidden);
    let record = eventually("the refusal is recorded", async || {
        records(&inside).await.into_iter().find(|record| record.action == "access.refuse")
    })
    .await;
    assert_eq!((record.outcome, record.object), (Outcome::Refused, format!("POST {path}")));
    assert_eq!((record.request, record.detail.as_str()), (refused.request, "needs core_delegate_edit"));
    assert!(record.actor.contains(&owner.to_string()), "{}", record.actor);
}

async fn no_secret_is_in_any_record(engine: Engine) {
    const TASK_SECRET: &str = "canary-of-a-task-77ab01";
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let token = inside.token("canary").await;
    let value = token.value.expose();
    let viewer = key(&inside, Role::Viewer, None, None).await.reveal();
    let work = Work::Shell(Shell { script: "true".to_owned(), ..Shell::default() });
    let mut task = SubmitTask::new("default".parse().expect("a scope"), work);
    task.secrets = [("SECRET".to_owned(), SecretText::new(TASK_SECRET.to_owned()))].into();
    let task = inside.client.submit_task(&task).await.expect("submitted").id;
    inside.client.cancel_task(task).await.expect("cancelled");
    // People put values where ids belong, and are refused.
    for path in [format!("/api/v1/tokens/{value}/revoke"), format!("/api/v1/tokens/{}/issue", viewer.expose())] {
        assert_eq!(answer(raw.with(viewer.expose(), Method::POST, &path)).await.code(), Code::Forbidden);
    }
    inside.puppet("one", &token).join().await;
    inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked");
    let records = eventually("both refusals are recorded", async || {
        let records = records(&inside).await;
        (records.iter().filter(|record| record.action == "access.refuse").count() == 2).then_some(records)
    })
    .await;
    let text = format!("{records:?}");
    assert!(text.contains("POST /api/v1/tokens/…/revoke"), "the search would see it: {text}");
    let canaries = [
        Canary::token(value),
        Canary::text("the task's secret", TASK_SECRET),
        Canary::text("the viewer's key", viewer.expose()),
        Canary::text("the admin's key", inside.key.expose().trim()),
    ];
    for canary in canaries {
        assert_eq!(canary.in_bytes(text.as_bytes()), None);
    }
}
