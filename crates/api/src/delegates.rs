//! Delegates: the agent processes.

use legation_model::{
    Millis, Name, Scope, Text,
    delegate::{self as model, DelegateStatus, Isolation},
    ids::{BootId, DelegateId, TokenId},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A delegate as the Manager knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delegate {
    /// Identity within the Manager.
    #[schema(value_type = String, example = "dlg_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: DelegateId,
    /// The scope of its token.
    #[schema(value_type = String, example = "default")]
    pub scope: Scope,
    /// The token it last proved.
    #[schema(value_type = String)]
    pub token: TokenId,
    /// Its name; those that share it are replicas of one group.
    #[schema(value_type = String, example = "build-7")]
    pub name: Name,
    /// The machine it runs on.
    #[schema(value_type = String)]
    pub host: Name,
    /// Tags it claims; routing, not security.
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Name>,
    /// Free text.
    #[schema(value_type = String)]
    pub description: Text,
    /// Version of its program.
    pub version: String,
    /// How well it keeps its tasks away from its own credential.
    #[schema(schema_with = crate::schema::isolation)]
    pub isolation: Isolation,
    /// How many tasks it runs at once.
    pub capacity: u32,
    /// Whether its key may work.
    #[schema(schema_with = crate::schema::delegate_status)]
    pub status: DelegateStatus,
    /// Whether it is connected now: it has a session and answered heartbeats are recent.
    pub connected: bool,
    /// Tasks it is running now.
    pub tasks_running: u32,
    /// Its present process start.
    #[schema(value_type = String)]
    pub boot: BootId,
    /// Address of the last connection.
    pub address: String,
    /// First connection.
    pub first_seen_at: Millis,
    /// Last answered heartbeat that reached the store.
    pub last_seen_at: Millis,
}

impl Delegate {
    /// The stored noun, with what only live sessions know.
    pub fn new(delegate: &model::Delegate, connected: bool, tasks_running: u32) -> Self {
        Self {
            id: delegate.id,
            scope: delegate.scope.clone(),
            token: delegate.token,
            name: delegate.name.clone(),
            host: delegate.host.clone(),
            tags: delegate.tags.clone(),
            description: delegate.description.clone(),
            version: delegate.version.clone(),
            isolation: delegate.isolation,
            capacity: delegate.capacity,
            status: delegate.status,
            connected,
            tasks_running,
            boot: delegate.boot,
            address: delegate.address.clone(),
            first_seen_at: delegate.first_seen,
            last_seen_at: delegate.last_seen,
        }
    }
}

/// Which delegates to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DelegatesQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only those that last proved this token.
    #[param(value_type = Option<String>)]
    pub token: Option<TokenId>,
    /// Only those of this name.
    #[param(value_type = Option<String>)]
    pub name: Option<Name>,
    /// Only those that are connected now.
    #[serde(default)]
    pub connected: bool,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
