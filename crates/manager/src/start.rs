//! Building the Manager, running it, and taking it down.

use std::{
    fs, net::SocketAddr, os::unix::fs::DirBuilderExt, path::Path, path::PathBuf, sync::Arc, sync::atomic::AtomicU64,
    time::Duration,
};

use anyhow::Context;
use legation_api::accounts::LEASE_MAX;
use legation_model::{
    Clock, Entropy, Millis, Secret,
    token::{DelegateToken, TokenStatus},
};
use legation_store::{Store, StoreError, job, leases, scopes, tasks, tokens};
use legation_wire::{GoodbyeReason, message::Goodbye};
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Manager,
    attempts::Attempts,
    barred::Barred,
    canary::Canaries,
    clock::JumpGuard,
    config::Config,
    http,
    keys::Keys,
    live::{LiveToken, LiveTokens},
    metrics::Metrics,
    oidc::Oidc,
    parted::PartedLinks,
    passwords::Turns,
    proofs::Proofs,
    queue::Queue,
    refusals::Refusals,
    serve::{self, Listener},
    sessions::Sessions,
    shared::Shared,
    sweep::Seen,
    timings::Timings,
    tls,
    token_uses::TokenUses,
    tokens::secret_place,
    vouched::Vouched,
    warnings::Warned,
};

/// Changes that a live stream may be behind before it reads everything anew.
const CHANGES_MAX: usize = 1_024;
/// After how many milliseconds delegates may come again: a restart takes less, and who came before it was over would
/// wait longer the next time.
const BACK_AFTER: u64 = 500;
/// How long a stopping Manager waits for connections to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a stopping Manager waits for the store to take what is left to write, and then the last checkpoint.
const LAST_WRITE_MAX: Duration = Duration::from_secs(2);

