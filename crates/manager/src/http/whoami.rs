//! Who the caller is.

use legation_api::whoami::{Granted, Whoami};
use legation_model::access::Permission;
use legation_store::standing::Credential;

use super::{
    request::{Nothing, Params},
    respond::{Json, ok},
};
use crate::access::Caller;

/// Who the caller is and what it may do.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "access", responses((status = 200, body = Whoami)))]
pub(super) async fn show(caller: Caller, Params(Nothing {}): Params<Nothing>) -> Json<Whoami> {
    let (standing, owner) = (&caller.standing, caller.principal());
    let (key, login) = match &standing.credential {
        Credential::Key(key) => (Some(key), None),
        Credential::Login(login) => (None, Some(login)),
    };
    ok(Whoami {
        principal: owner,
        kind: standing.kind,
        name: standing.owner_name.clone(),
        key: key.map(|key| key.id),
        key_name: key.map(|key| key.name.clone()),
        key_scope: key.and_then(|key| key.scope.clone()),
        session: login.map(|login| login.id),
        authenticated_at: login.map(|login| login.authenticated_at),
        grants: standing.grants.iter().map(granted).collect(),
        expires_at: key.map_or(login.map(|login| login.expires_at), |key| key.expires_at),
        manager_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn granted(grant: &legation_store::standing::Granted) -> Granted {
    let permissions = grant.permissions.iter().map(Permission::as_str).map(str::to_owned).collect();
    Granted { role: grant.role.clone(), scope: grant.scope.clone(), permissions }
}
