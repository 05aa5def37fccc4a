//! The scope tree: places are born whole, change for whoever has seen them, and go only when nothing is in them.

use legation_api::{
    Code, List, Problem,
    client::ClientError,
    routes,
    scopes::{CreateScope, Scope, ScopesQuery, UpdateScope},
    tasks::{Shell, SubmitTask, Work},
    tokens::{CreateToken, IssueToken, TokensQuery},
};
use legation_model::{
    Name, Scope as Place,
    access::Role,
    scope::{Dotted, ScopeKind},
    task::TaskState,
    token::TokenStatus,
};
use legation_testkit::{Engine, Inside, world::Issued};
use legation_wire::message::ToDelegate;
use reqwest::Method;

use super::raw::{Answer, Raw, answer, key};

super::on_both!(
    a_place_is_born_with_its_default_token_and_below_another,
    the_tree_is_listed_in_its_order_and_by_its_parts,
    a_change_names_the_version_it_is_of,
    another_lease_is_granted_from_the_next_connection_on,
    only_an_empty_place_is_deleted_and_its_name_never_comes_back,
    nothing_is_made_in_a_place_that_is_not_there,
    places_that_were_in_use_before_get_a_row_once,
    a_delegate_serves_its_place_and_what_is_below_and_nothing_else,
    a_deleted_default_token_has_a_successor,
);

fn place(text: &str) -> Place {
    text.parse().expect("a scope")
}

async fn make(inside: &Inside, scope: &str) -> Scope {
    inside.client.create_scope(&new(scope)).await.unwrap_or_else(|error| panic!("{scope}: {error}"))
}

fn new(scope: &str) -> CreateScope {
    CreateScope { scope: place(scope), description: Default::default(), lease_ms: None }
}

