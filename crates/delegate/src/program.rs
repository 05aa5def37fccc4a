//! The program: as a supervisor, or configuration, lock, agent.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::{agent, config::Config, exit, settings, state::StateDir, supervisor, system};

/// How long threads that still resolve a name may hold up the end.
const SHUTDOWN: Duration = Duration::from_millis(100);

/// Runs this process to its end; `change` is applied to what people have set.
pub fn main(change: impl FnOnce(&mut Config)) -> ExitCode {
    // A supervisor stays small: no runtime, no configuration, no log.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == supervisor::ARGUMENT) {
        return if supervisor::run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    exit::when_unexpected();
    ExitCode::from(run(change))
}

fn run(change: impl FnOnce(&mut Config)) -> u8 {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    if arguments.iter().any(|text| text == "--help" || text == "-h") {
        return say(&settings::help());
    }
    if arguments.iter().any(|text| text == "--version") {
        return say(&format!("legation-delegate {}\n", env!("CARGO_PKG_VERSION")));
    }
    if let Err(error) = system::follow_parent() {
        return fail(exit::UNAVAILABLE, &error);
    }
    match Config::read(arguments, |name| std::env::var(name).ok()) {
        Ok(mut config) => {
            change(&mut config);
            start(config)
        }
        Err(error) => fail(exit::USAGE, &error),
    }
}

fn start(config: Config) -> u8 {
    let level = config.log;
    // A log that nobody reads any more must not end what it tells about: no complaint about it on standard error.
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false);
    log.log_internal_errors(false).init();
    // Nothing that this process got from its parent goes on to a task, and nobody reads its memory.
    close_fds::set_fds_cloexec(3, &[]);
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user can read the token from memory");
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    if let Some(exposure) = config.token.exposure(credentials.as_deref()) {
        tracing::warn!("{exposure}");
    }
    let token = match config.token.read() {
        Ok(token) => token,
        Err(error) => return fail(exit::USAGE, &error),
    };
    let state = match StateDir::open(&config.state_dir) {
        Ok(state) => state,
        Err(error) => return fail(exit::UNAVAILABLE, &error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::UNAVAILABLE, &error),
    };
    let code = runtime.block_on(agent::run(config, state, token));
    runtime.shutdown_timeout(SHUTDOWN);
    match code {
        Ok(code) => code,
        Err(error) => fail(error.code, &error.reason),
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for goes to standard output")]
fn say(text: &str) -> u8 {
    print!("{text}");
    exit::CLEAN
}

/// The one sentence before the end, also where logs are not yet set up. If nobody reads it the code still tells.
fn fail(code: u8, error: &dyn std::fmt::Display) -> u8 {
    let _ = writeln!(std::io::stderr(), "legation-delegate: {error}");
    code
}
