//! Console sessions: begun, listed, ended at once, in a browser and out of it, and shown anew for what can hurt most.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use legation_api::{
    Code,
    audit::AuditQuery,
    client::Client,
    logins::{Reauthenticate, SessionsQuery},
    roles::UpdateRole,
    routes,
};
use legation_manager::{
    config::Settings,
    http,
    logins::{FRESH_FOR, SESSIONS_MAX},
};
use legation_model::{Millis, access::Permission, ids::PrincipalId, login::Login};
use legation_testkit::{Engine, Inside};
use reqwest::{Method, RequestBuilder};

use super::{
    access::{Things, succeeded},
    audit_reading::next_record,
    grants::{AT_ONCE, grant, only_the_kept_one_is_remembered, read_up_to, role, say},
    passwords::{PASSWORD, log_in, secret, user},
    raw::{Raw, answer, key_of, login_of, principal},
    store::code,
};

super::on_both!(
    a_person_logs_in_and_out,
    a_session_ends_by_itself,
    a_stream_of_a_session_that_is_used_goes_on,
    what_is_taken_away_ends_a_session_at_once,
    an_ended_session_is_not_remembered,
    sessions_are_listed_and_ended_by_those_who_may,
    only_so_many_sessions_are_open,
    what_can_hurt_most_asks_sessions_to_be_fresh,
    a_client_that_may_ask_goes_on_by_itself,
    a_cookie_counts_only_from_pages_of_the_managers_own,
    over_https_the_cookie_is_of_this_host_alone,
);

const MINUTE: Millis = 60_000;

fn client(inside: &Inside, login: &Login) -> Client {
    Client::new(&inside.url, Some(&login.reveal()), None).expect("a client")
}

async fn a_person_logs_in_and_out(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[("viewer", Some("default"))]).await;
    let session = log_in(&inside, "alice", PASSWORD).await.expect("a session");
    let whoami = session.whoami().await.expect("it counts");
    assert_eq!((whoami.principal, whoami.key, whoami.grants.len()), (id, None, 1));
    let listed = session.sessions(&SessionsQuery::default()).await.expect("a list").items;
    assert_eq!((listed.len(), Some(listed[0].id), listed[0].current), (1, whoami.session, true));
    assert_eq!((listed[0].address.as_str(), listed[0].agent.starts_with("legation/")), ("127.0.0.1", true));
    assert_eq!(listed[0].expires_at - listed[0].created_at, 12 * 60 * MINUTE);
    session.log_out().await.expect("out");
    assert_eq!(code(session.whoami().await), Code::Unauthenticated);
    assert_eq!(code(inside.client.log_out().await), Code::NotASession);
    for action in ["login", "logout"] {
        let query = AuditQuery { action: Some(action.to_owned()), ..AuditQuery::default() };
        let records = inside.client.audit(&query).await.expect("records").items;
        assert_eq!((records.len(), records[0].object.clone()), (1, listed[0].id.to_string()));
        assert_eq!(records[0].actor, format!("alice/console ({id}, {})", listed[0].id), "{action}");
        assert_eq!(records[0].address.as_deref(), Some("127.0.0.1"), "{action}");
    }
}

async fn a_session_ends_by_itself(engine: Engine) {
    let inside = Inside::start(engine).await;
    let owner = principal(&inside, &[]).await;
    let (used, unused) = (login_of(&inside, owner).await, login_of(&inside, owner).await);
    // 12 hours but one minute, never 30 minutes without a request.
    for _ in 0..25 {
        client(&inside, &used).whoami().await.expect("it is used");
        inside.clock.advance(28 * MINUTE + 45_000);
    }
    assert_eq!(code(client(&inside, &unused).whoami().await), Code::Unauthenticated);
    client(&inside, &used).whoami().await.expect("its time is not over");
    inside.clock.advance(2 * MINUTE);
    assert_eq!(code(client(&inside, &used).whoami().await), Code::Unauthenticated, "however much it was used");
    let idle = login_of(&inside, owner).await;
    inside.clock.advance(30 * MINUTE - 30_000);
    client(&inside, &idle).whoami().await.expect("half a minute before");
    inside.clock.advance(30 * MINUTE);
    assert_eq!(code(client(&inside, &idle).whoami().await), Code::Unauthenticated, "nobody used it");
    let own = SessionsQuery { principal: Some(owner), ..SessionsQuery::default() };
    assert!(inside.client.sessions(&own).await.expect("a list").items.is_empty(), "ended ones are listed");
}

