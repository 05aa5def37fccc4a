//! `legation delegate`.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use legation_api::{
    client::Client,
    delegates::{AllowDelegate, CloneAccount, CloneSide, Delegate, DelegatesQuery, StopDelegate, StoppedDelegate},
};
use legation_model::{Name, Scope, Text, delegate::DelegateStatus, ids::DelegateId, token::Enrolment};

use crate::{
    Context, Failure,
    args::{InScope, Paging, default_scope},
    ask::Care,
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
        /// Only those of this status
        #[arg(long, value_parser = status())]
        status: Option<DelegateStatus>,
        /// Only those that are connected now
        #[arg(long)]
        connected: bool,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a delegate
    Show {
        /// Which delegate.
        #[command(flatten)]
        which: Which,
    },
    /// Let a delegate join that waits for approval (see `ls --status pending`)
    Approve(Allow),
    /// Refuse a delegate that waits for approval
    Refuse(Stop),
    /// Stop a delegate: its key is refused from now on, and what it runs is lost
    Stop(Stop),
    /// Let a delegate in again that was stopped or quarantined
    Allow(Allow),
}

/// Names a delegate.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Id, or name in the scope
    delegate: String,
    /// Where to look up the name.
    #[command(flatten)]
    scope: InScope,
}

/// Whom to stop, and why.
#[derive(Debug, Args)]
pub struct Stop {
    /// Which delegate.
    #[command(flatten)]
    which: Which,
    /// Why; the delegate is told
    #[arg(long, default_value = "")]
    reason: Text,
    /// Whether to ask.
    #[command(flatten)]
    care: Care,
}

/// Whom to allow, and why.
#[derive(Debug, Args)]
pub struct Allow {
    /// Which delegate.
    #[command(flatten)]
    which: Which,
    /// Why, for the audit record
    #[arg(long, default_value = "")]
    reason: Text,
    /// Only show it
    #[arg(long)]
    dry_run: bool,
}

fn status() -> impl TypedValueParser<Value = DelegateStatus> {
    PossibleValuesParser::new(DelegateStatus::ALL.map(DelegateStatus::as_str))
        .try_map(|word| word.parse::<DelegateStatus>())
}

impl Delegates {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, token, name, status, connected, paging } => {
                let token = match token {
                    Some(token) => {
                        Some(tokens::find(client, &token, &scope.clone().unwrap_or_else(default_scope)).await?.id)
                    }
                    None => None,
                };
                let page = async |limit, cursor| {
                    let (scope, name) = (scope.clone(), name.clone());
                    client.delegates(&DelegatesQuery { scope, token, name, status, connected, limit, cursor }).await
                };
                ui.list(&paging.collect(page).await?)?;
                ui.next(&["legation task run -- uname -a".to_owned()]);
            }
            Self::Show { which } => {
                // By its id once more: a list leaves out what is known of a clone.
                let delegate = client.delegate(which.find(client).await?.id).await?;
                ui.show(&delegate)?;
                ui.next(&after_show(&delegate));
            }
            Self::Approve(allow) => return allow.run(context, Some(DelegateStatus::Pending)).await,
            Self::Allow(allow) => return allow.run(context, None).await,
            Self::Refuse(stop) => return stop.run(context, Some(DelegateStatus::Pending)).await,
            Self::Stop(stop) => return stop.run(context, None).await,
        }
        Ok(exit_codes::OK)
    }
}

impl Which {
    async fn find(&self, client: &Client) -> Result<Delegate, Failure> {
        find(client, &self.delegate, &self.scope.scope).await
    }
}

