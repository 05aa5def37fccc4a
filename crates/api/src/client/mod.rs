//! The typed client: one method per route.

mod access_calls;
mod audit;
mod calls;
mod error;
mod events;
mod output;
mod sse;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use legation_model::secret::SecretText;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH},
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    audit::{AuditExport, AuditTail, TailItem},
    error::ClientError,
    output::{Chunk, OutputItem, OutputStream},
};
use crate::{Code, Problem, logins::Reauthenticate};

/// Time to reach the Manager; beyond it the network and not the Manager is at fault.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for one whole call; a revoke waits for every session to be closed, which the Manager itself bounds.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence on a stream after which the connection counts as dead: three of the Manager's keep-alives.
pub const STREAM_SILENCE: Duration = Duration::from_secs(3 * crate::output::KEEP_ALIVE.as_secs());
/// The largest answer that is read: far more than a page of the largest items.
const ANSWER_MAX: usize = 32 << 20;

/// A connection to one Manager with one API key or console session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    inner: Arc<Inner>,
    idempotency_key: Option<String>,
    asking: Option<Asking>,
}

/// Asks a person for their password; nothing if they do not say it.
#[derive(Clone)]
struct Asking(Arc<dyn Fn() -> Option<SecretText> + Send + Sync>);

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking(…)")
    }
}

#[derive(Debug)]
struct Inner {
    /// Without a slash at its end.
    url: String,
    key: Option<HeaderValue>,
}

impl Client {
    /// A client for the Manager at `url`, `http://` or `https://`. A CA file, if given, replaces the system's
    /// list of authorities. Nothing is sent yet. Proxies come from the environment; loopback goes past them.
    ///
    /// # Errors
    /// [`ClientError::Settings`] for an address that is none, a key that cannot stand in a header, a CA file
    /// that cannot be read.
    pub fn new(url: &str, key: Option<&SecretText>, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let parsed = parse_url(url)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("legation/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        if parsed.scheme() == "http" {
            // No certificate is ever looked at: the machine need not have any.
            builder = builder.tls_certs_only([]);
        } else if let Some(file) = ca_file {
            builder = builder.tls_certs_only(read_ca(file)?);
        }
        if is_loopback(&parsed) {
            builder = builder.no_proxy();
        }
        let place = parsed.origin().ascii_serialization();
        let http = builder.build().map_err(|error| ClientError::transport(&error, &place))?;
        let url = parsed.as_str().trim_end_matches('/').to_owned();
        let key = key.map(bearer).transpose()?;
        Ok(Self { http, inner: Arc::new(Inner { url, key }), idempotency_key: None, asking: None })
    }

    /// The same client whose next `POST` carries this `Idempotency-Key`: a repetition has no second effect.
    #[must_use]
    pub fn idempotent(&self, key: impl Into<String>) -> Self {
        Self { idempotency_key: Some(key.into()), ..self.clone() }
    }

    /// The same client of a console session: where the Manager wants to be shown once more who it is, it asks for the
    /// password in this way, shows it, and repeats the request once.
    #[must_use]
    pub fn reauthenticating(self, ask: impl Fn() -> Option<SecretText> + Send + Sync + 'static) -> Self {
        Self { asking: Some(Asking(Arc::new(ask))), ..self }
    }

