//! Bad input over HTTP: a clear refusal, nothing half done, and everyone else served as before.

use legation_api::{Code, routes, tasks::SubmitTask, tokens::CreateToken};
use legation_model::{
    Clock as _,
    ids::TaskId,
    task::{SECRET_MAX, WORK_MAX},
};
use legation_store::audit;
use legation_testkit::{Engine, Inside};
use reqwest::Method;
use serde_json::{Value, json};

use super::raw::{Answer, Raw, answer};

super::on_both!(
    texts_that_are_no_json_of_ours,
    tokens_that_break_a_rule,
    names_that_could_deceive,
    tasks_that_break_a_rule,
    bodies_beyond_their_bound,
    bodies_of_another_kind,
    queries_that_nobody_understands,
    ids_of_nothing,
    paths_and_methods_that_are_not_there,
    scopes_that_are_not_there,
    a_repeated_request_does_nothing_again,
    idempotency_keys_that_are_none,
    dry_runs_change_nothing,
);

/// Longer than any name, and longer than any body.
const TEN_MEGABYTES: usize = 10_000_000;
/// Longer than any password or code may be in a body that has no other field.
const SIXTEEN_KIB: usize = 16 << 10;

/// A Manager, and a look at everything in its database that a request could change.
struct Watched {
    inside: Inside,
    raw: Raw,
    before: String,
}

impl Watched {
    async fn start(engine: Engine) -> Self {
        let inside = Inside::start(engine).await;
        Self::of(inside).await
    }

    async fn of(inside: Inside) -> Self {
        let raw = Raw::of(&inside);
        let before = everything(&inside, &raw).await;
        Self { inside, raw, before }
    }

    async fn refused(&self, answer: Answer, code: Code, what: &str) -> String {
        let problem = answer.problem();
        assert_eq!(problem.code, code, "{what}: {problem:?}");
        format!("{} {}", problem.detail, problem.fix)
    }

    async fn posted(&self, path: &str, body: impl Into<String>, code: Code) -> String {
        let body: String = body.into();
        let what: String = body.chars().take(200).collect();
        self.refused(self.raw.post(path, body).await, code, &what).await
    }

    /// Nothing has changed, and the Manager still works.
    async fn unharmed(&self) {
        assert_eq!(everything(&self.inside, &self.raw).await, self.before);
        self.inside.token("still-works").await;
    }
}

/// Every list, and how long the audit record is.
async fn everything(inside: &Inside, raw: &Raw) -> String {
    let last = inside.manager.store.read(|conn| Box::pin(audit::last(conn))).await.expect("read");
    let mut all = format!("{:?}", last.map(|(number, _)| number));
    for list in ["scopes", "accounts", "tokens?include_revoked=true", "delegates", "tasks", "receipts"] {
        let mut list = raw.get(&format!("/api/v1/{list}")).await.json();
        for item in list["items"].as_array_mut().expect("a list") {
            // These follow the delegates and not the requests.
            for seen in ["last_used_at", "last_seen_at", "uses"] {
                item[seen] = Value::Null;
            }
        }
        all += &list.to_string();
    }
    all
}

fn token(change: impl FnOnce(&mut Value)) -> String {
    let mut token = json!({"scope": "default", "name": "t"});
    change(&mut token);
    token.to_string()
}

fn task(change: impl FnOnce(&mut Value)) -> String {
    let mut task = json!({"scope": "default", "work": {"shell": {"script": "true"}}});
    change(&mut task);
    task.to_string()
}

