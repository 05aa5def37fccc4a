//! `legation grant`: ls, create, show, rm.

use clap::{Args, Subcommand};
use legation_api::grants::{CreateGrant, Grant, GrantsQuery};
use legation_model::{Name, Scope, ids::GrantId};

use crate::{
    Context, Failure,
    args::Paging,
    ask::Care,
    exit_codes, principals,
    principals::place,
    ui::{Row, Show},
    values::show_time,
};

/// What to do with grants.
#[derive(Debug, Subcommand)]
pub enum Grants {
    /// List grants: who has which role, and where
    Ls {
        /// Only those of this scope and below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// Only those of this user or service account (id or name)
        #[arg(long)]
        principal: Option<String>,
        /// Only those of this role
        #[arg(long)]
        role: Option<Name>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Give a user or service account a role; nobody can give what they do not hold
    Create {
        /// To whom: id or name of a user or service account
        principal: String,
        /// Which role
        role: Name,
        /// Where it counts.
        #[command(flatten)]
        place: Place,
        /// Makes a repetition of this command harmless: the same key creates once
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Show a grant
    Show {
        /// Id
        grant: GrantId,
    },
    /// Take a grant away; what is done through it ends at once
    Rm {
        /// Id
        grant: GrantId,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
}

/// Where a grant counts. It must be said, and no environment variable says it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// At this scope and below
    #[arg(long)]
    scope: Option<Scope>,
    /// In every scope, and for what belongs to none
    #[arg(long)]
    everywhere: bool,
}

impl Grants {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, principal, role, paging } => {
                let principal = match principal {
                    Some(text) => Some(principals::find(client, None, &text).await?.id),
                    None => None,
                };
                let page = async |limit, cursor| {
                    let (scope, role) = (scope.clone(), role.clone());
                    client.grants(&GrantsQuery { scope, principal, role, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
            }
            Self::Create { principal, role, place, idempotency_key } => {
                let principal = principals::find(client, None, &principal).await?.id;
                let client = context.idempotent(idempotency_key.as_deref());
                ui.show(&client.create_grant(&CreateGrant { principal, role, scope: place.scope }).await?)?;
            }
            Self::Show { grant } => ui.show(&client.grant(grant).await?)?,
            Self::Rm { grant, care } => {
                let preview = client.preview_delete_grant(grant).await?.grant;
                let deed =
                    format!("take {} {} from {}", preview.role, place(preview.scope.as_ref()), preview.principal);
                if care.dry_run {
                    ui.note(&format!("would {deed}"));
                    ui.show(&preview)?;
                    return Ok(exit_codes::OK);
                }
                care.confirm(&deed, "")?;
                ui.show(&client.delete_grant(grant).await?.grant)?;
            }
        }
        Ok(exit_codes::OK)
    }
}

impl Show for Grant {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("grant", self.id.to_string()),
            ("principal", self.principal.to_string()),
            ("role", self.role.to_string()),
            ("scope", place(self.scope.as_ref())),
            ("created", format!("{} by {}", show_time(self.created_at), self.created_by)),
        ]
    }
}

impl Row for Grant {
    const COLUMNS: &'static [&'static str] = &["id", "principal", "role", "scope", "created"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.principal.to_string(),
            self.role.to_string(),
            place(self.scope.as_ref()),
            show_time(self.created_at),
        ]
    }
}
