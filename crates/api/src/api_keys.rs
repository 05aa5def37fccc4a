//! API keys: what principals call the API with.

use legation_model::{
    Millis, Name, Scope,
    ids::{ApiKeyId, PrincipalId},
    secret::SecretText,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Problem, tokens::NoValue};

/// An API key as the Manager knows it; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Public id.
    #[schema(value_type = String, example = "key_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: ApiKeyId,
    /// Whose.
    #[schema(value_type = String)]
    pub owner: PrincipalId,
    /// For people; several keys may share it.
    #[schema(value_type = String, example = "laptop")]
    pub name: Name,
    /// To which scope it narrows what its owner holds; `null` if it does not.
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
    /// From this time on it is refused.
    pub expires_at: Option<Millis>,
    /// The last time it was used, to within some ten seconds.
    pub last_used_at: Option<Millis>,
}

/// Makes a key. It does what its owner may do, and nobody can make one that does more than they may themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// Whose it is to be.
    #[schema(value_type = String)]
    pub owner: PrincipalId,
    /// For people.
    #[schema(value_type = String, example = "laptop")]
    pub name: Name,
    /// Narrows what its owner holds to this scope and what is below it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// From this time on it is refused.
    #[serde(default)]
    pub expires_at: Option<Millis>,
}

impl CreateApiKey {
    /// The rules that a type cannot express; `now` is the Manager's wall clock.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead.
    pub fn check(&self, now: Millis) -> Result<(), Problem> {
        if self.expires_at.is_some_and(|at| at <= now) {
            let fix = format!("use a time after {now}, in milliseconds since 1970, or leave it out");
            return Err(Problem::invalid("expires_at", "the time has passed", fix));
        }
        Ok(())
    }
}

/// The answer to making a key: the only place where its value is ever shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedApiKey {
    /// The key.
    pub key: ApiKey,
    /// The whole value, once; `null` if it was shown before.
    #[serde(with = "crate::tokens::value")]
    #[schema(value_type = Option<String>)]
    pub value: Option<SecretText>,
    /// Why `value` is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<NoValue>,
}

/// What revoking would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedApiKey {
    /// The key.
    pub key: ApiKey,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ApiKeysQuery {
    /// Only those whose owners belong to this scope or below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only those of this principal.
    #[param(value_type = Option<String>)]
    pub owner: Option<PrincipalId>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
