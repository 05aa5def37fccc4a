//! `legation login`, `logout` and `session`: console sessions.

use clap::{Args, Subcommand};
use legation_api::{
    Code,
    client::{Client, ClientError},
    logins::{ConsoleSession, LogIn, LoggedIn, SessionsQuery},
};
use legation_model::{Name, ids::LoginId, login::LoginMethod};

use crate::{
    Context, Failure,
    args::{Global, Paging},
    ask::Care,
    config::{self, Behind, Session, Settings},
    exit_codes, oidc, principals,
    prompt::PasswordFrom,
    ui::{Row, Show, Ui},
    values::show_time,
};

/// How to log in.
#[derive(Debug, Args)]
pub struct Login {
    /// The user's name
    #[arg(required_unless_present = "oidc", conflicts_with = "oidc")]
    name: Option<Name>,
    /// Log in at the identity provider, in a browser on this machine
    #[arg(long)]
    oidc: bool,
    /// With --oidc: have the provider ask again, for what asks to be shown once more who you are
    #[arg(long, requires = "oidc")]
    fresh: bool,
    /// Where the password comes from.
    #[command(flatten)]
    password: PasswordFrom,
}

impl Login {
    /// Logs in, and keeps the session for the commands that follow.
    ///
    /// # Errors
    /// As the Manager refuses; the session cannot be kept.
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let settings = Settings::load(global)?;
        // Whoever logs in has no session yet, and an API key has no place in it.
        let client = Client::new(&settings.url, None, settings.ca_file.as_deref())?;
        let began = match self.name {
            Some(name) => {
                let password = self.password.known("Password")?;
                client.log_in(&LogIn { name, password, cookie: false }).await?
            }
            None => oidc::log_in(&client, self.fresh, ui).await?,
        };
        let name = began.session.name.clone();
        keep(&settings, ui, began).await?;
        if Settings::load(global)?.session == Some(Behind::KeyOfFile) {
            let file = config::config_dir()?.join(config::FILE);
            ui.note(&format!(
                "until `legation logout` commands run as {name} and not with the API key in {}",
                file.display()
            ));
        }
        Ok(exit_codes::OK)
    }
}

/// Keeps a new session, and ends the one that was kept before.
async fn keep(settings: &Settings, ui: &Ui, began: LoggedIn) -> Result<u8, Failure> {
    let value = began.value.ok_or_else(|| Failure::new(exit_codes::UNREACHABLE, "the login has no value", ""))?;
    if let Some(before) = Session::read()?
        && let Ok(client) = before.client()
    {
        // It may have ended long ago, at a Manager that is gone.
        let _ = client.log_out().await;
    }
    let (url, ca_file) = (settings.url.clone(), settings.ca_file.clone());
    Session::new(url, ca_file, &value, began.session.method).write()?;
    ui.show(&began.session)?;
    if settings.key_is_given {
        ui.note("an API key is given by flag or environment, and goes before the session");
    }
    ui.next(&["legation whoami".to_owned(), "legation logout".to_owned()]);
    Ok(exit_codes::OK)
}

/// Ends the session that is kept.
///
/// # Errors
/// There is none; as the Manager refuses, except that it does not know the session any more.
pub async fn log_out(ui: &Ui) -> Result<u8, Failure> {
    let none = || Failure::settings("nobody is logged in here", "nothing to do; an API key stays where it is");
    let session = Session::read()?.ok_or_else(none)?;
    match session.client()?.log_out().await {
        Ok(ended) => ui.show(&ended.session)?,
        Err(error) if error.code() == Some(Code::Unauthenticated) => ui.note("the session had ended already"),
        Err(error @ ClientError::Unreachable { .. }) => {
            let failure = Failure::from(error);
            let fix = format!("{}; until then the session is kept", failure.fix);
            return Err(failure.with_fix(fix));
        }
        Err(error) => return Err(error.into()),
    }
    Session::remove()?;
    Ok(exit_codes::OK)
}

/// What to do with console sessions.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List sessions that have not ended: your own, and those of others if you may view access
    Ls {
        /// Only those of this user (id or name)
        #[arg(long)]
        user: Option<String>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// End a session; what is done in it ends at once
    Rm {
        /// Id
        session: LoginId,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
}

impl Sessions {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { user, paging } => {
                let principal = match user {
                    Some(text) => Some(principals::find(client, None, &text).await?.id),
                    None => None,
                };
                let page = async |limit, cursor| client.sessions(&SessionsQuery { principal, limit, cursor }).await;
                ui.list(&paging.collect(page).await?)?;
            }
            Self::Rm { session, care } => {
                let preview = client.preview_end_session(session).await?.session;
                if care.dry_run {
                    ui.note(&format!("would end the session {session} of {}", preview.name));
                    ui.show(&preview)?;
                    return Ok(exit_codes::OK);
                }
                let consequence = if preview.current { "it is the one of this command" } else { "" };
                care.confirm(&format!("end the session {session} of {}", preview.name), consequence)?;
                ui.show(&client.end_session(session).await?.session)?;
            }
        }
        Ok(exit_codes::OK)
    }
}

fn method(session: &ConsoleSession) -> &'static str {
    match session.method {
        LoginMethod::Password => "password",
        LoginMethod::Oidc => "identity provider",
    }
}

impl Show for ConsoleSession {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("session", self.id.to_string()),
            ("user", format!("{} ({})", self.name, self.principal)),
            ("by", method(self).to_owned()),
            ("from", self.address.clone()),
            ("with", self.agent.clone()),
            ("began", show_time(self.created_at)),
            ("shown anew", show_time(self.authenticated_at)),
            ("last used", show_time(self.last_used_at)),
            ("ends", show_time(self.expires_at)),
        ]
    }
}

impl Row for ConsoleSession {
    const COLUMNS: &'static [&'static str] = &["id", "user", "by", "from", "began", "last used", "ends", "this"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.to_string(),
            method(self).to_owned(),
            self.address.clone(),
            show_time(self.created_at),
            show_time(self.last_used_at),
            show_time(self.expires_at),
            if self.current { "yes".to_owned() } else { String::new() },
        ]
    }
}
