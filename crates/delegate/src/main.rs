//! The delegate's program.

use std::process::ExitCode;

use legation_delegate::supervisor;

fn main() -> ExitCode {
    // A supervisor stays small: no runtime, no configuration, no log.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == supervisor::ARGUMENT) {
        return if supervisor::run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    ExitCode::FAILURE
}
