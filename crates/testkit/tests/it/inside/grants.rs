//! What people may give and take away, and that what is taken away ends at once.

use std::time::Duration;

use legation_api::{
    Code,
    api_keys::{ApiKeysQuery, CreateApiKey},
    client::{Client, ClientError, OutputItem},
    grants::CreateGrant,
    principals::CreatePrincipal,
    roles::{CreateRole, UpdateRole},
    tokens::CreateToken,
};
use legation_model::{
    Millis,
    access::PrincipalKind,
    api_key::ApiKey,
    ids::{AttemptId, GrantId, PrincipalId},
};
use legation_store::grants;
use legation_testkit::{Engine, Inside, eventually, world::Issued};
use legation_wire::message::{FromDelegate, Stream, ToDelegate};

use tokio::sync::oneshot;

use super::{
    raw::{Raw, key_of, principal},
    store::{code, take_away},
};

super::on_both!(
    nobody_gives_what_they_do_not_hold,
    a_role_holds_no_more_than_its_maker,
    the_last_admin_stays,
    of_two_admins_who_remove_each_other_one_stays,
    what_is_lost_while_a_change_waits_does_not_count,
    a_role_that_somebody_has_stays,
    what_is_taken_away_ends_at_once,
    a_removed_key_is_not_remembered,
    what_somebody_made_stays_and_names_them,
    keys_tell_when_they_were_used,
    requests_about_access_that_break_a_rule,
);

/// Longer than any answer takes, shorter than a stream looks by itself.
pub(super) const AT_ONCE: Duration = Duration::from_secs(4);

fn client(inside: &Inside, key: &ApiKey) -> Client {
    Client::new(&inside.url, Some(&key.reveal()), None).expect("a client")
}

async fn client_of(inside: &Inside, owner: PrincipalId) -> Client {
    client(inside, &key_of(inside, owner, None, None).await)
}

pub(super) fn account(name: &str, scope: Option<&str>) -> CreatePrincipal {
    let scope = scope.map(|scope| scope.parse().expect("a scope"));
    let name = name.parse().expect("a name");
    CreatePrincipal { kind: PrincipalKind::ServiceAccount, scope, name, description: Default::default() }
}

pub(super) fn grant(principal: PrincipalId, role: &str, scope: Option<&str>) -> CreateGrant {
    let scope = scope.map(|scope| scope.parse().expect("a scope"));
    CreateGrant { principal, role: role.parse().expect("a name"), scope }
}

pub(super) fn role(name: &str, permissions: &[&str]) -> CreateRole {
    let permissions = permissions.iter().map(|word| (*word).to_owned()).collect();
    CreateRole { name: name.parse().expect("a name"), description: Default::default(), permissions }
}

fn key(owner: PrincipalId, scope: Option<&str>) -> CreateApiKey {
    let scope = scope.map(|scope| scope.parse().expect("a scope"));
    CreateApiKey { owner, name: "k".parse().expect("a name"), scope, expires_at: None::<Millis> }
}

async fn nobody_gives_what_they_do_not_hold(engine: Engine) {
    let inside = Inside::start(engine).await;
    let admin = &inside.client;
    let accessor = role("accessor", &["core_access_view", "core_access_edit", "core_task_view"]);
    admin.create_role(&accessor).await.expect("a role");
    let giver = client_of(&inside, principal(&inside, &[("accessor", Some("default"))]).await).await;
    let taker = giver.create_principal(&account("taker", Some("default"))).await.expect("within its scope").id;
    let mine = giver.create_grant(&grant(taker, "accessor", Some("default"))).await.expect("it holds that there").id;

    assert_eq!(code(giver.create_grant(&grant(taker, "viewer", Some("default"))).await), Code::Forbidden);
    assert_eq!(code(giver.create_grant(&grant(taker, "admin", Some("default"))).await), Code::Forbidden);
    assert_eq!(code(giver.create_grant(&grant(taker, "accessor", None)).await), Code::Forbidden);
    assert_eq!(code(giver.create_grant(&grant(taker, "accessor", Some("never"))).await), Code::NotFound);
    assert_eq!(code(giver.create_principal(&account("outside", None)).await), Code::Forbidden);

    // A key does what its owner may, so that making one is giving that to oneself.
    giver.create_api_key(&key(taker, None)).await.expect("it holds what that one holds");
    let strong = admin.create_principal(&account("strong", Some("default"))).await.expect("made").id;
    let given = admin.create_grant(&grant(strong, "operator", Some("default"))).await.expect("given").id;
    assert_eq!(code(giver.create_api_key(&key(strong, None)).await), Code::Forbidden);
    assert_eq!(code(giver.create_api_key(&key(strong, Some("default"))).await), Code::Forbidden);

    // So is letting somebody act again.
    giver.disable_principal(strong).await.expect("less is no gift");
    assert_eq!(code(giver.enable_principal(strong).await), Code::Forbidden);
    giver.delete_grant(given).await.expect("less is no gift");
    giver.enable_principal(strong).await.expect("it holds nothing any more");
    giver.delete_grant(mine).await.expect("what it gave");
}

