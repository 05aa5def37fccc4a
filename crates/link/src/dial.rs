//! From the Manager's address to a socket: DNS, proxies, TLS, HTTP upgrade.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, NoProxy, Proxy, Url, header, redirect::Policy};
use tokio_tungstenite::tungstenite::{handshake::client::generate_key, http::StatusCode};

use crate::{DialError, LINK_PATH, SUBPROTOCOL, Socket, accept_key};

/// How long a dial may take from DNS to the upgraded connection: 20 s, enough for a slow proxy.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest CA file: 1 MiB, more than the usual bundle of a whole operating system.
const CA_FILE_MAX: u64 = 1 << 20;

/// Which proxies to use. `Debug` does not show addresses, because they may hold passwords.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `https://` Managers: `http://user:password@host:port`.
    pub https: Option<String>,
    /// For `http://` Managers. Most proxies refuse to upgrade plain HTTP; use https through a proxy.
    pub http: Option<String>,
    /// Hosts, domains and networks to reach directly, separated by commas.
    pub none: Option<String>,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or their lower-case spellings; an empty one counts as
    /// missing.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |upper: &str| {
            let value = lookup(upper).or_else(|| lookup(&upper.to_ascii_lowercase()));
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        Self { https: get("HTTPS_PROXY"), http: get("HTTP_PROXY"), none: get("NO_PROXY") }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (https, http) = (self.https.is_some(), self.http.is_some());
        f.debug_struct("Proxies").field("https", &https).field("http", &http).field("none", &self.none).finish()
    }
}

/// What a dial needs to know.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// The Manager's address: `https`, `http`, `wss` or `ws`, host, port, perhaps a path before [`LINK_PATH`].
    pub url: String,
    /// Trust only the certificates in this PEM file, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// How long a dial may take; [`CONNECT_TIMEOUT`] unless there is a reason.
    pub connect_timeout: Duration,
}

impl DialConfig {
    /// The usual: this address, the system's certificates, proxies from the environment.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca_file: None, proxies: Proxies::from_env(), connect_timeout: CONNECT_TIMEOUT }
    }
}

/// Dials one Manager, as often as needed.
#[derive(Debug)]
pub struct Dialer {
    client: Client,
    url: Url,
    timeout: Duration,
}

impl Dialer {
    /// Checks the configuration and reads the CA file.
    ///
    /// # Errors
    /// [`DialError::Url`], [`DialError::CaFile`] or [`DialError::ProxyUrl`].
    pub fn new(config: &DialConfig) -> Result<Self, DialError> {
        let url = link_url(&config.url)?;
        let mut builder = Client::builder().http1_only().redirect(Policy::none()).pool_max_idle_per_host(0).no_proxy();
        for proxy in proxies(&config.proxies)? {
            builder = builder.proxy(proxy);
        }
        if let Some(path) = &config.ca_file {
            builder = builder.tls_certs_only(certificates(path)?);
        } else if !speaks_tls(&url, &config.proxies) {
            // To read the system's certificates takes longer than all else that is done before a delegate connects.
            builder = builder.tls_certs_only([]);
        }
        // Address and proxies have been checked before; only certificates can still be unusable.
        let client = builder.build().map_err(|error| DialError::from_builder(&error, config.ca_file.as_deref()))?;
        Ok(Self { client, url, timeout: config.connect_timeout })
    }

    /// Connects, upgrades, and answers the socket.
    ///
    /// # Errors
    /// What is in the way, and how to remove it.
    pub async fn dial(&self) -> Result<Socket, DialError> {
        let to = self.to();
        match tokio::time::timeout(self.timeout, self.upgrade(&to)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(DialError::Timeout { to }),
        }
    }

    async fn upgrade(&self, to: &str) -> Result<Socket, DialError> {
        let tls = self.url.scheme() == "https";
        let failed = |error: reqwest::Error| DialError::from_request(&error, to, tls);
        let key = generate_key();
        let request = self
            .client
            .get(self.url.clone())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        let answer = request.send().await.map_err(failed)?;
        let accepts = |name, expected: &str| answer.headers().get(name).is_some_and(|value| value == expected);
        let ours = accepts(header::SEC_WEBSOCKET_ACCEPT, &accept_key(&key))
            && accepts(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !ours {
            return Err(DialError::from_answer(&answer, to));
        }
        answer.upgrade().await.map(Socket::client).map_err(failed)
    }

    /// Host and port, for messages.
    fn to(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.url.host_str().unwrap_or_default())
    }
}

