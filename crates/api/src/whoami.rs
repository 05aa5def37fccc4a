//! Who the caller is and what it may do.

use legation_model::{
    Millis, Name, Scope,
    access::PrincipalKind,
    ids::{ApiKeyId, LoginId, PrincipalId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The caller as the Manager sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The user or service account.
    #[schema(value_type = String, example = "prn_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub principal: PrincipalId,
    /// A person or a program.
    #[schema(schema_with = crate::schema::principal_kind)]
    pub kind: PrincipalKind,
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// The API key, without its secret; `null` in a console session.
    #[schema(value_type = Option<String>, example = "key_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub key: Option<ApiKeyId>,
    /// The key's name.
    #[schema(value_type = Option<String>)]
    pub key_name: Option<Name>,
    /// The console session, without its secret; `null` for an API key.
    #[schema(value_type = Option<String>, example = "lgn_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub session: Option<LoginId>,
    /// When the person last showed who they are; `null` for an API key.
    pub authenticated_at: Option<Millis>,
    /// To which scope the key narrows the grants; `null` if it does not.
    #[schema(value_type = Option<String>)]
    pub key_scope: Option<Scope>,
    /// What it may do, and where.
    pub grants: Vec<Granted>,
    /// When the key or the session stops working.
    pub expires_at: Option<Millis>,
    /// Version of the Manager.
    pub manager_version: String,
}

/// One grant of the caller, before its key narrows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    /// The role.
    #[schema(value_type = String, example = "operator")]
    pub role: Name,
    /// At and below this scope; `null` for everywhere.
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// What the role holds.
    pub permissions: Vec<String>,
}