async fn a_stream_of_a_session_that_is_used_goes_on(engine: Engine) {
    let inside = Inside::start(engine).await;
    let login = login_of(&inside, principal(&inside, &[("admin", None)]).await).await;
    let client = client(&inside, &login);
    let mut tail = client.tail_audit(Some(0));
    next_record(&mut tail).await;
    for _ in 0..3 {
        inside.clock.advance(20 * MINUTE);
        client.whoami().await.expect("it is used");
    }
    inside.token("one").await;
    while next_record(&mut tail).await.action != "token.create" {}
    inside.clock.advance(30 * MINUTE);
    inside.token("two").await;
    let ended = tokio::time::timeout(AT_ONCE, tail.next()).await.expect("at once");
    assert_eq!(code(ended), Code::Unauthenticated, "watching is not using");
}

/// Every way to take access away, while a stream is open.
async fn what_is_taken_away_ends_a_session_at_once(engine: Engine) {
    let inside = Inside::start(engine).await;
    let admin = &inside.client;
    admin.create_role(&role("watcher", &["core_task_view"])).await.expect("a role");
    let watcher = "watcher".parse().expect("a name");
    let token = inside.token("t").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let mut written = 0;
    for way in ["disable", "delete", "grant", "role", "end", "logout", "spared"] {
        let owner = principal(&inside, &[]).await;
        let given = admin.create_grant(&grant(owner, "watcher", Some("default"))).await.expect("given").id;
        let login = login_of(&inside, owner).await;
        let client = client(&inside, &login);
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
            "end" => drop(admin.end_session(login.id).await.expect("ended")),
            "logout" => drop(client.log_out().await.expect("out")),
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
        }
        if way == "disable" {
            admin.enable_principal(owner).await.expect("enabled");
            assert_eq!(code(client.whoami().await), Code::Unauthenticated, "a session came back with its owner");
        }
    }
}

/// What is remembered of sessions, for a revocation while the store is gone, is not remembered of ended ones.
async fn an_ended_session_is_not_remembered(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("t").await;
    let owner = principal(&inside, &[("admin", None)]).await;
    let (kept, ended) = (login_of(&inside, owner).await, login_of(&inside, owner).await);
    let end = async || drop(inside.client.end_session(ended.id).await.expect("ended"));
    only_the_kept_one_is_remembered(&inside, &token, (client(&inside, &kept), client(&inside, &ended)), end).await;
}

async fn sessions_are_listed_and_ended_by_those_who_may(engine: Engine) {
    let inside = Inside::start(engine).await;
    let of = async |role: &str, scope| {
        let owner = principal(&inside, &[(role, scope)]).await;
        (owner, client(&inside, &login_of(&inside, owner).await))
    };
    let (one, by_one) = of("viewer", None).await;
    let own = login_of(&inside, one).await;
    let foreign = login_of(&inside, principal(&inside, &[]).await).await;
    let owners = async |client: &Client| {
        let items = client.sessions(&SessionsQuery::default()).await.expect("a list").items;
        items.into_iter().map(|session| session.principal).collect::<Vec<PrincipalId>>()
    };
    assert_eq!(owners(&by_one).await, [one, one], "one's own and no other");
    assert_eq!(code(by_one.end_session(foreign.id).await), Code::Forbidden);
    by_one.preview_end_session(own.id).await.expect("it would");
    client(&inside, &own).whoami().await.expect("a preview ends nothing");
    by_one.end_session(own.id).await.expect("one's own");
    assert_eq!(code(client(&inside, &own).whoami().await), Code::Unauthenticated);
    let (_, looking) = of("operator", None).await;
    assert!(owners(&looking).await.len() >= 3);
    assert_eq!(code(looking.end_session(foreign.id).await), Code::Forbidden);
    // Those are of nobody who belongs to the account.
    let (_, admin_of_part) = of("admin", Some("default")).await;
    assert_eq!(owners(&admin_of_part).await.len(), 1);
    assert_eq!(code(admin_of_part.end_session(foreign.id).await), Code::NotFound);
    client(&inside, &foreign).whoami().await.expect("nobody ended it");
    let (_, admin) = of("admin", None).await;
    admin.end_session(foreign.id).await.expect("ended");
    assert_eq!(code(client(&inside, &foreign).whoami().await), Code::Unauthenticated);
    assert_eq!(code(admin.end_session(foreign.id).await), Code::NotFound);
}