    /// The Manager's address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ClientError> {
        self.answer(self.request(Method::GET, path).query(query)).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = encode(body)?;
        let mut request = self.request(Method::POST, path).query(query).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.answer(request.body(body)).await
    }

    /// Changes an object that is still at this version.
    async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        version: u64,
        query: &impl Serialize,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = encode(body)?;
        let request = self.request(Method::PATCH, path).query(query).header(CONTENT_TYPE, "application/json");
        self.answer(request.header(IF_MATCH, format!("\"{version}\"")).body(body)).await
    }

    async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let request = self.request(Method::PUT, path).header(CONTENT_TYPE, "application/json");
        self.answer(request.body(encode(body)?)).await
    }

    async fn delete<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ClientError> {
        self.answer(self.request(Method::DELETE, path).query(query)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.inner.url));
        match &self.inner.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let (request, again) = (request.try_clone(), request);
        let Some((asking, request)) = self.asking.as_ref().zip(request) else { return self.answered(again).await };
        match self.answered(request).await {
            Err(error) if error.code() == Some(Code::Reauthenticate) => {
                let Some(password) = (asking.0)() else { return Err(error) };
                let plain = Self { asking: None, ..self.clone() };
                Box::pin(plain.reauthenticate(&Reauthenticate { password })).await?;
                self.answered(again).await
            }
            answer => answer,
        }
    }

    async fn answered<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request.timeout(CALL_TIMEOUT)).await?;
        let body = self.body(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::unexpected(format!("{} answered something else: {error}", self.url())))
    }

    /// Sends, and turns every status but success into an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::transport(&error, self.url()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let target = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = self.body(response).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => ClientError::Problem(problem),
            Err(_) => self.not_a_manager(status, target),
        })
    }

    fn not_a_manager(&self, status: StatusCode, target: Option<String>) -> ClientError {
        let what = format!("{} answered {status}, but not as a Manager does", self.url());
        match target.filter(|_| status.is_redirection()) {
            Some(target) => ClientError::Unexpected { what, fix: format!("use the address it points to: {target}") },
            None => ClientError::unexpected(what),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| ClientError::transport(&error, self.url()))? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(ClientError::unexpected(format!("{} sent more than {ANSWER_MAX} bytes", self.url())));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| {
        let fix = "report this as a fault of the client".to_owned();
        ClientError::Settings { what: format!("the request is not JSON: {error}"), fix }
    })
}

fn parse_url(url: &str) -> Result<reqwest::Url, ClientError> {
    if let Some(whole) = with_scheme(url.trim()) {
        return Err(ClientError::Settings {
            what: format!("the address {url:?} needs http:// or https:// in front"),
            fix: format!("write it as {whole} (LEGATION_URL, --url, or url in cli.toml)"),
        });
    }
    let wrong = |why: &str| ClientError::Settings {
        what: format!("not the address of a Manager ({why}): {url:?}"),
        fix: "write it like http://127.0.0.1:7430 or https://manager.example.com".to_owned(),
    };
    let parsed = reqwest::Url::parse(url.trim()).map_err(|error| wrong(&error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" if !parsed.username().is_empty() || parsed.password().is_some() => {
            Err(wrong("a user name or password has no place in it"))
        }
        "http" | "https" if parsed.query().is_some() || parsed.fragment().is_some() => Err(wrong("it has a query")),
        "http" | "https" => Ok(parsed),
        _ => Err(wrong("it must start with http:// or https://")),
    }
}

/// The address that was meant by one without a scheme: TLS wherever the connection leaves the machine.
fn with_scheme(url: &str) -> Option<String> {
    let host = |scheme: &str| reqwest::Url::parse(&format!("{scheme}://{url}")).ok().filter(reqwest::Url::has_host);
    let parsed = host("http").filter(|_| !url.is_empty() && !url.contains("://"))?;
    let scheme = if is_loopback(&parsed) { "http" } else { "https" };
    Some(format!("{scheme}://{url}"))
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_ca(file: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let wrong = |why: String| ClientError::Settings {
        what: format!("the CA file {} cannot be used: {why}", file.display()),
        fix: "name a file of PEM certificates that you may read".to_owned(),
    };
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("there is no certificate in it".to_owned())) } else { Ok(found) }
}

fn bearer(key: &SecretText) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose().trim())).map_err(|_| {
        let fix = "copy the API key again: it is one word that starts with lak_".to_owned();
        ClientError::Settings { what: "the API key has characters that no API key has".to_owned(), fix }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_scheme_is_shown_as_it_should_be() {
        for (given, whole) in [
            ("127.0.0.1:7430", "http://127.0.0.1:7430"),
            ("localhost:7430", "http://localhost:7430"),
            ("[::1]:7430", "http://[::1]:7430"),
            ("manager.example.com", "https://manager.example.com"),
            ("manager.example.com:7430", "https://manager.example.com:7430"),
        ] {
            let error = parse_url(given).expect_err("a refusal");
            assert!(error.to_string().contains("needs http:// or https://"), "{error}");
            assert!(error.fix().contains(&format!("as {whole} ")), "{}", error.fix());
            assert!(parse_url(whole).is_ok());
        }
        for other in ["", "ftp://127.0.0.1", "http://", "two words"] {
            assert!(parse_url(other).expect_err("a refusal").to_string().contains("not the address"), "{other}");
        }
    }
}
