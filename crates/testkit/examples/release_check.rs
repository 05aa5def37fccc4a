//! Holds release programs against their budgets: size on disk, memory with ten delegates connected.
//!
//! Usage: `release_check MANAGER DELEGATE CLI`, each the path of a program. `make release-check` builds them first.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use legation_model::task::TaskState;
use legation_testkit::{
    Engine, World,
    binaries::Binaries,
    delegate::Delegate,
    procfs::{Memory, memory},
};

/// Delegates that are connected while memory is read.
const DELEGATES: usize = 10;
/// One megabyte, as the budgets count it.
const MEGABYTE: u64 = 1_000_000;
/// The largest delegate program, stripped.
const DELEGATE_SIZE: u64 = 6 * MEGABYTE;
/// The most memory one delegate may hold.
const DELEGATE_MEMORY: u64 = 7 * MEGABYTE;
/// The most memory the Manager may hold with [`DELEGATES`] connected.
const MANAGER_MEMORY: u64 = 25 * MEGABYTE;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [manager, delegate, cli] = <[PathBuf; 3]>::try_from(paths).ok().context("usage: MANAGER DELEGATE CLI")?;
    let binaries = Binaries { manager, delegate, cli };

    let sizes = [
        check("manager program", size(&binaries.manager)?, None),
        check("delegate program", size(&binaries.delegate)?, Some(DELEGATE_SIZE)),
        check("command line program", size(&binaries.cli)?, None),
    ];
    let memories = memories(binaries).await?;
    let kept = sizes.into_iter().chain(memories).fold(true, |all, one| all & one);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn size(program: &PathBuf) -> anyhow::Result<u64> {
    Ok(fs::metadata(program).with_context(|| format!("cannot find {}", program.display()))?.len())
}

/// Reads memory when every delegate is connected and has run one task, so that nothing is left to be paged in.
async fn memories(binaries: Binaries) -> anyhow::Result<Vec<bool>> {
    let mut world = World::of(binaries, Engine::Sqlite, &[("LEGATION_LOG", "info")]).await;
    let token = world.token("release-check").await;
    let names: Vec<String> = (0..DELEGATES).map(|number| format!("delegate-{number}")).collect();
    let start = |name: &String| world.delegate_with(name, &token.value, &[("DELEGATE_LOG", "info")]);
    let delegates: Vec<Delegate> = names.iter().map(start).collect();
    for delegate in &delegates {
        world.connected(delegate).await;
        let task = world.run(&delegate.name, "echo ready").await;
        let task = world.finished(task.id).await;
        ensure!(task.state == TaskState::Succeeded, "a task of {} ended as {}", delegate.name, task.state);
    }
    let manager = memory(world.manager().pid().context("the Manager ended")?).context("the Manager ended")?;
    let mut kept = vec![show(&format!("manager with {DELEGATES} delegates"), manager, MANAGER_MEMORY)];
    let measured = delegates.iter().filter_map(|delegate| memory(delegate.pid()));
    let largest = measured.max_by_key(|memory| memory.resident).context("the delegates ended")?;
    kept.push(show(&format!("largest of {DELEGATES} delegates"), largest, DELEGATE_MEMORY));
    Ok(kept)
}

fn show(what: &str, memory: Memory, budget: u64) -> bool {
    if let Some(proportional) = memory.proportional {
        check(&format!("{what}, PSS"), proportional * 1024, None);
    }
    check(&format!("{what}, RSS"), memory.resident * 1024, Some(budget))
}

/// Prints one figure and says whether it keeps its budget.
#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn check(what: &str, bytes: u64, budget: Option<u64>) -> bool {
    let kept = budget.is_none_or(|budget| bytes <= budget);
    let megabytes = |bytes: u64| format!("{}.{:02} MB", bytes / MEGABYTE, bytes % MEGABYTE / 10_000);
    let judgement = match budget {
        None => String::new(),
        Some(budget) => format!("  at most {}  {}", megabytes(budget), if kept { "kept" } else { "EXCEEDED" }),
    };
    println!("{what:<32} {:>9}{judgement}", megabytes(bytes));
    kept
}