/// A Manager that serves.
pub struct Running {
    /// The Manager.
    pub manager: Arc<Manager>,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where delegates connect.
    pub link: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// Starts a Manager; when this returns, it accepts connections.
///
/// # Errors
/// One sentence: the address is taken, a directory cannot be written, another Manager has the data, the
/// key-encryption key does not fit.
pub async fn start(config: Config, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> anyhow::Result<Running> {
    prepare(&config.config_dir)?;
    let tls = tls::acceptor(&config.transport, &config.config_dir)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let api = Listener::bind(config.listen, tls.clone()).await?;
    let link = match config.link_listen {
        Some(address) => Some(Listener::bind(address, tls).await?),
        None => None,
    };
    let manager = build(config, clock, entropy).await?;
    let (api_address, link_address) = (api.address, link.as_ref().map_or(api.address, |link| link.address));
    let tasks = manager.connections.clone();
    let with_link = link.is_none();
    tasks.spawn(serve::accept(Arc::clone(&manager), api, http::router(Arc::clone(&manager), with_link)));
    if let Some(link) = link {
        let router = http::link_router(Arc::clone(&manager));
        tasks.spawn(serve::accept(Arc::clone(&manager), link, router));
    }
    tasks.spawn(Arc::clone(&manager).join_loop());
    tasks.spawn(Arc::clone(&manager).creation_loop());
    tasks.spawn(Arc::clone(&manager).submission_loop());
    tasks.spawn(Arc::clone(&manager).report_loop());
    tasks.spawn(Arc::clone(&manager).dispatch_loop());
    tasks.spawn(Arc::clone(&manager).sweep_loop());
    tasks.spawn(Arc::clone(&manager).end_when_overtaken());
    tasks.close();
    let running = Running { manager, api: api_address, link: link_address, scheme };
    running.announce()?;
    Ok(running)
}

async fn build(config: Config, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> anyhow::Result<Arc<Manager>> {
    let store = Store::open(&database_url(&config)?).await?;
    let keys = Arc::new(Keys::load(&config, &store, &*clock, &*entropy).await?);
    let queue = Queue::default();
    for task in store.read(|conn| Box::pin(tasks::queued(conn))).await? {
        queue.add(task);
    }
    let former_leases_end = former_leases_end(&config, &store, &*clock).await?;
    let timing = config.timing;
    let oidc = Oidc::new(config.oidc.as_ref(), config.public_url.as_deref())?;
    let manager = Arc::new_cyclic(|this| Manager {
        former_leases_end,
        attempts: Attempts::new(Arc::clone(&clock)),
        turns: Turns::default(),
        oidc,
        clock: Arc::new(JumpGuard::new(clock)),
        config,
        entropy,
        store,
        keys,
        tokens: Arc::new(LiveTokens::default()),
        sessions: Sessions::default(),
        token_uses: TokenUses::default(),
        queue,
        metrics: Metrics::default(),
        changes: broadcast::Sender::new(CHANGES_MAX),
        audit_head: watch::Sender::new(0),
        stopping: CancellationToken::new(),
        connections: TaskTracker::new(),
        handshakes: Arc::default(),
        joins: Shared::default(),
        creations: Shared::default(),
        submissions: Shared::default(),
        reports: Shared::default(),
        proofs: Proofs::default(),
        unwraps: Proofs::default(),
        parted: PartedLinks::default(),
        seen: Seen::default(),
        barred: Barred::default(),
        canaries: Canaries::default(),
        warned: Warned::default(),
        late_boots: std::sync::Mutex::default(),
        vouched: Vouched::default(),
        refusals: Refusals::default(),
        timings: Timings::new(timing),
        admissions: AtomicU64::new(1),
        this: this.clone(),
    });
    manager.ensure_default_account().await?;
    manager.fill_places().await?;
    load_tokens(&manager).await?;
    manager.tell_mapping().await?;
    Ok(manager)
}

/// Leaves behind the longest lease that this process grants, and finds out by when, on the boot clock, every one of
/// its predecessors has ended. No lease is longer than the longest, whatever the wall clock said in between.
async fn former_leases_end(config: &Config, store: &Store, clock: &dyn Clock) -> anyhow::Result<Millis> {
    let longest = store.read(|conn| Box::pin(scopes::longest_lease(conn))).await?.unwrap_or(0);
    let longest = longest.max(config.timing.lease);
    let (timing, now) = (config.timing.with_lease(Some(longest)), clock.wall());
    let begin = job(move |tx| Box::pin(leases::begin(tx, timing.lease_counted(), now)));
    let left = store.write(begin).await? - now;
    Ok(clock.boot() + left.clamp(0, timing.with_lease(Some(LEASE_MAX)).lease_counted()))
}

/// Opens every secret that a delegate may still prove, those of ended tokens included: they are told to stop.
async fn load_tokens(manager: &Manager) -> anyhow::Result<()> {
    for (account, lease) in manager.store.read(|conn| Box::pin(scopes::leases(conn))).await? {
        manager.timings.load(&account, lease);
    }
    for secret in manager.store.read(|conn| Box::pin(tokens::secrets(conn))).await? {
        let id = secret.token;
        let key = manager.keys.sealer.open_key(&secret_place(id, secret.generation), &secret.sealed_psk)?;
        let token = manager.store.read(move |conn| Box::pin(tokens::get(conn, id))).await?;
        if let Some(token) = token.filter(|token| token.status != TokenStatus::Unissued) {
            manager.admit_token(&token, vec![(secret.generation, key)]);
        }
    }
    Ok(())
}

impl Manager {
    /// Takes no further connection and tells delegates to come back later.
    fn begin_stop(&self) {
        self.stopping.cancel();
        for session in self.sessions.all() {
            let goodbye = Goodbye::new(GoodbyeReason::ManagerDraining, "the Manager is stopping");
            session.stop(Some(Goodbye { retry_after: Some(BACK_AFTER), ..goodbye }));
        }
    }

    /// Stops by itself when another Manager has the database: from then on a revocation is made there and would not
    /// be heard of here.
    async fn end_when_overtaken(self: Arc<Self>) {
        let why = tokio::select! {
            why = self.store.overtaken() => why,
            () = self.stopping.cancelled() => return,
        };
        tracing::error!(%why, "this Manager ends");
        self.tokens.all().iter().for_each(|token| token.suspend());
        self.begin_stop();
    }

    /// Lets a token be proven.
    pub(crate) fn admit_token(&self, token: &DelegateToken, keys: Vec<(u32, Secret<32>)>) {
        self.tokens.insert(LiveToken::new(token, keys, self.timings.of(&token.scope)));
    }
}

/// The store's URL: the one set, or the embedded database in the data directory.
///
/// # Errors
/// When the data directory cannot be made.
pub fn database_url(config: &Config) -> anyhow::Result<String> {
    if let Some(url) = &config.database_url {
        return Ok(url.clone());
    }
    prepare(&config.data_dir)?;
    Ok(format!("sqlite://{}", embedded(config).display()))
}

/// The file of the embedded database.
pub(crate) fn embedded(config: &Config) -> PathBuf {
    config.data_dir.join("legation.db")
}

/// Makes a directory for its owner alone, unless it is there.
pub(crate) fn prepare(directory: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make {}: choose a directory that this user can write", directory.display()))
}

impl Running {
    /// Waits until the Manager stops by itself, and answers why.
    pub async fn ended(&self) -> StoreError {
        self.manager.stopping.cancelled().await;
        self.manager.store.overtaken().await
    }

    /// Says where it is ready, also in the file that a waiting program reads.
    fn announce(&self) -> anyhow::Result<()> {
        let (api, link) = (self.url(self.api), self.url(self.link));
        tracing::info!(%api, %link, "ready");
        if let Some(path) = &self.manager.config.ready_file {
            let half = path.with_extension("half");
            fs::write(&half, format!("{api}\n{link}\n")).with_context(|| format!("cannot write {}", half.display()))?;
            fs::rename(&half, path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", self.scheme)
    }

    /// Tells delegates to come back later, lets requests finish, and stops; `at_once` cuts that short.
    pub async fn stop(self, at_once: impl Future<Output = ()>) {
        let manager = &self.manager;
        manager.begin_stop();
        tokio::select! {
            () = manager.connections.wait() => {}
            () = at_once => tracing::warn!("stopping at once"),
            () = tokio::time::sleep(DRAIN_MAX) => tracing::warn!("stopping although connections are still open"),
        }
        // Those of the last moments, which no sweep has seen.
        match tokio::time::timeout(LAST_WRITE_MAX, manager.write_uses()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the newest uses of tokens are not written"),
            Err(_) => tracing::warn!("the newest uses of tokens are not written: the store did not answer in time"),
        }
        // So that nothing that was done is without a signature. A store that is gone must not hold the end up.
        match tokio::time::timeout(LAST_WRITE_MAX, manager.checkpoint()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the audit chain has no checkpoint of the end"),
            Err(_) => tracing::warn!("the audit chain has no checkpoint of the end: the store did not answer in time"),
        }
    }
}
