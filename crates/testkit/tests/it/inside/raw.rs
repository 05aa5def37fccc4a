//! Requests that no client of ours would send, and what every refusal must look like.

use legation_api::{Code, Problem, problem::PROBLEM_JSON};
use legation_manager::system::SystemEntropy;
use legation_model::{
    Clock as _, Millis, Scope, Secret,
    access::{PrincipalKind, Role},
    api_key::ApiKey,
    ids::{ApiKeyId, GrantId, LoginId, PrincipalId},
    login::{Login, LoginMethod},
};
use legation_store::{
    api_keys,
    grants::{self, Grant},
    job, logins,
    principals::{self, Principal},
};
use legation_testkit::Inside;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// The longest refusal: whatever the sender chose, only a little of it comes back.
const REFUSAL_MAX: usize = 4 << 10;

/// Sends HTTP requests just as they are.
pub(super) struct Raw {
    http: reqwest::Client,
    url: String,
    key: String,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) request: String,
    /// After how many seconds to come again.
    pub(super) retry: String,
    pub(super) body: Vec<u8>,
}

impl Raw {
    /// With the admin's key.
    pub(super) fn of(inside: &Inside) -> Self {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        Self { http, url: inside.url.clone(), key: inside.key.expose().to_owned() }
    }

    /// A request without a key.
    pub(super) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// A request with this key.
    pub(super) fn with(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(key)
    }

    /// A GET of the admin.
    pub(super) async fn get(&self, path: &str) -> Answer {
        answer(self.with(&self.key, Method::GET, path)).await
    }

    /// A POST of the admin, the text as it is.
    pub(super) fn posting(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.with(&self.key, Method::POST, path).header("content-type", "application/json").body(body)
    }

    /// The same, sent.
    pub(super) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.posting(path, body)).await
    }
}

/// Sends a request and reads the whole answer.
pub(super) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (status, kind, request) = (response.status().as_u16(), header("content-type"), header("x-request-id"));
    let retry = header("retry-after");
    Answer { status, kind, request, retry, body: response.bytes().await.expect("a whole answer").to_vec() }
}

impl Answer {
    /// The answer as JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The refusal that this must be, with all that a refusal owes its reader.
    pub(super) fn problem(&self) -> Problem {
        assert_eq!(self.kind, PROBLEM_JSON, "{}", self.text());
        assert!(self.body.len() <= REFUSAL_MAX, "a refusal of {} bytes", self.body.len());
        assert!(!self.request.is_empty(), "a refusal without a request id");
        let problem: Problem = serde_json::from_slice(&self.body).expect("a problem document");
        assert!(!matches!(problem.code, Code::Unknown | Code::Internal), "{problem:?}");
        assert_eq!((self.status, problem.status), (problem.code.status(), problem.code.status()), "{problem:?}");
        assert!(!problem.detail.is_empty() && !problem.fix.is_empty() && !problem.title.is_empty(), "{problem:?}");
        assert!(!problem.detail.chars().any(char::is_control), "{problem:?}");
        problem
    }

    /// The refusal's code.
    pub(super) fn code(&self) -> Code {
        self.problem().code
    }

    /// The answer as text, however broken.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// Makes a service account with one grant, and a key of it.
pub(super) async fn key(inside: &Inside, role: Role, scope: Option<&str>, expires_at: Option<Millis>) -> ApiKey {
    let owner = principal(inside, &[(role.as_str(), scope)]).await;
    key_of(inside, owner, None, expires_at).await
}

/// Makes a service account with these grants past every rule.
pub(super) async fn principal(inside: &Inside, grants: &[(&str, Option<&str>)]) -> PrincipalId {
    let id = PrincipalId::random(&SystemEntropy);
    let (created_at, created_by) = (inside.clock.wall(), "test".to_owned());
    let principal = Principal {
        id,
        kind: PrincipalKind::ServiceAccount,
        scope: None,
        name: id.to_string().parse().expect("a name"),
        description: Default::default(),
        disabled_at: None,
        created_at,
        created_by: created_by.clone(),
    };
    let grant = |(role, scope): &(&str, Option<&str>)| Grant {
        id: GrantId::random(&SystemEntropy),
        principal: id,
        role: role.parse().expect("a name"),
        scope: scope.map(|scope| scope.parse::<Scope>().expect("a scope")),
        created_at,
        created_by: created_by.clone(),
    };
    let grants: Vec<_> = grants.iter().map(grant).collect();
    let insert = job(move |tx| {
        Box::pin(async move {
            principals::insert(tx, &principal).await?;
            for grant in &grants {
                grants::insert(tx, grant).await?;
            }
            Ok(())
        })
    });
    inside.manager.store.write(insert).await.expect("stored");
    id
}

/// Makes a key of a principal past every rule.
pub(super) async fn key_of(
    inside: &Inside,
    owner: PrincipalId,
    scope: Option<&str>,
    expires_at: Option<Millis>,
) -> ApiKey {
    let key = ApiKey { id: ApiKeyId::random(&SystemEntropy), secret: Secret::random(&SystemEntropy) };
    let row = api_keys::ApiKey {
        id: key.id,
        owner,
        name: "test-key".parse().expect("a name"),
        hash: inside.manager.keys.sealer.keyed_hash(key.secret.expose()),
        scope: scope.map(|scope| scope.parse::<Scope>().expect("a scope")),
        created_at: inside.clock.wall(),
        created_by: "test".to_owned(),
        expires_at,
        last_used_at: None,
    };
    let insert = job(move |tx| Box::pin(async move { api_keys::insert(tx, &row).await }));
    inside.manager.store.write(insert).await.expect("stored");
    key
}

/// Begins a session of a principal past every rule.
pub(super) async fn login_of(inside: &Inside, owner: PrincipalId) -> Login {
    let login = Login { id: LoginId::random(&SystemEntropy), secret: Secret::random(&SystemEntropy) };
    let now = inside.clock.wall();
    let row = logins::Login {
        id: login.id,
        owner,
        method: LoginMethod::Password,
        hash: inside.manager.keys.sealer.keyed_hash(login.secret.expose()),
        address: String::new(),
        agent: "test".to_owned(),
        created_at: now,
        authenticated_at: now,
        last_used_at: now,
        expires_at: now + inside.manager.config.console.lifetime,
    };
    let insert = job(move |tx| Box::pin(async move { logins::insert(tx, &row).await }));
    inside.manager.store.write(insert).await.expect("stored");
    login
}