async fn texts_that_are_no_json_of_ours(engine: Engine) {
    let watched = Watched::start(engine).await;
    let deep = |open: &str, close: &str| {
        let (open, close) = (open.repeat(10_000), close.repeat(10_000));
        format!(r#"{{"scope":"default","name":"t","description":{open}{close}}}"#)
    };
    let cases = [
        ("", "missing field"),
        ("null", "object"),
        ("[]", "object"),
        ("[\"default\",\"t\",\"\",true,null,null,[],[],[]]", "object"),
        ("7", "object"),
        ("   ", "object"),
        ("{", "EOF"),
        ("{\"scope\":\"default\",\"name\":\"t\"", "EOF"),
        ("{\"scope\":\"default\",\"name\":\"t\"} {}", "trailing"),
        ("{\"scope\":\"default\",\"name\":\"t\"}x", "trailing"),
        ("{\"scope\":\"default\",\"name\":\"t\",\"name\":\"u\"}", "duplicate"),
        ("{\"scope\":\"default\",\"name\":\"t\",\"n\\u0061me\":\"u\"}", "duplicate"),
        ("{\"scope\":\"default\",\"name\":\"t\",\"nmae\":\"u\"}", "unknown field"),
        ("{\"scope\":\"default\",\"name\":\"\\ud800\"}", ""),
        ("{\"scope\":\"default\",\"name\":\"a\nb\"}", ""),
        ("{\"scope\":\"default\",\"name\":null}", "name"),
        ("{\"scope\":\"default\",\"name\":{\"a\":1}}", "name"),
        ("{'scope':'default','name':'t'}", ""),
        ("\u{feff}{\"scope\":\"default\",\"name\":\"t\"}", ""),
        (&deep("[", "]"), "levels"),
        (&deep("{\"a\":", "}"), ""),
        (&"[".repeat(100_000), "object"),
        (&"{\"a\":".repeat(100_000), "levels"),
    ];
    for (body, word) in cases {
        let told = watched.posted(routes::TOKENS, body, Code::InvalidRequest).await;
        assert!(told.contains(word), "{told}");
    }
    let bytes = watched.raw.post(routes::TOKENS, b"{\"scope\":\"default\",\"name\":\"\xff\xfe\"}".to_vec()).await;
    watched.refused(bytes, Code::InvalidRequest, "bytes that are no UTF-8").await;
    watched.unharmed().await;
}

async fn tokens_that_break_a_rule(engine: Engine) {
    let watched = Watched::start(engine).await;
    let now = watched.inside.clock.wall();
    let many: Vec<_> = (0..10_000).map(|number| format!("tag{number}")).collect();
    let cases = [
        ("expires_at", json!(now - 1)),
        ("expires_at", json!(0)),
        ("expires_at", json!(i64::MIN)),
        ("expires_at", json!(1e300)),
        ("expires_at", json!("tomorrow")),
        ("max_delegates", json!(0)),
        ("max_delegates", json!(-1)),
        ("max_delegates", json!(1.5)),
        ("max_delegates", json!(u64::MAX)),
        ("max_delegates", json!(1_000_001)),
        ("allowed_cidrs", json!(["10.0.0.0/33"])),
        ("allowed_cidrs", json!(["10.0.0.0.0/8"])),
        ("allowed_cidrs", json!(["::/129"])),
        ("allowed_cidrs", json!(["everywhere"])),
        ("allowed_cidrs", json!([""])),
        ("allowed_cidrs", json!("10.0.0.0/8")),
        ("allowed_names", json!(["*a*"])),
        ("allowed_names", json!(["../a"])),
        ("pinned_tags", json!(["two words"])),
        ("pinned_tags", json!(many)),
        ("enrolment", json!("maybe")),
        ("enrolment", json!(null)),
        ("ephemeral", json!("yes")),
        ("canary", json!(1)),
        ("issue", json!("yes")),
    ];
    for (field, value) in cases {
        let told = watched.posted(routes::TOKENS, token(|token| token[field] = value), Code::InvalidRequest).await;
        assert!(told.contains(field), "{field}: {told}");
    }
    watched.unharmed().await;
}

/// Names that hide, imitate, reach into a path or a statement, or never end.
fn deceptions() -> Vec<String> {
    let texts = [
        "",
        " ",
        " a",
        "a\0",
        "a\nb",
        "a\u{1b}[31m",
        "a\u{7f}",
        "a\u{202e}b",
        "a\u{200b}b",
        "\u{feff}a",
        "а",
        "аdmin",
        "ａ",
        "a\u{301}",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "a%2fb",
        "a?b",
        "a#b",
        "<script>",
        "a'; DROP TABLE tokens; --",
        "a\" OR \"\"=\"",
        "$1",
        "{a}",
    ];
    let long = ["a".repeat(129), "a".repeat(3_000_000)];
    texts.into_iter().map(str::to_owned).chain(long).collect()
}

async fn names_that_could_deceive(engine: Engine) {
    let watched = Watched::start(engine).await;
    for name in deceptions() {
        // A scope may have levels; an account, below, may not.
        let scope = if name == "a/b" { "a//b" } else { &name };
        let fields = [("name", name.as_str()), ("scope", scope)];
        let fields = fields.map(|(field, value)| (routes::TOKENS, token(|token| token[field] = json!(value))));
        let account = (routes::ACCOUNTS, json!({"id": name}).to_string());
        let place = (routes::SCOPES, json!({"scope": scope}).to_string());
        let tag = (routes::TOKENS, token(|token| token["pinned_tags"] = json!([name])));
        let selector = (routes::TASKS, task(|task| task["selectors"] = json!([name])));
        for (path, body) in fields.into_iter().chain([account, place, tag, selector]) {
            let told = watched.posted(path, body, Code::InvalidRequest).await;
            assert!(!told.contains("DROP") && !told.contains("etc") && !told.contains('\u{202e}'), "repeated: {told}");
        }
    }
    for text in ["a\0b", "a\u{7}", "a\u{202e}b", "a\u{2066}b", &"x".repeat(1025)] {
        watched.posted(routes::TOKENS, token(|token| token["description"] = json!(text)), Code::InvalidRequest).await;
        watched
            .posted(routes::ACCOUNTS, json!({"id": "a", "description": text}).to_string(), Code::InvalidRequest)
            .await;
    }
    watched.unharmed().await;
}

async fn tasks_that_break_a_rule(engine: Engine) {
    let watched = Watched::start(engine).await;
    let invalid = [
        task(|task| task["work"] = json!({})),
        task(|task| task["work"] = json!({"shell": {"script": "a"}, "http": {"method": "GET", "url": "http://a"}})),
        task(|task| task["work"] = json!({"sql": {"script": "a"}})),
        task(|task| task["work"]["shell"]["script"] = json!("")),
        task(|task| task["work"]["shell"]["script"] = json!(" \n\t")),
        task(|task| task["work"]["shell"]["env"] = json!({"A=B": "c"})),
        task(|task| task["work"]["shell"]["env"] = json!({"A": "c\0"})),
        task(|task| task["work"]["shell"]["cwd"] = json!("a\0")),
        task(|task| task["work"] = json!({"http": {"method": "GET", "url": "file:///etc/passwd"}})),
        task(|task| task["work"] = json!({"http": {"method": "GET /", "url": "http://a"}})),
        task(|task| task["retries"] = json!(1)),
        task(|task| (task["retries"], task["idempotent"]) = (json!(11), json!(true))),
        task(|task| task["timeout_ms"] = json!(0)),
        task(|task| task["timeout_ms"] = json!(i64::MAX)),
        task(|task| task["queue_timeout_ms"] = json!(-5)),
        task(|task| task["output_limit"] = json!(u64::MAX)),
        task(|task| task["selectors"] = json!(vec!["a"; 10_000])),
        task(|task| task["secrets"] = json!({"1A": "value"})),
        task(|task| task["secrets"] = json!({"A": ""})),
        task(|task| task["secrets"] = json!({"A": "a\0"})),
        task(|task| {
            task["secrets"] = json!((0..33).map(|n| (format!("A{n}"), json!("v"))).collect::<serde_json::Map<_, _>>())
        }),
    ];
    for body in invalid {
        watched.posted(routes::TASKS, body, Code::InvalidRequest).await;
    }
    let large = [
        task(|task| task["work"]["shell"]["script"] = json!("x".repeat(WORK_MAX + 1))),
        task(|task| task["work"]["shell"]["stdin"] = json!("x".repeat(WORK_MAX + 1))),
        task(|task| task["secrets"] = json!({"A": "hunter2".repeat(SECRET_MAX / 7 + 1)})),
    ];
    for body in large {
        let told = watched.posted(routes::TASKS, body, Code::BodyTooLarge).await;
        assert!(!told.contains("hunter2"), "a secret is repeated");
    }
    let misplaced = task(|task| task["secrets"] = json!("hunter2"));
    assert!(!watched.posted(routes::TASKS, misplaced, Code::InvalidRequest).await.contains("hunter2"));
    watched.unharmed().await;
}

async fn bodies_beyond_their_bound(engine: Engine) {
    let watched = Watched::start(engine).await;
    for body in [
        token(|token| token["name"] = json!("a".repeat(TEN_MEGABYTES))),
        task(|task| task["work"]["shell"]["script"] = json!("a".repeat(TEN_MEGABYTES))),
        " ".repeat(TEN_MEGABYTES),
    ] {
        watched.posted(routes::TOKENS, body, Code::BodyTooLarge).await;
    }
    // Without a length, so that only counting helps.
    let pieces = (0..TEN_MEGABYTES / 100_000).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100_000]));
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    watched.refused(watched.raw.post(routes::TOKENS, stream).await, Code::BodyTooLarge, "a stream").await;
    // What somebody sends who has no key yet is small, and bounded before anybody asks who they are.
    for (path, body) in [
        (routes::LOGIN, json!({"name": "alice", "password": "a".repeat(SIXTEEN_KIB)})),
        (routes::UNWRAP, json!({"code": "a".repeat(SIXTEEN_KIB)})),
        (routes::REAUTHENTICATE, json!({"password": "a".repeat(SIXTEEN_KIB)})),
    ] {
        watched.posted(path, body.to_string(), Code::BodyTooLarge).await;
    }
    watched.unharmed().await;
}

