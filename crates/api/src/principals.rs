//! Users and service accounts: who may be given roles, and who owns API keys.

use legation_model::{Millis, Name, Scope, Text, access::PrincipalKind, ids::PrincipalId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A user or a service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Principal {
    /// Public id.
    #[schema(value_type = String, example = "prn_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: PrincipalId,
    /// A person or a program.
    #[schema(schema_with = crate::schema::principal_kind)]
    pub kind: PrincipalKind,
    /// Where it belongs: who may view or edit access there may view or edit it; `null` for the whole tree.
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Unique among users; among service accounts unique in its scope. Small and capital letters count as the same.
    #[schema(value_type = String, example = "alice")]
    pub name: Name,
    /// Free text.
    #[schema(value_type = String)]
    pub description: Text,
    /// Since when it can do nothing; `null` while it can.
    pub disabled_at: Option<Millis>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
}

/// Creates a user or a service account, which can do nothing until it has a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePrincipal {
    /// A person or a program.
    #[schema(schema_with = crate::schema::principal_kind)]
    pub kind: PrincipalKind,
    /// Where it belongs; the whole tree when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Unique among users; among service accounts unique in its scope.
    #[schema(value_type = String, example = "deployer")]
    pub name: Name,
    /// Free text.
    #[serde(default)]
    #[schema(value_type = String)]
    pub description: Text,
}

/// What disabling, enabling or deleting would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedPrincipal {
    /// The principal, as it stands after the deed.
    pub principal: Principal,
    /// Its grants: none of them holds while it is disabled, and none is left when it is deleted.
    pub grants: Vec<crate::grants::Grant>,
    /// How many API keys it owns: each ends and begins to work with it.
    pub api_keys: u32,
    /// How many console sessions it has: each ends for good when it is disabled or deleted.
    pub sessions: u32,
}

/// Which principals to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PrincipalsQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only users, or only service accounts.
    #[param(value_type = Option<String>)]
    pub kind: Option<PrincipalKind>,
    /// Only those of this name.
    #[param(value_type = Option<String>)]
    pub name: Option<Name>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
