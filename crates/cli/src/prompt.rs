//! Secrets that a person or a program gives a command: never as an argument, which every user of the machine would see.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use legation_model::secret::SecretText;

use crate::{Failure, private_file};

/// The most that is read of standard input: far more than the longest password.
const INPUT_MAX: u64 = 64 << 10;

/// Where a password comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PasswordFrom {
    /// File with the password, readable only by its owner; - for standard input [default: asked for on a terminal, else
    /// standard input]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

impl PasswordFrom {
    /// A password that exists.
    ///
    /// # Errors
    /// As [`secret`].
    pub fn known(&self, what: &str) -> Result<SecretText, Failure> {
        secret(what, self.password_file.as_deref())
    }

    /// A password that is to be: typed twice on a terminal.
    ///
    /// # Errors
    /// As [`secret`]; the two are not the same.
    pub fn new_one(&self, what: &str) -> Result<SecretText, Failure> {
        let first = secret(what, self.password_file.as_deref())?;
        if self.password_file.is_some() || !is_asked() {
            return Ok(first);
        }
        if typed(&format!("{what}, once more"))? == first {
            return Ok(first);
        }
        Err(Failure::usage("the two passwords are not the same", "run the command again and type the same twice"))
    }
}

/// A secret from a file, or else from a person at a terminal, or else from standard input.
///
/// # Errors
/// The file is missing or open to others; there is nothing in it.
pub fn secret(what: &str, file: Option<&Path>) -> Result<SecretText, Failure> {
    let text = match file {
        Some(path) if path != Path::new("-") => {
            let text = private_file::read(path)?;
            let none = || Failure::settings(format!("there is no file {}", path.display()), "check its name");
            SecretText::new(text.ok_or_else(none)?)
        }
        None if is_asked() => return typed(what),
        _ => {
            let mut text = String::new();
            io::stdin().take(INPUT_MAX).read_to_string(&mut text)?;
            SecretText::new(text)
        }
    };
    // What an editor or `echo` puts behind a line is not part of it.
    let line = SecretText::new(text.expose().trim_end_matches(['\r', '\n']).to_owned());
    if line.expose().is_empty() {
        return Err(Failure::usage(
            format!("nothing was given as: {what}"),
            "type it, or name a file that has it; standard input serves the first secret that a command asks for",
        ));
    }
    Ok(line)
}

/// Whether there is a person to ask.
pub fn is_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line from the terminal that it does not show.
fn typed(what: &str) -> Result<SecretText, Failure> {
    let typed = rpassword::prompt_password(format!("{what}: ")).map(SecretText::new);
    let typed = typed.map_err(|error| {
        Failure::usage(format!("nothing could be read from the terminal: {error}"), "name a file that has it")
    })?;
    if typed.expose().is_empty() {
        return Err(Failure::usage("nothing was typed", "run the command again"));
    }
    Ok(typed)
}
