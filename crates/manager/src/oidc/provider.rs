//! The identity provider: what it publishes, where it is asked, and what an answer of it is worth.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use legation_model::Millis;
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, IdTokenFields, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim,
        CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::settings::OidcSettings;

/// How long one request to the provider may take: a person waits in front of a browser.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read: keys and claims of a large house.
const ANSWER_MAX: usize = 1 << 20;
/// How long what the provider publishes counts: it announces new keys before it uses them.
const PUBLISHED_FOR: Millis = 5 * 60 * 1000;

/// The claims of an ID token that the library does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Others {
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl openidconnect::AdditionalClaims for Others {}

type Fields = IdTokenFields<
    Others,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type OidcClient = openidconnect::Client<
    Others,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// The provider, and what it published a while ago.
pub(super) struct Provider {
    http: reqwest::Client,
    published: Mutex<Option<(Millis, Arc<OidcClient>)>>,
}

/// What is secret about a round, and what binds its answer to it.
pub(super) struct Bond {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
}

/// What the provider says of somebody.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) issuer: String,
    pub(super) subject: String,
    /// When the person last showed there who they are, if it says that, in milliseconds.
    pub(super) auth_time: Option<Millis>,
    /// Everything in the ID token.
    pub(super) claims: Value,
}

impl Provider {
    pub(super) fn new(settings: &OidcSettings) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("legation-manager/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT);
        if settings.is_plain() {
            // It is on this machine: neither a proxy nor a certificate is on the way.
            builder = builder.tls_certs_only([]).no_proxy();
        }
        let http = builder.build().context("no client for the identity provider can be made")?;
        Ok(Self { http, published: Mutex::default() })
    }

    /// The client that is made of what the provider publishes.
    async fn client(&self, settings: &OidcSettings, redirect: &str, now: Millis) -> anyhow::Result<Arc<OidcClient>> {
        // One asks for all who wait.
        let mut published = self.published.lock().await;
        if let Some((at, client)) = &*published
            && now - at < PUBLISHED_FOR
        {
            return Ok(Arc::clone(client));
        }
        let issuer = IssuerUrl::new(settings.issuer.clone()).context("the issuer is no address")?;
        let ask = |request| ask(self.http.clone(), request);
        let metadata = CoreProviderMetadata::discover_async(issuer, &ask).await;
        let metadata = metadata.context("what the identity provider publishes cannot be read")?;
        let secret = settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().to_owned()));
        let client = OidcClient::from_provider_metadata(metadata, ClientId::new(settings.client_id.clone()), secret);
        let redirect = RedirectUrl::new(redirect.to_owned()).context("public-url is no address")?;
        let client = Arc::new(client.set_redirect_uri(redirect));
        *published = Some((now, Arc::clone(&client)));
        Ok(client)
    }

    /// Where a browser goes for a round. `max_age` is for how long a login there may already last.
    pub(super) async fn address(
        &self,
        settings: &OidcSettings,
        redirect: &str,
        bond: &Bond,
        max_age: Option<Duration>,
        now: Millis,
    ) -> anyhow::Result<String> {
        let client = self.client(settings, redirect, now).await?;
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(bond.verifier.clone()));
        let (state, nonce) = (bond.state.clone(), bond.nonce.clone());
        let request = client.authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            move || CsrfToken::new(state),
            move || Nonce::new(nonce),
        );
        let request = request.add_scopes(settings.scopes.iter().cloned().map(Scope::new)).set_pkce_challenge(challenge);
        let request = match max_age {
            Some(max_age) => request.set_max_age(max_age),
            None => request.add_prompt(CoreAuthPrompt::Login).set_max_age(Duration::ZERO),
        };
        Ok(request.url().0.into())
    }

    /// Exchanges the code that a browser brought for what the provider says, and checks that: signature, issuer, audience,
    /// times and nonce.
    pub(super) async fn said(
        &self,
        settings: &OidcSettings,
        redirect: &str,
        bond: &Bond,
        code: String,
        (boot, wall): (Millis, Millis),
    ) -> anyhow::Result<Said> {
        let client = self.client(settings, redirect, boot).await?;
        let ask = |request| ask(self.http.clone(), request);
        let exchange = client.exchange_code(AuthorizationCode::new(code)).context("there is no token endpoint")?;
        let exchange = exchange.set_pkce_verifier(PkceCodeVerifier::new(bond.verifier.clone()));
        let tokens = exchange.request_async(&ask).await.context("the identity provider gives no token for the code")?;
        let token = tokens.id_token().context("the identity provider gives no ID token")?;
        let seconds = wall / 1000;
        let now = move || chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        let verifier = client.id_token_verifier().set_time_fn(now);
        let claims = token.claims(&verifier, &Nonce::new(bond.nonce.clone())).context("the ID token does not hold")?;
        let auth_time = claims.auth_time().map(|at| at.timestamp_millis());
        let (issuer, subject) = (claims.issuer().to_string(), claims.subject().to_string());
        Ok(Said { issuer, subject, auth_time, claims: serde_json::to_value(claims)? })
    }
}

/// One request to the provider, bounded in time and size.
async fn ask(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, AskError> {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string();
    let mut response = http.request(parts.method, url).headers(parts.headers).body(body).send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > ANSWER_MAX {
            return Err(AskError::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// Why the provider did not answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the identity provider cannot be asked")]
    Http(#[from] reqwest::Error),
    #[error("the answer has more than {ANSWER_MAX} bytes")]
    TooLarge,
}
