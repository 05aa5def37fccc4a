//! What happens of a token after its revoke has returned: nothing, however its delegates try.
//!
//! Each round has a token of its own, whose delegates work as fast as they can until it is revoked. When the call has
//! returned, three things are looked at. Whether the Manager has closed its direction of each connection: where it
//! has, no byte can come any more, and what is read from the socket afterwards was written before. What is durable of
//! the token, in the database itself: at the return, when its delegates have tried everything, and at the end of the
//! run. And what each delegate is told that comes back.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use legation_api::{delegates::DelegatesQuery, revoke::RevokeToken};
use legation_manager::system::SystemClock;
use legation_model::{Clock as _, Millis, ids::TokenId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Options, Phase,
    dial::Route,
    facts::Facts,
    fleet::lock,
    manager,
    meter::{Meter, histogram},
    report::Figures,
    rogue::{Camp, Rogue, Stage, Tried},
    work::Work,
};
use crate::World;

/// Rounds at once: each is the load under which the others are revoked.
const LANES: usize = 8;
/// Delegates of one token.
const ROGUES: usize = 8;
/// Callers at once for one token; one for each delegate waits for a task that never ends.
const CALLERS: usize = 3 * ROGUES;
/// How long all delegates of a round may take to have work.
const PATIENCE: Duration = Duration::from_secs(60);
/// Work before a revoke goes on for a random part of this, so that each meets the Manager at another moment.
const WORK_MAX: Duration = Duration::from_millis(100);
/// How long delegates go on trying after the return.
const TRYING: Duration = Duration::from_millis(100);
/// By then the Manager's sweep, which writes down who was seen, has come round once more.
const SWEEP: Duration = Duration::from_secs(6);

/// Measures what happens after revokes.
pub(super) async fn effects(options: &Options) -> anyhow::Result<()> {
    if !options.wants(Phase::Effects) {
        return Ok(());
    }
    let mut world = manager(options, &[]).await?;
    let pid = world.manager().pid().context("the Manager ended")?;
    let run = Run::new(&world, options.revokes)?;
    let meter = Meter::start(pid);
    try_join_all((0..LANES.min(run.revokes)).map(|_| run.lane())).await?;
    let spent = meter.read();
    run.look_again().await?;
    run.figures().spent(run.revokes as u64, spent).print();
    Ok(())
}

/// All rounds of a run.
struct Run<'a> {
    world: &'a World,
    route: Arc<Route>,
    revokes: usize,
    begun: AtomicUsize,
    tried: Arc<Tried>,
    took: Mutex<Histogram<u64>>,
    ended: Mutex<Vec<Ended>>,
    /// Connections that the Manager still had, or said to have, after it had returned.
    open: AtomicU64,
    /// What was durable after the return and had not been before, or the other way round.
    changed: AtomicU64,
    tasks: AtomicU64,
}

