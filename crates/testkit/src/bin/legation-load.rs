//! Measures a Manager under load. `legation-load --help` lists what it can measure.

use std::process::ExitCode;

use clap::Parser as _;
use legation_testkit::load::{Options, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    legation_testkit::load::exit("legation-load", run(&Options::parse()).await)
}