impl Stop {
    /// Stops it; only one of this status, if any is named.
    async fn run(self, context: &Context, only: Option<DelegateStatus>) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let preview = client.preview_stop_delegate(self.which.find(client).await?.id).await?;
        let delegate = &preview.delegate;
        require(delegate, only, "stop")?;
        let deed =
            format!("{} delegate {} ({})", if only.is_some() { "refuse" } else { "stop" }, delegate.name, delegate.id);
        if self.care.dry_run {
            ui.note(&format!("would {deed}: {} running tasks would be lost", preview.attempts_lost));
            ui.note(&come_back(&preview));
            ui.show(delegate)?;
            return Ok(exit_codes::OK);
        }
        self.care.confirm(&deed, &format!("{} running tasks are lost", preview.attempts_lost))?;
        let stopped = client.stop_delegate(delegate.id, &StopDelegate { reason: self.reason }).await?;
        ui.show(&stopped.delegate)?;
        ui.note(&come_back(&stopped));
        ui.next(&[format!("legation delegate allow {}", stopped.delegate.id)]);
        Ok(exit_codes::OK)
    }
}

impl Allow {
    /// Allows it; only one of this status, if any is named.
    async fn run(self, context: &Context, only: Option<DelegateStatus>) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let delegate = self.which.find(client).await?;
        require(&delegate, only, "allow")?;
        if self.dry_run {
            ui.note(&format!("would allow delegate {} ({}), which is {}", delegate.name, delegate.id, delegate.status));
            ui.show(&client.preview_allow_delegate(delegate.id).await?)?;
            return Ok(exit_codes::OK);
        }
        ui.show(&client.allow_delegate(delegate.id, &AllowDelegate { reason: self.reason }).await?)?;
        Ok(exit_codes::OK)
    }
}

/// Whoever approves or refuses means one that waits.
fn require(delegate: &Delegate, only: Option<DelegateStatus>, instead: &str) -> Result<(), Failure> {
    match only {
        Some(status) if delegate.status != status => {
            let what = format!("the delegate {} is {} and does not wait for approval", delegate.name, delegate.status);
            Err(Failure::new(exit_codes::REFUSED, what, format!("use `legation delegate {instead} {}`", delegate.id)))
        }
        _ => Ok(()),
    }
}

/// Whether a stopped delegate can come back by itself.
fn come_back(stopped: &StoppedDelegate) -> String {
    let token = stopped.delegate.token;
    match (stopped.token_accepted, stopped.enrolment) {
        (false, _) => "its token is not accepted either, so it cannot join again with a new key".to_owned(),
        (true, Enrolment::Open) => format!(
            "enrolment of its token is open: with an empty state directory it can join again under a new key; `legation \
             token revoke {token}` ends that"
        ),
        (true, Enrolment::Approval) => "under a new key it has to be approved first".to_owned(),
        (true, Enrolment::Closed) => "its token takes no new keys".to_owned(),
    }
}

fn after_show(delegate: &Delegate) -> Vec<String> {
    let id = delegate.id;
    match delegate.status {
        DelegateStatus::Pending => {
            vec![format!("legation delegate approve {id}"), format!("legation delegate refuse {id}")]
        }
        DelegateStatus::Stopped | DelegateStatus::Quarantined => vec![format!("legation delegate allow {id}")],
        DelegateStatus::Allowed => vec![format!("legation task run --on {} -- uname -a", delegate.name)],
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
            ("since", standing(self)),
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
        .into_iter()
        // Most have the status that they came with.
        .filter(|(label, value)| *label != "since" || !value.is_empty())
        .chain(self.clone.iter().flat_map(clone_fields))
        .collect()
    }
}

fn standing(delegate: &Delegate) -> String {
    let Some(at) = delegate.status_at else { return String::new() };
    let why = delegate.status_reason.as_deref().filter(|why| !why.is_empty()).map(|why| format!(": {why}"));
    format!("{} by {}{}", show_time(at), delegate.status_by.as_deref().unwrap_or_default(), why.unwrap_or_default())
}

fn clone_fields(clone: &CloneAccount) -> Vec<(&'static str, String)> {
    let side = |side: &CloneSide| {
        let (seen, tags) = (show_time(side.seen_at), ui::joined(&side.tags));
        format!(
            "{} on {} from {}, version {}, tags {tags}, last heard {seen}",
            side.name, side.host, side.address, side.version
        )
    };
    vec![
        ("two processes", clone.what.clone()),
        ("the newer", side(&clone.counted)),
        ("the older", side(&clone.returned)),
        ("they differ in", clone.differs.join(", ")),
        ("what to do", clone.advice.clone()),
    ]
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
