//! `legation delegate`.

use clap::Subcommand;
use legation_api::{
    client::Client,
    delegates::{Delegate, DelegatesQuery},
};
use legation_model::{Name, Scope, delegate::DelegateStatus, ids::DelegateId};

use crate::{
    Context, Failure,
    args::{InScope, Paging, default_scope},
    exit_codes, tokens,
    ui::{self, Row, Show},
    values::show_time,
};

/// What to do with delegates.
#[derive(Debug, Subcommand)]
pub enum Delegates {
    /// List delegates
    Ls {
        /// Only those of this scope and below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// Only those that use this token (id, or name in the scope)
        #[arg(long)]
        token: Option<String>,
        /// Only those of this name
        #[arg(long)]
        name: Option<Name>,
        /// Only those that are connected now
        #[arg(long)]
        connected: bool,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a delegate
    Show {
        /// Id, or name in the scope
        delegate: String,
        /// Where to look up the name.
        #[command(flatten)]
        scope: InScope,
    },
}

impl Delegates {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, token, name, connected, paging } => {
                let token = match token {
                    Some(token) => {
                        Some(tokens::find(client, &token, &scope.clone().unwrap_or_else(default_scope)).await?.id)
                    }
                    None => None,
                };
                let page = async |limit, cursor| {
                    let (scope, name) = (scope.clone(), name.clone());
                    client.delegates(&DelegatesQuery { scope, token, name, connected, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
                ui.next(&["legation task run -- uname -a".to_owned()]);
            }
            Self::Show { delegate, scope } => {
                let delegate = find(client, &delegate, &scope.scope).await?;
                ui.show(&delegate)?;
                ui.next(&[format!("legation task run --on {} -- uname -a", delegate.name)]);
            }
        }
        Ok(exit_codes::OK)
    }
}

async fn find(client: &Client, text: &str, scope: &Scope) -> Result<Delegate, Failure> {
    if let Ok(id) = text.parse::<DelegateId>() {
        return Ok(client.delegate(id).await?);
    }
    let name: Name =
        text.parse().map_err(|error| Failure::usage(format!("{text:?} is {error}"), "give an id or a name"))?;
    let query = DelegatesQuery { scope: Some(scope.clone()), name: Some(name), ..DelegatesQuery::default() };
    let mut found = client.delegates(&query).await?.items;
    match found.len() {
        0 => {
            let what = format!("there is no delegate {text} in {scope}");
            Err(Failure::new(exit_codes::NOT_FOUND, what, "see `legation delegate ls`, or name its --scope"))
        }
        1 => Ok(found.remove(0)),
        several => {
            let ids: Vec<String> = found.iter().map(|delegate| delegate.id.to_string()).collect();
            let what = format!("{several} delegates have the name {text}");
            Err(Failure::usage(what, format!("give one of the ids: {}", ids.join(" "))))
        }
    }
}

/// One word for how a delegate is.
fn state(delegate: &Delegate) -> &'static str {
    match (delegate.status, delegate.connected) {
        (DelegateStatus::Allowed, true) => "connected",
        (DelegateStatus::Allowed, false) => "disconnected",
        (status, _) => status.as_str(),
    }
}

impl Show for Delegate {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("delegate", self.id.to_string()),
            ("name", self.name.to_string()),
            ("state", state(self).to_owned()),
            ("scope", self.scope.to_string()),
            ("token", self.token.to_string()),
            ("host", self.host.to_string()),
            ("address", self.address.clone()),
            ("tags", ui::joined(&self.tags)),
            ("description", self.description.to_string()),
            ("version", self.version.clone()),
            ("isolation", self.isolation.to_string()),
            ("tasks", format!("{} of {}", self.tasks_running, self.capacity)),
            ("boot", self.boot.to_string()),
            ("first seen", show_time(self.first_seen_at)),
            ("last seen", show_time(self.last_seen_at)),
        ]
    }
}

impl Row for Delegate {
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "state", "scope", "host", "tasks", "isolation", "version", "last seen"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.to_string(),
            state(self).to_owned(),
            self.scope.to_string(),
            self.host.to_string(),
            format!("{}/{}", self.tasks_running, self.capacity),
            self.isolation.to_string(),
            self.version.clone(),
            show_time(self.last_seen_at),
        ]
    }
}
