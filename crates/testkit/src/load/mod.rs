//! The load generator: thousands of virtual delegates in one process, against a Manager in another.
//!
//! Each virtual delegate is the product's own end of the protocol on the product's own connection loop; only the
//! socket below is made here, because it needs a source address of its own. The generator lives on one thread, so
//! that a machine of two cores leaves the other one to the Manager; where two fleets are measured beside each other, the
//! one that is cut has a thread of its own. What it prints is one line of JSON for each
//! phase; a figure that the generator itself held back is marked.

pub mod compare;
mod dial;
mod effects;
mod facts;
mod fleet;
mod meter;
mod neighbour;
mod phases;
mod report;
mod rogue;
mod scrape;
mod spawn;
mod work;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum, builder::RangedU64ValueParser, value_parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Engine, World, binaries::Binaries};

pub use self::report::Figures;

/// Descriptors that a process needs beside one for each delegate.
const FILES_BESIDE: u64 = 500;
/// The most delegates: the usual hard limit of descriptors is 20,000 or more, and both processes need them.
const DELEGATES_MAX: usize = 19_500;
/// The longest measurement of a phase that runs for a time.
const SECONDS_MAX: u64 = 120;
/// The most revokes of one run: each leaves a token of which everything is looked at again at the end.
const REVOKES_MAX: usize = 100_000;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// All connect, as fast as they can.
    Storm,
    /// All are connected and beat every ten seconds.
    Idle,
    /// Some leave and others come.
    Churn,
    /// Tasks, one after the other and 64 at once.
    Dispatch,
    /// Their token is revoked.
    Revoke,
    /// All are connected and beat every second.
    Heartbeat,
    /// The Manager is stopped and started again.
    Restart,
    /// Tokens are created by 64 callers.
    Create,
    /// Delegates connect where theirs is the only token, and among 10,000.
    Tokens,
    /// Half of the delegates are revoked, and what the tasks of the others feel of it.
    Neighbour,
    /// Tokens are revoked under load, and what happens of them afterwards.
    Effects,
    /// The real delegate is started.
    Spawn,
}

impl Phase {
    /// Whether it is measured over TLS too.
    const fn has_tls(self) -> bool {
        matches!(self, Self::Storm | Self::Idle | Self::Heartbeat)
    }
}

/// Which measurements, how large, of which program.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "legation-load",
    version,
    about = "Measures a Manager under load; prints a line of JSON for each phase"
)]
pub struct Options {
    /// Virtual delegates; create, effects and spawn ignore this, and tokens takes 2,000 at most
    #[arg(long, default_value_t = 2_000, value_parser = up_to(DELEGATES_MAX))]
    pub delegates: usize,
    /// Seconds of each phase that lasts for a time
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    pub seconds: u64,
    /// Phases to measure [default: all]; they run in the order listed here
    #[arg(long, value_delimiter = ',', value_enum)]
    pub phases: Vec<Phase>,
    /// The Manager's program [default: legation-manager beside this program]
    #[arg(long)]
    pub manager: Option<PathBuf>,
    /// The delegate's program, for spawn [default: legation-delegate beside this program]
    #[arg(long)]
    pub delegate: Option<PathBuf>,
    /// Revokes of effects
    #[arg(long, default_value_t = 100, value_parser = up_to(REVOKES_MAX))]
    pub revokes: usize,
    /// Connect through TLS, encrypted within it as ever; only storm, idle and heartbeat are measured so
    #[arg(long)]
    pub tls: bool,
    /// Keep data in PostgreSQL at LEGATION_TEST_POSTGRES instead of SQLite
    #[arg(long)]
    pub postgres: bool,
}

/// A number from one up to this.
fn up_to(most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most as u64)
}

impl Options {
    fn wants(&self, phase: Phase) -> bool {
        self.phases.contains(&phase) || self.phases.is_empty() && (phase.has_tls() || !self.tls)
    }
}

/// Measures all that was asked for; prints each line when it is known.
///
/// # Errors
/// What keeps it from measuring: a program that is missing, a limit that is too low, a Manager that ended.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    if options.tls && !options.phases.iter().all(|phase| phase.has_tls()) {
        bail!("--tls measures storm, idle and heartbeat only");
    }
    raise_file_limit(options.delegates)?;
    phases::connections(options, &mut |line| line.print()).await?;
    phases::heartbeats(options, &mut |line| line.print()).await?;
    phases::tokens(options).await?;
    neighbour::neighbour(options).await?;
    effects::effects(options).await?;
    spawn::spawn(options).await
}

/// How a program that measures ends, with its last words where it failed.
#[expect(clippy::print_stderr, reason = "the last words of a program")]
pub fn exit(program: &str, outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A Manager on empty data, with these settings.
async fn manager(options: &Options, settings: &[(&str, &str)]) -> anyhow::Result<World> {
    let manager = beside(options.manager.as_ref(), "legation-manager", "--manager")?;
    // Only the Manager is run here.
    let binaries = Binaries { manager, delegate: PathBuf::new(), cli: PathBuf::new() };
    let engine = if options.postgres { Engine::Postgres } else { Engine::Sqlite };
    let tls = if options.tls { "true" } else { "false" };
    let usual = [("LEGATION_LOG", "warn"), ("LEGATION_TLS_SELF_SIGNED", tls)];
    let settings: Vec<_> = usual.iter().chain(settings).copied().collect();
    Ok(World::of(binaries, engine, &settings).await)
}

/// The program that was named, or the one beside this program.
fn beside(named: Option<&PathBuf>, name: &str, option: &str) -> anyhow::Result<PathBuf> {
    let own = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name(name));
    let program = named.cloned().map_or_else(own, Ok)?;
    if !program.is_file() {
        bail!("{} is missing: build it, or name it with {option}", program.display());
    }
    Ok(program)
}

/// A connection is a descriptor, here and in the Manager, which inherits the limit.
fn raise_file_limit(delegates: usize) -> anyhow::Result<()> {
    let files = getrlimit(Resource::Nofile);
    let needed = delegates as u64 + FILES_BESIDE;
    if files.maximum.is_some_and(|maximum| maximum < needed) {
        bail!("{delegates} delegates need {needed} open files: raise the hard limit (ulimit -Hn)");
    }
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).context("cannot raise the open files")
}
