//! `legation token revoke`: the preview, the deed, the receipt, and the wait for the delegates' own word.

use std::time::Duration;

use clap::Args;
use legation_api::{
    client::Client,
    receipts::Receipt,
    revoke::{RevokeMode, RevokePreview, RevokePreviewLine, RevokeToken},
    tokens::Token,
};
use legation_model::{Millis, Text, token::TokenStatus};
use tokio::time::{Instant, sleep};

use crate::{
    Context, Failure,
    ask::Care,
    exit_codes, receipts,
    tokens::Which,
    ui::{self, Format, Ui},
    values::{length, show_length, show_time, time, wait},
};

/// How often the receipt is read again while delegates report.
const POLL: Duration = Duration::from_millis(150);

/// What to revoke, and how long to wait for the delegates' reports.
#[derive(Debug, Args)]
pub struct Revoke {
    /// Which token.
    #[command(flatten)]
    token: Which,
    /// Why, for the receipt and the audit record
    #[arg(long, default_value = "")]
    reason: Text,
    /// Let it drain for this long first: no new delegate and no new task, but what runs may finish
    #[arg(long, value_parser = length, value_name = "TIME", conflicts_with_all = ["at", "cancel"])]
    drain: Option<Millis>,
    /// Revoke it at this time: RFC 3339, or 30d from now
    #[arg(long, value_parser = time, value_name = "TIME", conflicts_with = "cancel")]
    at: Option<Millis>,
    /// Take back a revocation that was set with --at
    #[arg(long)]
    cancel: bool,
    /// How long to wait until every delegate has reported that it stopped
    #[arg(long, value_parser = wait, default_value = "5s", value_name = "TIME")]
    wait: Duration,
    /// Whether to ask.
    #[command(flatten)]
    care: Care,
}

impl Revoke {
    /// Does it.
    ///
    /// # Errors
    /// Nobody agreed, or as the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let token = self.token.find(client).await?;
        if self.cancel {
            return cancel(context, &token, self.care).await;
        }
        let request = self.request();
        let preview = client.preview_revoke(token.id).await?;
        if self.care.dry_run {
            ui.note(&format!("would {}: {}", deed(&preview, &request), consequence(&preview)));
            ui.note_lines(&beyond(&preview));
            show_preview(ui, &preview)?;
            return Ok(exit_codes::OK);
        }
        if !self.care.yes && ui.for_people() && !preview.delegates.is_empty() {
            ui.note_lines(&lines(&preview.delegates));
            ui.note_lines(&beyond(&preview));
        }
        self.care.confirm(&deed(&preview, &request), &consequence(&preview))?;
        if request.mode != RevokeMode::Kill {
            let token = client.schedule_revoke(token.id, &request).await?;
            ui.show(&token)?;
            ui.next(&after_schedule(&token));
            return Ok(exit_codes::OK);
        }
        let spinner = ui.spinner("cutting off every delegate of the token");
        let receipt = client.revoke_token(token.id, &request).await;
        spinner.finish_and_clear();
        let receipt = wait_for_reports(client, ui, receipt?, self.wait).await?;
        show_receipt(ui, &receipt)
    }

    fn request(&self) -> RevokeToken {
        let mode = match (self.drain, self.at) {
            (Some(_), _) => RevokeMode::Drain,
            (None, Some(_)) => RevokeMode::At,
            (None, None) => RevokeMode::Kill,
        };
        RevokeToken { reason: self.reason.clone(), mode, drain_ms: self.drain, at: self.at }
    }
}

async fn cancel(context: &Context, token: &Token, care: Care) -> Result<u8, Failure> {
    let deed = format!("take back the revocation that is set for token {} ({})", token.name, token.id);
    if care.dry_run {
        context.ui.note(&format!("would {deed}"));
        return Ok(exit_codes::OK);
    }
    care.confirm(&deed, "")?;
    context.ui.show(&context.client.cancel_revoke(token.id).await?)?;
    Ok(exit_codes::OK)
}

fn after_schedule(token: &Token) -> Vec<String> {
    let mut next = vec![format!("legation token show {}", token.id), format!("legation token revoke {}", token.id)];
    if token.status != TokenStatus::Draining {
        next.push(format!("legation token revoke {} --cancel", token.id));
    }
    next
}

