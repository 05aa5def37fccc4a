//! What a revoke costs those whom it does not concern: two fleets work, the token of one is revoked.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use legation_api::{client::Client, revoke::RevokeToken};

use tokio::runtime::{Builder, Runtime};

use super::{
    Options, Phase,
    fleet::{Fleet, lock},
    manager,
    meter::histogram,
    phases::PATIENCE,
    report::{Figures, round},
    work::Span,
};
use crate::World;

/// How often the one fleet is cut: a single revoke is too short for a percentile of the other's tasks.
const ROUNDS: u32 = 5;
/// Callers at once for each fleet; together as many as where nothing but tasks is measured.
const CALLERS: usize = 32;
/// Until both fleets work at their pace.
const SETTLING: Duration = Duration::from_millis(500);
/// How long after the call to a revoke the other fleet is watched beside the revoke's own time.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Two fleets at one Manager.
struct Neighbours<'a> {
    options: &'a Options,
    world: World,
    /// Where those live that are cut: to hear five thousand Goodbyes takes long, and the others' tasks must not wait for
    /// that.
    apart: Runtime,
    spared: Fleet,
    /// Tasks of the spared fleet that have ended since it was last looked.
    spans: Mutex<Vec<Span>>,
    over: AtomicBool,
}

/// How long tasks of the spared fleet took while both fleets worked, while the other one was cut, and in the second
/// that began then; and how long the revokes took.
struct Found {
    calm: Histogram<u64>,
    revoke: Histogram<u64>,
    second: Histogram<u64>,
    returned: Histogram<u64>,
    last_closed: Histogram<u64>,
}

/// Measures what a revoke costs the neighbours of the revoked.
pub(super) async fn neighbour(options: &Options) -> anyhow::Result<()> {
    if !options.wants(Phase::Neighbour) {
        return Ok(());
    }
    let both = Neighbours::new(options).await?;
    let callers = try_join_all((0..CALLERS).map(|_| both.keep_working()));
    let (found, _) = tokio::try_join!(both.rounds(), callers)?;
    let shared = both.spared.shared();
    let wrong = shared.errors.load(Ordering::Relaxed) + shared.goodbyes.load(Ordering::Relaxed);
    found.figures(both.half() * 2).with("errors", wrong).print();
    both.apart.shutdown_background();
    Ok(())
}

impl<'a> Neighbours<'a> {
    async fn new(options: &'a Options) -> anyhow::Result<Self> {
        let world = manager(options, &[]).await?;
        let token = world.token("spared").await;
        let spared = Fleet::new(&world, &token, "spared")?;
        let apart = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut both = Self { options, world, apart, spared, spans: Mutex::default(), over: AtomicBool::new(false) };
        let half = both.half();
        both.spared.grow(half);
        both.spared.connected(half, PATIENCE).await?;
        Ok(both)
    }

    fn half(&self) -> usize {
        (self.options.delegates / 2).max(1)
    }

    /// One caller of the spared fleet. Whatever goes wrong with one of its tasks ends the run.
    async fn keep_working(&self) -> anyhow::Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            let span = self.spared.shared().work.one(&self.world.client).await?;
            lock(&self.spans).push(span);
        }
        Ok(())
    }

    async fn rounds(&self) -> anyhow::Result<Found> {
        let mut found = Found::default();
        for number in 0..ROUNDS {
            self.round(number, &mut found).await.with_context(|| format!("round {number}"))?;
        }
        self.over.store(true, Ordering::Relaxed);
        Ok(found)
    }

    /// Another fleet comes, works beside the spared one, and is cut while it works.
    async fn round(&self, number: u32, found: &mut Found) -> anyhow::Result<()> {
        let name = format!("cut-{number}");
        let token = self.world.token(&name).await;
        let mut cut = Fleet::new(&self.world, &token, &name)?.on(self.apart.handle());
        cut.grow(self.half());
        cut.connected(self.half(), PATIENCE).await?;
        let callers = try_join_all((0..CALLERS).map(|_| work_until_cut(&cut, &self.world.client)));
        let measured = async {
            self.calm(found).await;
            let request = RevokeToken::default();
            let begun = Instant::now();
            self.world.client.revoke_token(token.id, &request).await?;
            let returned = Instant::now();
            cut.connected(0, PATIENCE).await?;
            self.revoked(found, &cut, begun, returned).await;
            Ok(())
        };
        // Its callers wait in vain for tasks that the revoke ends, until they are dropped with the round.
        tokio::select! { measured = measured => measured, failed = callers => failed.map(drop) }
    }

    async fn calm(&self, found: &mut Found) {
        tokio::time::sleep(SETTLING).await;
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(self.options.seconds) / ROUNDS).await;
        let spans = std::mem::take(&mut *lock(&self.spans));
        spans.iter().filter(|span| span.begun >= begun).for_each(|span| found.calm.saturating_record(span.micros()));
    }

    /// Tasks count for the revoke when it was under way at any moment of theirs.
    async fn revoked(&self, found: &mut Found, cut: &Fleet, begun: Instant, returned: Instant) {
        let last_closed = lock(&cut.shared().last_closed).unwrap_or(begun);
        found.returned.saturating_record(Span { begun, ended: returned }.micros());
        found.last_closed.saturating_record(Span { begun, ended: last_closed }.micros());
        let over = last_closed.max(returned);
        tokio::time::sleep_until((begun + AFTERMATH).max(over).into()).await;
        let spans = std::mem::take(&mut *lock(&self.spans));
        for span in spans.iter().filter(|span| span.ended >= begun) {
            found.second.saturating_record(span.micros());
            if span.begun <= over {
                found.revoke.saturating_record(span.micros());
            }
        }
    }
}

/// One caller of the fleet that is cut.
async fn work_until_cut(cut: &Fleet, client: &Client) -> anyhow::Result<()> {
    loop {
        cut.shared().work.one(client).await?;
    }
}

impl Default for Found {
    fn default() -> Self {
        let [calm, revoke, second, returned, last_closed] = std::array::from_fn(|_| histogram());
        Self { calm, revoke, second, returned, last_closed }
    }
}

impl Found {
    fn figures(&self, delegates: usize) -> Figures {
        let p99 = |of: &Histogram<u64>| of.value_at_quantile(0.99) as f64;
        let ratio = |of: &Histogram<u64>| round(p99(of) / p99(&self.calm));
        let line = Figures::new("neighbour", delegates).with("rounds", ROUNDS).with("callers", CALLERS * 2);
        let line = line.with("calm_samples", self.calm.len()).latencies("calm", &self.calm);
        let line = line.with("revoke_samples", self.revoke.len()).latencies("revoke", &self.revoke);
        let line = line.with("second_samples", self.second.len()).latencies("second", &self.second);
        let line = line.latencies("returned", &self.returned).latencies("last_closed", &self.last_closed);
        line.with("ratio", ratio(&self.revoke)).with("ratio_second", ratio(&self.second))
    }
}
