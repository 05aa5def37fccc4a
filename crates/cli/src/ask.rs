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
    /// Returns if the person agrees: by `--yes`, or on a terminal by typing `y`.
    ///
    /// # Errors
    /// Nobody agreed, or there is nobody to ask.
    pub fn confirm(self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let what = format!("nothing was done: {} needs a yes, and there is no terminal to ask on", clean(question));
            return Err(Failure::new(
                exit_codes::NOT_CONFIRMED,
                what,
                "add --yes, or --dry-run to see what would happen",
            ));
        }
        write!(io::stderr(), "{} [y/N] ", clean(question))?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::new(exit_codes::NOT_CONFIRMED, "nothing was done", ""))
    }
}
