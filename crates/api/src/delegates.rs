//! Delegates: the agent processes.

use legation_model::{
    Millis, Name, Scope, Text,
    delegate::{self as model, CloneReport, DelegateStatus, Isolation},
    ids::{BootId, DelegateId, TokenId},
    token::Enrolment,
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
    /// Why it has that status, where a person or a clone gave it.
    pub status_reason: Option<String>,
    /// Who gave it that status.
    pub status_by: Option<String>,
    /// When it was given that status.
    pub status_at: Option<Millis>,
    /// Of a delegate whose key was used by two processes, when it is shown alone: what is known of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneAccount>,
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
        let standing = delegate.standing.as_ref();
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
            status_reason: standing.map(|standing| standing.reason.clone()),
            status_by: standing.map(|standing| standing.by.clone()),
            status_at: standing.map(|standing| standing.at),
            clone: None,
            connected,
            tasks_running,
            boot: delegate.boot,
            address: delegate.address.clone(),
            first_seen_at: delegate.first_seen,
            last_seen_at: delegate.last_seen,
        }
    }
}

/// One of two processes that used one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloneSide {
    /// Which process start.
    #[schema(value_type = String)]
    pub boot: BootId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// The machine it says it runs on.
    #[schema(value_type = String)]
    pub host: Name,
    /// Where its last connection came from.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Tags it claims.
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Name>,
    /// Free text.
    #[schema(value_type = String)]
    pub description: Text,
    /// When it was last heard.
    pub seen_at: Millis,
}

impl From<&model::CloneSide> for CloneSide {
    fn from(side: &model::CloneSide) -> Self {
        Self {
            boot: side.boot,
            name: side.name.clone(),
            host: side.host.clone(),
            address: side.address.clone(),
            version: side.version.clone(),
            tags: side.tags.clone(),
            description: side.description.clone(),
            seen_at: side.seen_at,
        }
    }
}

/// What is known of two processes that used one key, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloneAccount {
    /// The newer start, which counted as the real one.
    pub counted: CloneSide,
    /// The older start, which came back.
    pub returned: CloneSide,
    /// In what the two differ, besides their starts: `name`, `host`, `address`, `version`, `tags`, `description`.
    pub differs: Vec<String>,
    /// What happened, in a sentence.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// Two processes that used one key, told so that a person can act.
pub fn account_of(id: DelegateId, token: TokenId, clone: &CloneReport) -> CloneAccount {
    let (one, other) = (CloneSide::from(&clone.counted), CloneSide::from(&clone.returned));
    let compared = [
        ("name", one.name != other.name),
        ("host", one.host != other.host),
        ("address", one.address != other.address),
        ("version", one.version != other.version),
        ("tags", one.tags != other.tags),
        ("description", one.description != other.description),
    ];
    let differs: Vec<String> =
        compared.iter().filter(|(_, differs)| *differs).map(|(what, _)| (*what).to_owned()).collect();
    let elsewhere = one.host != other.host || one.address != other.address;
    let in_what = if differs.is_empty() { "nothing but their starts".to_owned() } else { differs.join(", ") };
    let what = format!(
        "two processes use one delegate key: {} on {} from {}, and {} on {} from {}; they differ in {in_what}",
        one.name, one.host, one.address, other.name, other.host, other.address
    );
    let advice = if elsewhere {
        format!(
            "the state directory was copied to another machine: if nobody of yours did that, the key and the token are \
             stolen, so run `legation token revoke {token}`; else start the copy with an empty state directory of its own \
             and run `legation delegate allow {id}`"
        )
    } else {
        format!(
            "one machine runs two processes on one state directory, or a copy of it was restored: stop one of them or give \
             it an empty state directory of its own, then run `legation delegate allow {id}`"
        )
    };
    CloneAccount { counted: one, returned: other, differs, what, advice }
}

/// Stops a delegate: its key is refused until somebody allows it again. One that waits for approval is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopDelegate {
    /// Why; the delegate is told, and shows it in its log.
    #[serde(default)]
    #[schema(value_type = String)]
    pub reason: Text,
}

/// What stopping a delegate would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoppedDelegate {
    /// The delegate; after the deed its status is `stopped`.
    pub delegate: Delegate,
    /// Attempts that are lost with it.
    pub attempts_lost: u32,
    /// Whether the same token lets a new key join: then a stopped delegate comes back with an empty state directory.
    #[schema(schema_with = crate::schema::enrolment)]
    pub enrolment: Enrolment,
    /// Whether its token is still accepted.
    pub token_accepted: bool,
}

impl StoppedDelegate {
    /// Whether whoever runs the delegate could come back at once under a new key.
    pub fn could_come_back(&self) -> bool {
        self.token_accepted && self.enrolment == Enrolment::Open
    }
}

/// Allows a delegate that waits for approval, was stopped or is quarantined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowDelegate {
    /// Why, for the audit record.
    #[serde(default)]
    #[schema(value_type = String)]
    pub reason: Text,
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
    /// Only those of this status.
    #[param(schema_with = crate::schema::delegate_status)]
    pub status: Option<DelegateStatus>,
    /// Only those that are connected now.
    #[serde(default)]
    pub connected: bool,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
