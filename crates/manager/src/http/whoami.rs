//! Who the caller is.

use legation_api::whoami::Whoami;

use super::{
    request::{Nothing, Params},
    respond::{Json, ok},
};
use crate::access::Caller;

/// Who the caller is and what it may do.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "access", responses((status = 200, body = Whoami)))]
pub(super) async fn show(caller: Caller, Params(Nothing {}): Params<Nothing>) -> Json<Whoami> {
    ok(Whoami {
        key: caller.key,
        name: caller.name.to_string(),
        role: caller.role,
        permissions: Whoami::permissions_of(caller.role),
        scope: caller.scope,
        expires_at: caller.expires_at,
        manager_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
