//! `legation token revoke`: the preview, the deed, the receipt, and the wait for the delegates' own word.

use std::time::Duration;

use clap::Args;
use legation_api::{
    client::Client,
    receipts::Receipt,
    tokens::{RevokePreview, RevokePreviewLine, RevokeToken},
};
use legation_model::Text;
use tokio::time::{Instant, sleep};

use crate::{
    Context, Failure,
    ask::Care,
    exit_codes, receipts,
    tokens::Which,
    ui::{self, Format, Ui},
    values::wait,
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
        let preview = client.preview_revoke(token.id).await?;
        if self.care.dry_run {
            ui.note(&format!("would {}: {}", deed(&preview), consequence(&preview)));
            show_preview(ui, &preview)?;
            return Ok(exit_codes::OK);
        }
        if !self.care.yes && ui.for_people() && !preview.delegates.is_empty() {
            ui.note_lines(&lines(&preview.delegates));
        }
        self.care.confirm(&deed(&preview), &consequence(&preview))?;
        let spinner = ui.spinner("cutting off every delegate of the token");
        let receipt = client.revoke_token(token.id, &RevokeToken { reason: self.reason }).await;
        spinner.finish_and_clear();
        let receipt = wait_for_reports(client, ui, receipt?, self.wait).await?;
        show_receipt(ui, &receipt)
    }
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

fn deed(preview: &RevokePreview) -> String {
    format!("revoke token {} ({}) in {}", preview.token.name, preview.token.id, preview.token.scope)
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