async fn a_role_holds_no_more_than_its_maker(engine: Engine) {
    let inside = Inside::start(engine).await;
    let admin = &inside.client;
    admin.create_role(&role("accessor", &["core_access_view", "core_access_edit"])).await.expect("a role");
    let maker = client_of(&inside, principal(&inside, &[("accessor", None)]).await).await;
    let update = |words: &[&str]| UpdateRole {
        description: Default::default(),
        permissions: words.iter().map(|word| (*word).to_owned()).collect(),
    };
    assert_eq!(code(maker.create_role(&role("more", &["core_task_run"])).await), Code::Forbidden);
    maker.create_role(&role("less", &["core_access_view"])).await.expect("it holds that");
    let (less, accessor) = ("less".parse().expect("a name"), "accessor".parse().expect("a name"));
    let more = update(&["core_access_view", "core_task_run"]);
    assert_eq!(code(maker.update_role(&less, &more).await), Code::Forbidden);
    // Also not for itself, by the role that it has.
    let more = update(&["core_access_view", "core_access_edit", "core_delegate_reveal"]);
    assert_eq!(code(maker.update_role(&accessor, &more).await), Code::Forbidden);
    admin.update_role(&less, &update(&["core_access_view", "core_task_run"])).await.expect("an admin may");
    maker.update_role(&less, &update(&["core_task_run"])).await.expect("what it had before stays");
    // Somebody who holds it in one place only would give it everywhere.
    let local = client_of(&inside, principal(&inside, &[("admin", Some("default"))]).await).await;
    assert_eq!(code(local.create_role(&role("local", &["core_access_view"])).await), Code::Forbidden);
}

async fn the_last_admin_stays(engine: Engine) {
    let inside = Inside::start(engine).await;
    let admin = &inside.client;
    let make = async |name: &str| {
        let id = admin.create_principal(&account(name, None)).await.expect("made").id;
        (id, admin.create_grant(&grant(id, "admin", None)).await.expect("given").id)
    };
    let refused = async |(id, grant): (PrincipalId, GrantId)| {
        assert_eq!(code(admin.preview_disable(id).await), Code::LastAdmin, "a preview tells the same");
        assert_eq!(code(admin.disable_principal(id).await), Code::LastAdmin);
        assert_eq!(code(admin.delete_principal(id).await), Code::LastAdmin);
        assert_eq!(code(admin.delete_grant(grant).await), Code::LastAdmin);
    };
    let first = make("first").await;
    // Neither the admin of a part nor one who is disabled is there for everything.
    let part = admin.create_principal(&account("part", None)).await.expect("made").id;
    admin.create_grant(&grant(part, "admin", Some("default"))).await.expect("given");
    refused(first).await;
    let second = make("second").await;
    admin.disable_principal(second.0).await.expect("the first is left");
    refused(first).await;
    admin.enable_principal(second.0).await.expect("enabled");
    admin.delete_grant(first.1).await.expect("the second is left");
    refused(second).await;

    let host = admin.whoami().await.expect("itself").principal;
    assert_eq!(code(admin.disable_principal(host).await), Code::BuiltIn);
    assert_eq!(code(admin.delete_principal(host).await), Code::BuiltIn);
    assert_eq!(code(admin.create_grant(&grant(host, "viewer", None)).await), Code::BuiltIn);
    assert_eq!(code(admin.delete_grant(GrantId([0; 16])).await), Code::BuiltIn);
    assert_eq!(code(admin.create_api_key(&key(host, None)).await), Code::BuiltIn);
}