/// What a revoked token left.
struct Ended {
    token: TokenId,
    submitted: RangeInclusive<Millis>,
    facts: BTreeSet<String>,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, revokes: usize) -> anyhow::Result<Self> {
        Ok(Self {
            world,
            route: Arc::new(Route::to(world)?),
            revokes,
            begun: AtomicUsize::new(0),
            tried: Arc::default(),
            took: Mutex::new(histogram()),
            ended: Mutex::default(),
            open: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
        })
    }

    async fn lane(&self) -> anyhow::Result<()> {
        let mut facts = Facts::open(self.world).await?;
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            if number >= self.revokes {
                return Ok(());
            }
            let ended = self.round(&mut facts, number).await.with_context(|| format!("revoke {number}"))?;
            lock(&self.ended).push(ended);
        }
    }

    /// One token: its delegates come, work, and are revoked.
    async fn round(&self, facts: &mut Facts, number: usize) -> anyhow::Result<Ended> {
        let begun = SystemClock.wall();
        let name = format!("rogue-{number}");
        let issued = self.world.token(&name).await;
        let tag = name.parse().context("a tag")?;
        let (stage, watched) = watch::channel(Stage::Working);
        let camp = Arc::new(Camp {
            route: Arc::clone(&self.route),
            token: issued.value.expose().parse().context("the Manager's own token")?,
            work: Work::new(&tag),
            tag,
            tried: Arc::clone(&self.tried),
            busy: Semaphore::new(0),
            stage: watched,
        });
        let rogues = try_join_all((0..ROGUES).map(|number| Rogue::join(Arc::clone(&camp), number))).await?;
        let sockets = rogues.iter().map(|rogue| rogue.socket.try_clone()).collect::<Result<Vec<_>, _>>()?;
        let mut living: JoinSet<_> = rogues.into_iter().map(Rogue::live).collect();
        let callers = try_join_all((0..CALLERS).map(|_| self.keep_submitting(&camp)));
        let revoked = async {
            let busy = timeout(PATIENCE, camp.busy.acquire_many(ROGUES as u32)).await;
            drop(busy.context("not every delegate has work")??);
            sleep(WORK_MAX.mul_f64(rand::random())).await;
            self.revoke(facts, issued.id, begun, &stage, &sockets).await
        };
        let (ended, _) = tokio::try_join!(revoked, callers)?;
        sleep(TRYING).await;
        stage.send_replace(Stage::Late);
        while let Some(lived) = living.join_next().await {
            lived??;
        }
        self.compare(facts, &ended).await?;
        Ok(ended)
    }

    async fn keep_submitting(&self, camp: &Camp) -> anyhow::Result<()> {
        while *camp.stage.borrow() < Stage::Returned {
            let task = camp.work.submit(&self.world.client).await?;
            tokio::select! {
                ended = camp.work.end(task) => ended?,
                returned = camp.reached(Stage::Returned) => return returned,
            }
            self.tasks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Revokes, and looks at once at what there is.
    async fn revoke(
        &self,
        facts: &mut Facts,
        token: TokenId,
        submitted: Millis,
        stage: &watch::Sender<Stage>,
        sockets: &[OwnedFd],
    ) -> anyhow::Result<Ended> {
        stage.send_replace(Stage::Revoking);
        let begun = Instant::now();
        self.world.client.revoke_token(token, &RevokeToken::default()).await?;
        let took = begun.elapsed();
        let open = open(sockets)?;
        stage.send_replace(Stage::Returned);
        // Submissions that are under way now are over long before the delegates stop trying.
        let submitted = submitted..=SystemClock.wall() + PATIENCE.as_millis() as Millis;
        let facts = facts.of(token, &submitted).await?;
        lock(&self.took).saturating_record(took.as_micros() as u64);
        self.open.fetch_add(open + self.connected(token).await?, Ordering::Relaxed);
        Ok(Ended { token, submitted, facts })
    }

    /// Delegates of the token of which the Manager says that they are connected.
    async fn connected(&self, token: TokenId) -> anyhow::Result<u64> {
        let query = DelegatesQuery { token: Some(token), connected: true, ..DelegatesQuery::default() };
        Ok(self.world.client.delegates(&query).await?.items.len() as u64)
    }

    /// Counts what is not as it was at the return.
    async fn compare(&self, facts: &mut Facts, ended: &Ended) -> anyhow::Result<()> {
        let now = facts.of(ended.token, &ended.submitted).await?;
        let changed = now.symmetric_difference(&ended.facts).count() as u64;
        self.changed.fetch_add(changed, Ordering::Relaxed);
        self.open.fetch_add(self.connected(ended.token).await?, Ordering::Relaxed);
        Ok(())
    }

    /// Compares every token once more when all is over.
    async fn look_again(&self) -> anyhow::Result<()> {
        sleep(SWEEP).await;
        let mut facts = Facts::open(self.world).await?;
        let all = std::mem::take(&mut *lock(&self.ended));
        for ended in all {
            self.compare(&mut facts, &ended).await?;
        }
        Ok(())
    }

    fn figures(&self) -> Figures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (open, changed, admitted) = (read(&self.open), read(&self.changed), read(&self.tried.admitted));
        let line = Figures::new("effects", LANES * ROGUES).with("effects", open + changed + admitted);
        let line = line.with("open_after", open).with("changed_after", changed).with("admitted_after", admitted);
        let line = line.with("refused", read(&self.tried.refused)).with("reports_after", read(&self.tried.defied));
        line.with("tasks", read(&self.tasks)).latencies("revoke", &lock(&self.took))
    }
}

/// How many of these connections the other side has not closed.
fn open(sockets: &[OwnedFd]) -> anyhow::Result<u64> {
    let mut polled: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::RDHUP)).collect();
    poll(&mut polled, Some(&Timespec::default()))?;
    let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    Ok(polled.iter().filter(|one| !one.revents().intersects(closed)).count() as u64)
}