async fn only_so_many_sessions_are_open(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[]).await;
    let first = login_of(&inside, id).await;
    inside.clock.advance(1);
    for _ in 1..SESSIONS_MAX {
        login_of(&inside, id).await;
    }
    client(&inside, &first).whoami().await.expect("there is room");
    inside.clock.advance(1);
    let newest = log_in(&inside, "alice", PASSWORD).await.expect("a session");
    assert_eq!(code(client(&inside, &first).whoami().await), Code::Unauthenticated, "used longest ago");
    assert_eq!(newest.sessions(&SessionsQuery::default()).await.expect("a list").items.len(), SESSIONS_MAX as usize);
}

/// The routes for which a session must be fresh, written down a second time on purpose: whatever changes access, shows a
/// token's value again, or revokes many tokens at once.
fn must_be_fresh(route: &http::Route) -> bool {
    let needs = |permission| route.access == http::Access::Needs(permission);
    needs(Permission::AccessEdit) || needs(Permission::DelegateReveal) || route.path == routes::TOKENS_REVOKE
}

async fn what_can_hurt_most_asks_sessions_to_be_fresh(engine: Engine) {
    let things = Things::make(engine).await;
    let inside = &things.inside;
    let id = user(inside, "alice", &[("admin", None)]).await;
    let key = key_of(inside, id, None, None).await.reveal();
    let login = login_of(inside, id).await;
    let value = login.reveal();
    inside.clock.advance(FRESH_FOR + 1);
    let mut asked = 0;
    for route in http::table() {
        assert_eq!(route.fresh, must_be_fresh(&route), "{} {}", route.method, route.path);
        if route.path == routes::LOGOUT {
            continue;
        }
        let case = things.case(&route);
        let told = things.try_it(value.expose(), &route, &case).await;
        if route.fresh {
            assert_eq!(told.code(), Code::Reauthenticate, "{} {}: {}", route.method, route.path, told.text());
            let by_key = things.try_it(key.expose(), &route, &case).await;
            assert!(succeeded(&route, &by_key), "{} {}: {}", route.method, route.path, by_key.text());
            asked += 1;
        } else {
            let refused = told.status == 403 && told.code() == Code::Reauthenticate;
            assert!(!refused, "{} {}: {}", route.method, route.path, told.text());
        }
    }
    assert!(asked >= 13, "{asked}");

    let session = client(inside, &login);
    let wrong = Reauthenticate { password: secret("another sentence") };
    assert_eq!(code(session.reauthenticate(&wrong).await), Code::LoginRefused);
    let right = Reauthenticate { password: secret(PASSWORD) };
    let shown = session.reauthenticate(&right).await.expect("shown");
    assert!(shown.current && shown.authenticated_at > shown.created_at + FRESH_FOR);
    for route in http::table().iter().filter(|route| route.fresh) {
        let told = things.try_it(value.expose(), route, &things.case(route)).await;
        assert!(succeeded(route, &told), "{} {}: {}", route.method, route.path, told.text());
    }
    // Neither a clock that is set back keeps it fresh.
    inside.clock.jump(-FRESH_FOR - 1_000);
    let narrow = principal(inside, &[]).await;
    assert_eq!(code(session.create_grant(&grant(narrow, "viewer", None)).await), Code::Reauthenticate);
    assert_eq!(code(inside.client.reauthenticate(&right).await), Code::NotASession);
}

async fn a_client_that_may_ask_goes_on_by_itself(engine: Engine) {
    let inside = Inside::start(engine).await;
    let id = user(&inside, "alice", &[("admin", None)]).await;
    let session = client(&inside, &login_of(&inside, id).await);
    inside.clock.advance(FRESH_FOR + 1);
    let asked = Arc::new(AtomicU32::new(0));
    let saying = |password: Option<&'static str>| {
        let asked = Arc::clone(&asked);
        session.clone().reauthenticating(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            password.map(secret)
        })
    };
    let create = role("made", &[]);
    assert_eq!(code(saying(None).create_role(&create).await), Code::Reauthenticate);
    assert_eq!(code(saying(Some("another sentence")).create_role(&create).await), Code::LoginRefused);
    saying(Some(PASSWORD)).create_role(&create).await.expect("made once it was shown");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    saying(None).delete_role(&"made".parse().expect("a name")).await.expect("it is fresh now");
    assert_eq!(asked.load(Ordering::SeqCst), 3, "and is not asked again");
}

