//! The Manager's program: settings, logs, start, serve, stop.

use std::{io::Write as _, process::ExitCode, sync::Arc};

use anyhow::Context;
use legation_manager::{
    admin, backup,
    config::{AdminCommand, Command, CommandLine, Config, KeyCommand},
    logging, restore, rotate, start,
    system::{self, SystemClock, SystemEntropy},
};
use tikv_jemallocator::Jemalloc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How it is set up is in `.cargo/config.toml`, because it is compiled in.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(CommandLine::from_arguments()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(command_line: CommandLine) -> anyhow::Result<()> {
    system::follow_parent()?;
    system::harden().context("cannot harden the process")?;
    let (command, config) = command_line.resolve()?;
    logging::init(&config)?;
    match command {
        Command::Serve => serve(config).await,
        Command::ManagerKey { command: KeyCommand::Rotate } => {
            let id = rotate::manager_key(&config, &SystemClock, &SystemEntropy).await?;
            tracing::info!(%id, "tokens that are issued from now on pin the new key; those that are there go on");
            Ok(())
        }
        Command::Kek { command: KeyCommand::Rotate } => {
            let kept = rotate::kek(&config, &SystemClock, &SystemEntropy).await?;
            tracing::info!(
                old_key = %kept.display(),
                "the key-encryption key is a new one; backups made before still need the old one: move it to where the \
                 backups' keys are"
            );
            Ok(())
        }
        Command::Backup(wanted) => backup::run(&config, wanted, &SystemClock).await,
        Command::Restore(wanted) => restore::run(&config, wanted, &SystemClock, Arc::new(SystemEntropy)).await,
        Command::Admin { command: AdminCommand::Reset(reset) } => {
            admin::reset(&config, reset, &SystemClock, &SystemEntropy).await
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let running = start(config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await?;
    let ended = tokio::select! {
        () = told(&mut interrupt, &mut terminate) => {
            tracing::info!("stopping; a second signal stops at once");
            Ok(())
        }
        why = running.ended() => Err(why.into()),
    };
    running.stop(told(&mut interrupt, &mut terminate)).await;
    ended
}

async fn told(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Says on the last line what to do; nobody may be reading.
fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "legation-manager: {error:#}");
}
