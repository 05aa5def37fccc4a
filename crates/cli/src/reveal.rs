//! `legation token reveal`.

use clap::Args;
use legation_api::reveal::RevealToken;
use legation_model::Text;

use crate::{
    Context, Failure, exit_codes,
    tokens::Which,
    ui::{self, Format},
};

/// Whose value to show again, and why.
#[derive(Debug, Args)]
pub struct Reveal {
    /// Which token.
    #[command(flatten)]
    token: Which,
    /// What the value is needed for; it is recorded before the value is shown
    #[arg(long)]
    reason: Text,
}

impl Reveal {
    /// Shows it. The value goes to standard output alone.
    ///
    /// # Errors
    /// The value is not kept, or as the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let token = self.token.find(client).await?;
        let revealed = client.reveal_token(token.id, &RevealToken { reason: self.reason }).await?;
        match ui.format {
            Format::Json | Format::Yaml => ui::print(&ui::data(ui.format, &revealed)?)?,
            Format::Table | Format::Name => ui::print(&ui::clean(revealed.value.expose()))?,
        }
        ui.note(&format!(
            "token {} ({}) in {}: this is its value, and who saw it is recorded",
            token.name, token.id, token.scope
        ));
        ui.next(&[format!("legation audit ls --action token.reveal --object {}", token.id)]);
        Ok(exit_codes::OK)
    }
}
