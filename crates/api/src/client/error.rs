//! What can go wrong between a client and its Manager, told so that the reader knows what to do.

use std::{error::Error as _, io};

use crate::{Code, Problem};

/// Why a call has no answer. Each says what happened and what to do; none has a key or a token in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The Manager refused.
    #[error("{0}")]
    Problem(Problem),
    /// Nobody answers there.
    #[error("{what}")]
    Unreachable {
        /// What happened.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The two do not agree on an encrypted connection, or the certificate is not trusted.
    #[error("{what}")]
    Tls {
        /// What happened.
        what: String,
        /// What to do.
        fix: String,
    },
    /// Somebody answers, but not as a Manager does.
    #[error("{what}")]
    Unexpected {
        /// What happened.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The address, key or CA file given to the client cannot be right.
    #[error("{what}")]
    Settings {
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
}

impl ClientError {
    /// What to do about it.
    pub fn fix(&self) -> &str {
        match self {
            Self::Problem(problem) => &problem.fix,
            Self::Unreachable { fix, .. }
            | Self::Tls { fix, .. }
            | Self::Unexpected { fix, .. }
            | Self::Settings { fix, .. } => fix,
        }
    }

    /// The Manager's word for it, if it was the Manager that refused.
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// Whether the same call may succeed a moment later.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Problem(problem) => matches!(problem.status, 429 | 502..=504),
            Self::Unreachable { .. } => true,
            Self::Tls { .. } | Self::Unexpected { .. } | Self::Settings { .. } => false,
        }
    }

    pub(super) fn unexpected(what: impl Into<String>) -> Self {
        let fix = "check that the address is a Legation Manager's and not that of a proxy or another service";
        Self::Unexpected { what: what.into(), fix: fix.to_owned() }
    }

    /// Sorts what reqwest reports. `place` is the Manager's address without path.
    pub(super) fn transport(error: &reqwest::Error, place: &str) -> Self {
        let reason = innermost(error);
        if let Some(tls) = tls(&reason, place) {
            return tls;
        }
        if error.is_builder() {
            let fix = "check the address, the API key and the proxy variables of the environment".to_owned();
            return Self::Settings { what: format!("the request cannot be built: {reason}"), fix };
        }
        if is_not_http(&reason) {
            let fix = format!("if the Manager serves TLS, use https:// instead of {place}, and check the port");
            return Self::Unexpected { what: format!("what answers at {place} does not speak HTTP"), fix };
        }
        unreachable(error, &reason, place)
    }
}

fn unreachable(error: &reqwest::Error, reason: &str, place: &str) -> ClientError {
    let (what, fix) = if error.is_timeout() {
        (format!("no answer from {place} in time"), "check that nothing (firewall, proxy) swallows the connection")
    } else if reason.contains("lookup") || reason.contains("resolve") {
        (format!("the host name in {place} is not known ({reason})"), "check the name for a typing error, and DNS")
    } else if io_kind(error) == Some(io::ErrorKind::ConnectionRefused) {
        (format!("nothing listens at {place}"), "start the Manager, or check host and port (LEGATION_URL, --url)")
    } else {
        (format!("the connection to {place} failed: {reason}"), "check that the Manager runs and can be reached")
    };
    ClientError::Unreachable { what, fix: fix.to_owned() }
}

fn tls(reason: &str, place: &str) -> Option<ClientError> {
    let (what, fix) = if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
        (format!("what answers at {place} does not speak TLS"), "if the Manager serves plain HTTP, use http://")
    } else if reason.contains("not valid for name") || reason.contains("NotValidForName") {
        (format!("the certificate at {place} is for another name: {reason}"), "use the name that the certificate has")
    } else if reason.contains("certificate") || reason.contains("UnknownIssuer") {
        (
            format!("the certificate at {place} is not trusted: {reason}"),
            "name the CA's certificate in LEGATION_CA_FILE or --ca-file",
        )
    } else {
        return None;
    };
    Some(ClientError::Tls { what, fix: fix.to_owned() })
}

fn is_not_http(reason: &str) -> bool {
    ["invalid HTTP", "invalid header", "message is too large"]
        .into_iter()
        .any(|sign| reason.to_ascii_lowercase().contains(&sign.to_ascii_lowercase()))
}

/// The deepest cause says what really happened; the outer ones only repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = found.source();
    }
    None
}