async fn bodies_of_another_kind(engine: Engine) {
    let watched = Watched::start(engine).await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json5; a", ""] {
        let request = watched.raw.posting(routes::TOKENS, token(|_| {})).header("content-type", "").build();
        let mut request = request.expect("a request");
        request.headers_mut().insert("content-type", kind.parse().expect("a header"));
        let request = reqwest::RequestBuilder::from_parts(reqwest::Client::new(), request);
        watched.refused(answer(request).await, Code::UnsupportedMediaType, kind).await;
    }
    watched.unharmed().await;
    let mut request = watched.raw.posting(routes::TOKENS, token(|_| {})).build().expect("a request");
    request.headers_mut().insert("content-type", "Application/JSON; charset=utf-8".parse().expect("a header"));
    let request = reqwest::RequestBuilder::from_parts(reqwest::Client::new(), request);
    assert_eq!(answer(request).await.status, 201);
}

async fn queries_that_nobody_understands(engine: Engine) {
    let watched = Watched::start(engine).await;
    let task = super::submit(&watched.inside, "nobody").await;
    let watched = Watched::of(watched.inside).await;
    for list in [routes::ACCOUNTS, routes::SCOPES, routes::TOKENS, routes::DELEGATES, routes::TASKS, routes::RECEIPTS] {
        let mut queries = vec![
            "limit=-1".to_owned(),
            "limit=x".to_owned(),
            "limit=".to_owned(),
            "limit=4294967296".to_owned(),
            "limit=1&limit=2".to_owned(),
            "nonsense=1".to_owned(),
            "limit=1&a%00b=%ff".to_owned(),
        ];
        let cursors = ["", "x", "1.%00", "1.%ff", "99999999999999999999.x", "'%20OR%201=1", "../..", "%e2%80%ae"];
        if list != routes::ACCOUNTS && list != routes::SCOPES {
            queries.extend(cursors.map(|cursor| format!("cursor={cursor}")));
        }
        queries.extend(["cursor=".to_owned(), "cursor=%00".to_owned(), format!("cursor={}", "a".repeat(10_000))]);
        if list != routes::ACCOUNTS {
            queries.extend(["scope=UPPER", "scope=a/b/c/d", "scope=", "scope=%00", "scope=..%2f.."].map(str::to_owned));
        }
        for query in queries {
            let answer = watched.raw.get(&format!("{list}?{query}")).await;
            watched.refused(answer, Code::InvalidRequest, &format!("{list}?{query}")).await;
        }
        for limit in [0, 1, 1001, u32::MAX] {
            let page = watched.raw.get(&format!("{list}?limit={limit}")).await.json();
            assert!(page["items"].as_array().is_some_and(|items| items.len() <= limit.clamp(1, 1000) as usize));
        }
    }
    for query in [
        "tasks?state=nonsense",
        "delegates?status=nonsense",
        "tasks?delegate=x",
        "delegates?token=x",
        "receipts?token=../x",
        "tokens?name=a/b",
    ] {
        let answer = watched.raw.get(&format!("/api/v1/{query}")).await;
        watched.refused(answer, Code::InvalidRequest, query).await;
    }
    // A misspelt wish, above all for a dry run, must not become the deed.
    for (path, query) in [
        (routes::TOKENS.to_owned(), "dry_run=true"),
        (routes::TASKS.to_owned(), "dry_run=true"),
        (routes::ACCOUNTS.to_owned(), "dry_run=true"),
        (routes::fill(routes::TASK_CANCEL, &task), "dry-run=true"),
        (routes::fill(routes::TASK_CANCEL, &task), "dry_run=yes"),
        (routes::fill(routes::TASK_CANCEL, &task), "dry_run=true&dry_run=false"),
    ] {
        let body = match path.as_str() {
            routes::TOKENS => token(|_| {}),
            routes::TASKS => self::task(|_| {}),
            routes::ACCOUNTS => r#"{"id":"a"}"#.to_owned(),
            _ => "{}".to_owned(),
        };
        let answer = watched.raw.post(&format!("{path}?{query}"), body).await;
        watched.refused(answer, Code::InvalidRequest, &format!("{path}?{query}")).await;
    }
    for path in
        [routes::WHOAMI.to_owned(), routes::fill(routes::TASK, &task), routes::fill(routes::ACCOUNT, &"default")]
    {
        let answer = watched.raw.get(&format!("{path}?nonsense=1")).await;
        watched.refused(answer, Code::InvalidRequest, &path).await;
    }
    watched.unharmed().await;
}

