//! API keys: `lak_<id><secret>_<check>`, for people and programs that talk to the REST API.

use std::str::FromStr;

use crate::{Secret, credential, ids::ApiKeyId, secret::SecretText};

/// What every API key starts with.
pub const API_KEY_PREFIX: &str = "lak_";

/// A whole API key, as its holder has it; the Manager keeps only the id and a keyed hash of the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Names the key in lists and audit records.
    pub id: ApiKeyId,
    /// 32 random bytes.
    pub secret: Secret<32>,
}

/// Why a text is not an API key; never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an API key: it starts with {API_KEY_PREFIX:?} and has {} characters; copy the whole value",
    API_KEY_PREFIX.len() + credential::CHARS
)]
pub struct ApiKeyError;

impl ApiKey {
    /// The one spelling of this key.
    pub fn reveal(&self) -> SecretText {
        credential::spell(API_KEY_PREFIX, &self.id.0, &self.secret)
    }
}

impl FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let (id, secret) = credential::read(API_KEY_PREFIX, text).ok_or(ApiKeyError)?;
        Ok(Self { id: ApiKeyId(id), secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_a_typing_error_is_found() {
        let key = ApiKey { id: ApiKeyId([3; 16]), secret: Secret::new([0xfe; 32]) };
        let text = key.reveal().expose().to_owned();
        assert_eq!(text.parse(), Ok(key));
        for at in 0..text.len() {
            let mut typed = text.clone();
            typed.replace_range(at..=at, if &text[at..=at] == "0" { "1" } else { "0" });
            assert!(typed.parse::<ApiKey>().is_err(), "{at}");
        }
    }
}
