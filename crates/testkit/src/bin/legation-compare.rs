//! Measures a Manager beside other servers. `legation-compare --help` lists how.

use std::process::ExitCode;

use clap::Parser as _;
use legation_testkit::load::compare::{Options, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    legation_testkit::load::exit("legation-compare", run(&Options::parse()).await)
}
