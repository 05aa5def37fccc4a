//! `legation user` and `legation service-account`: ls, create, show, disable, enable, rm.

use clap::{Args, Subcommand};
use legation_api::{
    Code,
    client::Client,
    principals::{ChangedPrincipal, CreatePrincipal, Principal, PrincipalsQuery},
};
use legation_model::{Name, Scope, Text, access::PrincipalKind, ids::PrincipalId};

use crate::{
    Context, Failure,
    args::Paging,
    ask::Care,
    exit_codes, passwords,
    ui::{Row, Show},
    values::{show_time, show_when},
};

/// What to do with users, or with service accounts.
#[derive(Debug, Subcommand)]
pub enum Principals {
    /// List them
    Ls {
        /// Only those that belong to this scope and below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// Only those of this name
        #[arg(long)]
        name: Option<Name>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Create one, which can do nothing until it has a grant
    Create(Create),
    /// Show one
    Show {
        /// Id or name
        principal: String,
    },
    /// End all that it can do, at once, until it is enabled
    Disable(Change),
    /// Let it do again what its grants say
    Enable(Change),
    /// Delete it with its grants and API keys; what it made, such as tokens, stays
    Rm(Change),
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// What is done with service accounts too.
    #[command(flatten)]
    Principal(Principals),
    /// Set a password, with which the user can log in; ends the user's console sessions
    Password(passwords::Set),
}

impl Users {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Principal(command) => command.run(context, PrincipalKind::User).await,
            Self::Password(set) => set.run(context).await,
        }
    }
}

/// What a new one is like.
#[derive(Debug, Args)]
pub struct Create {
    /// Name: unique among users; among service accounts unique in its scope
    name: Name,
    /// Where it belongs, and by whom it can be managed [default: the whole tree]
    #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
    scope: Option<Scope>,
    /// What it is for
    #[arg(long, default_value = "")]
    description: Text,
    /// Makes a repetition of this command harmless: the same key creates once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Which one to change, and whether to ask.
#[derive(Debug, Args)]
pub struct Change {
    /// Id or name
    principal: String,
    /// Whether to ask.
    #[command(flatten)]
    care: Care,
}

/// What becomes of one.
#[derive(Clone, Copy)]
enum Deed {
    Disable,
    Enable,
    Delete,
}

impl Principals {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context, kind: PrincipalKind) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, name, paging } => {
                let page = async |limit, cursor| {
                    let (scope, name) = (scope.clone(), name.clone());
                    client.principals(&PrincipalsQuery { scope, kind: Some(kind), name, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
                Ok(exit_codes::OK)
            }
            Self::Create(create) => create.run(context, kind).await,
            Self::Show { principal } => {
                let principal = find(client, Some(kind), &principal).await?;
                ui.show(&principal)?;
                ui.next(&[
                    format!("legation grant ls --principal {}", principal.id),
                    format!("legation api-key ls --owner {}", principal.id),
                ]);
                Ok(exit_codes::OK)
            }
            Self::Disable(change) => change.run(context, kind, Deed::Disable).await,
            Self::Enable(change) => change.run(context, kind, Deed::Enable).await,
            Self::Rm(change) => change.run(context, kind, Deed::Delete).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context, kind: PrincipalKind) -> Result<u8, Failure> {
        let client = context.idempotent(self.idempotency_key.as_deref());
        let (scope, name, description) = (self.scope, self.name, self.description);
        let principal = client.create_principal(&CreatePrincipal { kind, scope, name, description }).await?;
        context.ui.show(&principal)?;
        let place = principal.scope.as_ref().map_or("--everywhere".to_owned(), |scope| format!("--scope {scope}"));
        context.ui.next(&[
            format!("legation grant create {} operator {place}", principal.id),
            match kind {
                PrincipalKind::User => format!("legation user password {}", principal.id),
                PrincipalKind::ServiceAccount => format!("legation api-key create {} NAME", principal.id),
            },
        ]);
        Ok(exit_codes::OK)
    }
}

impl Change {
    async fn run(self, context: &Context, kind: PrincipalKind, deed: Deed) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let id = find(client, Some(kind), &self.principal).await?.id;
        let preview = match deed {
            Deed::Disable => client.preview_disable(id).await?,
            Deed::Enable => client.preview_enable(id).await?,
            Deed::Delete => client.preview_delete_principal(id).await?,
        };
        let (words, consequence) = (deed.words(&preview.principal), consequence(&preview));
        if self.care.dry_run {
            ui.note(&format!("would {words}: {consequence}"));
            ui.show(&preview.principal)?;
            return Ok(exit_codes::OK);
        }
        self.care.confirm(&words, &consequence)?;
        let changed = match deed {
            Deed::Disable => client.disable_principal(id).await?,
            Deed::Enable => client.enable_principal(id).await?,
            Deed::Delete => client.delete_principal(id).await?,
        };
        ui.show(&changed.principal)?;
        Ok(exit_codes::OK)
    }
}

