//! `legation account` and `legation whoami`.

use clap::Subcommand;
use legation_api::{
    accounts::{Account, AccountsQuery, CreateAccount},
    whoami::Whoami,
};
use legation_model::{Millis, Scope, Text};

use crate::{
    Context, Failure,
    args::Paging,
    exit_codes,
    ui::{Row, Show},
    values::{length, show_length, show_time, show_when},
};

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum Accounts {
    /// List accounts
    Ls {
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Create an account, with its unissued default token
    Create {
        /// Identifier: a-z 0-9 _ -
        account: Scope,
        /// What it is for
        #[arg(long, default_value = "")]
        description: Text,
        /// How long its delegates may act after the last answered heartbeat (15s to 24h)
        #[arg(long, value_parser = length)]
        lease: Option<Millis>,
    },
    /// Show an account
    Show {
        /// Identifier
        account: Scope,
    },
}

impl Accounts {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { paging } => {
                let page = async |limit, cursor| client.accounts(&AccountsQuery { limit, cursor }).await;
                ui.list(&paging.collect(page).await?)?;
            }
            Self::Create { account, description, lease } => {
                let request = CreateAccount { id: account, description, lease_ms: lease };
                let account = client.create_account(&request).await?;
                ui.show(&account)?;
                ui.next(&[format!("legation token issue default_token --scope {}", account.id)]);
            }
            Self::Show { account } => ui.show(&client.account(&account).await?)?,
        }
        Ok(exit_codes::OK)
    }
}

/// Shows the caller.
///
/// # Errors
/// As the Manager refuses.
pub async fn whoami(context: &Context) -> Result<u8, Failure> {
    context.ui.show(&context.client.whoami().await?)?;
    Ok(exit_codes::OK)
}

impl Show for Account {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("account", self.id.to_string()),
            ("description", self.description.to_string()),
            ("lease", self.lease_ms.map_or_else(|| "the Manager's default".to_owned(), show_length)),
            ("created", format!("{} by {}", show_time(self.created_at), self.created_by)),
        ]
    }
}

impl Row for Account {
    const COLUMNS: &'static [&'static str] = &["account", "lease", "created", "description"];

    fn row(&self) -> Vec<String> {
        let lease = self.lease_ms.map(show_length).unwrap_or_default();
        vec![self.id.to_string(), lease, show_time(self.created_at), self.description.to_string()]
    }
}

impl Show for Whoami {
    fn name(&self) -> String {
        self.key.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("key", self.key.to_string()),
            ("name", self.name.clone()),
            ("role", self.role.to_string()),
            ("scope", self.scope.as_ref().map_or_else(|| "everywhere".to_owned(), ToString::to_string)),
            ("may", self.permissions.join(" ")),
            ("expires", show_when(self.expires_at)),
            ("manager", self.manager_version.clone()),
        ]
    }
}