async fn ids_of_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let task = super::submit(&inside, "nobody").await;
    let watched = Watched::of(inside).await;
    let mut ids = vec![
        TaskId([3; 16]).to_string(),
        task.to_string().replace("tsk_", "rcp_"),
        task.to_string().replace("tsk_", "tsk-"),
        "tsk_zzzzzzzzzzzzzzzzzzzzzz".to_owned(),
        "zzzzzzzzzzzzzzzzzzzzzz".to_owned(),
        "0".to_owned(),
        "a".repeat(10_000),
    ];
    ids.extend(
        ["%00", "%ff%fe", "%2e%2e%2f%2e%2e", "a%2fb", "'%20OR%201=1", "%e2%80%ae", "%", "a%20b"].map(str::to_owned),
    );
    for id in ids {
        for path in [
            routes::ACCOUNT,
            routes::SCOPE,
            routes::TOKEN,
            routes::DELEGATE,
            routes::TASK,
            routes::TASK_OUTPUT,
            routes::RECEIPT,
        ] {
            let path = routes::fill(path, &id);
            watched.refused(watched.raw.get(&path).await, Code::NotFound, &path).await;
        }
        for path in [
            routes::TOKEN_ISSUE,
            routes::TOKEN_REVOKE,
            routes::TASK_CANCEL,
            routes::DELEGATE_STOP,
            routes::DELEGATE_ALLOW,
        ] {
            watched.posted(&routes::fill(path, &id), "{}", Code::NotFound).await;
        }
    }
    watched.unharmed().await;
}

