//! `legation token revoke-all`: the end of all tokens of a scope, or of those created before a time.

use clap::Args;
use legation_api::revoke::{RevokeMany, RevokedMany, RevokedOne};
use legation_model::{Millis, Scope, Text};

use crate::{
    Context, Failure,
    ask::Care,
    exit_codes,
    ui::{self, Format, Ui},
    values::time,
};

/// Which tokens to revoke.
#[derive(Debug, Args)]
pub struct RevokeAll {
    /// The scope: its tokens and those of the scopes below
    #[arg(value_name = "SCOPE")]
    scope: Scope,
    /// Only those created before this time: RFC 3339
    #[arg(long, value_parser = time, value_name = "TIME")]
    created_before: Option<Millis>,
    /// Why, for the receipts and the audit records
    #[arg(long, default_value = "")]
    reason: Text,
    /// Whether to ask.
    #[command(flatten)]
    care: Care,
}

impl RevokeAll {
    /// Does it.
    ///
    /// # Errors
    /// Nobody agreed, or as the Manager refuses. Tokens that could not be revoked are named, and the command fails.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let request = RevokeMany { scope: self.scope, created_before: self.created_before, reason: self.reason };
        let preview = client.preview_revoke_many(&request).await?;
        let cut: u32 = preview.tokens.iter().map(|one| one.connected).sum();
        let count = format!("{}{} tokens", if preview.more { "more than " } else { "" }, preview.tokens.len());
        let deed = format!("revoke {count} of {} and below", request.scope);
        let consequence = format!("it cuts off {cut} connected delegates");
        if self.care.dry_run {
            ui.note(&format!("would {deed}: {consequence}"));
            show(ui, &preview)?;
            return Ok(exit_codes::OK);
        }
        if !self.care.yes && ui.for_people() {
            ui.note_lines(&table(&preview));
        }
        self.care.confirm(&deed, &consequence)?;
        let mut done = RevokedMany { tokens: Vec::new(), more: true };
        while done.more {
            let spinner = ui.spinner(&format!("{} tokens revoked", done.tokens.len()));
            let part = client.revoke_many(&request).await;
            spinner.finish_and_clear();
            let part = part?;
            // Those that failed come again and again; whoever asked decides whether to go on.
            done.more = part.more && part.tokens.iter().all(|one| one.problem.is_none());
            done.tokens.extend(part.tokens);
        }
        show(ui, &done)?;
        let failed = done.tokens.iter().filter(|one| one.problem.is_some()).count();
        if failed > 0 {
            let what = format!("{failed} of {} tokens could not be revoked", done.tokens.len());
            return Err(Failure::new(exit_codes::UNAVAILABLE, what, "repeat the command until none is left"));
        }
        Ok(exit_codes::OK)
    }
}

fn show(ui: &Ui, many: &RevokedMany) -> Result<(), Failure> {
    match ui.format {
        Format::Table => ui::print(&table(many)),
        Format::Name => {
            let ids: Vec<String> = many.tokens.iter().map(|one| one.token.to_string()).collect();
            ui::print(&ids.join("\n"))
        }
        format => ui::print(&ui::data(format, many)?),
    }
}

fn table(many: &RevokedMany) -> String {
    let row = |one: &RevokedOne| {
        let receipt = one.receipt.map(|receipt| receipt.to_string()).unwrap_or_default();
        let problem = one.problem.as_ref().map(|problem| problem.detail.clone()).unwrap_or_default();
        let (token, scope, connected) = (one.token.to_string(), one.scope.to_string(), one.connected.to_string());
        vec![token, one.name.to_string(), scope, connected, receipt, problem]
    };
    ui::table(&["token", "name", "scope", "delegates", "receipt", "problem"], many.tokens.iter().map(row))
}
