//! Who may do what, for every route of the table: a route that nobody thought of here fails.

use legation_api::{
    Code,
    accounts::CreateAccount,
    audit::AuditQuery,
    grants::{CreateGrant, GrantsQuery},
    principals::CreatePrincipal,
    receipts::Receipt,
    revoke::RevokeToken,
    roles::{CreateRole, words},
    routes,
    scopes::CreateScope,
    tasks::Task,
    tokens::CreateToken,
};
use legation_manager::http::{self, Access, Route};
use legation_model::{
    Clock as _, Secret,
    access::{Permission, Permissions, PrincipalKind, Role},
    api_key::ApiKey,
    ids::{ApiKeyId, DelegateId, GrantId, LoginId, ManagerKeyId, PrincipalId, ReceiptId, TaskId, TokenId},
    login::Login,
    reveal::Reveal,
    token::TokenStatus,
};
use legation_store::{api_keys, job};
use legation_testkit::{Engine, Inside};
use reqwest::{Method, RequestBuilder};

use super::raw::{Answer, Raw, answer, key, key_of, login_of, principal};

super::on_both!(
    nobody_passes_without_an_accepted_key,
    each_role_does_what_it_may_and_no_more,
    foreign_objects_answer_like_those_that_never_were,
    a_key_of_the_scope_itself_works_in_it,
    one_permission_opens_its_routes_and_all_the_others_do_not,
    several_grants_count_each_in_its_place,
    somebody_who_is_disabled_does_nothing,
    a_key_ends_at_its_millisecond,
);

/// The account that the objects of these tests are not in.
const ELSEWHERE: &str = "elsewhere";
/// A role that may change access and nothing else, and another one that nobody has.
const ACCESSOR: &str = "accessor";
const SPARE: &str = "spare";
/// More than grants are made in one test.
const GRANTLESS: usize = 32;

/// The least that a caller must be for a route, written down a second time on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Least {
    Nobody,
    Viewer,
    Operator,
    Admin,
}

impl Least {
    fn allows(self, role: Role) -> bool {
        let rank = match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        };
        self <= rank
    }
}

/// What a route is tried with.
pub(super) struct Case {
    least: Least,
    /// Whether it is about something that belongs to no scope.
    tree: bool,
    /// The path of an object that exists, and of one of its kind that never did.
    path: String,
    missing: String,
    /// Added to the path so that trying changes nothing.
    harmless: &'static str,
    body: String,
    /// The same body about what never was.
    missing_body: String,
}

/// One object of every kind, in the account `default`.
pub(super) struct Things {
    pub(super) inside: Inside,
    pub(super) raw: Raw,
    active: TokenId,
    unissued: TokenId,
    revoked: TokenId,
    delegate: DelegateId,
    task: Task,
    receipt: Receipt,
    signing_key: ManagerKeyId,
    record: u64,
    principal: PrincipalId,
    /// A person.
    user: PrincipalId,
    login: LoginId,
    /// Principals that have no grant yet, for those who give some.
    grantless: Vec<PrincipalId>,
    grant: GrantId,
    api_key: ApiKeyId,
    number: std::cell::Cell<u32>,
    _puppet: legation_testkit::Puppet,
}

