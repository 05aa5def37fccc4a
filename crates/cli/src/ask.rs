//! Asking before something that can hurt.

use std::io::{self, IsTerminal as _, Write as _};

use crate::{Failure, exit_codes, ui::clean};

/// What a command that can hurt takes.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Care {
    /// Only say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
}

impl Care {
    /// Returns if the person agrees: by `--yes`, or on a terminal by typing `y`. `deed` reads like "revoke
    /// token x"; `consequence` says what that does, and may be empty.
    ///
    /// # Errors
    /// Nobody agreed, or there is nobody to ask.
    pub fn confirm(self, deed: &str, consequence: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let refused =
            |why: &str, fix: &str| Failure::new(exit_codes::NOT_CONFIRMED, format!("nothing was done: {why}"), fix);
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let why = format!("there is no terminal to ask whether to {deed}");
            return Err(refused(&why, "add --yes, or --dry-run to see what would happen"));
        }
        let consequence = if consequence.is_empty() { String::new() } else { format!(" ({consequence})") };
        write!(io::stderr(), "{}? [y/N] ", clean(&format!("{deed}{consequence}")))?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(refused("the answer was not yes", "answer y, or add --yes")),
        }
    }
}
