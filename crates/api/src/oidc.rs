//! Logging in at an identity provider, in a browser or for a program on the machine of the browser.
//!
//! A program listens on its machine, has a person open [`begin`]'s address in a browser, and gets a code back there. The
//! code opens a session only for who knows the word whose hash the round began with: neither does somebody else's login
//! land in this program, nor this one in somebody else's.

use reqwest::Url;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    Problem,
    proof::{hex, sha256},
    routes,
};

/// Characters of a challenge: a SHA-256 in hexadecimal.
const CHALLENGE_CHARS: usize = 64;

/// How a round begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct BeginOidc {
    /// Whether the provider is to ask again, whoever is logged in there: for a session that must be fresh.
    #[serde(default)]
    pub fresh: bool,
    /// The port on which a program listens, on the browser's own machine.
    pub port: Option<u16>,
    /// With a port: the SHA-256 of a word that only the program knows, in hexadecimal.
    pub challenge: Option<String>,
}

impl BeginOidc {
    /// The program that waits, if one does: its port and its challenge.
    ///
    /// # Errors
    /// `invalid_request` for one without the other.
    pub fn program(self) -> Result<Option<(u16, String)>, Problem> {
        let fix = "send both, the challenge as the SHA-256 of a secret word in hexadecimal, or neither";
        match (self.port, self.challenge) {
            (None, None) => Ok(None),
            (Some(port), Some(challenge)) if is_challenge(&challenge) && port > 0 => Ok(Some((port, challenge))),
            _ => Err(Problem::invalid("challenge", "port and challenge belong together", fix)),
        }
    }
}

fn is_challenge(text: &str) -> bool {
    text.len() == CHALLENGE_CHARS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The challenge of a word.
pub fn challenge(word: &str) -> String {
    hex(&sha256(word.as_bytes()))
}

/// Opens the session of a round that a program began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogInByCode {
    /// What came back.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub code: legation_model::secret::SecretText,
    /// The word whose challenge the round began with.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub word: legation_model::secret::SecretText,
}

/// The address that a person opens in a browser, for a program that listens on this port.
pub fn begin(manager: &str, port: u16, word: &str, fresh: bool) -> String {
    let fresh = if fresh { "&fresh=true" } else { "" };
    format!("{manager}{}?port={port}&challenge={}{fresh}", routes::LOGIN_OIDC, challenge(word))
}

/// What a round for a program ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// A code that opens a session, once.
    Code(String),
    /// Why there is none.
    Refused(String),
}

impl Returned {
    /// Where a browser brings it: to its own machine and nowhere else.
    pub fn address(&self, port: u16) -> String {
        let (name, value) = match self {
            Self::Code(code) => ("code", code),
            Self::Refused(why) => ("refused", why),
        };
        let mut url = Url::parse(&format!("http://127.0.0.1:{port}/")).expect("it is an address");
        url.query_pairs_mut().append_pair(name, value);
        url.into()
    }

    /// Reads it from the path that a browser asks for; nothing for whatever else a browser asks.
    pub fn read(path: &str) -> Option<Self> {
        let url = Url::parse("http://127.0.0.1/").ok()?.join(path).ok()?;
        url.query_pairs().find_map(|(name, value)| match name.as_ref() {
            "code" => Some(Self::Code(value.into_owned())),
            "refused" => Some(Self::Refused(value.into_owned())),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_returned_is_read_back() {
        for returned in [Returned::Code("abc".to_owned()), Returned::Refused("a & b = c?\n".to_owned())] {
            let address = returned.address(7);
            let path = address.strip_prefix("http://127.0.0.1:7").expect("this machine");
            assert_eq!(Returned::read(path), Some(returned));
        }
        for other in ["/favicon.ico", "/", "", "//x?a=b", "http://[::"] {
            assert_eq!(Returned::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_needs_port_and_challenge() {
        let begin = |port, challenge: Option<&str>| {
            BeginOidc { fresh: false, port, challenge: challenge.map(str::to_owned) }.program()
        };
        let right = challenge("word");
        assert_eq!(begin(None, None), Ok(None));
        assert_eq!(begin(Some(7), Some(&right)), Ok(Some((7, right.clone()))));
        assert!(
            begin(Some(7), None).is_err()
                && begin(None, Some(&right)).is_err()
                && begin(Some(0), Some(&right)).is_err()
        );
        assert!(begin(Some(7), Some("short")).is_err() && begin(Some(7), Some(&right.to_uppercase())).is_err());
    }
}