impl Deed {
    fn words(self, principal: &Principal) -> String {
        let verb = match self {
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Delete => "delete",
        };
        format!("{verb} {} ({})", called(principal), principal.id)
    }
}

fn consequence(preview: &ChangedPrincipal) -> String {
    let (grants, api_keys, sessions) = (preview.grants.len(), preview.api_keys, preview.sessions);
    format!("it has {grants} grants, {api_keys} API keys and {sessions} console sessions")
}

fn called(principal: &Principal) -> String {
    match (principal.kind, &principal.scope) {
        (PrincipalKind::User, _) => format!("user {}", principal.name),
        (PrincipalKind::ServiceAccount, None) => format!("service account {}", principal.name),
        (PrincipalKind::ServiceAccount, Some(scope)) => format!("service account {} in {scope}", principal.name),
    }
}

/// The user or service account of that id, or the only one of that name.
///
/// # Errors
/// There is none, there are several, or as the Manager refuses.
pub async fn find(client: &Client, kind: Option<PrincipalKind>, text: &str) -> Result<Principal, Failure> {
    let wanted = |found: &Principal| kind.is_none_or(|kind| found.kind == kind);
    if let Ok(id) = text.parse::<PrincipalId>() {
        match client.principal(id).await {
            Ok(found) if wanted(&found) => return Ok(found),
            Ok(found) => return Err(another_kind(&found)),
            Err(error) if error.code() == Some(Code::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let name: Name = text.parse().map_err(|error| {
        Failure::usage(
            format!("this is no id or name of a user or service account: {error}"),
            "see `legation user ls` and `legation service-account ls`",
        )
    })?;
    let query = PrincipalsQuery { kind, name: Some(name.clone()), ..PrincipalsQuery::default() };
    let mut found = client.principals(&query).await?.items;
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(last), false) => Err(several(&name, found.iter().chain([&last]))),
        (None, _) => Err(Failure::new(
            exit_codes::NOT_FOUND,
            format!("there is nobody called {name}, or this API key may not see them"),
            "see `legation user ls` and `legation service-account ls`",
        )),
    }
}

fn another_kind(found: &Principal) -> Failure {
    let noun = match found.kind {
        PrincipalKind::User => "user",
        PrincipalKind::ServiceAccount => "service-account",
    };
    Failure::usage(format!("{} is a {}", found.id, called(found)), format!("use `legation {noun}` for it"))
}

/// A name says whom only where it is one: what is given or taken away must not reach somebody else.
fn several<'a>(name: &Name, found: impl Iterator<Item = &'a Principal>) -> Failure {
    let all: Vec<String> = found.map(|found| format!("{} ({})", found.id, called(found))).collect();
    Failure::usage(format!("{} are called {name}: {}", all.len(), all.join(", ")), "name one of them by its id")
}

/// A place as people read it.
pub fn place(scope: Option<&Scope>) -> String {
    scope.map_or_else(|| "everywhere".to_owned(), Scope::to_string)
}

impl Show for Principal {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("principal", self.id.to_string()),
            ("kind", self.kind.to_string()),
            ("name", self.name.to_string()),
            ("scope", self.scope.as_ref().map(Scope::to_string).unwrap_or_default()),
            ("description", self.description.to_string()),
            ("disabled", show_when(self.disabled_at)),
            ("created", format!("{} by {}", show_time(self.created_at), self.created_by)),
        ]
    }
}

impl Row for Principal {
    const COLUMNS: &'static [&'static str] = &["id", "name", "scope", "disabled", "created", "description"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.to_string(),
            self.scope.as_ref().map(Scope::to_string).unwrap_or_default(),
            show_when(self.disabled_at),
            show_time(self.created_at),
            self.description.to_string(),
        ]
    }
}
