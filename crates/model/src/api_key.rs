//! API keys: `lak_<id><secret>_<check>`, for people and programs that talk to the REST API.

use std::str::FromStr;

use crate::{
    Secret, base62,
    ids::{ApiKeyId, ID_CHARS},
    secret::SecretText,
};

/// What every API key starts with.
pub const API_KEY_PREFIX: &str = "lak_";
const SECRET_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;
const API_KEY_CHARS: usize = 4 + ID_CHARS + SECRET_CHARS + 1 + CHECK_CHARS;

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
#[error("not an API key: it starts with {API_KEY_PREFIX:?} and has {API_KEY_CHARS} characters; copy the whole value")]
pub struct ApiKeyError;

impl ApiKey {
    /// The one spelling of this key.
    pub fn reveal(&self) -> SecretText {
        let mut text = String::with_capacity(API_KEY_CHARS);
        text.push_str(API_KEY_PREFIX);
        base62::encode(&self.id.0, ID_CHARS, &mut text);
        base62::encode(self.secret.expose(), SECRET_CHARS, &mut text);
        text.push('_');
        let check = crc32fast::hash(text.as_bytes());
        base62::encode(&check.to_be_bytes(), CHECK_CHARS, &mut text);
        SecretText::new(text)
    }
}

impl FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        parse(text.trim()).ok_or(ApiKeyError)
    }
}

fn parse(text: &str) -> Option<ApiKey> {
    if text.len() != API_KEY_CHARS || !text.is_ascii() {
        return None;
    }
    let (body, check) = text.split_at(API_KEY_CHARS - CHECK_CHARS);
    let (id, secret) = body.strip_prefix(API_KEY_PREFIX)?.strip_suffix('_')?.split_at(ID_CHARS);
    let (mut id_bytes, mut secret_bytes, mut check_bytes) = ([0; 16], [0; 32], [0; 4]);
    base62::decode(id, &mut id_bytes)?;
    base62::decode(secret, &mut secret_bytes)?;
    base62::decode(check, &mut check_bytes)?;
    (u32::from_be_bytes(check_bytes) == crc32fast::hash(body.as_bytes()))
        .then(|| ApiKey { id: ApiKeyId(id_bytes), secret: Secret::new(secret_bytes) })
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
