//! The command line as it was given, without secrets on it.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};

use crate::config::CommandLine;

const PASSWORD_IN_FLAG: &str = "--database-url holds a password, which every user of this machine could see: set \
     LEGATION_DATABASE_URL, or database_url in the file that --config-file names, and change the password";

impl CommandLine {
    /// The arguments of this process; wrong ones, and `--help`, end it.
    pub fn from_arguments() -> Self {
        Self::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads arguments, and refuses a password among them: they are shown to every user of the machine.
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let line = Self::from_arg_matches(&matches)?;
        let flag = matches.value_source("database_url") == Some(ValueSource::CommandLine);
        if flag && line.settings.database_url.as_deref().is_some_and(holds_password) {
            return Err(command.error(ErrorKind::ValueValidation, PASSWORD_IN_FLAG));
        }
        Ok(line)
    }
}

/// Whether a database's address holds a password: between user and host, or as a parameter. One that is not written
/// as it should be may hold one all the same.
fn holds_password(url: &str) -> bool {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    let between = address.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    between || parameters.split('&').any(|parameter| parameter.starts_with("password="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::read(arguments.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_password_of_the_database_is_no_argument() {
        for arguments in [
            "legation-manager --database-url postgres://legation:hunter2@host/name",
            "legation-manager serve --database-url=postgres://legation:hunter2@host/name?sslmode=require",
            "legation-manager admin reset --database-url postgres://host/name?user=legation&password=hunter2",
            "legation-manager --database-url postgres://legation:hunter2/@[bad/name",
        ] {
            let error = read(arguments).expect_err("must be refused");
            let text = error.to_string();
            assert!(text.contains("LEGATION_DATABASE_URL") && text.contains("--config-file"), "{text}");
            assert!(!text.contains("hunter2") && error.exit_code() == 2, "{text}");
        }
        for url in ["postgres://legation@host:5432/name", "postgres://[::1]:5432/name?user=legation"] {
            let line = read(&format!("legation-manager serve --database-url {url}")).expect("no password");
            assert_eq!(line.settings.database_url.as_deref(), Some(url));
        }
    }
}
