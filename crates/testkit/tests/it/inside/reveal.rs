//! Values that can be seen again: none unless the account says so, each only with a record, and gone with the policy.

use legation_api::{
    Code,
    client::ClientError,
    reveal::{RevealToken, RevealedToken},
    routes,
    scopes::{CreateScope, UpdateScope},
    tokens::{CreateToken, IssueToken},
};
use legation_manager::{rotate, system::SystemEntropy};
use legation_model::{access::Role, ids::TokenId, reveal::Reveal, secret::SecretText};
use legation_testkit::{Engine, Inside, canary::Canary, eventually};
use reqwest::Method;
use sqlx::{Executor as _, Row as _};

use super::{
    audit::records,
    raw::{Raw, answer, key},
};

super::on_both!(
    a_value_is_seen_again_with_a_reason_that_is_recorded,
    without_the_policy_nothing_is_kept,
    with_the_policy_goes_what_was_kept,
    with_its_end_goes_the_value_of_a_token,
    no_record_no_value,
    what_is_taken_away_while_a_reveal_waits_counts,
    a_policy_that_changes_meanwhile_leaves_nothing_behind,
);

/// Sets the policy of an account.
pub(super) async fn keep(inside: &Inside, account: &str, reveal: Reveal) {
    let account = account.parse().expect("a scope");
    let version = inside.client.scope(&account).await.expect("an account").version;
    let change = UpdateScope { reveal: Some(reveal), ..UpdateScope::default() };
    let changed = inside.client.update_scope(&account, version, &change).await.expect("changed");
    assert_eq!(changed.reveal, Some(reveal));
}

async fn reveal(inside: &Inside, token: TokenId) -> Result<RevealedToken, ClientError> {
    inside.client.reveal_token(token, &RevealToken { reason: "a disk died".parse().expect("a text") }).await
}

async fn refused(inside: &Inside, token: TokenId) -> Code {
    reveal(inside, token).await.expect_err("refused").code().expect("a code")
}