async fn of_two_admins_who_remove_each_other_one_stays(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (one, two) = (principal(&inside, &[("admin", None)]).await, principal(&inside, &[("admin", None)]).await);
    let (by_one, by_two) = (client_of(&inside, one).await, client_of(&inside, two).await);
    let (gone_two, gone_one) = tokio::join!(by_one.delete_principal(two), by_two.delete_principal(one));
    assert!(gone_one.is_ok() != gone_two.is_ok(), "{gone_one:?} {gone_two:?}");
    let left = by_one.whoami().await.is_ok() as u32 + by_two.whoami().await.is_ok() as u32;
    assert_eq!(left, 1);
}

/// A change of access that was let in, and whose maker loses that access before it is written.
async fn what_is_lost_while_a_change_waits_does_not_count(engine: Engine) {
    let inside = Inside::start(engine).await;
    let giver = principal(&inside, &[("admin", None)]).await;
    let (client, taker) = (client_of(&inside, giver).await, principal(&inside, &[]).await);
    let (release, held) = oneshot::channel::<()>();
    let (begin, running) = oneshot::channel::<()>();
    let lose = legation_store::job(move |tx| {
        Box::pin(async move {
            let _ = begin.send(());
            let _ = held.await;
            for grant in grants::of(tx, giver).await? {
                grants::delete(tx, grant.id).await?;
            }
            Ok(())
        })
    });
    let store = inside.manager.store.clone();
    let losing = tokio::spawn(async move { store.write(lose).await });
    running.await.expect("begun");
    let before = inside.manager.connections.len();
    let waiting = tokio::spawn(async move {
        let (grant, account) = (grant(taker, "admin", None), account("late", None));
        let role = role("late", &[]);
        let given = async { client.create_grant(&grant).await.map(drop) };
        let made = async { client.create_principal(&account).await.map(drop) };
        let ruled = async { client.create_role(&role).await.map(drop) };
        tokio::join!(given, made, ruled)
    });
    // Each runs to its end by itself, and has been let in by then.
    eventually("three changes wait", async || (inside.manager.connections.len() >= before + 3).then_some(())).await;
    release.send(()).expect("waiting");
    losing.await.expect("no panic").expect("written");
    let (given, made, ruled) = waiting.await.expect("no panic");
    for outcome in [given, made, ruled] {
        assert_eq!(code(outcome), Code::Forbidden);
    }
}

