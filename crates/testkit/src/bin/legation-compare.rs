//! Measures a Manager beside other servers. `legation-compare --help` lists how.

use std::process::ExitCode;

use clap::Parser as _;
use legation_testkit::load::compare::{Options, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a program")]
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("legation-compare: {error:#}");
    ExitCode::FAILURE
}
