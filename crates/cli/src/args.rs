//! The command line's shape: what is common to every command, and the list of nouns.

use std::path::PathBuf;

use clap::{
    Args, CommandFactory as _, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use clap_complete::Shell;
use legation_api::List;
use legation_model::Scope;

use crate::{
    Failure,
    api_keys::ApiKeys,
    audit::Audit,
    delegates::Delegates,
    exit_codes,
    grants::Grants,
    logins::{Login, Sessions},
    passwords::Change,
    principals::{Principals, Users},
    receipts::Receipts,
    roles::Roles,
    scopes::Scopes,
    signing_keys::SigningKeys,
    tasks::Tasks,
    tokens::Tokens,
    ui::Format,
    up::Up,
};

/// Legation: delegates that live where nobody can dial in, and the tokens that stop them.
#[derive(Debug, Parser)]
#[command(name = "legation", version, after_long_help = exit_codes::HELP, max_term_width = 110)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Form of the result
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// Address of the Manager
    #[arg(long, global = true, env = "LEGATION_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// File with the API key, readable only by its owner [or the key itself in env: LEGATION_API_KEY; without either the session of `legation login` counts]
    #[arg(long, global = true, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// CA certificate to trust for the Manager, instead of the system's
    #[arg(long, global = true, env = "LEGATION_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a Manager and a delegate on this machine, and try them
    Up(Up),
    /// Delegate tokens: create, issue, list, show, revoke, delete
    #[command(subcommand)]
    Token(Tokens),
    /// Delegates: list, show, approve, refuse, stop, allow
    #[command(subcommand)]
    Delegate(Delegates),
    /// Tasks: run, list, show, cancel, read their output
    #[command(subcommand)]
    Task(Tasks),
    /// Accounts, the tops of the scope tree: list, create, show, edit, delete
    #[command(subcommand)]
    Account(Scopes),
    /// Organizations, the parts of an account: list, create, show, edit, delete
    #[command(subcommand, visible_alias = "org")]
    Organization(Scopes),
    /// Projects, the parts of an organization: list, create, show, edit, delete
    #[command(subcommand)]
    Project(Scopes),
    /// The whole scope tree: accounts, organizations, projects
    #[command(subcommand)]
    Scope(Scopes),
    /// Receipts of revocations: list, show, verify
    #[command(subcommand)]
    Receipt(Receipts),
    /// The audit chain: list, show, tail, export, verify
    #[command(subcommand)]
    Audit(Audit),
    /// The public keys that receipts and audit checkpoints are signed with: list, show
    #[command(subcommand)]
    SigningKey(SigningKeys),
    /// Log in with a password, and keep the session for the commands that follow
    Login(Login),
    /// End the session that is kept
    Logout,
    /// Change your own password; ends your other sessions
    Password(Change),
    /// Console sessions of people who logged in: list, end
    #[command(subcommand)]
    Session(Sessions),
    /// Users: list, create, show, disable, enable, delete, set a password
    #[command(subcommand)]
    User(Users),
    /// Service accounts, for programs: list, create, show, disable, enable, delete
    #[command(subcommand)]
    ServiceAccount(Principals),
    /// Roles: list, create, show, edit, delete
    #[command(subcommand)]
    Role(Roles),
    /// Grants of roles: list, create, show, take away
    #[command(subcommand)]
    Grant(Grants),
    /// API keys: list, create, show, revoke
    #[command(subcommand)]
    ApiKey(ApiKeys),
    /// Show who you are to the Manager
    Whoami,
    /// Print completions for a shell
    Completions {
        /// The shell that is to complete
        #[arg(value_parser = PossibleValuesParser::new(SHELLS).try_map(|name| name.parse::<Shell>()))]
        shell: Shell,
    },
}

/// The shells that people have where the Manager and its delegates run.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What makes a shell complete `legation`.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "legation", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The scope of something new, or in which a name is looked up.
#[derive(Clone, Debug, Args)]
pub struct InScope {
    /// Scope: account, account/organization or account/organization/project
    #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true, default_value_t = default_scope())]
    pub scope: Scope,
}

/// The account that every Manager starts with.
pub fn default_scope() -> Scope {
    legation_model::scope::DEFAULT_ACCOUNT.parse().expect("a legal scope")
}

/// How much of a list to show.
#[derive(Clone, Copy, Debug, Args)]
pub struct Paging {
    /// Show at most this many
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Paging {
    /// Collects pages until the limit; `page` gets the items still wanted and the cursor.
    ///
    /// # Errors
    /// As `page` fails.
    pub async fn collect<T, E: Into<Failure>>(
        self,
        page: impl AsyncFn(Option<u32>, Option<String>) -> Result<List<T>, E>,
    ) -> Result<List<T>, Failure> {
        let mut all = List { items: Vec::new(), next: None };
        loop {
            let wanted = self.limit.saturating_sub(u32::try_from(all.items.len()).unwrap_or(u32::MAX));
            let wanted = wanted.min(legation_api::page::LIMIT_MAX);
            let part = page(Some(wanted), all.next.take()).await.map_err(Into::into)?;
            let progress = !part.items.is_empty();
            all.items.extend(part.items);
            all.next = part.next;
            if all.next.is_none() || !progress || all.items.len() >= self.limit as usize {
                return Ok(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shell_completes_a_noun_and_its_verb() {
        for shell in SHELLS {
            let Command::Completions { shell } =
                Cli::try_parse_from(["legation", "completions", shell]).expect("a shell").command
            else {
                panic!("another command")
            };
            let script = completions(shell);
            assert!(script.contains("legation") && script.contains("queue-timeout"), "{shell}");
        }
        assert!(Cli::try_parse_from(["legation", "completions", "cmd"]).is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn pages_are_collected_up_to_the_limit() {
        let page = async |limit: Option<u32>, cursor: Option<String>| {
            let from: u32 = cursor.map_or(0, |cursor| cursor.parse().expect("a number"));
            let size = limit.expect("a limit").min(3);
            Ok::<_, Failure>(List { items: (from..from + size).collect(), next: Some((from + size).to_string()) })
        };
        let all = Paging { limit: 7 }.collect(page).await.expect("a list");
        assert_eq!(all.items, (0..7).collect::<Vec<u32>>());
        assert_eq!(all.next.as_deref(), Some("7"));
    }
}