async fn a_role_that_somebody_has_stays(engine: Engine) {
    let inside = Inside::start(engine).await;
    let admin = &inside.client;
    admin.create_role(&role("looker", &["core_task_view"])).await.expect("a role");
    let name = "looker".parse().expect("a name");
    let somebody = admin.create_principal(&account("somebody", None)).await.expect("made").id;
    let given = admin.create_grant(&grant(somebody, "looker", Some("default"))).await.expect("given").id;
    for outcome in [admin.preview_delete_role(&name).await, admin.delete_role(&name).await] {
        let Err(ClientError::Problem(problem)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(problem.code, Code::RoleInUse);
        assert!(problem.fix.contains("legation grant ls --role looker"), "{}", problem.fix);
    }
    assert_eq!(code(admin.create_grant(&grant(somebody, "looker", Some("default"))).await), Code::AlreadyGranted);
    admin.delete_grant(given).await.expect("taken");
    admin.delete_role(&name).await.expect("nobody has it");
    assert_eq!(code(admin.delete_role(&"viewer".parse().expect("a name")).await), Code::BuiltIn);
    admin.create_role(&role("looker", &[])).await.expect("the name is free");
    assert_eq!(code(admin.create_role(&role("Looker", &[])).await), Code::NameTaken);
}

/// Every way to take access away, while a stream is open.
async fn what_is_taken_away_ends_at_once(engine: Engine) {
    let inside = Inside::start(engine).await;
    let admin = &inside.client;
    admin.create_role(&role("watcher", &["core_task_view"])).await.expect("a role");
    let watcher = "watcher".parse().expect("a name");
    let token = inside.token("t").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let mut written = 0;
    for way in ["disable", "delete", "grant", "role", "key", "spared"] {
        let owner = principal(&inside, &[]).await;
        let given = admin.create_grant(&grant(owner, "watcher", Some("default"))).await.expect("given").id;
        let key = key_of(&inside, owner, None, None).await;
        let client = client(&inside, &key);
        let mut stream = client.output(task, Default::default());
        say(&mut puppet, attempt, &mut written).await;
        read_up_to(&mut stream, written).await;

        match way {
            "disable" => drop(admin.disable_principal(owner).await.expect("disabled")),
            "delete" => drop(admin.delete_principal(owner).await.expect("deleted")),
            "grant" => drop(admin.delete_grant(given).await.expect("taken")),
            "role" => {
                let nothing = UpdateRole { description: Default::default(), permissions: Vec::new() };
                admin.update_role(&watcher, &nothing).await.expect("updated");
            }
            "key" => drop(admin.revoke_api_key(key.id).await.expect("revoked")),
            _ => drop(admin.disable_principal(principal(&inside, &[]).await).await.expect("somebody else")),
        }
        say(&mut puppet, attempt, &mut written).await;
        if way == "spared" {
            read_up_to(&mut stream, written).await;
            continue;
        }
        let ended = tokio::time::timeout(AT_ONCE, stream.next()).await.expect("at once");
        let expected = if matches!(way, "grant" | "role") { Code::Forbidden } else { Code::Unauthenticated };
        assert_eq!(code(ended), expected, "{way}: the stream ends, and is not resumed");
        assert_eq!(code(client.task(task).await), expected, "{way}");
        if way == "role" {
            let again = UpdateRole { description: Default::default(), permissions: vec!["core_task_view".to_owned()] };
            admin.update_role(&watcher, &again).await.expect("updated");
            client.task(task).await.expect("what is given counts at once too");
        }
    }
}

pub(super) async fn say(puppet: &mut legation_testkit::Puppet, attempt: AttemptId, written: &mut u64) {
    let bytes = b"hello\n".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: *written, stream: Stream::Stdout, bytes }).await.expect("said");
    *written += 6;
    while puppet.message().await != (ToDelegate::OutputAck { attempt, offset: *written }) {}
}

pub(super) async fn read_up_to(stream: &mut legation_api::client::OutputStream, end: u64) {
    loop {
        let item = tokio::time::timeout(AT_ONCE, stream.next()).await.expect("output").expect("a stream");
        let Some(OutputItem::Chunk(chunk)) = item else { panic!("{item:?}") };
        if chunk.offset + 6 >= end {
            return;
        }
    }
}

/// What is remembered of keys, for a revocation while the store is gone, is not remembered of removed ones.
async fn a_removed_key_is_not_remembered(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("t").await;
    let owner = principal(&inside, &[("admin", None)]).await;
    let (kept, removed) = (key_of(&inside, owner, None, None).await, key_of(&inside, owner, None, None).await);
    let end = async || drop(inside.client.revoke_api_key(removed.id).await.expect("removed"));
    only_the_kept_one_is_remembered(&inside, &token, (client(&inside, &kept), client(&inside, &removed)), end).await;
}

/// Of two credentials that were used, one is ended and the store taken away: the other still cuts, and that one does not.
pub(super) async fn only_the_kept_one_is_remembered(
    inside: &Inside,
    token: &Issued,
    (by_kept, by_ended): (Client, Client),
    end: impl AsyncFnOnce(),
) {
    for client in [&by_kept, &by_ended] {
        client.whoami().await.expect("used once");
    }
    end().await;
    take_away(inside, true).await;
    let revoke = Default::default();
    // SQLite goes on reading the file that it has open.
    let refused = match inside.engine {
        Engine::Sqlite => Code::Unauthenticated,
        Engine::Postgres => Code::StoreUnavailable,
    };
    assert_eq!(code(by_ended.revoke_token(token.id, &revoke).await), refused);
    assert!(!inside.manager.tokens.get(token.id).expect("live").is_ended(), "an ended credential revoked a token");
    assert_eq!(code(by_kept.revoke_token(token.id, &revoke).await), Code::RevokedNotDurable);
    take_away(inside, false).await;
}

