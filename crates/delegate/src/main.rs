//! The delegate: see [`legation_delegate::program`].

use std::process::ExitCode;

use legation_delegate::program;

fn main() -> ExitCode {
    program::main(|_| {})
}
