//! `legation signing-key`.

use clap::Subcommand;
use legation_api::signing_keys::SigningKey;
use legation_model::ids::ManagerKeyId;

use crate::{
    Context, Failure, exit_codes,
    ui::{Row, Show},
    values::{show_time, show_when},
};

/// What to do with the Manager's signing keys.
#[derive(Debug, Subcommand)]
pub enum SigningKeys {
    /// List the public keys that receipts and audit checkpoints are signed with
    Ls,
    /// Show one
    Show {
        /// Id
        key: ManagerKeyId,
    },
}

impl SigningKeys {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls => {
                ui.list(&client.signing_keys().await?)?;
                ui.next(&[
                    "legation receipt verify FILE --key KEY".to_owned(),
                    "legation audit verify FILE --key KEY".to_owned(),
                ]);
            }
            Self::Show { key } => ui.show(&client.signing_key(key).await?)?,
        }
        Ok(exit_codes::OK)
    }
}

impl Show for SigningKey {
    /// What `--key` takes.
    fn name(&self) -> String {
        self.public_key.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id.to_string()),
            ("algorithm", self.algorithm.clone()),
            ("public key", self.public_key.to_string()),
            ("valid from", show_time(self.valid_from_at)),
            ("retired", show_when(self.retired_at)),
        ]
    }
}

impl Row for SigningKey {
    const COLUMNS: &'static [&'static str] = &["id", "algorithm", "public key", "valid from", "retired"];

    fn row(&self) -> Vec<String> {
        self.fields().into_iter().map(|(_, value)| value).collect()
    }
}
