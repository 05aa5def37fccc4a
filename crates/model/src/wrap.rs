//! One-time codes: `ldw_<id><secret>_<check>`, each of which hands over the value of a token once.

use std::str::FromStr;

use crate::{
    Millis, Secret, credential,
    ids::{TokenId, WrapId},
    secret::SecretText,
};

/// What every one-time code starts with.
pub const WRAP_CODE_PREFIX: &str = "ldw_";

/// A whole code, as it is handed over. The value can be opened with nothing else, and the Manager does not keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrapCode {
    /// Names what it opens, in records.
    pub id: WrapId,
    /// 32 random bytes.
    pub secret: Secret<32>,
}

/// Why a text is not a one-time code; never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a one-time code: it starts with {WRAP_CODE_PREFIX:?} and has {} characters; copy the whole of it",
    WRAP_CODE_PREFIX.len() + credential::CHARS
)]
pub struct WrapCodeError;

impl WrapCode {
    /// The one spelling of this code.
    pub fn reveal(&self) -> SecretText {
        credential::spell(WRAP_CODE_PREFIX, &self.id.0, &self.secret)
    }
}

impl FromStr for WrapCode {
    type Err = WrapCodeError;

    fn from_str(text: &str) -> Result<Self, WrapCodeError> {
        let (id, secret) = credential::read(WRAP_CODE_PREFIX, text).ok_or(WrapCodeError)?;
        Ok(Self { id: WrapId(id), secret })
    }
}

/// A token's value under a one-time code, as the Manager knows it; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// Public id.
    pub id: WrapId,
    /// Whose value it is.
    pub token: TokenId,
    /// Of which generation.
    pub generation: u32,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
    /// From this wall-clock millisecond on it does not open.
    pub expires_at: Millis,
    /// When its value was erased, for whatever reason.
    pub ended_at: Option<Millis>,
    /// When it was opened, if it was.
    pub opened_at: Option<Millis>,
    /// From which address.
    pub opened_from: Option<String>,
    /// How often somebody who has the code tried to open it after its end.
    pub refused: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_comes_back_and_is_no_other_credential() {
        let code = WrapCode { id: WrapId([3; 16]), secret: Secret::new([0xfe; 32]) };
        let text = code.reveal().expose().to_owned();
        assert_eq!(format!(" {text}\n").parse(), Ok(code));
        assert!(text.parse::<crate::api_key::ApiKey>().is_err());
        assert!(text.replace(WRAP_CODE_PREFIX, crate::api_key::API_KEY_PREFIX).parse::<WrapCode>().is_err());
        let told = text[1..].parse::<WrapCode>().expect_err("cut short").to_string();
        assert!(told.contains("76 characters") && !told.contains(&text[30..40]), "{told}");
    }
}