async fn paths_and_methods_that_are_not_there(engine: Engine) {
    let watched = Watched::start(engine).await;
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v2/tokens",
        "/api/v1/tokens/",
        "/api/v1//tokens",
        "/api/v1/TOKENS",
        "/favicon.ico",
    ] {
        watched.refused(watched.raw.get(path).await, Code::NotFound, path).await;
    }
    for path in [routes::TOKENS, routes::ACCOUNTS, routes::WHOAMI, routes::HEALTHZ, routes::LINK, routes::METRICS] {
        for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"BREW").expect("a method")] {
            let request = watched.raw.with(watched.inside.key.expose(), method.clone(), path);
            let response = request.send().await.expect("an answer");
            assert!(response.headers().contains_key("allow"), "{method} {path}");
            let request = watched.raw.with(watched.inside.key.expose(), method, path);
            watched.refused(answer(request).await, Code::MethodNotAllowed, path).await;
        }
    }
    watched.unharmed().await;
}

async fn scopes_that_are_not_there(engine: Engine) {
    let watched = Watched::start(engine).await;
    watched.posted(routes::TOKENS, token(|token| token["scope"] = json!("never")), Code::NotFound).await;
    watched.posted(routes::TOKENS, token(|token| token["scope"] = json!("never/team")), Code::NotFound).await;
    watched.posted(routes::TASKS, task(|task| task["scope"] = json!("never")), Code::NotFound).await;
    watched.posted(routes::TOKENS, token(|token| token["scope"] = json!("default/never")), Code::NotFound).await;
    watched.posted(routes::TASKS, task(|task| task["scope"] = json!("default/never/app")), Code::NotFound).await;
    watched.posted(routes::SCOPES, r#"{"scope":"never/team"}"#, Code::NotFound).await;
    watched.posted(routes::SCOPES, r#"{"scope":"default/team","lease_ms":60000}"#, Code::InvalidRequest).await;
    watched.posted(routes::SCOPES, r#"{"scope":"default"}"#, Code::NameTaken).await;
    watched.posted(routes::ACCOUNTS, r#"{"id":"a/b"}"#, Code::InvalidRequest).await;
    watched.posted(routes::ACCOUNTS, r#"{"id":"default"}"#, Code::NameTaken).await;
    watched.posted(routes::ACCOUNTS, r#"{"id":"a","lease_ms":1}"#, Code::InvalidRequest).await;
    watched.posted(routes::TOKENS, token(|token| token["name"] = json!("default_token")), Code::NameTaken).await;
    watched.unharmed().await;
}

async fn a_repeated_request_does_nothing_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let send = async |path: &str, key: &str, body: String| {
        answer(raw.posting(path, body).header("idempotency-key", key)).await
    };
    // A refused request leaves its key free.
    assert_eq!(
        send(routes::TOKENS, "one", token(|token| token["name"] = json!("a/b"))).await.code(),
        Code::InvalidRequest
    );
    let first = send(routes::TOKENS, "one", token(|_| {})).await.json();
    assert!(first["value"].as_str().is_some_and(|value| value.starts_with("ldt_")) && first.get("code").is_none());
    let task_made = send(routes::TASKS, "two", task(|_| {})).await.json();
    let account = send(routes::ACCOUNTS, "three", r#"{"id":"a"}"#.to_owned()).await.json();
    let watched = Watched::of(inside).await;

    let again = send(routes::TOKENS, "one", token(|_| {})).await;
    assert_eq!(again.status, 201, "{}", again.text());
    let again = again.json();
    assert_eq!(again["token"], first["token"]);
    assert_eq!((&again["value"], &again["code"]), (&Value::Null, &json!("value_already_shown")));
    assert_eq!(send(routes::TASKS, "two", task(|_| {})).await.json()["id"], task_made["id"]);
    assert_eq!(send(routes::ACCOUNTS, "three", r#"{"id":"a"}"#.to_owned()).await.json(), account);

    let other = token(|token| token["name"] = json!("other"));
    assert_eq!(send(routes::TOKENS, "one", other).await.code(), Code::IdempotencyMismatch);
    assert_eq!(send(routes::ACCOUNTS, "one", r#"{"id":"b"}"#.to_owned()).await.code(), Code::IdempotencyMismatch);
    assert_eq!(send(routes::TASKS, "one", task(|_| {})).await.code(), Code::IdempotencyMismatch);
    watched.unharmed().await;
}

async fn idempotency_keys_that_are_none(engine: Engine) {
    let watched = Watched::start(engine).await;
    let long = "k".repeat(256);
    for key in [&b""[..], b"two words", b"tab\there", b"\xff\xfe", long.as_bytes()] {
        let key = reqwest::header::HeaderValue::from_bytes(key).expect("a header");
        for (path, body) in
            [(routes::TOKENS, token(|_| {})), (routes::TASKS, task(|_| {})), (routes::ACCOUNTS, r#"{"id":"a"}"#.into())]
        {
            let request = watched.raw.posting(path, body).header("idempotency-key", key.clone());
            watched.refused(answer(request).await, Code::InvalidRequest, path).await;
        }
    }
    watched.unharmed().await;
}

async fn dry_runs_change_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (active, revoked) = (inside.token("active").await, inside.token("revoked").await);
    inside.client.revoke_token(revoked.id, &Default::default()).await.expect("revoked");
    let mut unissued = CreateToken::new("default".parse().expect("a scope"), "unissued".parse().expect("a name"));
    unissued.issue = false;
    let unissued = inside.client.create_token(&unissued).await.expect("created").token.id;
    let mut puppet = inside.puppet("one", &active);
    puppet.join().await;
    let work = legation_api::tasks::Work::Shell(legation_api::tasks::Shell {
        script: "true".to_owned(),
        ..Default::default()
    });
    let mut request = SubmitTask::new("default".parse().expect("a scope"), work);
    request.selectors = vec!["nobody".parse().expect("a selector")];
    let task = inside.client.submit_task(&request).await.expect("submitted").id;
    let key = inside.key.expose().to_owned();
    let watched = Watched::of(inside).await;
    let dry = async |method: Method, path: &str, id: String| {
        let path = format!("{}?dry_run=true", routes::fill(path, &id));
        let answer = answer(watched.raw.with(&key, method, &path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let issue = dry(Method::POST, routes::TOKEN_ISSUE, unissued.to_string()).await;
    assert_eq!((&issue["generation"], issue.get("value")), (&json!(1), None));
    let revoke = dry(Method::POST, routes::TOKEN_REVOKE, active.id.to_string()).await;
    assert_eq!(revoke["delegates"][0]["name"], "one");
    assert_eq!(dry(Method::DELETE, routes::TOKEN, revoked.id.to_string()).await["token"]["status"], "revoked");
    assert_eq!(dry(Method::POST, routes::TASK_CANCEL, task.to_string()).await["task"]["state"], "queued");
    watched.inside.sessions(&active, 1).await;
    watched.unharmed().await;
}
