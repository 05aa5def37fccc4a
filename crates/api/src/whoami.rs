//! Who the caller is and what it may do.

use legation_model::{
    Millis, Scope,
    access::{Permission, Role},
    ids::ApiKeyId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The caller as the Manager sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The API key, without its secret.
    #[schema(value_type = String, example = "key_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub key: ApiKeyId,
    /// The key's name, as audit records show it.
    pub name: String,
    /// The key's role.
    #[schema(schema_with = crate::schema::role)]
    pub role: Role,
    /// What the role allows.
    pub permissions: Vec<String>,
    /// Where the role holds; `null` for everywhere.
    #[schema(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// When the key stops working.
    pub expires_at: Option<Millis>,
    /// Version of the Manager.
    pub manager_version: String,
}

impl Whoami {
    /// The words of everything the role holds.
    pub fn permissions_of(role: Role) -> Vec<String> {
        Permission::ALL.into_iter().filter(|right| role.holds(*right)).map(|right| right.as_str().to_owned()).collect()
    }
}
