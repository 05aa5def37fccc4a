//! The delegate with sessions of a moment instead of a day, for the tests of how one takes over from another.

use std::process::ExitCode;

use legation_delegate::program;
use legation_model::Millis;

/// Long enough that a task is under way when the next session begins, short enough to wait for.
const SESSION_LIFE: Millis = 300;

fn main() -> ExitCode {
    program::main(|config| config.session_life = SESSION_LIFE)
}
