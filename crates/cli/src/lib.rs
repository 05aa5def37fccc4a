//! The command line: one file per noun, and `legation up`.
//!
//! What a command prints on standard output is its result and nothing else, so that it can be piped; progress,
//! notes and suggestions go to standard error, suggestions only when that is a terminal.

pub mod api_keys;
pub mod args;
pub mod ask;
pub mod audit;
pub mod audit_file;
pub mod config;
pub mod delegates;
pub mod docs;
pub mod exit_codes;
pub mod failure;
pub mod grants;
pub mod handover;
pub mod keys;
pub mod logins;
pub mod oidc;
pub mod passwords;
pub mod principals;
pub mod private_file;
pub mod prompt;
pub mod receipts;
pub mod reveal;
pub mod revoke;
pub mod revoke_many;
pub mod roles;
pub mod scopes;
pub mod shell_words;
pub mod signing_keys;
pub mod task_run;
pub mod tasks;
pub mod token_edit;
pub mod token_uses;
pub mod tokens;
pub mod ui;
pub mod up;
pub mod values;
pub mod whoami;
pub mod wraps;

use std::cell::Cell;

use clap::Parser as _;
use legation_api::client::Client;
use legation_model::{access::PrincipalKind, scope::ScopeKind};

pub use failure::Failure;

use crate::{
    args::{Cli, Command},
    audit::Audit,
    config::{Behind, Settings},
    receipts::Receipts,
    tokens::Tokens,
    ui::Ui,
};

/// What a command works with that asks a Manager.
#[derive(Debug)]
pub struct Context {
    /// The Manager.
    pub client: Client,
    /// The terminal.
    pub ui: Ui,
}

impl Context {
    /// The client for one `POST`, whose repetition with the same key has no second effect.
    fn idempotent(&self, key: Option<&str>) -> Client {
        key.map_or_else(|| self.client.clone(), |key| self.client.idempotent(key))
    }
}

/// Reads the arguments, runs the command, reports its failure; the process's exit code.
pub async fn run() -> u8 {
    let cli = Cli::parse();
    let ui = Ui::new(cli.global.output);
    let session = Cell::new(None);
    match dispatch(cli, &ui, &session).await {
        Ok(code) => code,
        Err(failure) => failure.of_session(session.get()).report(),
    }
}

/// Does it, and leaves behind whether the command presents a kept session.
async fn dispatch(cli: Cli, ui: &Ui, session: &Cell<Option<Behind>>) -> Result<u8, Failure> {
    let context = || -> Result<Context, Failure> {
        let settings = Settings::load(&cli.global)?;
        session.set(settings.session);
        Ok(Context { client: settings.client()?, ui: ui.clone() })
    };
    match cli.command {
        // Whoever has a code need not have a key, and one that is there is not for this.
        Command::Token(Tokens::Unwrap(unwrap)) => {
            let settings = Settings::load(&cli.global)?.without_key();
            unwrap.run(&Context { client: settings.client()?, ui: ui.clone() }).await
        }
        Command::Token(command) => command.run(&context()?).await,
        Command::Delegate(command) => command.run(&context()?).await,
        Command::Task(command) => command.run(&context()?).await,
        Command::Scope(command) => command.run(&context()?, None).await,
        Command::Account(command) => command.run(&context()?, Some(ScopeKind::Account)).await,
        Command::Organization(command) => command.run(&context()?, Some(ScopeKind::Organization)).await,
        Command::Project(command) => command.run(&context()?, Some(ScopeKind::Project)).await,
        // Offline on purpose: whoever checks a file need not be able to reach the Manager, nor to trust it.
        Command::Receipt(Receipts::Verify(verify)) => verify.run(ui),
        Command::Receipt(command) => command.run(&context()?).await,
        Command::Audit(Audit::Verify(verify)) => verify.run(ui),
        Command::Audit(command) => command.run(&context()?).await,
        Command::SigningKey(command) => command.run(&context()?).await,
        Command::Login(login) => login.run(&cli.global, ui).await,
        Command::Logout => logins::log_out(ui).await,
        Command::Password(change) => change.run(&context()?).await,
        Command::Session(command) => command.run(&context()?).await,
        Command::User(command) => command.run(&context()?).await,
        Command::ServiceAccount(command) => command.run(&context()?, PrincipalKind::ServiceAccount).await,
        Command::Role(command) => command.run(&context()?).await,
        Command::Grant(command) => command.run(&context()?).await,
        Command::ApiKey(command) => command.run(&context()?).await,
        Command::Whoami => whoami::whoami(&context()?).await,
        Command::Up(up) => up.run(ui).await,
        Command::Completions { shell } => ui::print(&args::completions(shell)).map(|()| exit_codes::OK),
    }
}