impl Things {
    pub(super) async fn make(engine: Engine) -> Self {
        let inside = Inside::start(engine).await;
        let raw = Raw::of(&inside);
        super::reveal::keep(&inside, "default", Reveal::Audited).await;
        let (active, revoked) = (inside.token("active").await, inside.token("revoked").await);
        let mut request = CreateToken::new("default".parse().expect("a scope"), "unissued".parse().expect("a name"));
        request.issue = false;
        let unissued = inside.client.create_token(&request).await.expect("created").token.id;
        let receipt = inside.client.revoke_token(revoked.id, &RevokeToken::default()).await.expect("revoked");
        let mut puppet = inside.puppet("one", &active);
        let delegate = puppet.join().await.delegate;
        let task = super::submit(&inside, "nobody").await;
        let task = inside.client.task(task).await.expect("a task");
        let account =
            CreateAccount { id: ELSEWHERE.parse().expect("a scope"), description: Default::default(), lease_ms: None };
        inside.client.create_account(&account).await.expect("created");
        let empty = CreateScope {
            scope: "default/empty".parse().expect("a scope"),
            description: Default::default(),
            lease_ms: None,
        };
        inside.client.create_scope(&empty).await.expect("created");
        let signing_key = inside.client.signing_keys().await.expect("keys").items[0].id;
        let of_default = AuditQuery { action: Some("token.revoke".to_owned()), ..AuditQuery::default() };
        let record = inside.client.audit(&of_default).await.expect("records").items[0].number;
        let (active, revoked) = (active.id, revoked.id);
        let mut grantless = Vec::new();
        for number in 0..GRANTLESS {
            grantless.push(Self::service_account(&inside, &format!("grantless{number}")).await);
        }
        let owner = Self::access(&inside).await;
        let query = GrantsQuery { principal: Some(owner), ..GrantsQuery::default() };
        let grant = inside.client.grants(&query).await.expect("grants").items[0].id;
        let api_key = key_of(&inside, owner, None, None).await.id;
        let user = Self::one_of(&inside, PrincipalKind::User, "person").await;
        let login = login_of(&inside, owner).await.id;
        Self {
            principal: owner,
            user,
            login,
            grantless,
            grant,
            api_key,
            inside,
            raw,
            active,
            unissued,
            revoked,
            delegate,
            task,
            receipt,
            signing_key,
            record,
            number: std::cell::Cell::default(),
            _puppet: puppet,
        }
    }

    /// Two roles that may change access and nothing else, and a service account that has one of them.
    async fn access(inside: &Inside) -> PrincipalId {
        for role in [ACCESSOR, SPARE] {
            let name = role.parse().expect("a name");
            let permissions = vec!["core_access_edit".to_owned()];
            let request = CreateRole { name, description: Default::default(), permissions };
            inside.client.create_role(&request).await.expect("a role");
        }
        let (principal, scope) = (Self::service_account(inside, "owner").await, "default".parse().ok());
        let request = CreateGrant { principal, role: ACCESSOR.parse().expect("a name"), scope };
        inside.client.create_grant(&request).await.expect("a grant");
        principal
    }

    async fn service_account(inside: &Inside, name: &str) -> PrincipalId {
        Self::one_of(inside, PrincipalKind::ServiceAccount, name).await
    }

    async fn one_of(inside: &Inside, kind: PrincipalKind, name: &str) -> PrincipalId {
        let scope = "default".parse().ok();
        let request =
            CreatePrincipal { kind, scope, name: name.parse().expect("a name"), description: Default::default() };
        inside.client.create_principal(&request).await.expect("a principal").id
    }