/// Every kept value, as it lies in the database.
async fn kept(inside: &Inside) -> Vec<Vec<u8>> {
    let rows = super::beside(inside).await.fetch_all("SELECT sealed FROM token_values").await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn token_in(inside: &Inside, scope: &str, name: &str) -> (TokenId, SecretText) {
    let request = CreateToken::new(scope.parse().expect("a scope"), name.parse().expect("a name"));
    let issued = inside.client.create_token(&request).await.expect("a token");
    (issued.token.id, issued.value.expect("a value"))
}

async fn a_value_is_seen_again_with_a_reason_that_is_recorded(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let before = inside.token("before").await;
    keep(&inside, "default", Reveal::Audited).await;
    let description = Default::default();
    let team = CreateScope { scope: "default/team".parse().expect("a scope"), description, lease_ms: None };
    inside.client.create_scope(&team).await.expect("a scope");
    let (made, value) = token_in(&inside, "default/team", "made").await;
    let request = CreateToken { issue: false, ..CreateToken::new(team.scope.clone(), "late".parse().expect("a name")) };
    let late = inside.client.create_token(&request).await.expect("created").token.id;
    assert_eq!(refused(&inside, late).await, Code::NotRevealable, "it has none yet");
    let issued = inside.client.issue_token(late, &IssueToken { wrap_ttl_ms: Some(60_000) }).await.expect("issued");
    assert_eq!(issued.value, None, "a code does not keep its value from being kept");

    let shown = reveal(&inside, made).await.expect("shown");
    assert_eq!((shown.token.id, shown.generation, &shown.value), (made, 1, &value));
    assert!(reveal(&inside, late).await.expect("shown").value.expose().contains(&late.to_string()));
    assert_eq!(refused(&inside, before.id).await, Code::NotRevealable, "it was issued before");

    let raw = Raw::of(&inside);
    let path = routes::fill(routes::TOKEN_REVEAL, &made);
    for body in [r#"{"reason":""}"#, r#"{"reason":" "}"#, "{}", ""] {
        let told = raw.post(&path, body).await;
        assert_eq!(told.code(), Code::InvalidRequest, "{body}: {}", told.text());
    }
    let operator = key(&inside, Role::Operator, None, None).await.reveal();
    let asked = raw.with(operator.expose(), Method::POST, &path).header("content-type", "application/json");
    assert_eq!(answer(asked.body(r#"{"reason":"why not"}"#)).await.code(), Code::Forbidden);

    let all = records(&inside).await;
    let found: Vec<_> = all.iter().filter(|record| record.action == "token.reveal").collect();
    let [of_made, of_late] = found[..] else { panic!("two records: {found:?}") };
    assert_eq!((&of_made.object, of_made.detail.as_str()), (&made.to_string(), "a disk died"));
    assert!(of_made.actor.contains("test") && of_late.address == "127.0.0.1" && of_late.after.contains('1'));
    let policy = all.iter().find(|record| record.action == "account.update").expect("a record");
    assert_eq!((policy.before.as_str(), policy.after.as_str()), (r#"{"reveal":"never"}"#, r#"{"reveal":"audited"}"#));
    assert!(inside.client.metrics().await.expect("metrics").contains("legation_tokens_revealed_total 2"));
    let canary = Canary::token(value.expose());
    assert_eq!(canary.in_bytes(format!("{all:?}").as_bytes()), None);
    assert_eq!(kept(&inside).await.iter().find_map(|sealed| canary.in_bytes(sealed)), None);

    // A key-encryption key that is replaced opens what was kept before.
    let clock = inside.clock.clone();
    let rotate = async |config: &_| drop(rotate::kek(config, &*clock, &SystemEntropy).await.expect("rotated"));
    inside.restart_around(rotate).await;
    assert_eq!(reveal(&inside, made).await.expect("shown").value, value);
}

async fn without_the_policy_nothing_is_kept(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("one").await;
    let unissued = CreateToken {
        issue: false,
        ..CreateToken::new("default".parse().expect("a scope"), "two".parse().expect("a name"))
    };
    let late = inside.client.create_token(&unissued).await.expect("created").token.id;
    inside.client.issue_token(late, &IssueToken::default()).await.expect("issued");
    assert_eq!(kept(&inside).await.len(), 0);
    let Err(ClientError::Problem(told)) = reveal(&inside, token.id).await else { panic!("not refused") };
    assert_eq!(told.code, Code::NotRevealable);
    assert!(told.detail.contains("reveal = never") && told.detail.contains("default"), "{told:?}");
    assert!(told.fix.contains("legation account edit default --reveal audited"), "{told:?}");
    assert!(records(&inside).await.iter().all(|record| record.action != "token.reveal"));
}

async fn with_the_policy_goes_what_was_kept(engine: Engine) {
    let inside = Inside::start(engine).await;
    let description = Default::default();
    let other = CreateScope { scope: "other".parse().expect("a scope"), description, lease_ms: None };
    inside.client.create_scope(&other).await.expect("an account");
    let below = CreateScope { scope: "default/team".parse().expect("a scope"), ..other.clone() };
    inside.client.create_scope(&below).await.expect("a place");
    for account in ["default", "other"] {
        keep(&inside, account, Reveal::Audited).await;
    }
    let (top, _) = token_in(&inside, "default", "top").await;
    let (deep, _) = token_in(&inside, "default/team", "deep").await;
    let (foreign, value) = token_in(&inside, "other", "foreign").await;
    assert_eq!(kept(&inside).await.len(), 3);
    keep(&inside, "default", Reveal::Never).await;
    assert_eq!(kept(&inside).await.len(), 1);
    assert_eq!((refused(&inside, top).await, refused(&inside, deep).await), (Code::NotRevealable, Code::NotRevealable));
    assert_eq!(reveal(&inside, foreign).await.expect("shown").value, value);
    let told = records(&inside).await.into_iter().rfind(|record| record.action == "account.update").expect("a record");
    assert!(told.detail.contains("2 kept values"), "{told:?}");
    // What is turned on again does not bring it back.
    keep(&inside, "default", Reveal::Audited).await;
    assert_eq!(refused(&inside, top).await, Code::NotRevealable);
}

async fn with_its_end_goes_the_value_of_a_token(engine: Engine) {
    let inside = Inside::start(engine).await;
    keep(&inside, "default", Reveal::Audited).await;
    let (gone, stays) = (inside.token("gone").await, inside.token("stays").await);
    inside.client.revoke_token(gone.id, &Default::default()).await.expect("revoked");
    assert_eq!((kept(&inside).await.len(), refused(&inside, gone.id).await), (1, Code::TokenEnded));
    inside.client.delete_token(gone.id).await.expect("deleted");
    assert_eq!(refused(&inside, gone.id).await, Code::TokenEnded);
    assert_eq!(reveal(&inside, stays.id).await.expect("shown").value, stays.value);
}

async fn no_record_no_value(engine: Engine) {
    let inside = Inside::start(engine).await;
    keep(&inside, "default", Reveal::Audited).await;
    let token = inside.token("one").await;
    super::behind(&inside, "ALTER TABLE audit RENAME TO audit_elsewhere").await;
    let raw = Raw::of(&inside);
    let path = routes::fill(routes::TOKEN_REVEAL, &token.id);
    let told = raw.post(&path, r#"{"reason":"nobody sees me"}"#).await;
    assert_eq!(told.code(), Code::StoreUnavailable, "{}", told.text());
    assert_eq!(Canary::token(token.value.expose()).in_bytes(&told.body), None);
    super::behind(&inside, "ALTER TABLE audit_elsewhere RENAME TO audit").await;
    assert_eq!(reveal(&inside, token.id).await.expect("shown").value, token.value);
}

async fn what_is_taken_away_while_a_reveal_waits_counts(engine: Engine) {
    let inside = Inside::start(engine).await;
    keep(&inside, "default", Reveal::Audited).await;
    let token = inside.token("one").await;
    let admin = key(&inside, Role::Admin, None, None).await;
    let raw = Raw::of(&inside);
    let path = routes::fill(routes::TOKEN_REVEAL, &token.id);
    let asked = raw.with(admin.reveal().expose(), Method::POST, &path).header("content-type", "application/json");
    let (release, held) = super::hold_writer(&inside);
    held.await.expect("the writer is busy");
    let (client, id) = (inside.client.clone(), admin.id);
    let gone = tokio::spawn(async move { client.revoke_api_key(id).await });
    eventually("the end of the key waits", async || (inside.manager.store.waiting() >= 1).then_some(())).await;
    let told = tokio::spawn(answer(asked.body(r#"{"reason":"quick"}"#)));
    eventually("both wait", async || (inside.manager.store.waiting() >= 2).then_some(())).await;
    drop(release);
    gone.await.expect("no panic").expect("revoked");
    let told = told.await.expect("no panic");
    assert_eq!(told.code(), Code::Unauthenticated, "{}", told.text());
    assert!(records(&inside).await.iter().all(|record| record.action != "token.reveal"));
}

async fn a_policy_that_changes_meanwhile_leaves_nothing_behind(engine: Engine) {
    let inside = Inside::start(engine).await;
    keep(&inside, "default", Reveal::Audited).await;
    let (release, held) = super::hold_writer(&inside);
    held.await.expect("the writer is busy");
    let creating = inside.token("meanwhile");
    let changing = async {
        keep(&inside, "default", Reveal::Never).await;
    };
    let letting_go = async {
        eventually("both wait", async || (inside.manager.store.waiting() >= 2).then_some(())).await;
        drop(release);
    };
    let (token, (), ()) = tokio::join!(creating, changing, letting_go);
    assert_eq!((kept(&inside).await.len(), refused(&inside, token.id).await), (0, Code::NotRevealable));
}
