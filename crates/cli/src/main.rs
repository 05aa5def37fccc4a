//! `legation`: the command line of Legation.

use std::process::ExitCode;

/// One thread is enough, and `up` needs it: the kernel ties a child's life to the thread that started it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    ExitCode::from(legation_cli::run().await)
}
