//! Console sessions: what a person gets who logs in, `lcs_<id><secret>_<check>`, and the passwords they log in with.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Name, Secret, credential, ids::LoginId, secret::SecretText};

/// What the value of every console session starts with.
pub const LOGIN_PREFIX: &str = "lcs_";
const LOGIN_CHARS: usize = LOGIN_PREFIX.len() + credential::CHARS;

/// The shortest password, in characters: what cannot be guessed at the rate at which guesses are taken.
pub const PASSWORD_MIN: usize = 12;
/// The longest password, in characters: any sentence, and no more than a hash should read.
pub const PASSWORD_MAX: usize = 256;

/// A whole console session, as its holder has it; the Manager keeps only the id and a keyed hash of the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Names the session in lists and audit records.
    pub id: LoginId,
    /// 32 random bytes.
    pub secret: Secret<32>,
}

/// Why a text is not the value of a console session; never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a console session: it starts with {LOGIN_PREFIX:?} and has {LOGIN_CHARS} characters; log in again")]
pub struct LoginError;

impl Login {
    /// The one spelling of this session.
    pub fn reveal(&self) -> SecretText {
        credential::spell(LOGIN_PREFIX, &self.id.0, &self.secret)
    }
}

impl FromStr for Login {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, LoginError> {
        let (id, secret) = credential::read(LOGIN_PREFIX, text).ok_or(LoginError)?;
        Ok(Self { id: LoginId(id), secret })
    }
}

/// How a person showed who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginMethod {
    /// By a password that the Manager knows.
    Password,
    /// At the identity provider.
    Oidc,
}

impl LoginMethod {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Password, Self::Oidc];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Oidc => "oidc",
        }
    }
}

crate::word::words!(LoginMethod);

/// Why a password is not taken; never repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("it does not have {PASSWORD_MIN} to {PASSWORD_MAX} characters")]
    Length,
    /// The name, or the name several times.
    #[error("it is made of the user's name")]
    Name,
}

/// Whether a password may be somebody's. What it is made of is theirs to choose: length is what counts.
///
/// # Errors
/// Which rule it breaks.
pub fn check_password(password: &SecretText, name: &Name) -> Result<(), PasswordError> {
    let password = password.expose();
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&password.chars().count()) {
        return Err(PasswordError::Length);
    }
    let (password, name) = (password.to_lowercase(), name.as_str().to_lowercase());
    if password.replace(&name, "").is_empty() { Err(PasswordError::Name) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_comes_back_and_is_no_api_key() {
        let login = Login { id: LoginId([3; 16]), secret: Secret::new([0xfe; 32]) };
        let text = login.reveal().expose().to_owned();
        assert_eq!((text.len(), text.parse()), (LOGIN_CHARS, Ok(login)));
        assert!(text.parse::<crate::api_key::ApiKey>().is_err());
    }

    #[test]
    fn a_password_is_judged_by_its_length_and_is_not_the_name() {
        let check = |password: &str, name: &str| {
            check_password(&SecretText::new(password.to_owned()), &name.parse().expect("a name"))
        };
        assert_eq!(check("all small it is", "alice"), Ok(()));
        assert_eq!(check(&"é".repeat(PASSWORD_MIN), "alice"), Ok(()), "characters count, not bytes");
        assert_eq!(check(&"é".repeat(PASSWORD_MIN - 1), "alice"), Err(PasswordError::Length));
        assert_eq!(check(&"x".repeat(PASSWORD_MAX), "alice"), Ok(()));
        assert_eq!(check(&"x".repeat(PASSWORD_MAX + 1), "alice"), Err(PasswordError::Length));
        assert_eq!(check("Alexandra-Maria", "alexandra-maria"), Err(PasswordError::Name));
        assert_eq!(check("alicealicealice", "Alice"), Err(PasswordError::Name));
    }
}
