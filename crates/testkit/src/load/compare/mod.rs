//! The same phases against servers that others made.
//!
//! The Manager is measured with the fleet of the load generator. The others have a crowd of small clients, which is
//! dialled, counted and timed in the same way and on the same thread.
//!
//! Absolute figures say as much about a machine as about a program; a ratio between two programs that were measured
//! in turn on the same machine says more. So each round measures all servers one after the other, and what counts is
//! the median of the rounds' ratios. Nothing here is a verdict: the servers promise different things.

mod client;
mod crowd;
mod mosquitto;
mod nats;
mod peer;
mod phases;
mod ratios;
mod server;
mod tls;

use std::path::PathBuf;

use clap::{Parser, ValueEnum, value_parser};

use self::{mosquitto::Mosquitto, nats::Nats, peer::Peer};
use super::{DELEGATES_MAX, Figures, Phase, SECONDS_MAX, raise_file_limit, report::Say, up_to};

/// The most rounds: their median does not move any more.
const ROUNDS_MAX: usize = 20;
/// What our own Manager is called in lines and tables.
const OURS: &str = "legation-manager";

/// A server to measure beside the Manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Other {
    /// nats-server, a message broker in Go
    Nats,
    /// mosquitto, an MQTT broker in C
    Mosquitto,
}

/// How often, how large, beside whom.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "legation-compare",
    version,
    about = "Measures a Manager and other servers in turn; prints lines of JSON, and their ratios on standard error"
)]
pub struct Options {
    /// Connections to each server
    #[arg(long, default_value_t = 2_000, value_parser = up_to(DELEGATES_MAX))]
    pub delegates: usize,
    /// Rounds, each of all servers
    #[arg(long, default_value_t = 5, value_parser = up_to(ROUNDS_MAX))]
    pub rounds: usize,
    /// Seconds of each phase that lasts for a time
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(1..=SECONDS_MAX))]
    pub seconds: u64,
    /// The other servers
    #[arg(long, value_delimiter = ',', default_values_t = [Other::Nats, Other::Mosquitto], value_enum)]
    pub others: Vec<Other>,
    /// The Manager's program [default: legation-manager beside this program]
    #[arg(long)]
    pub manager: Option<PathBuf>,
}

/// Measures all servers in turn, round after round; prints each line when it is known, and the ratios at the end.
///
/// # Errors
/// What keeps it from measuring: a program that is missing, a limit that is too low, a server that ended, an error of
/// any connection.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    // Better now than after the first server's minute.
    options.others.iter().try_for_each(|other| server::program(other.peer().name()).map(drop))?;
    raise_file_limit(options.delegates)?;
    let mut lines = Vec::new();
    for round in 1..=options.rounds {
        ours(options, &mut |line| lines.push(told(line.with("server", OURS), round))).await?;
        for other in &options.others {
            let say: Say<'_> = &mut |line| lines.push(told(line, round));
            phases::measure(other.peer(), options, say).await?;
        }
    }
    ratios::print(&lines, &options.names());
    Ok(())
}

fn told(line: Figures, round: usize) -> Figures {
    let line = line.with("round", round);
    line.print();
    line
}

/// The phases of `legation-load` that have their like with the others.
async fn ours(options: &Options, say: Say<'_>) -> anyhow::Result<()> {
    let options = super::Options {
        delegates: options.delegates,
        seconds: options.seconds,
        phases: vec![Phase::Storm, Phase::Idle, Phase::Dispatch, Phase::Revoke, Phase::Heartbeat],
        manager: options.manager.clone(),
        ..super::Options::parse_from(["legation-load"])
    };
    super::phases::connections(&options, say).await?;
    super::phases::heartbeats(&options, say).await
}

impl Options {
    fn names(&self) -> Vec<&'static str> {
        self.others.iter().map(|other| other.peer().name()).collect()
    }
}

impl Other {
    fn peer(self) -> &'static dyn Peer {
        match self {
            Self::Nats => &Nats,
            Self::Mosquitto => &Mosquitto,
        }
    }
}
