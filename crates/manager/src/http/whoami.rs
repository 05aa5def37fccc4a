//! Who the caller is.

use legation_api::whoami::{Granted, Whoami};
use legation_model::access::Permission;

use super::{
    request::{Nothing, Params},
    respond::{Json, ok},
};
use crate::access::Caller;

/// Who the caller is and what it may do.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "access", responses((status = 200, body = Whoami)))]
pub(super) async fn show(caller: Caller, Params(Nothing {}): Params<Nothing>) -> Json<Whoami> {
    let standing = &caller.standing;
    ok(Whoami {
        principal: standing.key.owner,
        kind: standing.kind,
        name: standing.owner_name.clone(),
        key: standing.key.id,
        key_name: standing.key.name.clone(),
        key_scope: standing.key.scope.clone(),
        grants: standing.grants.iter().map(granted).collect(),
        expires_at: standing.key.expires_at,
        manager_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn granted(grant: &legation_store::api_keys::Granted) -> Granted {
    let permissions = grant.permissions.iter().map(Permission::as_str).map(str::to_owned).collect();
    Granted { role: grant.role.clone(), scope: grant.scope.clone(), permissions }
}
