//! Roles: named sets of permissions, three of them built in.

use legation_model::{
    Millis, Name, Text,
    access::{Permission, Permissions},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Role {
    /// Identity; small and capital letters count as the same.
    #[schema(value_type = String, example = "operator")]
    pub name: Name,
    /// Whether every Manager has it and nobody can change it.
    pub built_in: bool,
    /// Free text.
    pub description: String,
    /// What it holds.
    pub permissions: Vec<String>,
    /// When it was made; `null` for one that is built in.
    pub created_at: Option<Millis>,
    /// Who made it.
    pub created_by: Option<String>,
}

/// Creates a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRole {
    /// Identity.
    #[schema(value_type = String, example = "revoker")]
    pub name: Name,
    /// Free text.
    #[serde(default)]
    #[schema(value_type = String)]
    pub description: Text,
    /// What it is to hold: permissions that the caller holds everywhere. The role admin lists all there are.
    #[schema(example = json!(["core_delegate_view", "core_delegate_edit"]))]
    pub permissions: Vec<String>,
}

/// Replaces what a role holds, for all who have it, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRole {
    /// Free text.
    #[serde(default)]
    #[schema(value_type = String)]
    pub description: Text,
    /// What it is to hold from now on.
    pub permissions: Vec<String>,
}

/// What deleting would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedRole {
    /// The role.
    pub role: Role,
}

/// Reads the words of permissions.
///
/// # Errors
/// `invalid_request` for a word that is none.
pub fn permissions(words: &[String]) -> Result<Permissions, Problem> {
    let read = |word: &String| {
        word.parse::<Permission>().map_err(|_| {
            let all: Vec<_> = Permission::ALL.map(Permission::as_str).into();
            let fix = format!("use some of {}", all.join(", "));
            Problem::invalid("permissions", "one of them is no permission", fix)
        })
    };
    words.iter().map(read).collect()
}

/// The words of permissions.
pub fn words(permissions: Permissions) -> Vec<String> {
    permissions.iter().map(|permission| permission.as_str().to_owned()).collect()
}