async fn what_somebody_made_stays_and_names_them(engine: Engine) {
    let inside = Inside::start(engine).await;
    let maker = inside.client.create_principal(&account("maker", None)).await.expect("made").id;
    inside.client.create_grant(&grant(maker, "operator", Some("default"))).await.expect("given");
    let client = client_of(&inside, maker).await;
    let request = CreateToken::new("default".parse().expect("a scope"), "theirs".parse().expect("a name"));
    let token = client.create_token(&request).await.expect("created").token;
    assert!(token.created_by.contains("maker") && token.created_by.contains(&maker.to_string()), "{token:?}");
    inside.client.delete_principal(maker).await.expect("deleted");
    assert_eq!(code(client.whoami().await), Code::Unauthenticated);
    let after = inside.client.token(token.id).await.expect("it is there");
    assert_eq!((after.status, after.created_by), (token.status, token.created_by));
}

async fn keys_tell_when_they_were_used(engine: Engine) {
    let inside = Inside::start(engine).await;
    let owner = principal(&inside, &[]).await;
    let made = inside.client.create_api_key(&key(owner, None)).await.expect("made");
    assert_eq!(made.key.last_used_at, None);
    let client = Client::new(&inside.url, made.value.as_ref(), None).expect("a client");
    client.whoami().await.expect("used");
    eventually("the use is noted", async || inside.client.api_key(made.key.id).await.expect("a key").last_used_at)
        .await;
    let query = ApiKeysQuery { owner: Some(owner), ..ApiKeysQuery::default() };
    assert_eq!(inside.client.api_keys(&query).await.expect("a list").items.len(), 1);
    // The same request once more makes nothing and shows nothing.
    let twice = inside.client.idempotent("once");
    let first = twice.create_api_key(&key(owner, None)).await.expect("made");
    let second = twice.create_api_key(&key(owner, None)).await.expect("the same");
    assert_eq!((first.key.id, second.value.is_none()), (second.key.id, true));
    assert!(first.value.is_some());
}

async fn requests_about_access_that_break_a_rule(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let (owner, nobody) = (principal(&inside, &[]).await, PrincipalId([9; 16]));
    let post = async |path: &str, body: String, expected: Code| {
        let answer = raw.post(path, body.clone()).await;
        assert_eq!(answer.code(), expected, "{body}: {}", answer.text());
    };
    let invalid = Code::InvalidRequest;
    // What is forgotten must not come to mean everywhere.
    post("/api/v1/grants", format!(r#"{{"principal":"{owner}","role":"viewer"}}"#), invalid).await;
    post("/api/v1/grants", format!(r#"{{"principal":"{nobody}","role":"viewer","scope":null}}"#), Code::NotFound).await;
    post("/api/v1/grants", format!(r#"{{"principal":"{owner}","role":"never","scope":null}}"#), Code::NotFound).await;
    post("/api/v1/grants", format!(r#"{{"principal":"{owner}","role":"viewer","scope":"never"}}"#), Code::NotFound)
        .await;
    post("/api/v1/roles", r#"{"name":"r","permissions":["core_everything"]}"#.to_owned(), invalid).await;
    post("/api/v1/roles", r#"{"name":"Admin","permissions":[]}"#.to_owned(), Code::NameTaken).await;
    post("/api/v1/principals", r#"{"kind":"robot","name":"r"}"#.to_owned(), invalid).await;
    let evil = "{\"kind\":\"user\",\"name\":\"adm\u{0456}n\"}";
    post("/api/v1/principals", evil.to_owned(), invalid).await;
    inside
        .client
        .create_principal(&CreatePrincipal { kind: PrincipalKind::User, ..account("alice", None) })
        .await
        .expect("made");
    post("/api/v1/principals", r#"{"kind":"user","name":"Alice"}"#.to_owned(), Code::NameTaken).await;
    let past = format!(r#"{{"owner":"{owner}","name":"k","expires_at":1}}"#);
    post("/api/v1/api-keys", past, invalid).await;
    post("/api/v1/api-keys", format!(r#"{{"owner":"{owner}","name":"k","scope":"never"}}"#), Code::NotFound).await;
}
