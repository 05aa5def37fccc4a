//! `legation token`: create, issue, ls, rm. The other commands have files of their own.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ipnet::IpNet;
use legation_api::{
    Code,
    client::Client,
    handover::Handover,
    tokens::{CreateToken, IssueToken, IssuedToken, Token, TokensQuery},
    wraps::Wrap,
};
use legation_model::{
    Millis, Name, Scope, Text,
    ids::TokenId,
    name::NamePattern,
    token::{Enrolment, Token as TokenValue, TokenStatus},
};

use crate::{
    Context, Failure,
    args::{InScope, Paging},
    ask::Care,
    exit_codes,
    handover::{self, Paste},
    reveal::Reveal,
    revoke::Revoke,
    revoke_many::RevokeAll,
    token_edit::Edit,
    token_uses,
    ui::{self, Format, Row, Show, Ui},
    values::{length, show_time, show_when, time, time_past},
    wraps::{self, Unwrap},
};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Create a token and print its value, once
    Create(Create),
    /// Issue a token that has no value yet, and print it, once
    Issue {
        /// Which token.
        #[command(flatten)]
        token: Which,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        /// How its value is handed over.
        #[command(flatten)]
        handing: Handing,
    },
    /// Print the value of a token again, where its account keeps it; who asks and why is recorded first
    Reveal(Reveal),
    /// Open a one-time code and print the value behind it, once; needs the Manager's address and no API key
    Unwrap(Unwrap),
    /// List tokens; never their values
    Ls {
        /// Only those of this scope and below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// Only those of this name
        #[arg(long)]
        name: Option<Name>,
        /// Also those that are revoked
        #[arg(long, short)]
        all: bool,
        /// Only those of this status; deleted ones are listed by it alone
        #[arg(long, value_parser = status(), value_name = "STATUS")]
        status: Option<TokenStatus>,
        /// Only those that expire within this time, such as 7d
        #[arg(long, value_parser = length, value_name = "DURATION")]
        expiring_within: Option<Millis>,
        /// Only those that nobody used since: RFC 3339, or 30d for thirty days ago; created later ones are left out
        #[arg(long, value_parser = time_past, value_name = "TIME")]
        unused_since: Option<Millis>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a token, who holds it and who held it before; never its value
    Show {
        /// Which token.
        #[command(flatten)]
        token: Which,
    },
    /// List who used a token, when, and from where; newest first
    Uses {
        /// Which token.
        #[command(flatten)]
        token: Which,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Change a token's name, description or limits; delegates that a limit now excludes are disconnected
    Edit(Box<Edit>),
    /// Revoke a token: cut off and stop every delegate that uses it, at once, after draining, or at a time
    Revoke(Revoke),
    /// Revoke all tokens of a scope, or those created before a time
    RevokeAll(RevokeAll),
    /// Delete a revoked token; its name is free again
    Rm {
        /// Which token.
        #[command(flatten)]
        token: Which,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
}

/// Names a token.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Id, or name in the scope
    #[arg(value_name = "TOKEN")]
    pub token: String,
    /// Where to look up the name.
    #[command(flatten)]
    pub scope: InScope,
}

impl Which {
    /// Looks it up.
    ///
    /// # Errors
    /// There is none, or as the Manager refuses.
    pub async fn find(&self, client: &Client) -> Result<Token, Failure> {
        find(client, &self.token, &self.scope.scope).await
    }
}

/// How a value gets from here to where it is needed.
#[derive(Debug, Args)]
pub struct Handing {
    /// Print a one-time code in the place of the value, which opens once and for so long: 10m
    #[arg(long, value_parser = length, value_name = "DURATION")]
    wrap: Option<Millis>,
    /// What to paste then.
    #[command(flatten)]
    paste: Paste,
}

/// What a new token is like.
#[derive(Debug, Args)]
pub struct Create {
    /// Name, unique in its scope
    name: Name,
    /// Where it belongs.
    #[command(flatten)]
    scope: InScope,
    /// What it is for
    #[arg(long, default_value = "")]
    description: Text,
    /// When it is revoked by itself: RFC 3339, or 30d from now
    #[arg(long, value_parser = time, value_name = "TIME")]
    expires: Option<Millis>,
    /// How many delegates may use it at once
    #[arg(long, value_name = "N")]
    max_delegates: Option<u32>,
    /// From which network its delegates may connect; may be repeated
    #[arg(long = "allow-cidr", value_name = "CIDR")]
    allowed_cidrs: Vec<IpNet>,
    /// Which delegate names it admits (build-7, build-*); may be repeated
    #[arg(long = "allow-name", value_name = "NAME")]
    allowed_names: Vec<NamePattern>,
    /// Tag that it vouches for, for pinned: selectors; may be repeated
    #[arg(long = "pin-tag", value_name = "TAG")]
    pinned_tags: Vec<Name>,
    /// Whether a delegate that is not known yet may join: at once, when a person has approved it, or not at all
    #[arg(long, value_parser = enrolment(), default_value = "open", value_name = "KIND")]
    enrolment: Enrolment,
    /// Forget its delegates when their leases have ended
    #[arg(long)]
    ephemeral: bool,
    /// Make it bait: whoever proves it is written down in the audit record and gets nothing
    #[arg(long)]
    canary: bool,
    /// Do not make its value yet
    #[arg(long)]
    unissued: bool,
    /// How its value is handed over.
    #[command(flatten)]
    handing: Handing,
    /// Makes a repetition of this command harmless: the same key creates once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

fn status() -> impl TypedValueParser<Value = TokenStatus> {
    PossibleValuesParser::new(TokenStatus::ALL.map(TokenStatus::as_str)).try_map(|word| word.parse::<TokenStatus>())
}

/// Reads the word for it.
pub(crate) fn enrolment() -> impl TypedValueParser<Value = Enrolment> {
    PossibleValuesParser::new(Enrolment::ALL.map(Enrolment::as_str)).try_map(|word| word.parse::<Enrolment>())
}

impl Tokens {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Issue { token, dry_run, handing } => issue(context, &token, dry_run, &handing).await,
            Self::Reveal(reveal) => reveal.run(context).await,
            Self::Unwrap(unwrap) => unwrap.run(context).await,
            Self::Ls { scope, name, all, status, expiring_within, unused_since, paging } => {
                let (expiring_within_ms, include_revoked) = (expiring_within, all);
                let query = TokensQuery {
                    scope,
                    name,
                    include_revoked,
                    status,
                    expiring_within_ms,
                    unused_since,
                    ..TokensQuery::default()
                };
                let page = async |limit, cursor| client.tokens(&TokensQuery { limit, cursor, ..query.clone() }).await;
                ui.list(&paging.collect(page).await?)?;
                ui.next(&["legation token show TOKEN".to_owned(), "legation token create NAME".to_owned()]);
                Ok(exit_codes::OK)
            }
            Self::Show { token } => token_uses::show(context, &token).await,
            Self::Uses { token, paging } => token_uses::list(context, &token, paging).await,
            Self::Edit(edit) => edit.run(context).await,
            Self::Revoke(revoke) => revoke.run(context).await,
            Self::RevokeAll(all) => all.run(context).await,
            Self::Rm { token, care } => delete(context, &token, care).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.idempotent(self.idempotency_key.as_deref());
        let request = CreateToken {
            scope: self.scope.scope,
            name: self.name,
            description: self.description,
            issue: !self.unissued,
            expires_at: self.expires,
            max_delegates: self.max_delegates,
            allowed_cidrs: self.allowed_cidrs,
            allowed_names: self.allowed_names,
            pinned_tags: self.pinned_tags,
            enrolment: self.enrolment,
            ephemeral: self.ephemeral,
            canary: self.canary,
            wrap_ttl_ms: self.handing.wrap,
        };
        let issued = client.create_token(&request).await?;
        show_issued(&context.ui, client.url(), &issued, self.handing.paste)
    }
}

async fn issue(context: &Context, which: &Which, dry_run: bool, handing: &Handing) -> Result<u8, Failure> {
    let token = which.find(&context.client).await?;
    if dry_run {
        let preview = context.client.preview_issue(token.id).await?;
        context.ui.note(&format!("would make generation {} of token {}", preview.generation, preview.token.name));
        context.ui.show(&preview.token)?;
        return Ok(exit_codes::OK);
    }
    let issued = context.client.issue_token(token.id, &IssueToken { wrap_ttl_ms: handing.wrap }).await?;
    show_issued(&context.ui, context.client.url(), &issued, handing.paste)
}

/// The value, or its code, goes to standard output alone, so that `$(…)` and `>` catch it and nothing else.
fn show_issued(ui: &Ui, url: &str, issued: &IssuedToken, paste: Paste) -> Result<u8, Failure> {
    let token = &issued.token;
    let once = issued.value.as_ref().or(issued.wrapped.as_ref().map(|wrapped| &wrapped.code));
    match (once, ui.format) {
        (_, Format::Json | Format::Yaml) => ui::print(&ui::data(ui.format, issued)?)?,
        (Some(once), _) => ui::print(&ui::clean(once.expose()))?,
        (None, _) => ui.show(token)?,
    }
    let named = format!("token {} ({}) in {}", token.name, token.id, token.scope);
    if let Some(wrapped) = &issued.wrapped {
        ui.note(&format!("{named}: this is a one-time code for its value, shown only this once"));
        ui.note_lines(&wraps::to_open(url, wrapped));
    } else if issued.value.is_some() {
        ui.note(&format!("{named}: this is its value, shown only this once"));
    } else if token.status == TokenStatus::Unissued {
        ui.next(&[format!("legation token issue {}", token.id)]);
        return Ok(exit_codes::OK);
    } else {
        ui.note("its value was shown before and is not shown again");
        return Ok(exit_codes::OK);
    }
    let unwrap_at = issued.wrapped.is_some().then_some(url);
    paste.say(ui, issued.commands.as_ref(), &Handover { link: url, name: token.name.as_str(), unwrap_at });
    let [keep, start] = handover::start(url);
    let watch = [format!("legation delegate ls --token {}", token.id), format!("legation token revoke {}", token.id)];
    ui.next(&if issued.wrapped.is_some() { watch.to_vec() } else { [vec![keep, start], watch.to_vec()].concat() });
    Ok(exit_codes::OK)
}

async fn delete(context: &Context, which: &Which, care: Care) -> Result<u8, Failure> {
    let (client, ui) = (&context.client, &context.ui);
    let token = which.find(client).await?;
    let preview = client.preview_delete(token.id).await?;
    if care.dry_run {
        ui.note(&format!("would delete token {} ({})", token.name, token.id));
        ui.show(&preview.token)?;
        return Ok(exit_codes::OK);
    }
    care.confirm(&format!("delete token {} ({}) in {}", token.name, token.id, token.scope), "")?;
    let deleted = client.delete_token(token.id).await?;
    ui.show(&deleted.token)?;
    Ok(exit_codes::OK)
}

/// The token of that id, or of that name in the scope. A whole token value stands for its id, so that a leaked
/// one can be revoked by what was found; its secret part is not sent.
///
/// # Errors
/// There is none, or as the Manager refuses.
pub async fn find(client: &Client, text: &str, scope: &Scope) -> Result<Token, Failure> {
    let id = text.parse::<TokenValue>().map(|value| value.id).or_else(|_| text.parse::<TokenId>());
    if let Ok(id) = id {
        match client.token(id).await {
            Err(error) if error.code() == Some(Code::NotFound) && text.parse::<Name>().is_ok() => {}
            other => return Ok(other?),
        }
    }
    let name: Name = text.parse().map_err(|error| {
        Failure::usage(format!("this is no token's id or name: {error}"), "see `legation token ls`")
    })?;
    let query = TokensQuery {
        scope: Some(scope.clone()),
        name: Some(name.clone()),
        include_revoked: true,
        ..TokensQuery::default()
    };
    let found = client.tokens(&query).await?.items.into_iter().find(|token| token.scope == *scope);
    found.ok_or_else(|| {
        let what = format!("there is no token {name} in {scope}, or this API key may not see it");
        Failure::new(exit_codes::NOT_FOUND, what, "see `legation token ls --all`, or name its --scope")
    })
}

pub(crate) fn after_show(token: &Token) -> Vec<String> {
    match (token.status, token.receipt) {
        (TokenStatus::Unissued, _) => vec![format!("legation token issue {}", token.id)],
        (TokenStatus::Revoked, Some(receipt)) => {
            vec![format!("legation receipt show {receipt}"), format!("legation token rm {}", token.id)]
        }
        _ => vec![format!("legation delegate ls --token {}", token.id), format!("legation token revoke {}", token.id)],
    }
}

/// What became of its one-time code, in words.
fn wrap_state(wrap: &Wrap) -> String {
    let late = match wrap.refused {
        0 => String::new(),
        times => format!("; tried {times} times after that"),
    };
    match (wrap.opened_at, &wrap.opened_from, wrap.ended_at) {
        (Some(at), Some(from), _) => format!("opened {} from {from}{late}", show_time(at)),
        (_, _, Some(at)) => format!("erased {}, opened by nobody{late}", show_time(at)),
        _ => format!("waits until {}", show_time(wrap.expires_at)),
    }
}

impl Show for Token {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        vec![
            ("token", self.id.to_string()),
            ("name", self.name.to_string()),
            ("scope", self.scope.to_string()),
            ("status", self.status.to_string()),
            ("generation", self.generation.to_string()),
            ("description", self.description.to_string()),
            ("created", format!("{} by {}", show_time(self.created_at), self.created_by)),
            ("issued", show_when(self.issued_at)),
            ("last used", show_when(self.last_used_at)),
            ("times used", self.uses.to_string()),
            ("one-time code", self.wrap.as_ref().map(wrap_state).unwrap_or_default()),
            ("expires", show_when(self.expires_at)),
            ("max delegates", self.max_delegates.map(|max| max.to_string()).unwrap_or_default()),
            ("allowed cidrs", ui::joined(&self.allowed_cidrs)),
            ("allowed names", ui::joined(&self.allowed_names)),
            ("pinned tags", ui::joined(&self.pinned_tags)),
            ("enrolment", self.enrolment.to_string()),
            ("ephemeral", if self.ephemeral { "yes" } else { "no" }.to_owned()),
            ("canary", if self.canary { "yes" } else { "no" }.to_owned()),
            ("ends", show_when(self.revoke_at)),
            ("set by", text(&self.scheduled_by)),
            ("set because", text(&self.scheduled_reason)),
            ("revoked", show_when(self.revoked_at)),
            ("reason", text(&self.revoked_reason)),
            ("receipt", self.receipt.map(|receipt| receipt.to_string()).unwrap_or_default()),
        ]
    }
}

impl Row for Token {
    const COLUMNS: &'static [&'static str] = &["id", "name", "scope", "status", "expires", "last used"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.to_string(),
            self.scope.to_string(),
            self.status.to_string(),
            show_when(self.expires_at),
            show_when(self.last_used_at),
        ]
    }
}