    /// What each route of the table is tried with.
    pub(super) fn case(&self, route: &Route) -> Case {
        use Least::{Admin, Nobody, Operator, Viewer};
        const GET: &str = "GET";
        let (token, never) = (self.active, TokenId([9; 16]));
        let plain = |least| self.list(least, route.path);
        match (route.method.as_str(), route.path) {
            (GET, routes::HEALTHZ | routes::READYZ | routes::OPENAPI | routes::LINK) => plain(Nobody),
            (GET, routes::WHOAMI | routes::METRICS | routes::ACCOUNTS) => plain(Viewer),
            (GET, routes::TOKENS | routes::DELEGATES | routes::TASKS | routes::RECEIPTS) => Case {
                missing: format!("{}?scope=never", route.path),
                path: format!("{}?scope=default", route.path),
                ..plain(Viewer)
            },
            (GET, routes::SCOPES) => Case {
                missing: format!("{}?scope=never", route.path),
                path: format!("{}?scope=default", route.path),
                ..plain(Viewer)
            },
            (GET, routes::SCOPE) => Self::one(Viewer, route.path, "default", "never"),
            ("POST", routes::SCOPES) => self
                .making(Admin, route.path, |this, account, _| format!(r#"{{"scope":"{account}/o{}"}}"#, this.next())),
            ("PATCH", routes::SCOPE) => Case {
                body: r#"{"description":"other"}"#.to_owned(),
                missing_body: r#"{"description":"other"}"#.to_owned(),
                ..Self::trying(Admin, route.path, "default.empty", "default.never")
            },
            ("DELETE", routes::SCOPE) => Self::trying(Admin, route.path, "default.empty", "default.never"),
            (GET, routes::ACCOUNT) => Self::one(Viewer, route.path, "default", "never"),
            (GET, routes::TOKEN | routes::TOKEN_USES) => Self::one(Viewer, route.path, token, never),
            (GET, routes::DELEGATE) => Self::one(Viewer, route.path, self.delegate, DelegateId([9; 16])),
            (GET, routes::TASK) => Self::one(Viewer, route.path, self.task.id, TaskId([9; 16])),
            (GET, routes::TASK_OUTPUT) => {
                Case { harmless: "?follow=false", ..Self::one(Viewer, route.path, self.task.id, TaskId([9; 16])) }
            }
            (GET, routes::SIGNING_KEYS) => plain(Nobody),
            (GET, routes::SIGNING_KEY) => self.list(Nobody, &routes::fill(route.path, &self.signing_key)),
            (GET, routes::AUDIT) => Case {
                missing: format!("{}?scope=never", route.path),
                path: format!("{}?scope=default", route.path),
                ..plain(Admin)
            },
            (GET, routes::AUDIT_RECORD) => Self::one(Admin, route.path, self.record, u64::MAX),
            (GET, routes::AUDIT_EXPORT) => plain(Admin),
            // Without an end of its own the answer would never be whole.
            (GET, routes::AUDIT_TAIL) => self.list(Admin, &format!("{}?follow=false", route.path)),
            (GET, routes::RECEIPT) => Self::one(Viewer, route.path, self.receipt.id, ReceiptId([9; 16])),
            ("POST", routes::ACCOUNTS) => self.making(Admin, route.path, |_, account, new| {
                format!(r#"{{"id":"{}"}}"#, if new.is_empty() { account } else { new })
            }),
            ("POST", routes::TOKENS) => self.making(Operator, route.path, |this, account, _| {
                format!(r#"{{"scope":"{account}","name":"t{}"}}"#, this.next())
            }),
            ("POST", routes::TASKS) => self.making(Operator, route.path, |_, account, _| {
                format!(r#"{{"scope":"{account}","work":{{"shell":{{"script":"true"}}}}}}"#)
            }),
            ("POST", routes::TOKEN_ISSUE) => Self::trying(Operator, route.path, self.unissued, never),
            ("POST", routes::TOKEN_REVOKE) => Self::trying(Operator, route.path, token, never),
            ("PATCH", routes::TOKEN) => {
                Case { body: r#"{"description":"x"}"#.to_owned(), ..Self::trying(Operator, route.path, token, never) }
            }
            ("DELETE", routes::TOKEN_REVOKE) => Self::one(Operator, route.path, token, never),
            ("POST", routes::TOKEN_REVEAL) => {
                let body = r#"{"reason":"a test"}"#.to_owned();
                Case { missing_body: body.clone(), body, ..Self::one(Admin, route.path, token, never) }
            }
            ("POST", routes::UNWRAP) => plain(Nobody),
            ("POST", routes::TOKENS_REVOKE) => Case {
                harmless: "?dry_run=true",
                ..self.making(Operator, route.path, |_, account, _| format!(r#"{{"scope":"{account}"}}"#))
            },
            ("DELETE", routes::TOKEN) => Self::trying(Admin, route.path, self.revoked, never),
            (GET, routes::PRINCIPALS | routes::GRANTS | routes::API_KEYS) => Case {
                missing: format!("{}?scope=never", route.path),
                path: format!("{}?scope=default", route.path),
                ..plain(Operator)
            },
            (GET, routes::ROLES) => Case { tree: true, ..plain(Operator) },
            (GET, routes::PRINCIPAL) => Self::one(Operator, route.path, self.principal, PrincipalId([9; 16])),
            (GET, routes::GRANT) => Self::one(Operator, route.path, self.grant, GrantId([9; 16])),
            (GET, routes::API_KEY) => Self::one(Operator, route.path, self.api_key, ApiKeyId([9; 16])),
            (GET, routes::ROLE) => Case { tree: true, ..Self::one(Operator, route.path, SPARE, "never") },
            ("POST", routes::PRINCIPALS) => self.making(Admin, route.path, |this, account, _| {
                format!(r#"{{"kind":"service_account","scope":"{account}","name":"p{}"}}"#, this.next())
            }),
            ("POST", routes::GRANTS) => self.making(Admin, route.path, |this, account, _| {
                let principal = this.grantless[this.next() as usize % this.grantless.len()];
                format!(r#"{{"principal":"{principal}","role":"{ACCESSOR}","scope":"{account}"}}"#)
            }),
            ("POST", routes::API_KEYS) => self.making(Admin, route.path, |this, account, _| {
                let owner = if account == "default" { this.principal } else { PrincipalId([9; 16]) };
                format!(r#"{{"owner":"{owner}","name":"k","scope":"default"}}"#)
            }),
            ("POST", routes::ROLES) => Case {
                tree: true,
                ..self.making(Admin, route.path, |this, _, _| {
                    format!(r#"{{"name":"r{}","permissions":["core_access_edit"]}}"#, this.next())
                })
            },
            ("PUT", routes::ROLE) => Case {
                tree: true,
                body: r#"{"permissions":["core_access_edit"]}"#.to_owned(),
                ..Self::one(Admin, route.path, SPARE, "never")
            },
            ("DELETE", routes::ROLE) => Case { tree: true, ..Self::trying(Admin, route.path, SPARE, "never") },
            ("POST", routes::PRINCIPAL_DISABLE | routes::PRINCIPAL_ENABLE) | ("DELETE", routes::PRINCIPAL) => {
                Self::trying(Admin, route.path, self.principal, PrincipalId([9; 16]))
            }
            ("PUT", routes::PRINCIPAL_PASSWORD) => {
                let body = r#"{"password":"of some characters"}"#.to_owned();
                let missing_body = body.clone();
                Case { body, missing_body, ..Self::one(Admin, route.path, self.user, PrincipalId([9; 16])) }
            }
            ("POST", routes::LOGIN | routes::LOGIN_OIDC_CODE) => plain(Nobody),
            (GET, routes::LOGIN_OIDC | routes::LOGIN_OIDC_CALLBACK) => plain(Nobody),
            ("POST", routes::LOGOUT) => plain(Viewer),
            ("POST", routes::REAUTHENTICATE) => Case { body: r#"{"password":"x"}"#.to_owned(), ..plain(Viewer) },
            ("PUT", routes::PASSWORD) => {
                Case { body: r#"{"old_password":"x","password":"y"}"#.to_owned(), ..plain(Viewer) }
            }
            (GET, routes::SESSIONS) => plain(Viewer),
            ("DELETE", routes::SESSION) => Self::trying(Admin, route.path, self.login, LoginId([9; 16])),
            ("DELETE", routes::GRANT) => Self::trying(Admin, route.path, self.grant, GrantId([9; 16])),
            ("DELETE", routes::API_KEY) => Self::trying(Admin, route.path, self.api_key, ApiKeyId([9; 16])),
            ("POST", routes::TASK_CANCEL) => Self::trying(Operator, route.path, self.task.id, TaskId([9; 16])),
            ("POST", routes::DELEGATE_STOP | routes::DELEGATE_ALLOW) => {
                Self::trying(Operator, route.path, self.delegate, DelegateId([9; 16]))
            }
            (method, path) => panic!("{method} {path} is new: say here who may use it, and how it is tried"),
        }
    }

    fn next(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    fn list(&self, least: Least, path: &str) -> Case {
        let (path, missing) = (path.to_owned(), path.to_owned());
        Case { least, tree: false, path, missing, harmless: "", body: String::new(), missing_body: String::new() }
    }

    /// Something is made in the account `default`, or in one that never was.
    fn making(&self, least: Least, path: &str, body: impl Fn(&Self, &str, &str) -> String) -> Case {
        let new = format!("new{}", self.next());
        let (missing_body, foreign) = (body(self, "never", ""), body(self, "default", ""));
        let body = if path == routes::ACCOUNTS { body(self, "default", &new) } else { foreign };
        Case { body, missing_body, ..self.list(least, path) }
    }

    fn one(least: Least, path: &str, id: impl std::fmt::Display, never: impl std::fmt::Display) -> Case {
        let (path, missing) = (routes::fill(path, &id), routes::fill(path, &never));
        Case { least, tree: false, path, missing, harmless: "", body: String::new(), missing_body: String::new() }
    }

    fn trying(least: Least, path: &str, id: impl std::fmt::Display, never: impl std::fmt::Display) -> Case {
        Case { harmless: "?dry_run=true", ..Self::one(least, path, id, never) }
    }

    fn with(&self, key: &str, method: &Method, path: &str, body: &str) -> RequestBuilder {
        let mut request = self.raw.with(key, method.clone(), path);
        if *method == Method::PATCH {
            request = request.header("if-match", "*");
        }
        if body.is_empty() {
            return request;
        }
        request.header("content-type", "application/json").body(body.to_owned())
    }

    pub(super) async fn try_it(&self, key: &str, route: &Route, case: &Case) -> Answer {
        answer(self.with(key, &route.method, &format!("{}{}", case.path, case.harmless), &case.body)).await
    }

    async fn key(&self, role: Role, scope: Option<&str>) -> String {
        key(&self.inside, role, scope, None).await.reveal().expose().to_owned()
    }

    /// A key of somebody with these roles.
    async fn key_with(&self, grants: &[(&str, Option<&str>)]) -> String {
        let owner = principal(&self.inside, grants).await;
        key_of(&self.inside, owner, None, None).await.reveal().expose().to_owned()
    }

    /// A role that holds these permissions.
    async fn role(&self, permissions: Permissions) -> String {
        let name = format!("made{}", self.next());
        let permissions = words(permissions);
        let request = CreateRole { name: name.parse().expect("a name"), description: Default::default(), permissions };
        self.inside.client.create_role(&request).await.expect("a role");
        name
    }
}

/// What a request says of its key.
type Headers = Vec<(&'static str, Vec<u8>)>;

/// The status of a success, which some have none of here, such as the link without a WebSocket.
pub(super) fn succeeded(route: &Route, answer: &Answer) -> bool {
    match route.path {
        // The second needs no key and a code, of which there is none here.
        routes::LINK | routes::UNWRAP => answer.status == 400,
        // Nobody's name and password are tried here, and a key has neither a session nor a password.
        routes::LOGIN => answer.status == 400,
        // There is no identity provider here.
        routes::LOGIN_OIDC | routes::LOGIN_OIDC_CALLBACK => matches!(answer.status, 400 | 404),
        routes::LOGIN_OIDC_CODE => answer.status == 400,
        routes::LOGOUT | routes::REAUTHENTICATE | routes::PASSWORD => matches!(answer.status, 200 | 409),
        _ => matches!(answer.status, 200 | 201),
    }
}

async fn nobody_passes_without_an_accepted_key(engine: Engine) {
    let things = Things::make(engine).await;
    let inside = &things.inside;
    let good = things.key(Role::Admin, None).await;
    let stranger = ApiKey { id: ApiKeyId([8; 16]), secret: Secret::new([8; 32]) }.reveal().expose().to_owned();
    let nobodys = Login { id: LoginId([8; 16]), secret: Secret::new([8; 32]) }.reveal().expose().to_owned();
    let accepted: ApiKey = good.parse().expect("a key");
    let forged = ApiKey { id: accepted.id, secret: Secret::new([8; 32]) }.reveal().expose().to_owned();
    let gone = key(inside, Role::Admin, None, None).await;
    let deleted = gone.id;
    let delete = job(move |tx| Box::pin(async move { api_keys::delete(tx, deleted).await }));
    inside.manager.store.write(delete).await.expect("deleted");
    let gone = gone.reveal().expose().to_owned();
    let expired = key(inside, Role::Admin, None, Some(inside.clock.wall())).await.reveal().expose().to_owned();
    let mistyped = format!("{}0", &good[..good.len() - 1]).replace("lak_", "lak-");
    let bearer = |key: &str| vec![("authorization", format!("Bearer {key}").into_bytes())];
    let mut keys: Vec<(&str, Headers)> = vec![
        ("no key", vec![]),
        ("an empty header", vec![("authorization", Vec::new())]),
        ("an empty key", vec![("x-api-key", Vec::new())]),
        ("a scheme alone", bearer("")),
        ("another scheme", vec![("authorization", format!("Basic {good}").into_bytes())]),
        ("a prefix alone", bearer("lak_")),
        ("a key cut short", bearer(&good[..good.len() - 1])),
        ("a key mistyped", bearer(&mistyped)),
        ("a key of ten kilobytes", bearer(&"a".repeat(10_000))),
        ("bytes that are no text", vec![("x-api-key", vec![0xff, 0xfe])]),
        ("a key that never was", bearer(&stranger)),
        ("the secret of another key", bearer(&forged)),
        ("a deleted key", bearer(&gone)),
        ("a session that never was", bearer(&nobodys)),
        ("a key where a session's cookie goes", vec![("cookie", format!("legation={good}x").into_bytes())]),
        ("an empty cookie", vec![("cookie", b"legation=".to_vec())]),
        ("two cookies", vec![("cookie", format!("legation={nobodys}; legation={nobodys}").into_bytes())]),
        ("an expired key", bearer(&expired)),
        ("a key in the query", vec![]),
    ];
    let twice =
        |one: &str, two: &str| vec![("authorization", format!("Bearer {one}").into_bytes()), ("x-api-key", two.into())];
    keys.push(("two keys", twice(&good, &things.key(Role::Admin, None).await)));
    keys.push(("the same key twice", twice(&good, &good)));
    keys.push(("one header twice", [bearer(&good), bearer(&good)].concat()));

    for route in http::table() {
        let case = things.case(&route);
        for (what, headers) in &keys {
            let query = if *what == "a key in the query" { format!("?api_key={good}") } else { String::new() };
            let mut request = things.raw.bare(route.method.clone(), &format!("{}{query}", case.path));
            for (name, value) in headers {
                let value = reqwest::header::HeaderValue::from_bytes(value).expect("a header");
                request = request.header(*name, value);
            }
            let answer = answer(request.body(case.body.clone())).await;
            if case.least == Least::Nobody {
                assert!(succeeded(&route, &answer), "{} {} with {what}: {}", route.method, route.path, answer.text());
            } else {
                assert_eq!(answer.code(), Code::Unauthenticated, "{} {} with {what}", route.method, route.path);
                assert!(!answer.text().contains(&good[10..]), "a refusal repeats the key");
            }
        }
    }
    untouched(&things).await;
}

async fn each_role_does_what_it_may_and_no_more(engine: Engine) {
    let things = Things::make(engine).await;
    for role in Role::ALL {
        let key = things.key(role, None).await;
        for route in http::table() {
            let case = things.case(&route);
            let answer = things.try_it(&key, &route, &case).await;
            let told = format!("{role}: {} {}: {}", route.method, route.path, answer.text());
            if case.least.allows(role) {
                assert!(succeeded(&route, &answer), "{told}");
            } else {
                assert_eq!(answer.code(), Code::Forbidden, "{told}");
            }
            assert_eq!(case.least == Least::Nobody, route.access == Access::Public, "{told}");
        }
    }
    untouched(&things).await;
}

async fn foreign_objects_answer_like_those_that_never_were(engine: Engine) {
    let things = Things::make(engine).await;
    for role in Role::ALL {
        let key = things.key(role, Some(ELSEWHERE)).await;
        for route in http::table() {
            let case = things.case(&route);
            if case.tree {
                // It belongs to no scope: who may look may look at it from anywhere, and nobody may change it.
                let answer = things.try_it(&key, &route, &case).await;
                let looks = route.method == Method::GET && case.least.allows(role);
                let told = format!("{role}: {} {}: {}", route.method, route.path, answer.text());
                assert!(if looks { succeeded(&route, &answer) } else { answer.code() == Code::Forbidden }, "{told}");
                continue;
            }
            // Without the harmless part: what must not happen would happen now.
            let foreign =
                answer(things.with(&key, &route.method, &case.path, &case.body_of_an_old_thing(&route))).await;
            let never = answer(things.with(&key, &route.method, &case.missing, &case.missing_body)).await;
            let told = format!("{role}: {} {}: {} {}", route.method, route.path, foreign.text(), never.text());
            if case.path == case.missing && case.missing_body.is_empty() {
                assert!(case.least == Least::Nobody || !foreign.text().contains("default"), "{told}");
                continue;
            }
            assert_eq!(
                (foreign.status, &foreign.kind, &foreign.body),
                (never.status, &never.kind, &never.body),
                "{told}"
            );
            let expected = if case.least.allows(role) { Code::NotFound } else { Code::Forbidden };
            assert_eq!(foreign.code(), expected, "{told}");
        }
        let lists =
            [routes::ACCOUNTS, routes::SCOPES, routes::TOKENS, routes::DELEGATES, routes::TASKS, routes::RECEIPTS];
        let access = [routes::PRINCIPALS, routes::GRANTS, routes::API_KEYS, routes::AUDIT].into_iter();
        for list in lists.into_iter().chain(access.filter(|_| role != Role::Viewer)) {
            let list = answer(things.with(&key, &Method::GET, list, "")).await;
            if list.status == 403 {
                continue;
            }
            let items = list.json()["items"].as_array().expect("a list").clone();
            let foreign = |item: &&serde_json::Value| item["scope"] != ELSEWHERE && item["id"] != ELSEWHERE;
            assert_eq!(items.iter().find(foreign), None, "{role}");
        }
        let filter = format!("{}?token={}", routes::DELEGATES, things.active);
        assert_eq!(answer(things.with(&key, &Method::GET, &filter, "")).await.json()["items"], serde_json::json!([]));
    }
    untouched(&things).await;
}

impl Case {
    /// An account that exists may not be told from one that does not, even by an attempt to create it.
    fn body_of_an_old_thing(&self, route: &Route) -> String {
        match route.path {
            routes::ACCOUNTS if !self.body.is_empty() => r#"{"id":"default"}"#.to_owned(),
            _ => self.body.clone(),
        }
    }
}

async fn a_key_of_the_scope_itself_works_in_it(engine: Engine) {
    let things = Things::make(engine).await;
    let key = things.key(Role::Admin, Some("default")).await;
    for route in http::table() {
        let case = things.case(&route);
        // An account beside its own, and what belongs to no scope, is what such a key cannot make or change, and a part
        // of the chain proves nothing.
        let beside =
            matches!((route.method.as_str(), route.path), ("POST", routes::ACCOUNTS) | ("GET", routes::AUDIT_EXPORT));
        if beside || (case.tree && route.method != Method::GET) {
            continue;
        }
        let answer = things.try_it(&key, &route, &case).await;
        assert!(succeeded(&route, &answer), "{} {}: {}", route.method, route.path, answer.text());
    }
    let below = things.key(Role::Admin, Some("default/team")).await;
    let above = routes::fill(routes::TOKEN, &things.active);
    assert_eq!(answer(things.with(&below, &Method::GET, &above, "")).await.code(), Code::NotFound);
}

async fn one_permission_opens_its_routes_and_all_the_others_do_not(engine: Engine) {
    let things = Things::make(engine).await;
    for permission in Permission::ALL {
        let exactly = things.role(Permissions::of(&[permission])).await;
        let exactly = things.key_with(&[(&exactly, None)]).await;
        let others = things.role(Permissions::all_but(&[permission])).await;
        let others = things.key_with(&[(&others, None)]).await;
        // What is one's own one sees anyway.
        let opens = |route: &&Route| match route.access {
            Access::Needs(needed) => needed == permission,
            Access::OwnOr(needed) => needed == permission && route.method != Method::GET,
            Access::Public | Access::AnyKey => false,
        };
        for route in http::table().iter().filter(opens) {
            let case = things.case(route);
            let answer = things.try_it(&exactly, route, &case).await;
            let told = |answer: &Answer| format!("{permission}: {} {}: {}", route.method, route.path, answer.text());
            assert!(succeeded(route, &answer), "{}", told(&answer));
            let answer = things.try_it(&others, route, &case).await;
            assert_eq!(answer.code(), Code::Forbidden, "{}", told(&answer));
        }
    }
    untouched(&things).await;
}

async fn several_grants_count_each_in_its_place(engine: Engine) {
    let things = Things::make(engine).await;
    // All objects are in `default`: looked at by a grant there, changed by none that is elsewhere.
    let looking = things.key_with(&[("viewer", Some("default")), ("admin", Some(ELSEWHERE))]).await;
    let changing = things.key_with(&[("viewer", Some(ELSEWHERE)), ("admin", Some("default"))]).await;
    for route in http::table() {
        let Access::Needs(needed) = route.access else { continue };
        let case = things.case(&route);
        let account = (route.method.as_str(), route.path) == ("POST", routes::ACCOUNTS);
        let answer = things.try_it(&looking, &route, &case).await;
        let told = |answer: &Answer| format!("{} {}: {}", route.method, route.path, answer.text());
        let looks = Role::Viewer.permissions();
        let nowhere = case.path == case.missing && case.missing_body.is_empty();
        if route.path == routes::AUDIT_EXPORT {
            // A part of the chain proves nothing.
            for key in [&looking, &changing] {
                assert_eq!(things.try_it(key, &route, &case).await.code(), Code::Forbidden, "{}", route.path);
            }
            continue;
        }
        match () {
            () if looks.contains(needed) || (nowhere && !case.tree) || (case.tree && needed == needed.view()) => {
                assert!(succeeded(&route, &answer), "{}", told(&answer));
            }
            // An account that is new is nobody's yet, so that it is not seen either.
            () if account => assert_eq!(answer.code(), Code::NotFound, "{}", told(&answer)),
            () if case.tree || looks.contains(needed.view()) => {
                assert_eq!(answer.code(), Code::Forbidden, "{}", told(&answer));
            }
            () => assert_eq!(answer.code(), Code::NotFound, "{}", told(&answer)),
        }
        let answer = things.try_it(&changing, &route, &case).await;
        match () {
            () if account => assert_eq!(answer.code(), Code::NotFound, "{}", told(&answer)),
            () if case.tree && needed != needed.view() => {
                assert_eq!(answer.code(), Code::Forbidden, "{}", told(&answer));
            }
            () => assert!(succeeded(&route, &answer), "{}", told(&answer)),
        }
    }
    // A list without a scope shows what every grant lets one see, and nothing twice.
    let list = async |path: &str| answer(things.with(&looking, &Method::GET, path, "")).await.json();
    let accounts = list(routes::ACCOUNTS).await;
    let ids: Vec<_> = accounts["items"].as_array().expect("a list").iter().map(|account| &account["id"]).collect();
    assert_eq!(ids, ["default", ELSEWHERE]);
    let whoami = list(routes::WHOAMI).await;
    assert_eq!(whoami["grants"].as_array().expect("grants").len(), 2, "{whoami}");
    untouched(&things).await;
}

async fn somebody_who_is_disabled_does_nothing(engine: Engine) {
    let things = Things::make(engine).await;
    let owner = principal(&things.inside, &[("admin", None)]).await;
    let key = key_of(&things.inside, owner, None, None).await.reveal();
    assert_eq!(answer(things.with(key.expose(), &Method::GET, routes::WHOAMI, "")).await.status, 200);
    let _other_admin = things.key(Role::Admin, None).await;
    things.inside.client.disable_principal(owner).await.expect("disabled");
    for route in http::table() {
        let case = things.case(&route);
        let answer = things.try_it(key.expose(), &route, &case).await;
        let told = format!("{} {}: {}", route.method, route.path, answer.text());
        if case.least == Least::Nobody {
            assert!(succeeded(&route, &answer), "{told}");
        } else {
            assert_eq!(answer.code(), Code::Unauthenticated, "{told}");
        }
    }
    things.inside.client.enable_principal(owner).await.expect("enabled");
    assert_eq!(answer(things.with(key.expose(), &Method::GET, routes::WHOAMI, "")).await.status, 200);
    untouched(&things).await;
}

async fn a_key_ends_at_its_millisecond(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    const HOUR: i64 = 60 * 60 * 1000;
    let key = key(&inside, Role::Viewer, None, Some(inside.clock.wall() + HOUR)).await.reveal();
    let asked = || answer(raw.with(key.expose(), Method::GET, routes::WHOAMI));
    assert_eq!(asked().await.status, 200);
    inside.clock.advance(HOUR);
    assert_eq!(asked().await.code(), Code::Unauthenticated);
}

/// Nothing that was only tried or refused has happened.
async fn untouched(things: &Things) {
    let client = &things.inside.client;
    let status = async |id| client.token(id).await.expect("a token").status;
    assert_eq!(status(things.active).await, TokenStatus::Active);
    assert_eq!(status(things.unissued).await, TokenStatus::Unissued);
    assert_eq!(status(things.revoked).await, TokenStatus::Revoked);
    assert_eq!(client.task(things.task.id).await.expect("a task").state, things.task.state);
    assert_eq!(things.inside.manager.sessions.all().len(), 1);
    assert_eq!(client.principal(things.principal).await.expect("a principal").disabled_at, None);
    client.grant(things.grant).await.expect("a grant");
    client.api_key(things.api_key).await.expect("a key");
    client.role(&SPARE.parse().expect("a name")).await.expect("a role");
}