fn problem<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    match answer {
        Err(ClientError::Problem(problem)) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

async fn names(inside: &Inside, scope: &str) -> Vec<(String, TokenStatus)> {
    let query = TokensQuery { scope: Some(place(scope)), include_revoked: true, ..TokensQuery::default() };
    let tokens = inside.client.tokens(&query).await.expect("tokens").items;
    let in_it = tokens.into_iter().filter(|token| token.scope == place(scope));
    in_it.map(|token| (token.name.to_string(), token.status)).collect()
}

async fn token(inside: &Inside, scope: &str, name: &str) -> Issued {
    inside.token_with(name, |token| token.scope = place(scope)).await
}

async fn submit(inside: &Inside, scope: &str, on: &str) -> Result<legation_api::tasks::Task, ClientError> {
    let work = Work::Shell(Shell { script: "true".to_owned(), ..Shell::default() });
    let mut task = SubmitTask::new(place(scope), work);
    task.selectors = vec![on.parse().expect("a selector")];
    inside.client.submit_task(&task).await
}

async fn a_place_is_born_with_its_default_token_and_below_another(engine: Engine) {
    let inside = Inside::start(engine).await;
    let orphan = problem(inside.client.create_scope(&new("acme/eng")).await);
    assert_eq!(orphan.code, Code::NotFound);
    assert!(orphan.fix.contains("legation account create acme"), "{}", orphan.fix);
    for (scope, kind, id) in [
        ("acme", ScopeKind::Account, "acme"),
        ("acme/eng", ScopeKind::Organization, "eng"),
        ("acme/eng/web", ScopeKind::Project, "web"),
    ] {
        let made = make(&inside, scope).await;
        assert_eq!((made.kind, made.id.as_str(), made.version), (kind, id, 1));
        assert_eq!(inside.client.scope(&place(scope)).await.expect("shown"), made);
        assert_eq!(names(&inside, scope).await, [("default_token".to_owned(), TokenStatus::Unissued)]);
        assert_eq!(problem(inside.client.create_scope(&new(scope)).await).code, Code::NameTaken);
    }
    // What the accounts' own routes say is of the same places.
    assert_eq!(inside.client.account(&place("acme")).await.expect("shown").id, place("acme"));
    let accounts = inside.client.accounts(&Default::default()).await.expect("accounts").items;
    assert_eq!(accounts.iter().map(|account| account.id.as_str()).collect::<Vec<_>>(), ["acme", "default"]);
    let raw = Raw::of(&inside);
    assert_eq!(raw.get("/api/v1/accounts/acme%2Feng").await.code(), Code::NotFound, "no account");
}

async fn the_tree_is_listed_in_its_order_and_by_its_parts(engine: Engine) {
    let inside = Inside::start(engine).await;
    for scope in ["a", "a-b", "a0", "a_c", "a/x", "a/x-y", "a/x/p", "a/x/q", "a/z", "a-b/x"] {
        make(&inside, scope).await;
    }
    let listed = async |query: &ScopesQuery| {
        let List { items, .. } = inside.client.scopes(query).await.expect("scopes");
        items.into_iter().map(|item| item.scope.to_string()).collect::<Vec<_>>()
    };
    let all = ["a", "a/x", "a/x/p", "a/x/q", "a/x-y", "a/z", "a-b", "a-b/x", "a0", "a_c", "default"];
    assert_eq!(listed(&ScopesQuery::default()).await, all);
    let mut paged = Vec::new();
    let mut query = ScopesQuery { limit: Some(2), ..ScopesQuery::default() };
    loop {
        let page = inside.client.scopes(&query).await.expect("a page");
        paged.extend(page.items.into_iter().map(|item| item.scope.to_string()));
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    let below = ScopesQuery { scope: Some(place("a")), ..ScopesQuery::default() };
    assert_eq!(listed(&below).await, ["a", "a/x", "a/x/p", "a/x/q", "a/x-y", "a/z"]);
    let children = ScopesQuery { parent: Some(place("a")), ..ScopesQuery::default() };
    assert_eq!(listed(&children).await, ["a/x", "a/x-y", "a/z"]);
    let projects = ScopesQuery { kind: Some(ScopeKind::Project), ..ScopesQuery::default() };
    assert_eq!(listed(&projects).await, ["a/x/p", "a/x/q"]);
    let nothing = ScopesQuery { parent: Some(place("a/x/p")), ..ScopesQuery::default() };
    assert_eq!(listed(&nothing).await, Vec::<String>::new());
    let raw = Raw::of(&inside);
    for query in ["scope=a&parent=a", "kind=tenant", "parent=A", "parent=a.x"] {
        assert_eq!(raw.get(&format!("{}?{query}", routes::SCOPES)).await.code(), Code::InvalidRequest, "{query}");
    }
    let confined = key(&inside, Role::Viewer, Some("a/x"), None).await.reveal();
    let seen = answer(raw.with(confined.expose(), Method::GET, routes::SCOPES)).await.json();
    let seen: Vec<_> = seen["items"].as_array().expect("a list").iter().map(|item| item["scope"].clone()).collect();
    assert_eq!(seen, ["a/x", "a/x/p", "a/x/q"]);
}

async fn patched(raw: &Raw, key: &str, scope: &str, seen: &[&str], body: &str) -> Answer {
    let path = routes::fill(routes::SCOPE, &Dotted(place(scope)));
    let request = raw.with(key, Method::PATCH, &path).header("content-type", "application/json").body(body.to_owned());
    answer(seen.iter().fold(request, |request, tag| request.header("if-match", *tag))).await
}

async fn a_change_names_the_version_it_is_of(engine: Engine) {
    let inside = Inside::start(engine).await;
    make(&inside, "acme").await;
    make(&inside, "acme/eng").await;
    let (raw, admin) = (Raw::of(&inside), inside.key.expose().to_owned());
    let text = |text: &str| format!(r#"{{"description":"{text}"}}"#);
    let shown = raw.with(&admin, Method::GET, "/api/v1/scopes/acme.eng").send().await.expect("an answer");
    assert_eq!(shown.headers()["etag"], "\"1\"");
    let change = async |seen: &[&str], body: &str| patched(&raw, &admin, "acme/eng", seen, body).await;

    assert_eq!(change(&[], &text("one")).await.code(), Code::PreconditionRequired);
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "1", "\"x\"", ""] {
        assert_eq!(change(&[stale], &text("one")).await.code(), Code::Stale, "{stale:?}");
    }
    assert_eq!(change(&["\"1\""], "{}").await.code(), Code::InvalidRequest);
    assert_eq!(change(&["\"1\""], r#"{"lease_ms":60000}"#).await.code(), Code::InvalidRequest, "no account");
    assert_eq!(change(&["\"1\""], r#"{"id":"other"}"#).await.code(), Code::InvalidRequest);
    assert_eq!(inside.client.scope(&place("acme/eng")).await.expect("shown").version, 1, "nothing has happened");

    let dry = inside.client.preview_update_scope(&place("acme/eng"), 1, &described("dry")).await.expect("a preview");
    assert_eq!((dry.version, dry.description.as_str()), (2, "dry"));
    assert_eq!(change(&["\"7\", \"1\""], &text("one")).await.json()["version"], 2);
    let late = problem(inside.client.update_scope(&place("acme/eng"), 1, &described("late")).await);
    assert_eq!(late.code, Code::Stale);
    assert!(late.detail.contains("version is 2"), "{late}");
    assert_eq!(change(&["*"], &text("two")).await.json()["description"], "two");
    assert_eq!(patched(&raw, &admin, "acme/never", &["*"], &text("x")).await.code(), Code::NotFound);
    let foreign = key(&inside, Role::Admin, Some("other"), None).await.reveal();
    for seen in [&[][..], &["\"3\""]] {
        assert_eq!(patched(&raw, foreign.expose(), "acme/eng", seen, &text("x")).await.code(), Code::NotFound);
    }
}

fn described(text: &str) -> UpdateScope {
    UpdateScope { description: Some(text.parse().expect("a text")), lease_ms: None }
}

async fn another_lease_is_granted_from_the_next_connection_on(engine: Engine) {
    const HOUR: i64 = 60 * 60 * 1000;
    let mut inside = Inside::start(engine).await;
    let account = CreateScope { lease_ms: Some(HOUR), ..new("acme") };
    inside.client.create_scope(&account).await.expect("created");
    make(&inside, "acme/eng").await;
    let token = token(&inside, "acme/eng", "build").await;
    let mut puppet = inside.puppet("one", &token);
    assert_eq!(puppet.join().await.lease, HOUR as u64);
    let lease = |lease_ms| UpdateScope { description: None, lease_ms: Some(lease_ms) };
    let short = inside.client.update_scope(&place("acme"), 1, &lease(Some(15_000))).await.expect("changed");
    assert_eq!(short.lease_ms, Some(15_000));
    let mut late = inside.puppet("two", &token);
    let welcome = late.join().await;
    assert_eq!((welcome.lease, welcome.heartbeat), (15_000, 5_000));

    // The first one was granted an hour, and may still act when nobody has heard it for half of that.
    puppet.cut();
    inside.sessions(&token, 1).await;
    inside.clock.advance(HOUR / 2);
    let preview = inside.client.preview_revoke(token.id).await.expect("a preview");
    assert!(preview.delegates.iter().any(|line| line.name.as_str() == "one"), "{preview:?}");

    assert_eq!(puppet.join().await.lease, 15_000, "it connects again");
    inside.client.update_scope(&place("acme"), 2, &lease(None)).await.expect("changed");
    assert_eq!(puppet.join().await.lease, 300_000);
    inside.client.update_scope(&place("acme"), 3, &lease(Some(20_000))).await.expect("changed");
    inside.restart().await;
    puppet.redirect(&inside.url);
    assert_eq!(puppet.join().await.lease, 20_000, "a restart finds it");
}

async fn only_an_empty_place_is_deleted_and_its_name_never_comes_back(engine: Engine) {
    let inside = Inside::start(engine).await;
    for scope in ["acme", "acme/eng", "acme/eng/web"] {
        make(&inside, scope).await;
    }
    let refused = async |scope: &str, what: &str, fix: &str| {
        let told = problem(inside.client.delete_scope(&place(scope)).await);
        assert_eq!(told, problem(inside.client.preview_delete_scope(&place(scope)).await), "the preview says the same");
        assert_eq!(told.code, Code::ScopeNotEmpty);
        assert!(told.detail.contains(what) && told.fix.contains(fix), "{} {}", told.detail, told.fix);
    };
    refused("acme", "2 scopes below it (acme/eng/web, acme/eng)", "legation scope rm acme/eng/web").await;
    let build = token(&inside, "acme/eng/web", "build").await;
    refused("acme/eng/web", "1 tokens (build)", "legation token revoke build --scope acme/eng/web").await;
    inside.client.revoke_token(build.id, &Default::default()).await.expect("revoked");
    refused("acme/eng/web", "1 tokens (build)", "legation token rm build").await;
    inside.client.delete_token(build.id).await.expect("deleted");
    let task = submit(&inside, "acme/eng/web", "nobody").await.expect("submitted");
    refused("acme/eng/web", "1 tasks", "legation task ls --scope acme/eng/web").await;
    inside.client.cancel_task(task.id).await.expect("cancelled");
    let default = inside.client.tokens(&named("acme/eng/web", "default_token")).await.expect("tokens").items[0].id;

    assert_eq!(inside.client.preview_delete_scope(&place("acme/eng/web")).await.expect("a preview").scope.version, 1);
    inside.client.scope(&place("acme/eng/web")).await.expect("a preview deletes nothing");
    inside.client.delete_scope(&place("acme/eng/web")).await.expect("deleted");
    assert_eq!(inside.client.token(default).await.expect("a tombstone").status, TokenStatus::Deleted);
    assert_eq!(problem(inside.client.issue_token(default, &IssueToken::default()).await).code, Code::AlreadyIssued);
    assert_eq!(problem(inside.client.delete_scope(&place("acme/eng/web")).await).code, Code::NotFound);
    assert_eq!(problem(inside.client.scope(&place("acme/eng/web")).await).code, Code::NotFound);
    assert_eq!(problem(submit(&inside, "acme/eng/web", "nobody").await).code, Code::NotFound);
    let again = problem(inside.client.create_scope(&new("acme/eng/web")).await);
    assert_eq!(again.code, Code::NameTaken);
    assert!(again.detail.contains("deleted"), "{again}");
    inside.client.delete_scope(&place("acme/eng")).await.expect("deleted");
    inside.client.delete_scope(&place("acme")).await.expect("deleted");
    assert_eq!(problem(inside.client.create_scope(&new("acme/eng/new")).await).code, Code::NotFound, "nothing above");
    assert_eq!(problem(inside.client.create_scope(&new("acme")).await).code, Code::NameTaken);
}

fn named(scope: &str, name: &str) -> TokensQuery {
    let name: Name = name.parse().expect("a name");
    TokensQuery { scope: Some(place(scope)), name: Some(name), ..TokensQuery::default() }
}

async fn nothing_is_made_in_a_place_that_is_not_there(engine: Engine) {
    let inside = Inside::start(engine).await;
    make(&inside, "default/team").await;
    let create = async |scope: &str| {
        let name = format!("t-{}", scope.replace('/', "-"));
        inside.client.create_token(&CreateToken::new(place(scope), name.parse().expect("a name"))).await
    };
    for scope in ["default/never", "default/team/never", "never/team", "never"] {
        assert_eq!(problem(create(scope).await).code, Code::NotFound, "{scope}");
        assert_eq!(problem(submit(&inside, scope, "nobody").await).code, Code::NotFound, "{scope}");
    }
    // In one transaction with others, each is answered for itself.
    let (there, gone, below) = tokio::join!(create("default"), create("default/gone"), create("default/team"));
    assert!(there.is_ok() && below.is_ok());
    assert_eq!(problem(gone).code, Code::NotFound);
    submit(&inside, "default/team", "nobody").await.expect("submitted");
}

async fn places_that_were_in_use_before_get_a_row_once(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    for scope in ["default/team", "default/team/app", "default/other"] {
        make(&inside, scope).await;
    }
    let token = token(&inside, "default/team/app", "build").await;
    submit(&inside, "default/other", "nobody").await.expect("submitted");
    // As a version left it that had no rows for organizations and projects, and in which a default token could vanish.
    super::behind(&inside, "DELETE FROM tokens WHERE status = 'unissued'").await;
    super::behind(&inside, "DELETE FROM accounts WHERE scope <> 'default'").await;
    super::behind(&inside, "UPDATE manager SET places_filled = 0").await;
    inside.restart().await;
    let all = inside.client.scopes(&ScopesQuery::default()).await.expect("scopes").items;
    let all: Vec<_> = all.iter().map(|item| item.scope.as_str()).collect();
    assert_eq!(all, ["default", "default/other", "default/team", "default/team/app"]);
    for scope in &all {
        let default = ("default_token".to_owned(), TokenStatus::Unissued);
        assert_eq!(names(&inside, scope).await.iter().filter(|token| **token == default).count(), 1, "{scope}");
    }
    inside.puppet("one", &token).join().await;
    // Once: what is missing later is not made up again.
    super::behind(&inside, "DELETE FROM tokens WHERE scope = 'default/other'").await;
    super::behind(&inside, "DELETE FROM accounts WHERE scope = 'default/other'").await;
    inside.restart().await;
    assert_eq!(problem(inside.client.scope(&place("default/other")).await).code, Code::NotFound);
}

async fn a_delegate_serves_its_place_and_what_is_below_and_nothing_else(engine: Engine) {
    let inside = Inside::start(engine).await;
    for scope in ["default/team", "default/team/app", "default/team2"] {
        make(&inside, scope).await;
    }
    let token = token(&inside, "default/team", "team").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let mut foreign = Vec::new();
    for scope in ["default", "default/team2"] {
        foreign.push(submit(&inside, scope, "one").await.expect("submitted").id);
    }
    let mut own = Vec::new();
    for scope in ["default/team", "default/team/app"] {
        own.push(submit(&inside, scope, "one").await.expect("submitted").id);
    }
    let mut assigned = Vec::new();
    for _ in 0..own.len() {
        let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
        assigned.push(assignment.task);
    }
    own.sort();
    assigned.sort();
    assert_eq!(assigned, own);
    for task in foreign {
        assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Queued);
    }
    // One above them all takes what is left.
    let above = inside.token("above").await;
    let mut above = inside.puppet("one", &above);
    above.join().await;
    for _ in 0..2 {
        assert!(matches!(above.message().await, ToDelegate::Assign(_)));
    }
}

async fn a_deleted_default_token_has_a_successor(engine: Engine) {
    let inside = Inside::start(engine).await;
    let first = inside.client.tokens(&named("default", "default_token")).await.expect("tokens").items[0].id;
    inside.client.issue_token(first, &IssueToken::default()).await.expect("issued");
    inside.client.revoke_token(first, &Default::default()).await.expect("revoked");
    inside.client.preview_delete(first).await.expect("a preview");
    inside.client.delete_token(first).await.expect("deleted");
    let second = inside.client.tokens(&named("default", "default_token")).await.expect("tokens").items;
    assert_eq!(second.len(), 1);
    assert_eq!((second[0].status, second[0].id == first), (TokenStatus::Unissued, false));
    let value = inside
        .client
        .issue_token(second[0].id, &IssueToken::default())
        .await
        .expect("issued")
        .value
        .expect("a value, once");
    inside.puppet("one", &Issued { id: second[0].id, value }).join().await;
}
