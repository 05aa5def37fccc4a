//! Why the Manager could not be reached, each with what to do about it.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use legation_model::Millis;
use tokio_tungstenite::tungstenite::http::StatusCode;

/// A dial that did not end in a socket. Every one of them is a reason to try again, not to stop: only the
/// Manager's own Goodbye stops a delegate.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The configured address cannot be used.
    #[error(
        "MANAGER_HOST_AND_PORT is not a usable address ({0}): set it to something like https://manager.example:7430"
    )]
    Url(String),
    /// The CA file cannot be used.
    #[error("DELEGATE_CA_FILE {}: {reason}: it must hold one or more certificates in PEM", path.display())]
    CaFile {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A proxy address cannot be used.
    #[error("{0} is not a usable proxy address: set it to something like http://user:password@proxy.example:3128")]
    ProxyUrl(&'static str),
    /// No connection.
    #[error("cannot reach {to}: {cause}: check host, port, firewall and proxy settings")]
    Unreachable {
        /// Host and port.
        to: String,
        /// What the system said.
        cause: String,
    },
    /// No answer in time.
    #[error("{to} did not answer in time: check host, port, firewall and proxy settings")]
    Timeout {
        /// Host and port.
        to: String,
    },
    /// The port does not speak TLS.
    #[error("{to} does not speak TLS: if the Manager serves plain HTTP there, use http:// in MANAGER_HOST_AND_PORT")]
    NotTls {
        /// Host and port.
        to: String,
    },
    /// The port does not speak HTTP.
    #[error("{to} does not speak HTTP: if the Manager serves TLS there, use https:// in MANAGER_HOST_AND_PORT")]
    NotHttp {
        /// Host and port.
        to: String,
    },
    /// The certificate does not come from a trusted authority, or is not for this host, or out of date.
    #[error(
        "the certificate of {to} is not trusted ({cause}): set DELEGATE_CA_FILE to the authority that signed it, and \
         check the host name and this machine's clock"
    )]
    Untrusted {
        /// Host and port.
        to: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The proxy wants a name and a password, or others.
    #[error("the proxy refuses the credentials: put user:password@ before its host in HTTPS_PROXY or HTTP_PROXY")]
    ProxyAuth,
    /// The proxy does not let this connection through.
    #[error("the proxy does not connect to {to}: allow it there, or add the host to NO_PROXY")]
    ProxyRefused {
        /// Host and port.
        to: String,
    },
    /// The server is not a Manager, or this is not its path.
    #[error(
        "{to} answered {status} and is not a Manager: check MANAGER_HOST_AND_PORT; plain http:// does not pass most \
         proxies, there use https://"
    )]
    NotManager {
        /// Host and port.
        to: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The server sends delegates elsewhere.
    #[error("{to} redirects to {location}: set MANAGER_HOST_AND_PORT to the final address")]
    Redirected {
        /// Host and port.
        to: String,
        /// Where to.
        location: String,
    },
    /// The Manager, or something in front of it, has no room right now.
    #[error("{to} answered {status}: it is overloaded or starting; trying again")]
    Busy {
        /// Host and port.
        to: String,
        /// What it answered.
        status: StatusCode,
        /// Milliseconds that it asks to wait.
        retry_after: Option<Millis>,
    },
}

impl DialError {
    /// How long the other side asks to wait, in milliseconds.
    pub const fn retry_after(&self) -> Option<Millis> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Why the client could not be made: certificates, the named ones or the system's.
    pub(crate) fn from_builder(error: &reqwest::Error, ca_file: Option<&Path>) -> Self {
        let path = ca_file.unwrap_or_else(|| Path::new("(not set, and this system has no certificates)"));
        Self::CaFile { path: path.to_owned(), reason: deepest(error) }
    }

    /// Reads the reason out of an HTTP client's error. The text of a cause is used where its type is private
    /// to that client; the tests pin those texts.
    pub(crate) fn from_request(error: &reqwest::Error, to: &str, tls: bool) -> Self {
        let to = to.to_owned();
        if let Some(error) = cause::<tokio_rustls::rustls::Error>(error) {
            return from_tls(error, to);
        }
        if said(error, "proxy authorization required") {
            return Self::ProxyAuth;
        }
        if said(error, "tunnel error: unsuccessful") {
            return Self::ProxyRefused { to };
        }
        let text = deepest(error);
        match (error.is_timeout(), error.is_connect()) {
            (true, _) => Self::Timeout { to },
            (false, true) => Self::Unreachable { to, cause: text },
            (false, false) if tls => Self::Unreachable { to, cause: text },
            (false, false) => Self::NotHttp { to },
        }
    }

    /// Reads the reason out of an answer that is not an upgrade.
    pub(crate) fn from_answer(answer: &reqwest::Response, to: &str) -> Self {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (to, status) = (to.to_owned(), answer.status());
        match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Self::ProxyAuth,
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT => {
                let seconds = header("retry-after").and_then(|value| value.trim().parse::<u32>().ok());
                Self::Busy { to, status, retry_after: seconds.map(|seconds| Millis::from(seconds) * 1_000) }
            }
            _ if status.is_redirection() => {
                Self::Redirected { to, location: header("location").unwrap_or_else(|| "nowhere".to_owned()) }
            }
            _ => Self::NotManager { to, status },
        }
    }
}

fn from_tls(error: &tokio_rustls::rustls::Error, to: String) -> DialError {
    use tokio_rustls::rustls::Error as Tls;
    match error {
        Tls::InvalidMessage(_) => DialError::NotTls { to },
        Tls::InvalidCertificate(cause) => DialError::Untrusted { to, cause: cause.to_string() },
        other => DialError::Unreachable { to, cause: other.to_string() },
    }
}

/// The first cause of this type, looking also inside I/O errors.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inside.map(|inside| inside as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

/// Whether any cause says this.
fn said(error: &(dyn Error + 'static), text: &str) -> bool {
    error.to_string().contains(text) || error.source().is_some_and(|source| said(source, text))
}

/// The innermost cause's text, which names the fact; what lies around it repeats the address.
fn deepest(error: &(dyn Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}