fn show_receipt(ui: &Ui, receipt: &Receipt) -> Result<u8, Failure> {
    ui.show_receipt(receipt)?;
    let silent = receipt.lines.iter().filter(|line| line.stopped_reported_at.is_none()).count();
    if silent > 0 && ui.for_people() {
        ui.note(&format!(
            "{silent} have not reported that they stopped; a correct delegate stops by itself when its lease ends"
        ));
    }
    ui.next(&[format!("legation receipt show {}", receipt.id), format!("legation token rm {}", receipt.token)]);
    Ok(exit_codes::OK)
}

/// Reads the receipt again until every delegate that was connected has reported, or the time is over. A
/// failure to read it takes nothing back: what is known is shown.
async fn wait_for_reports(client: &Client, ui: &Ui, mut receipt: Receipt, limit: Duration) -> Result<Receipt, Failure> {
    let deadline = Instant::now() + limit;
    let spinner = ui.spinner("waiting for reports");
    while receipts::unreported(&receipt) > 0 && Instant::now() < deadline {
        spinner
            .set_message(format!("{} delegates have yet to report that they stopped", receipts::unreported(&receipt)));
        sleep(POLL).await;
        match client.receipt(receipt.id).await {
            Ok(newer) => receipt = newer,
            Err(error) => {
                ui.note(&format!("revoked; the receipt cannot be read again: {error}"));
                break;
            }
        }
    }
    spinner.finish_and_clear();
    Ok(receipt)
}

fn deed(preview: &RevokePreview, request: &RevokeToken) -> String {
    let when = match (request.mode, request.drain_ms, request.at) {
        (RevokeMode::Drain, Some(drain), _) => format!(" after draining for {}", show_length(drain)),
        (RevokeMode::At, _, Some(at)) => format!(" at {}", show_time(at)),
        _ => String::new(),
    };
    format!("revoke token {} ({}) in {}{when}", preview.token.name, preview.token.id, preview.token.scope)
}

/// What lies beyond the token's own delegates: work that waits for them, and who carries on.
fn beyond(preview: &RevokePreview) -> String {
    let mut said = Vec::new();
    if preview.queued_without_capacity > 0 {
        said.push(format!("{} waiting tasks would find no other delegate:", preview.queued_without_capacity));
        said.extend(preview.conditions_without_capacity.iter().map(|lost| {
            let asks = if lost.selectors.is_empty() { "any delegate".to_owned() } else { lost.selectors.join(" ") };
            format!("  {} in {} for {asks}", lost.tasks, lost.scope)
        }));
    }
    said.extend(preview.covered_by.iter().map(|other| {
        format!("{} delegates of {} stay connected with token {}", other.delegates, other.name, other.token)
    }));
    said.join("\n")
}

fn consequence(preview: &RevokePreview) -> String {
    let connected = preview.delegates.iter().filter(|line| line.connected).count();
    let others = preview.delegates.len() - connected;
    let lost = preview.attempts_lost;
    format!(
        "it cuts off {connected} connected delegates, {others} others may hold a lease, {lost} running tasks are lost"
    )
}

fn show_preview(ui: &Ui, preview: &RevokePreview) -> Result<(), Failure> {
    match ui.format {
        Format::Table if preview.delegates.is_empty() => Ok(()),
        Format::Table => ui::print(&lines(&preview.delegates)),
        Format::Name => {
            let ids: Vec<String> = preview.delegates.iter().map(|line| line.delegate.to_string()).collect();
            ui::print(&ids.join("\n"))
        }
        format => ui::print(&ui::data(format, preview)?),
    }
}

fn lines(delegates: &[RevokePreviewLine]) -> String {
    let row = |line: &RevokePreviewLine| {
        let state = if line.connected { "connected" } else { "may hold a lease" };
        vec![
            line.delegate.to_string(),
            line.name.to_string(),
            line.host.to_string(),
            state.to_owned(),
            line.tasks_running.to_string(),
        ]
    };
    ui::table(&["delegate", "name", "host", "state", "tasks"], delegates.iter().map(row))
}
