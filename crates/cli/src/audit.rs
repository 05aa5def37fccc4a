//! `legation audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use legation_api::{
    audit::{AuditQuery, AuditRecord, Fields},
    audit_verify::Anchor,
    client::TailItem,
};
use legation_model::{Millis, Scope, audit::Outcome};

use crate::{
    Context, Failure,
    args::Paging,
    audit_file::{self, Verify},
    exit_codes,
    ui::{self, Format, Row, Show, Ui, clean},
    values::{show_time, time_past},
};

/// What to do with the audit chain.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List records, newest first
    Ls {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a record: who, from where, and the changed fields before and after
    Show {
        /// Number
        number: u64,
    },
    /// Print records as they are written, until Ctrl-C
    Tail {
        /// Begin behind this number instead of with what is new
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
    },
    /// Write the whole chain with its signed checkpoints, one JSON object a line
    Export {
        /// File to write (0600); standard output without it
        file: Option<PathBuf>,
        /// Only what comes behind this number and its checkpoint
        #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "resume")]
        after: u64,
        /// Continue the export that is in the file
        #[arg(long, requires = "file")]
        resume: bool,
    },
    /// Check an export without the Manager: nothing altered, removed, inserted, reordered or cut off
    Verify(Verify),
}

/// Which records.
#[derive(Debug, Args)]
pub struct Which {
    /// Only those of this scope and below
    #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
    scope: Option<Scope>,
    /// Only what this one did: name or id
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, such as token.revoke, or all of a noun, such as token
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this object, by its id
    #[arg(long)]
    object: Option<String>,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    /// Only from this time on: 2030-01-31T12:00:00Z, or 7d for the last seven days
    #[arg(long, value_name = "TIME", value_parser = time_past)]
    from: Option<Millis>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = time_past)]
    until: Option<Millis>,
}

impl Which {
    fn query(&self, limit: Option<u32>, cursor: Option<String>) -> AuditQuery {
        AuditQuery {
            scope: self.scope.clone(),
            actor: self.actor.clone(),
            action: self.action.clone(),
            object: self.object.clone(),
            outcome: self.refused.then_some(Outcome::Refused),
            from_at: self.from,
            until_at: self.until,
            limit,
            cursor,
        }
    }
}

impl Audit {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { which, paging } => {
                let page = async |limit, cursor| client.audit(&which.query(limit, cursor)).await;
                ui.list(&paging.collect(page).await?)?;
                ui.next(&["legation audit show NUMBER".to_owned()]);
            }
            Self::Show { number } => ui.show(&client.audit_record(number).await?)?,
            Self::Tail { after } => tail(context, after).await?,
            Self::Export { file, after, resume } => audit_file::export(context, file, after, resume).await?,
            Self::Verify(verify) => return verify.run(ui),
        }
        Ok(exit_codes::OK)
    }
}

async fn tail(context: &Context, after: Option<u64>) -> Result<(), Failure> {
    let mut tail = context.client.tail_audit(after);
    loop {
        let item = tokio::select! {
            item = tail.next() => item?,
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        };
        match item {
            TailItem::Record(record) => ui::print(&one_line(&context.ui, &record)?)?,
            TailItem::Behind(behind) => {
                context.ui.note(&format!("{} records behind; they follow", behind.records));
            }
        }
    }
}

/// A record on one line, also as JSON, so that a program can read them as they come.
fn one_line(ui: &Ui, record: &AuditRecord) -> Result<String, Failure> {
    match ui.format {
        Format::Table => Ok(clean(&record.row().join("  "))),
        Format::Json => ui::json_line(record),
        format => ui::show(format, record),
    }
}

/// A place in the chain, as options and answers spell it.
pub fn spell(anchor: &Anchor) -> String {
    format!("{}:{}", anchor.number, anchor.hash)
}

fn changed(fields: Option<&Fields>) -> String {
    let one = |(name, value): (&String, &serde_json::Value)| format!("{name}={value}");
    fields.map(|fields| fields.iter().map(one).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

impl Show for AuditRecord {
    fn name(&self) -> String {
        self.number.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("number", self.number.to_string()),
            ("at", show_time(self.at)),
            ("actor", self.actor.clone()),
            ("address", self.address.clone().unwrap_or_default()),
            ("action", self.action.clone()),
            ("object", self.object.clone()),
            ("scope", self.scope.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("outcome", self.outcome.to_string()),
            ("before", changed(self.before.as_ref())),
            ("after", changed(self.after.as_ref())),
            ("detail", self.detail.clone()),
            ("request", self.request.clone().unwrap_or_default()),
            ("hash", self.hash.clone()),
        ]
    }
}

impl Row for AuditRecord {
    const COLUMNS: &'static [&'static str] =
        &["number", "at", "actor", "address", "action", "object", "scope", "outcome", "detail"];

    fn row(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            show_time(self.at),
            self.actor.clone(),
            self.address.clone().unwrap_or_default(),
            self.action.clone(),
            self.object.clone(),
            self.scope.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.outcome.to_string(),
            self.detail.clone(),
        ]
    }
}
