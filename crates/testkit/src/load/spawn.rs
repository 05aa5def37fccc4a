//! From the start of the delegate's program to its session.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::{Options, Phase, beside, manager, meter::histogram, report::Figures};
use crate::{World, delegate::Launch, procfs, world::Issued};

/// How often it is started for the first time, and as often again on what that left.
const STARTS: usize = 20;
/// How long one start, or one end, may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the delegate logs when the Manager has admitted it.
const CONNECTED: &str = " connected ";

/// Measures starts of the real delegate, one after the other, on a Manager that does nothing else.
pub(super) async fn spawn(options: &Options) -> anyhow::Result<()> {
    if !options.wants(Phase::Spawn) {
        return Ok(());
    }
    let program = beside(options.delegate.as_ref(), "legation-delegate", "--delegate")?;
    let world = manager(options, &[]).await?;
    let token = world.token("spawn").await;
    let (mut first, mut again, mut resident) = (histogram(), histogram(), 0);
    for number in 0..STARTS {
        let launch = launch(&world, &token, &program, number)?;
        resident = resident.max(start(&launch, &mut first).await?);
        resident = resident.max(start(&launch, &mut again).await?);
    }
    let line = Figures::new("spawn", 1).with("operations", 2 * STARTS);
    line.latencies("first", &first).latencies("again", &again).with("resident_kib", resident).print();
    Ok(())
}

/// A delegate with a directory of its own.
fn launch(world: &World, token: &Issued, program: &Path, number: usize) -> anyhow::Result<Launch> {
    let name = format!("spawn-{number}");
    let directory = world.directory().join(&name);
    std::fs::create_dir(&directory).context("a directory for a delegate")?;
    let mut launch = Launch::new(program, directory, &name, &token.value, world.url());
    // As people run it.
    launch.set("DELEGATE_LOG", "info");
    Ok(launch)
}

/// Starts it once, and ends it when it was admitted; its resident memory then.
async fn start(launch: &Launch, took: &mut Histogram<u64>) -> anyhow::Result<u64> {
    let mut command = Command::new(&launch.program);
    command.env_clear().envs(launch.environment.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let begun = Instant::now();
    let mut child = command.spawn().context("cannot start the delegate")?;
    let mut log = BufReader::new(child.stderr.take().context("its standard error")?).lines();
    timeout(PATIENCE, connected(&mut log)).await.context("the delegate does not connect")??;
    took.saturating_record(begun.elapsed().as_micros() as u64);
    let resident = procfs::memory(child.id().context("the delegate ended")?).context("the delegate ended")?.resident;
    stop(&mut child).await?;
    Ok(resident)
}

/// Reads its log until it says that it is connected. It writes that line on its way to the next event, so nothing
/// polls and nothing lies between the two but a pipe.
async fn connected(log: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<()> {
    let mut said = String::new();
    while let Some(line) = log.next_line().await? {
        if line.contains(CONNECTED) {
            return Ok(());
        }
        said.push_str(&line);
    }
    anyhow::bail!("the delegate ended: {said}")
}

/// Ends it in good order, so that the next start finds nothing to clear away.
async fn stop(child: &mut Child) -> anyhow::Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the delegate ended")?;
    kill_process(pid, Signal::TERM)?;
    let status = timeout(PATIENCE, child.wait()).await.context("the delegate does not end")??;
    ensure!(status.success(), "the delegate ended with {status}");
    Ok(())
}
