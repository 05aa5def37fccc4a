//! `legation receipt`.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use legation_api::{
    receipt_verify::verify,
    receipts::{Receipt, ReceiptLine, ReceiptsQuery},
};
use legation_model::{Scope, ids::ReceiptId};

use crate::{
    Context, Failure,
    args::Paging,
    exit_codes,
    keys::Keys,
    ui::{self, Format, Row, Show, Ui},
    values::{show_time, show_when},
};

/// What to do with receipts.
#[derive(Debug, Subcommand)]
pub enum Receipts {
    /// List receipts
    Ls {
        /// Only those of this scope and below
        #[arg(long, env = "LEGATION_SCOPE", hide_env_values = true)]
        scope: Option<Scope>,
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a receipt: what is known of each delegate, and who says so
    Show {
        /// Id
        receipt: ReceiptId,
    },
    /// Check a receipt without the Manager: every statement signed, and nothing in it that no statement says
    Verify(Verify),
}

/// How to check a receipt.
#[derive(Debug, Args)]
pub struct Verify {
    /// File of `legation receipt show RECEIPT -o json`
    file: PathBuf,
    /// Which keys may have signed.
    #[command(flatten)]
    keys: Keys,
}

impl Verify {
    /// Checks the file.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing that is wrong with it.
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let keys = self.keys.read()?;
        let path = self.file.display();
        let text = fs::read(&self.file).map_err(|error| {
            let fix = "name a file of `legation receipt show RECEIPT -o json`";
            Failure::settings(format!("{path} cannot be read: {error}"), fix)
        })?;
        let receipt = verify(&text, &keys).map_err(|fault| {
            let fix = "keep this file as evidence; fetch the receipt again, and compare with copies of it";
            Failure::new(exit_codes::NOT_GENUINE, format!("{path}: {fault}"), fix)
        })?;
        ui.show_receipt(&receipt)?;
        let signed = receipt.statements.len();
        ui.note(&format!("genuine: all that it says is in its {signed} signed statements; a later copy may have more"));
        Ok(exit_codes::OK)
    }
}

impl Receipts {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { scope, paging } => {
                let page = async |limit, cursor| {
                    let query = ReceiptsQuery { scope: scope.clone(), token: None, limit, cursor };
                    client.receipts(&query).await
                };
                ui.list(&paging.collect(page).await?)?;
                ui.next(&["legation receipt show RECEIPT".to_owned()]);
            }
            Self::Show { receipt } => ui.show_receipt(&client.receipt(receipt).await?)?,
            Self::Verify(verify) => return verify.run(ui),
        }
        Ok(exit_codes::OK)
    }
}

/// Delegates that were connected and have not said that they stopped.
pub fn unreported(receipt: &Receipt) -> usize {
    receipt.lines.iter().filter(|line| line.connected && line.stopped_reported_at.is_none()).count()
}

impl Ui {
    /// Prints a receipt with its lines.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn show_receipt(&self, receipt: &Receipt) -> Result<(), Failure> {
        let head = ui::show(self.format, receipt)?;
        if self.format != Format::Table || receipt.lines.is_empty() {
            return ui::print(&head);
        }
        ui::print(&format!("{head}\n\n{}", lines(&receipt.lines)))
    }
}

/// One row per delegate; the three times have three witnesses and stay apart.
fn lines(lines: &[ReceiptLine]) -> String {
    let row = |line: &ReceiptLine| {
        vec![
            line.delegate.to_string(),
            line.name.clone(),
            if line.connected { show_when(line.cut_at) } else { "was not connected".to_owned() },
            show_when(line.stopped_reported_at),
            line.tasks_killed.map(|killed| killed.to_string()).unwrap_or_default(),
            show_time(line.lease_ends_by),
        ]
    };
    let columns = ["delegate", "name", "cut", "reported stopped", "tasks killed", "lease ends by"];
    ui::table(&columns, lines.iter().map(row))
}

fn all_cut(receipt: &Receipt) -> String {
    receipt.completed_at.map_or_else(|| "not yet".to_owned(), show_time)
}

fn counts(receipt: &Receipt) -> (usize, usize) {
    let count = |known: fn(&ReceiptLine) -> bool| receipt.lines.iter().filter(|line| known(line)).count();
    (count(|line| line.cut_at.is_some()), count(|line| line.stopped_reported_at.is_some()))
}

impl Show for Receipt {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let (cut, stopped) = counts(self);
        vec![
            ("receipt", self.id.to_string()),
            ("token", self.token.to_string()),
            ("scope", self.scope.to_string()),
            ("cause", self.cause.to_string()),
            ("reason", self.reason.clone()),
            ("revoked", format!("{} by {}", show_time(self.revoked_at), self.actor)),
            ("all cut", all_cut(self)),
            ("delegates", format!("{}: {cut} cut, {stopped} reported stopped", self.lines.len())),
            ("tasks lost", self.attempts_lost.to_string()),
            ("statements", format!("{} signed", self.statements.len())),
        ]
    }
}

impl Row for Receipt {
    const COLUMNS: &'static [&'static str] =
        &["id", "token", "scope", "cause", "revoked", "all cut", "tasks lost", "by"];

    /// A list has no lines: what each delegate did is in the receipt itself.
    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.token.to_string(),
            self.scope.to_string(),
            self.cause.to_string(),
            show_time(self.revoked_at),
            all_cut(self),
            self.attempts_lost.to_string(),
            self.actor.clone(),
        ]
    }
}