/// A request with a cookie, as a browser sends it.
fn browsing(raw: &Raw, method: Method, path: &str, cookie: &str, headers: &[(&str, &str)]) -> RequestBuilder {
    let request = raw.bare(method, path).header("cookie", format!("theme=dark; {cookie}"));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Logs in as a browser does; what the answer sets, and nothing of it is where a script could read it.
async fn cookie_of(raw: &Raw, name: &str) -> String {
    let body = format!(r#"{{"name":"{name}","password":"{PASSWORD}","cookie":true}}"#);
    let login = raw.bare(Method::POST, routes::LOGIN).header(JSON.0, JSON.1).body(body);
    let response = login.send().await.expect("an answer");
    let set = response.headers()["set-cookie"].to_str().expect("a cookie").to_owned();
    let told: serde_json::Value = serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
    assert!(told["value"].is_null(), "what no script may read is not in the answer");
    set
}

async fn a_cookie_counts_only_from_pages_of_the_managers_own(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    user(&inside, "alice", &[("operator", Some("default"))]).await;
    let set = cookie_of(&raw, "alice").await;
    let (cookie, attributes) = set.split_once("; ").expect("attributes");
    assert!(cookie.starts_with("legation=lcs_"), "{set}");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");

    let whoami = answer(browsing(&raw, Method::GET, routes::WHOAMI, cookie, &[("sec-fetch-site", "none")])).await;
    assert_eq!(whoami.json()["name"], "alice");
    let own = inside.url.clone();
    let number = std::cell::Cell::new(0);
    let post = async |headers: &[(&str, &str)]| {
        number.set(number.get() + 1);
        let body = format!(r#"{{"scope":"default","name":"t{}"}}"#, number.get());
        answer(browsing(&raw, Method::POST, routes::TOKENS, cookie, headers).body(body)).await
    };
    for headers in [
        &[][..],
        &[JSON],
        &[JSON, ("sec-fetch-site", "cross-site")],
        &[JSON, ("sec-fetch-site", "same-site")],
        &[JSON, ("sec-fetch-site", "none")],
        &[JSON, ("sec-fetch-site", "same-site"), ("origin", &own)],
        &[JSON, ("origin", "http://evil.example")],
        &[JSON, ("origin", "null")],
        &[JSON, ("origin", &own.replace("http://", "https://"))],
        &[("sec-fetch-site", "same-origin")],
        &[("content-type", "text/plain"), ("sec-fetch-site", "same-origin")],
        &[("content-type", "application/x-www-form-urlencoded"), ("origin", &own)],
    ] {
        assert_eq!(post(headers).await.code(), Code::CrossOrigin, "{headers:?}");
    }
    assert_eq!(post(&[JSON, ("sec-fetch-site", "same-origin")]).await.status, 201);
    assert_eq!(post(&[JSON, ("origin", &own)]).await.status, 201);
    // Whoever can send a header knows the value, and then the cookie beside it says nothing.
    let both = browsing(&raw, Method::GET, routes::WHOAMI, cookie, &[]).bearer_auth(inside.key.expose());
    assert_eq!(answer(both).await.json()["key_name"], "test");
    let twice = format!("{cookie}; {cookie}");
    assert_eq!(answer(browsing(&raw, Method::GET, routes::WHOAMI, &twice, &[])).await.code(), Code::Unauthenticated);

    let out = browsing(&raw, Method::POST, routes::LOGOUT, cookie, &[JSON, ("sec-fetch-site", "same-origin")]);
    let out = out.send().await.expect("an answer");
    assert!(out.headers()["set-cookie"].to_str().expect("a cookie").starts_with("legation=; "), "{out:?}");
    assert_eq!(answer(browsing(&raw, Method::GET, routes::WHOAMI, cookie, &[])).await.code(), Code::Unauthenticated);
}

async fn over_https_the_cookie_is_of_this_host_alone(engine: Engine) {
    let settings = Settings { public_url: Some("https://Legation.example.com/".to_owned()), ..Settings::default() };
    let inside = Inside::with(engine, settings).await;
    let raw = Raw::of(&inside);
    user(&inside, "alice", &[("operator", Some("default"))]).await;
    let set = cookie_of(&raw, "alice").await;
    assert!(set.starts_with("__Host-legation=lcs_") && set.ends_with("; Secure"), "{set}");
    let cookie = set.split(';').next().expect("a cookie");
    let post = async |origin: &str| {
        let headers = [JSON, ("origin", origin)];
        let body = r#"{"scope":"default","name":"t"}"#;
        answer(browsing(&raw, Method::POST, routes::TOKENS, cookie, &headers).body(body)).await
    };
    assert_eq!(post(&inside.url).await.code(), Code::CrossOrigin, "the address behind the proxy is no page's");
    assert_eq!(post("https://legation.example.com").await.status, 201);
    let plain = cookie.replace("__Host-", "");
    assert_eq!(answer(browsing(&raw, Method::GET, routes::WHOAMI, &plain, &[])).await.code(), Code::Unauthenticated);
}
