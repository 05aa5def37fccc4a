//! `legation user password` and `legation password`.

use std::path::PathBuf;

use clap::Args;
use legation_api::passwords::{ChangePassword, PasswordSet, SetPassword};
use legation_model::access::PrincipalKind;

use crate::{
    Context, Failure, exit_codes, principals,
    prompt::{self, PasswordFrom},
    ui::Show,
};

/// Whose password to set.
#[derive(Debug, Args)]
pub struct Set {
    /// Id or name
    user: String,
    /// Where the new password comes from.
    #[command(flatten)]
    password: PasswordFrom,
}

impl Set {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let user = principals::find(&context.client, Some(PrincipalKind::User), &self.user).await?;
        let password = self.password.new_one(&format!("New password of {}", user.name))?;
        context.ui.show(&context.client.set_password(user.id, &SetPassword { password }).await?)?;
        context.ui.next(&[format!("legation login {}", user.name)]);
        Ok(exit_codes::OK)
    }
}

/// How to change one's own password.
#[derive(Debug, Args)]
pub struct Change {
    /// File with the present password, readable only by its owner; - for standard input
    #[arg(long, value_name = "FILE")]
    old_password_file: Option<PathBuf>,
    /// Where the new password comes from.
    #[command(flatten)]
    password: PasswordFrom,
}

impl Change {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let old_password = prompt::secret("Present password", self.old_password_file.as_deref())?;
        let password = self.password.new_one("New password")?;
        context.ui.show(&context.client.change_password(&ChangePassword { old_password, password }).await?)?;
        Ok(exit_codes::OK)
    }
}

impl Show for PasswordSet {
    fn name(&self) -> String {
        self.principal.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("principal", self.principal.to_string()), ("sessions ended", self.ended_sessions.to_string())]
    }
}
