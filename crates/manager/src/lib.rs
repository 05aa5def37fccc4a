//! The Manager: one file per noun holds its rules, its transaction and its consequence.
//!
//! [`Manager`] is one plain struct, built once by [`start()`]; everything that lives beside it is a loop that it
//! owns and awaits. Only time and entropy can be exchanged.

pub mod access;
pub mod admin;
pub mod admission;
pub mod api_keys;
pub mod arguments;
mod attempts;
pub mod audit;
pub mod audit_stream;
pub mod backlog;
pub mod backup;
mod barred;
mod canary;
pub mod checkpoints;
pub mod clock;
pub mod config;
mod conversation;
mod creations;
pub mod delegates;
pub mod dispatch;
pub mod enrolment;
pub mod error;
pub mod gate;
pub mod grants;
pub mod handshakes;
pub mod http;
pub mod idempotency;
mod joins;
pub mod keys;
mod lasting;
mod limits;
pub mod link;
pub mod live;
pub mod lock;
pub mod logging;
pub mod logins;
pub mod metrics;
pub mod oidc;
pub mod output;
pub mod parted;
pub mod passwords;
mod preview;
pub mod principals;
mod proofs;
pub mod queue;
pub mod receipts;
mod recent;
mod recording;
mod refusals;
pub mod reports;
pub mod restore;
pub mod reveal;
pub mod revoke;
pub mod revoke_many;
pub mod roles;
pub mod rotate;
mod schedule;
pub mod scopes;
pub mod seal;
pub mod serve;
pub mod session;
pub mod sessions;
mod shared;
mod signing_keys;
pub mod source;
pub mod start;
pub mod sweep;
pub mod system;
mod taken_away;
pub mod tasks;
pub mod timings;
pub mod tls;
pub mod token_uses;
pub mod tokens;
mod vouched;
pub mod warnings;
mod whole_file;
pub mod wraps;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use legation_model::{
    Entropy, Millis,
    ids::{BootId, TaskId},
};
use legation_store::Store;
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::JumpGuard, config::Config, handshakes::Handshakes, keys::Keys, live::LiveTokens, metrics::Metrics,
    queue::Queue, sessions::Sessions, shared::Shared, sweep::Seen, token_uses::TokenUses,
};

pub use start::{Running, start};

/// Everything that the Manager is made of.
pub struct Manager {
    /// Settings.
    pub config: Config,
    /// Both clocks.
    pub clock: Arc<JumpGuard>,
    /// Entropy.
    pub entropy: Arc<dyn Entropy>,
    /// Rows.
    pub store: Store,
    /// Keys, opened.
    pub keys: Arc<Keys>,
    /// Tokens that may be proven.
    pub tokens: Arc<LiveTokens>,
    /// Live sessions.
    pub sessions: Sessions,
    /// Uses of tokens that are not written yet.
    pub token_uses: TokenUses,
    /// Waiting tasks.
    pub queue: Queue,
    /// Counters.
    pub metrics: Metrics,
    /// Ids of tasks that changed, for live streams.
    pub changes: broadcast::Sender<TaskId>,
    /// The number of the newest audit record that was seen, for live streams.
    pub audit_head: watch::Sender<u64>,
    /// Set when the Manager begins to stop, whatever the reason.
    pub stopping: CancellationToken,
    /// Every connection and loop, awaited at the end.
    pub connections: TaskTracker,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) joins: Shared<joins::Join, joins::Joined>,
    pub(crate) creations: Shared<creations::Creation, creations::Created>,
    pub(crate) submissions: Shared<tasks::Submission, tasks::Submitted>,
    pub(crate) reports: Shared<recording::Reported, recording::Recorded>,
    pub(crate) proofs: proofs::Proofs,
    /// One-time codes that did not open, by source.
    pub(crate) unwraps: proofs::Proofs,
    pub(crate) parted: parted::PartedLinks,
    pub(crate) seen: Seen,
    pub(crate) barred: barred::Barred,
    pub(crate) canaries: canary::Canaries,
    pub(crate) warned: warnings::Warned,
    /// Superseded starts that came back once.
    pub(crate) late_boots: Mutex<HashSet<BootId>>,
    pub(crate) vouched: vouched::Vouched,
    pub(crate) attempts: attempts::Attempts,
    pub(crate) turns: passwords::Turns,
    /// Logins at an identity provider.
    pub(crate) oidc: Option<oidc::Oidc>,
    pub(crate) refusals: refusals::Refusals,
    /// The leases of the accounts.
    pub(crate) timings: timings::Timings,
    /// Boot-clock time by which every lease has ended that an earlier process granted.
    pub(crate) former_leases_end: Millis,
    admissions: AtomicU64,
    this: Weak<Self>,
}

impl Manager {
    /// A handle for jobs that outlive the borrow they were made under.
    pub(crate) fn handle(&self) -> Arc<Self> {
        self.this.upgrade().expect("a method runs only while its value lives in its Arc")
    }

    pub(crate) fn next_admission(&self) -> u64 {
        self.admissions.fetch_add(1, Ordering::Relaxed)
    }
}
