//! `legation api-key`: ls, create, show, revoke.

use clap::{Args, Subcommand};
use legation_api::api_keys::{ApiKey, ApiKeysQuery, CreateApiKey, IssuedApiKey};
use legation_model::{Millis, Name, Scope, api_key::ApiKey as KeyValue, ids::ApiKeyId};

use crate::{
    Context, Failure,
    args::Paging,
    ask::Care,
    exit_codes, principals,
    ui::{self, Format, Row, Show, Ui},
    values::{show_time, show_when, time},
};

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// List API keys; never their values
    Ls {
        /// Only those whose owners belong to this scope or below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// Only those of this user or service account (id or name)
        #[arg(long)]
        owner: Option<String>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Make an API key and print its value, once
    Create(Create),
    /// Show an API key; never its value
    Show {
        /// Id
        key: ApiKeyId,
    },
    /// Revoke an API key; what is done through it ends at once
    Revoke {
        /// Id, or the whole value of a key that was found somewhere: its secret part is not sent
        key: String,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
}

/// What a new key is like.
#[derive(Debug, Args)]
pub struct Create {
    /// Whose: id or name of a user or service account
    owner: String,
    /// Name
    name: Name,
    /// Narrows what its owner may do to this scope and below
    #[arg(long)]
    scope: Option<Scope>,
    /// From when on it is refused: RFC 3339, or 30d from now
    #[arg(long, value_parser = time, value_name = "TIME")]
    expires: Option<Millis>,
    /// Makes a repetition of this command harmless: the same key creates once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl ApiKeys {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, owner, paging } => {
                let owner = match owner {
                    Some(text) => Some(principals::find(client, None, &text).await?.id),
                    None => None,
                };
                let page = async |limit, cursor| {
                    client.api_keys(&ApiKeysQuery { scope: scope.clone(), owner, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
            }
            Self::Create(create) => {
                let owner = principals::find(client, None, &create.owner).await?.id;
                let client = context.idempotent(create.idempotency_key.as_deref());
                let Create { name, scope, expires, .. } = create;
                let request = CreateApiKey { owner, name, scope, expires_at: expires };
                show_issued(ui, &client.create_api_key(&request).await?)?;
            }
            Self::Show { key } => ui.show(&client.api_key(key).await?)?,
            Self::Revoke { key, care } => {
                let preview = client.preview_revoke_api_key(id(&key)?).await?.key;
                let deed = format!("revoke API key {} ({}) of {}", preview.name, preview.id, preview.owner);
                if care.dry_run {
                    ui.note(&format!("would {deed}"));
                    ui.show(&preview)?;
                    return Ok(exit_codes::OK);
                }
                care.confirm(&deed, "")?;
                ui.show(&client.revoke_api_key(preview.id).await?.key)?;
            }
        }
        Ok(exit_codes::OK)
    }
}

fn id(text: &str) -> Result<ApiKeyId, Failure> {
    text.parse::<KeyValue>().map(|value| value.id).or_else(|_| text.parse()).map_err(|_| {
        Failure::usage("this is neither the id of an API key (key_…) nor a key (lak_…)", "see `legation api-key ls`")
    })
}

/// The value goes to standard output alone, so that `$(…)` and `>` catch it and nothing else.
fn show_issued(ui: &Ui, issued: &IssuedApiKey) -> Result<(), Failure> {
    let key = &issued.key;
    match (&issued.value, ui.format) {
        (_, Format::Json | Format::Yaml) => ui::print(&ui::data(ui.format, issued)?)?,
        (Some(value), _) => ui::print(&ui::clean(value.expose()))?,
        (None, _) => ui.show(key)?,
    }
    if issued.value.is_some() {
        ui.note(&format!(
            "API key {} ({}) of {}: this is its value, shown only this once",
            key.name, key.id, key.owner
        ));
        ui.next(&[
            "keep the value in a file that only its reader can open: legation --api-key-file FILE whoami".to_owned(),
            format!("legation api-key revoke {}", key.id),
        ]);
    } else {
        ui.note("its value was shown before and is not shown again");
    }
    Ok(())
}

impl Show for ApiKey {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("key", self.id.to_string()),
            ("name", self.name.to_string()),
            ("owner", self.owner.to_string()),
            ("narrowed to", self.scope.as_ref().map(Scope::to_string).unwrap_or_default()),
            ("created", format!("{} by {}", show_time(self.created_at), self.created_by)),
            ("expires", show_when(self.expires_at)),
            ("last used", show_when(self.last_used_at)),
        ]
    }
}

impl Row for ApiKey {
    const COLUMNS: &'static [&'static str] = &["id", "name", "owner", "narrowed to", "expires", "last used"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.to_string(),
            self.owner.to_string(),
            self.scope.as_ref().map(Scope::to_string).unwrap_or_default(),
            show_when(self.expires_at),
            show_when(self.last_used_at),
        ]
    }
}
