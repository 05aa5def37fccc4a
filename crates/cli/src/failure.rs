//! Failures: one sentence, the fix, an exit code.

use std::io::{self, Write as _};

use legation_api::{Code, Problem, client::ClientError};

use crate::{
    config::{self, Behind},
    exit_codes,
    ui::clean,
};

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// What happened, in one sentence; empty for nothing to say.
    pub what: String,
    /// What to do; empty if there is nothing to do.
    pub fix: String,
    /// Whether the Manager did not know the API key or session.
    unauthenticated: bool,
}

impl Failure {
    /// A failure.
    pub fn new(code: u8, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, what: what.into(), fix: fix.into(), unauthenticated: false }
    }

    /// The command line is wrong in a way that the parser does not see.
    pub fn usage(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(exit_codes::USAGE, what, fix)
    }

    /// A file or setting is wrong.
    pub fn settings(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(exit_codes::SETTINGS, what, fix)
    }

    /// The same where a kept session was presented: one that has ended hides an API key until it is logged out of.
    pub fn of_session(self, behind: Option<Behind>) -> Self {
        let Some(behind) = behind.filter(|_| self.unauthenticated) else { return self };
        let back = match (behind, config::config_dir()) {
            (Behind::KeyOfFile, Ok(directory)) => {
                let file = directory.join(config::FILE);
                format!(", or go back to the API key in {} with `legation logout`", file.display())
            }
            _ => String::new(),
        };
        let what = "the console session that `legation login` kept here has ended";
        Self { fix: format!("log in again with `legation login NAME`{back}"), what: what.to_owned(), ..self }
    }

    /// The same with other advice.
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// Writes the failure to standard error; its exit code.
    pub fn report(&self) -> u8 {
        // When standard error is gone too there is nobody left to tell.
        let _ = io::stderr().write_all(self.text().as_bytes());
        self.code
    }

    fn text(&self) -> String {
        let line =
            |word: &str, text: &str| if text.is_empty() { String::new() } else { format!("{word}: {}\n", clean(text)) };
        line("error", &self.what) + &line("fix", &self.fix)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Problem(problem) => code_of(problem),
            ClientError::Settings { .. } => exit_codes::SETTINGS,
            ClientError::Unreachable { .. } | ClientError::Tls { .. } | ClientError::Unexpected { .. } => {
                exit_codes::UNREACHABLE
            }
        };
        let fix = match error.code() {
            Some(Code::Unauthenticated) => how_to_log_in(),
            Some(Code::Reauthenticate) => AGAIN.to_owned(),
            _ => error.fix().to_owned(),
        };
        let unauthenticated = error.code() == Some(Code::Unauthenticated);
        Self { unauthenticated, ..Self::new(code, error.to_string(), fix) }
    }
}

/// Where there is a terminal, a session that began with a password has been asked for it by then.
const AGAIN: &str = "run it on a terminal, which asks for the password, or log in once more: `legation login NAME`, or \
     `legation login --oidc --fresh` at an identity provider";

/// The Manager's advice is for programs, which write headers; this is where a person puts a key.
fn how_to_log_in() -> String {
    let file = config::config_dir()
        .map(|directory| format!(", or write url and api_key into {}", directory.join(config::FILE).display()));
    format!(
        "log in with `legation login NAME`, or set LEGATION_API_KEY to a valid API key (lak_…){}; on the Manager's host \
         `legation-manager admin reset` makes a new one",
        file.unwrap_or_default()
    )
}

const fn code_of(problem: &Problem) -> u8 {
    match problem.status {
        401 | 403 => exit_codes::NOT_ALLOWED,
        404 => exit_codes::NOT_FOUND,
        429 | 500.. => exit_codes::UNAVAILABLE,
        _ => exit_codes::REFUSED,
    }
}

impl From<io::Error> for Failure {
    /// Writing to the terminal failed. A reader that has left (`| head`) is no failure worth words.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(exit_codes::OK, "", "");
        }
        Self::new(exit_codes::UNEXPECTED, format!("the output cannot be written: {error}"), "")
    }
}

#[cfg(test)]
mod tests {
    use legation_api::Code;

    use super::*;

    #[test]
    fn every_problem_has_an_exit_code_of_its_kind() {
        let code = |code: Code| Failure::from(ClientError::Problem(Problem::new(code, "x"))).code;
        assert_eq!(code(Code::Unauthenticated), exit_codes::NOT_ALLOWED);
        assert_eq!(code(Code::Forbidden), exit_codes::NOT_ALLOWED);
        assert_eq!(code(Code::NotFound), exit_codes::NOT_FOUND);
        assert_eq!(code(Code::TokenNotRevoked), exit_codes::REFUSED);
        assert_eq!(code(Code::RevokedNotDurable), exit_codes::UNAVAILABLE);
    }

    #[test]
    fn a_hostile_message_cannot_reach_the_terminal_raw() {
        let text = Failure::new(1, "a\u{1b}[2Jb\nerror: c", "d\u{202e}e").text();
        assert_eq!(text, "error: a\u{fffd}[2Jb\u{fffd}error: c\nfix: d\u{fffd}e\n");
    }
}
