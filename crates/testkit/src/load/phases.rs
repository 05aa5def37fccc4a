//! The phases, each a measurement.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use legation_api::{revoke::RevokeToken, tokens::CreateToken};
use rustix::process::Signal;

use super::{
    Options, Phase,
    fleet::{Fleet, lock},
    manager,
    meter::{Meter, histogram},
    report::{Figures, Say, milliseconds, round},
    scrape::{Scraped, value},
};
use crate::{World, procfs, world::Issued, world::scope};

/// How long all delegates may take to connect.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long a Manager may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Rounds of churn, a tenth of the delegates each.
const CHURN_ROUNDS: usize = 5;
/// Callers at once where there are many.
const CALLERS: usize = 64;
/// The Manager's own measure of the time from an assignment's commit to its delegate's answer.
const DISPATCH_SECONDS: &str = "legation_dispatch_seconds";
/// The Manager's own measure of the time from revoke calls to the last session closed; here there is one.
const CUT_SECONDS: &str = "legation_revoke_to_cut_seconds_sum";
/// Tokens among which one is looked up.
const TOKENS: usize = 10_000;
/// Delegates that connect to find out what a look-up costs.
const LOOKUPS: usize = 2_000;

/// A Manager with its delegates.
struct Site {
    world: World,
    token: Issued,
    fleet: Fleet,
}

impl Site {
    async fn new(options: &Options, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let world = manager(options, settings).await?;
        let token = world.token("load").await;
        let fleet = fleet(&world, &token)?;
        Ok(Self { world, token, fleet })
    }

    fn pid(&mut self) -> anyhow::Result<u32> {
        self.world.manager().pid().context("the Manager ended")
    }

    fn resident(&mut self) -> anyhow::Result<u64> {
        Ok(procfs::memory(self.pid()?).context("the Manager ended")?.resident)
    }

    fn errors(&self) -> u64 {
        self.fleet.shared().errors.load(Ordering::Relaxed)
    }
}

fn fleet(world: &World, token: &Issued) -> anyhow::Result<Fleet> {
    Fleet::new(world, token, "load")
}

/// Connections: all come, stay, some change, work, and all go.
pub(super) async fn connections(options: &Options, say: Say<'_>) -> anyhow::Result<()> {
    if ![Phase::Storm, Phase::Idle, Phase::Churn, Phase::Dispatch, Phase::Revoke].iter().any(|one| options.wants(*one))
    {
        return Ok(());
    }
    let mut site = Site::new(options, &[]).await?;
    let before = site.resident()?;
    let meter = Meter::start(site.pid()?);
    site.fleet.grow(options.delegates);
    site.fleet.connected(options.delegates, PATIENCE).await?;
    let spent = meter.read();
    if options.wants(Phase::Storm) {
        let line = Figures::new("storm", options.delegates).spent(options.delegates as u64, spent);
        let line = line.latencies("connect", &lock(&site.fleet.shared().connects));
        say(line.with("errors", site.errors()).with("tls", options.tls));
    }
    if options.wants(Phase::Idle) {
        say(idle(&mut site, options, before).await?);
    }
    if options.wants(Phase::Churn) {
        say(churn(&mut site, options).await?);
    }
    if options.wants(Phase::Dispatch) {
        say(dispatch(&mut site, options, 1).await?);
        say(dispatch(&mut site, options, CALLERS).await?);
    }
    if options.wants(Phase::Revoke) {
        say(revoke(&mut site, options).await?);
    }
    Ok(())
}

async fn idle(site: &mut Site, options: &Options, before: u64) -> anyhow::Result<Figures> {
    let meter = Meter::start(site.pid()?);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (spent, resident) = (meter.read(), site.resident()?);
    let each = resident.saturating_sub(before) as f64 / options.delegates as f64;
    let line = Figures::new("idle", options.delegates).with("resident_kib", resident);
    let line = line.with("kib_per_delegate", round(each)).with("errors", site.errors());
    let line = line.with("tls", options.tls);
    Ok(line.with("server_core", round(spent.server_cpu.as_secs_f64() / spent.wall.as_secs_f64())))
}

async fn churn(site: &mut Site, options: &Options) -> anyhow::Result<Figures> {
    let part = options.delegates / 10;
    let before = site.resident()?;
    let meter = Meter::start(site.pid()?);
    for _ in 0..CHURN_ROUNDS {
        site.fleet.shrink(part);
        site.fleet.connected(options.delegates - part, PATIENCE).await?;
        site.fleet.grow(part);
        site.fleet.connected(options.delegates, PATIENCE).await?;
    }
    let spent = meter.read();
    let line = Figures::new("churn", options.delegates).spent((part * CHURN_ROUNDS) as u64, spent);
    let growth = site.resident()?.saturating_sub(before);
    Ok(line.with("resident_growth_kib", growth).with("errors", site.errors()))
}

async fn dispatch(site: &mut Site, options: &Options, window: usize) -> anyhow::Result<Figures> {
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let before = Scraped::read(&site.world.client, DISPATCH_SECONDS).await?;
    let meter = Meter::start(site.pid()?);
    let callers = (0..window).map(|_| site.fleet.shared().work.submit_until(&site.world.client, deadline));
    let each = try_join_all(callers).await?;
    let spent = meter.read();
    let mut took = histogram();
    each.into_iter().for_each(|one| took += one);
    let line = Figures::new("dispatch", options.delegates).with("window", window).spent(took.len(), spent);
    let answers = Scraped::read(&site.world.client, DISPATCH_SECONDS).await?;
    let answer = |quantile| round(answers.quantile_since(&before, quantile).as_secs_f64() * 1e6);
    let line =
        line.latencies("end_to_end", &took).with("answer_p50_us", answer(0.5)).with("answer_p99_us", answer(0.99));
    Ok(line.with("errors", site.errors()))
}

