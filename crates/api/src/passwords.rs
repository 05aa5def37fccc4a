//! Passwords of users. They are written only; no answer has one.

use legation_model::{Name, ids::PrincipalId, login::check_password, secret::SecretText};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// Gives a user a password, in the place of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// 12 to 256 characters of any kind, not made of the user's name.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub password: SecretText,
}

/// Changes one's own password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The present one.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub old_password: SecretText,
    /// The one to come: 12 to 256 characters of any kind, not made of the user's name.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub password: SecretText,
}

/// What a new password did besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PasswordSet {
    /// Whose it is.
    #[schema(value_type = String)]
    pub principal: PrincipalId,
    /// How many console sessions of theirs it ended; the one that asked for it goes on.
    pub ended_sessions: u32,
}

/// Whether a password may be that of this user.
///
/// # Errors
/// `invalid_request`, without the password.
pub fn check(password: &SecretText, name: &Name) -> Result<(), Problem> {
    check_password(password, name).map_err(|error| {
        let fix = "choose a longer one, such as a sentence; it may be made of any characters";
        Problem::invalid("password", &error.to_string(), fix)
    })
}
