//! Seeing the value of a token again, where its account's policy keeps it.

use legation_model::{Text, secret::SecretText};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Problem, tokens::Token};

/// Asks for the value of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevealToken {
    /// Why; it is recorded before the value is shown.
    #[schema(value_type = String)]
    pub reason: Text,
}

impl RevealToken {
    /// The rules that a type cannot express.
    ///
    /// # Errors
    /// `invalid_request` for a reason that says nothing.
    pub fn check(&self) -> Result<(), Problem> {
        if self.reason.as_str().trim().is_empty() {
            return Err(Problem::invalid("reason", "it is empty", "say what the value is needed for"));
        }
        Ok(())
    }
}

/// The value of a token, once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevealedToken {
    /// The token.
    pub token: Token,
    /// Of which generation the value is.
    pub generation: u32,
    /// The whole value.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub value: SecretText,
}