async fn revoke(site: &mut Site, options: &Options) -> anyhow::Result<Figures> {
    let meter = Meter::start(site.pid()?);
    let begun = Instant::now();
    let receipt = site.world.client.revoke_token(site.token.id, &RevokeToken::default()).await?;
    let returned = begun.elapsed();
    site.fleet.connected(0, PATIENCE).await?;
    let spent = meter.read();
    let shared = site.fleet.shared();
    let last = lock(&shared.last_closed).map_or(Duration::ZERO, |at| at.duration_since(begun));
    let cut = receipt.lines.iter().filter(|line| line.cut_at.is_some()).count();
    let line = Figures::new("revoke", options.delegates).spent(options.delegates as u64, spent);
    let closed = round(value(&site.world.client, CUT_SECONDS).await? * 1e3);
    let line = line.with("returned_ms", milliseconds(returned)).with("closed_ms", closed);
    let line = line.with("last_closed_seen_ms", milliseconds(last));
    let line = line.with("receipt_lines_cut", cut).with("goodbyes", shared.goodbyes.load(Ordering::Relaxed));
    Ok(line.with("errors", (options.delegates - cut) as u64))
}

/// Heartbeats once a second, and a Manager that is started again.
pub(super) async fn heartbeats(options: &Options, say: Say<'_>) -> anyhow::Result<()> {
    if !options.wants(Phase::Heartbeat) && !options.wants(Phase::Restart) {
        return Ok(());
    }
    let mut site = Site::new(options, &[("LEGATION_HEARTBEAT", "1s")]).await?;
    site.fleet.grow(options.delegates);
    site.fleet.connected(options.delegates, PATIENCE).await?;
    if options.wants(Phase::Heartbeat) {
        // By then each has found its rhythm.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let renewals = |site: &Site| site.fleet.shared().renewals.load(Ordering::Relaxed);
        let (meter, before) = (Meter::start(site.pid()?), renewals(&site));
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        let (spent, beats) = (meter.read(), renewals(&site) - before);
        let line = Figures::new("heartbeat", options.delegates).spent(beats, spent);
        say(line.with("errors", site.errors()).with("tls", options.tls));
    }
    if options.wants(Phase::Restart) {
        say(restart(&mut site, options).await?);
    }
    Ok(())
}

async fn restart(site: &mut Site, options: &Options) -> anyhow::Result<Figures> {
    site.fleet.set_returning(true);
    site.world.manager().signal(Signal::TERM);
    let stopping = Instant::now();
    site.world.manager().exit(STOP_PATIENCE).await;
    let stopped = stopping.elapsed();
    let starting = Instant::now();
    site.world.restart_manager().await;
    let (started, meter) = (starting.elapsed(), Meter::start(site.pid()?));
    site.fleet.connected(options.delegates, PATIENCE).await?;
    let spent = meter.read();
    site.fleet.set_returning(false);
    let line = Figures::new("restart", options.delegates).spent(options.delegates as u64, spent);
    let line = line.with("stop_ms", milliseconds(stopped)).with("start_ms", milliseconds(started));
    Ok(line.with("errors", site.errors()))
}

/// Tokens: how fast they are made, and whether their number is felt at a connect.
pub(super) async fn tokens(options: &Options) -> anyhow::Result<()> {
    if options.wants(Phase::Create) {
        create(options).await?;
    }
    if options.wants(Phase::Tokens) {
        lookups(options).await?;
    }
    Ok(())
}

async fn create(options: &Options) -> anyhow::Result<()> {
    let mut site = Site::new(options, &[]).await?;
    let meter = Meter::start(site.pid()?);
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let made = create_until(&site.world, deadline, usize::MAX).await?;
    Figures::new("create", 0).with("callers", CALLERS).spent(made as u64, meter.read()).print();
    Ok(())
}

/// Creates tokens from all callers at once, until there are that many or the time is over; how many it created.
async fn create_until(world: &World, deadline: Instant, most: usize) -> anyhow::Result<usize> {
    let next = AtomicUsize::new(0);
    let caller = async || -> anyhow::Result<usize> {
        let mut made = 0;
        while Instant::now() < deadline {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= most {
                break;
            }
            let name = format!("made-{number}").parse().context("a name")?;
            world.client.create_token(&CreateToken::new(scope(), name)).await?;
            made += 1;
        }
        Ok(made)
    };
    Ok(try_join_all((0..CALLERS).map(|_| caller())).await?.into_iter().sum())
}

async fn lookups(options: &Options) -> anyhow::Result<()> {
    let count = options.delegates.min(LOOKUPS);
    let mut site = Site::new(options, &[]).await?;
    let cost = async |site: &mut Site| -> anyhow::Result<f64> {
        let mut fleet = fleet(&site.world, &site.token)?;
        let meter = Meter::start(site.pid()?);
        fleet.grow(count);
        fleet.connected(count, PATIENCE).await?;
        Ok(meter.read().server_cpu.as_secs_f64() * 1e6 / count as f64)
    };
    // The first ones warm it up.
    cost(&mut site).await?;
    let few = cost(&mut site).await?;
    // The delegates' own is one of them.
    let tokens = create_until(&site.world, Instant::now() + PATIENCE, TOKENS - 1).await? + 1;
    ensure!(tokens == TOKENS, "only {tokens} of {TOKENS} tokens were created in {PATIENCE:?}");
    let many = cost(&mut site).await?;
    let line = Figures::new("tokens", count).with("tokens", tokens);
    line.with("server_cpu_us_few", round(few))
        .with("server_cpu_us_many", round(many))
        .with("ratio", round(many / few))
        .print();
    Ok(())
}
