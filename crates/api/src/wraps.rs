//! One-time codes: the value of a token for whoever opens it first, and the visible trace of that.

use legation_model::{
    Millis, Name, Scope,
    ids::{TokenId, WrapId},
    secret::SecretText,
    wrap,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// The shortest life of a code, in milliseconds: a minute, in which a person can hand it over.
pub const WRAP_TTL_MIN: Millis = 60 * 1000;
/// The longest life of a code, in milliseconds: 7 days. What is not opened by then was forgotten.
pub const WRAP_TTL_MAX: Millis = 7 * 24 * 60 * 60 * 1000;

/// Refuses a life that is out of range.
pub(crate) fn check_ttl(ttl: Option<Millis>) -> Result<(), Problem> {
    if ttl.is_none_or(|ttl| (WRAP_TTL_MIN..=WRAP_TTL_MAX).contains(&ttl)) {
        return Ok(());
    }
    let fix = format!("use {WRAP_TTL_MIN} to {WRAP_TTL_MAX} milliseconds (a minute to 7 days)");
    Err(Problem::invalid("wrap_ttl_ms", "the code would live too short or too long", fix))
}

/// What became of a token's value that was put under a one-time code; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wrap {
    /// Public id.
    #[schema(value_type = String, example = "wrp_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: WrapId,
    /// Of which generation the value is.
    pub generation: u32,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
    /// From this time on it does not open.
    pub expires_at: Millis,
    /// When the value was erased: it was opened, its time had passed, or the token was revoked.
    pub ended_at: Option<Millis>,
    /// When it was opened.
    pub opened_at: Option<Millis>,
    /// From which address it was opened.
    pub opened_from: Option<String>,
    /// How often somebody who has the code tried to open it after its end: the code is in more hands than one.
    pub refused: u32,
}

impl From<&wrap::Wrap> for Wrap {
    fn from(wrap: &wrap::Wrap) -> Self {
        Self {
            id: wrap.id,
            generation: wrap.generation,
            created_at: wrap.created_at,
            created_by: wrap.created_by.clone(),
            expires_at: wrap.expires_at,
            ended_at: wrap.ended_at,
            opened_at: wrap.opened_at,
            opened_from: wrap.opened_from.clone(),
            refused: wrap.refused,
        }
    }
}

/// A code in the place of a token's value, shown only this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WrapCode {
    /// Public id, as records name it.
    #[schema(value_type = String)]
    pub id: WrapId,
    /// What opens it, once. The Manager does not keep it.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub code: SecretText,
    /// From this time on it does not open.
    pub expires_at: Millis,
}

/// Opens a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenWrap {
    /// The whole code.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub code: SecretText,
}

/// The value that was under a code: it is nowhere else from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unwrapped {
    /// Whose value it is.
    #[schema(value_type = String)]
    pub token: TokenId,
    /// The token's name.
    #[schema(value_type = String)]
    pub name: Name,
    /// Where the token belongs.
    #[schema(value_type = String)]
    pub scope: Scope,
    /// Of which generation it is.
    pub generation: u32,
    /// The whole value.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub value: SecretText,
}
