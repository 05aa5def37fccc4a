//! Grants: which principal has which role, and where.

use legation_model::{
    Millis, Name, Scope,
    ids::{GrantId, PrincipalId},
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One role of one principal, at one place and below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// Public id.
    #[schema(value_type = String, example = "grt_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: GrantId,
    /// Whose.
    #[schema(value_type = String)]
    pub principal: PrincipalId,
    /// The role.
    #[schema(value_type = String, example = "operator")]
    pub role: Name,
    /// At and below this scope; `null` for everywhere.
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
}

/// Gives a principal a role. Nobody can give what they do not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// To whom.
    #[schema(value_type = String)]
    pub principal: PrincipalId,
    /// Which role.
    #[schema(value_type = String, example = "operator")]
    pub role: Name,
    /// At and below this scope. It must be said: `null` for everywhere.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>, required = true)]
    pub scope: Option<Scope>,
}

/// A field that may be null and not left out: what is forgotten must not come to mean everywhere.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Scope>, D::Error> {
    Option::deserialize(deserializer)
}

/// What taking a grant away would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedGrant {
    /// The grant.
    pub grant: Grant,
}

/// Which grants to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct GrantsQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only those of this principal.
    #[param(value_type = Option<String>)]
    pub principal: Option<PrincipalId>,
    /// Only those of this role.
    #[param(value_type = Option<String>)]
    pub role: Option<Name>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
