//! Measures a Manager under load. `legation-load --help` lists what it can measure.

use std::process::ExitCode;

use clap::Parser as _;
use legation_testkit::load::{Options, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a program")]
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("legation-load: {error:#}");
    ExitCode::FAILURE
}
