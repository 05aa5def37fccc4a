//! `legation scope`, and the same by the names of its levels: `account`, `organization` (`org`), `project`.

use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use legation_api::scopes::{CreateScope, Scope, ScopesQuery, UpdateScope};
use legation_model::{Millis, Scope as Place, Text, reveal::Reveal, scope::ScopeKind};

use crate::{
    Context, Failure,
    args::Paging,
    ask::Care,
    exit_codes,
    ui::{Row, Show},
    values::{length, show_length, show_time},
};

/// What to do with places of the scope tree.
#[derive(Debug, Subcommand)]
pub enum Scopes {
    /// List them, each followed by what is in it
    Ls {
        /// Only this one and everything below it
        #[arg(long, conflicts_with = "parent")]
        scope: Option<Place>,
        /// Only what is directly below this one
        #[arg(long)]
        parent: Option<Place>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Create one, with its unissued default token
    Create {
        /// account, account/organization or account/organization/project
        #[arg(value_name = "SCOPE")]
        place: Place,
        /// What it is for
        #[arg(long, default_value = "")]
        description: Text,
        /// Of an account: how long its delegates may act after the last answered heartbeat (15s to 24h)
        #[arg(long, value_parser = length)]
        lease: Option<Millis>,
        /// Makes a repetition of this command harmless: the same key creates once
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Show one
    Show {
        /// account, account/organization or account/organization/project
        #[arg(value_name = "SCOPE")]
        place: Place,
    },
    /// Change what is said of one
    Edit {
        /// account, account/organization or account/organization/project
        #[arg(value_name = "SCOPE")]
        place: Place,
        /// A new description; empty for none
        #[arg(long)]
        description: Option<Text>,
        /// Of an account: a new lease, granted from each delegate's next connection on
        #[arg(long, value_parser = length, conflicts_with = "default_lease")]
        lease: Option<Millis>,
        /// Of an account: the Manager's default lease again
        #[arg(long)]
        default_lease: bool,
        /// Of an account: whether to keep the values of tokens that are issued from now on, to be seen again; never erases
        /// those that are kept
        #[arg(long, value_parser = reveal(), value_name = "POLICY")]
        reveal: Option<Reveal>,
        /// Only if this is still its version [default: the present one]
        #[arg(long, value_name = "NUMBER")]
        version: Option<u64>,
        /// Whether to ask before kept values are erased.
        #[command(flatten)]
        care: Care,
    },
    /// Delete one in which nothing is; its name is never used again
    Rm {
        /// account, account/organization or account/organization/project
        #[arg(value_name = "SCOPE")]
        place: Place,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
}

impl Scopes {
    /// Does it, to places of this kind, or of any.
    ///
    /// # Errors
    /// A place of another kind, nobody agreed, or as the Manager refuses.
    pub async fn run(self, context: &Context, kind: Option<ScopeKind>) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, parent, paging } => {
                let page = async |limit, cursor| {
                    let (scope, parent) = (scope.clone(), parent.clone());
                    client.scopes(&ScopesQuery { scope, parent, kind, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
            }
            Self::Create { place, description, lease, idempotency_key } => {
                require(kind, &place)?;
                let request = CreateScope { scope: place, description, lease_ms: lease };
                let made = context.idempotent(idempotency_key.as_deref()).create_scope(&request).await?;
                ui.show(&made)?;
                ui.next(&[format!("legation token issue default_token --scope {}", made.scope)]);
            }
            Self::Show { place } => {
                require(kind, &place)?;
                ui.show(&client.scope(&place).await?)?;
                ui.next(&[format!("legation token ls --scope {place}"), format!("legation scope ls --scope {place}")]);
            }
            Self::Edit { place, description, lease, default_lease, reveal, version, care } => {
                require(kind, &place)?;
                let lease_ms = if default_lease { Some(None) } else { lease.map(Some) };
                let change = UpdateScope { description, lease_ms, reveal };
                edit(context, &place, &change, version, care).await?;
            }
            Self::Rm { place, care } => {
                require(kind, &place)?;
                delete(context, &place, care).await?;
            }
        }
        Ok(exit_codes::OK)
    }
}

fn reveal() -> impl TypedValueParser<Value = Reveal> {
    PossibleValuesParser::new(Reveal::ALL.map(Reveal::as_str)).try_map(|word| word.parse::<Reveal>())
}

/// Whoever types `project rm acme` does not mean the account.
fn require(kind: Option<ScopeKind>, place: &Place) -> Result<(), Failure> {
    let spelled = match kind {
        Some(kind) if kind != place.kind() => match kind {
            ScopeKind::Account => "account",
            ScopeKind::Organization => "account/organization",
            ScopeKind::Project => "account/organization/project",
        },
        _ => return Ok(()),
    };
    let what = format!("{place} is spelled like this kind of scope: {}", place.kind());
    Err(Failure::usage(what, format!("write {spelled}, or use `legation scope`")))
}

async fn edit(
    context: &Context,
    place: &Place,
    change: &UpdateScope,
    version: Option<u64>,
    care: Care,
) -> Result<(), Failure> {
    let (client, ui) = (&context.client, &context.ui);
    if change == &UpdateScope::default() {
        return Err(Failure::usage(
            "there is nothing to change",
            "add --description, --lease, --default-lease or --reveal",
        ));
    }
    let version = match version {
        Some(version) => version,
        None => client.scope(place).await?.version,
    };
    if care.dry_run {
        ui.note(&format!("would change {place} to this"));
        return ui.show(&client.preview_update_scope(place, version, change).await?);
    }
    if change.reveal == Some(Reveal::Never) {
        care.confirm(&format!("keep no values of tokens in {place}"), "those that are kept are erased")?;
    }
    ui.show(&client.update_scope(place, version, change).await?)
}

async fn delete(context: &Context, place: &Place, care: Care) -> Result<(), Failure> {
    let (client, ui) = (&context.client, &context.ui);
    let preview = client.preview_delete_scope(place).await?;
    if care.dry_run {
        ui.note(&format!("would delete {} {place}", preview.scope.kind));
        return ui.show(&preview.scope);
    }
    care.confirm(&format!("delete {} {place}", preview.scope.kind), "its name is never used again")?;
    ui.show(&client.delete_scope(place).await?.scope)
}

impl Show for Scope {
    fn name(&self) -> String {
        self.scope.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("scope", self.scope.to_string()),
            ("kind", self.kind.to_string()),
            ("description", self.description.to_string()),
        ];
        if self.kind == ScopeKind::Account {
            fields.push(("reveal", self.reveal.map(|reveal| reveal.to_string()).unwrap_or_default()));
            fields.push(("lease", self.lease_ms.map_or_else(|| "the Manager's default".to_owned(), show_length)));
        }
        fields.push(("version", self.version.to_string()));
        fields.push(("created", format!("{} by {}", show_time(self.created_at), self.created_by)));
        fields
    }
}

impl Row for Scope {
    const COLUMNS: &'static [&'static str] = &["scope", "kind", "lease", "created", "description"];

    fn row(&self) -> Vec<String> {
        let lease = self.lease_ms.map(show_length).unwrap_or_default();
        vec![
            self.scope.to_string(),
            self.kind.to_string(),
            lease,
            show_time(self.created_at),
            self.description.to_string(),
        ]
    }
}