/// The address of the link: the Manager's, in http or https, with the link's path appended.
fn link_url(text: &str) -> Result<Url, DialError> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").ok_or_else(|| DialError::Url("https:// is missing".to_owned()))?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => "https",
        "http" | "ws" => "http",
        _ => return Err(DialError::Url("it must start with https:// or http://".to_owned())),
    };
    let mut url: Url = format!("{scheme}://{rest}").parse().map_err(|error| DialError::Url(format!("{error}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(DialError::Url("it must not hold credentials, ? or #".to_owned()));
    }
    let path = format!("{}{LINK_PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// Whether there is a certificate to check on the way.
fn speaks_tls(url: &Url, proxies: &Proxies) -> bool {
    let secure = |proxy: &String| proxy.trim_start().to_ascii_lowercase().starts_with("https:");
    url.scheme() == "https" || proxies.http.as_ref().is_some_and(secure)
}

fn proxies(config: &Proxies) -> Result<Vec<Proxy>, DialError> {
    let except = config.none.as_deref().and_then(NoProxy::from_string);
    let make = |name: &'static str, address: &Option<String>, build: fn(String) -> reqwest::Result<Proxy>| {
        let Some(address) = address else { return Ok(None) };
        let address = if address.contains("://") { address.clone() } else { format!("http://{address}") };
        let proxy = build(address).map_err(|_| DialError::ProxyUrl(name))?;
        Ok(Some(proxy.no_proxy(except.clone())))
    };
    let https = make("HTTPS_PROXY", &config.https, Proxy::https)?;
    let http = make("HTTP_PROXY", &config.http, Proxy::http)?;
    Ok(https.into_iter().chain(http).collect())
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, DialError> {
    let failed = |reason: String| DialError::CaFile { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > CA_FILE_MAX {
        return Err(failed("it is larger than 1 MiB".to_owned()));
    }
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("it holds no certificate".to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_any_of_four_schemes_leads_to_the_link() {
        let link = |text: &str| link_url(text).map(|url| url.to_string()).ok();
        assert_eq!(link("https://m.example").as_deref(), Some("https://m.example/api/v1/link"));
        assert_eq!(link(" WSS://m.example:7430/ ").as_deref(), Some("https://m.example:7430/api/v1/link"));
        assert_eq!(link("ws://[::1]:7430/x/").as_deref(), Some("http://[::1]:7430/x/api/v1/link"));
        for wrong in ["", "m.example:7430", "ftp://m", "https://", "https://u:p@m", "https://m?x", "http://m:99999"] {
            assert!(matches!(link_url(wrong), Err(DialError::Url(_))), "{wrong}");
        }
    }

    #[test]
    fn certificates_are_wanted_where_something_speaks_tls() {
        let plain = Proxies { http: Some("proxy:3128".to_owned()), https: Some("https://p".to_owned()), none: None };
        let secure = Proxies { http: Some("HTTPS://proxy:3128".to_owned()), ..Proxies::default() };
        let wanted = |text: &str, proxies: &Proxies| speaks_tls(&link_url(text).expect("an address"), proxies);
        assert!(!wanted("http://m", &Proxies::default()) && !wanted("ws://m", &plain));
        assert!(wanted("wss://m", &Proxies::default()) && wanted("http://m", &secure));
    }

    #[test]
    fn proxies_come_from_either_spelling_and_their_passwords_stay_quiet() {
        let proxies = Proxies::from_lookup(|name| match name {
            "https_proxy" => Some("http://user:canary@proxy:3128".to_owned()),
            "HTTP_PROXY" => Some(" ".to_owned()),
            _ => None,
        });
        assert_eq!(proxies.https.as_deref(), Some("http://user:canary@proxy:3128"));
        assert_eq!(proxies.http, None);
        assert!(!format!("{proxies:?}").contains("canary"));
        let broken = Proxies { https: Some("http://user:canary@:x".to_owned()), ..Proxies::default() };
        let error = super::proxies(&broken).expect_err("not an address");
        assert!(error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("canary"));
    }
}
