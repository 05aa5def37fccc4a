//! `legation whoami`.

use legation_api::whoami::Whoami;

use crate::{Context, Failure, exit_codes, ui::Show, values::show_when};

/// Shows the caller.
///
/// # Errors
/// As the Manager refuses.
pub async fn whoami(context: &Context) -> Result<u8, Failure> {
    context.ui.show(&context.client.whoami().await?)?;
    Ok(exit_codes::OK)
}

impl Show for Whoami {
    fn name(&self) -> String {
        self.key.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("key", self.key.to_string()),
            ("name", self.name.clone()),
            ("role", self.role.to_string()),
            ("scope", self.scope.as_ref().map_or_else(|| "everywhere".to_owned(), ToString::to_string)),
            ("may", self.permissions.join(" ")),
            ("expires", show_when(self.expires_at)),
            ("manager", self.manager_version.clone()),
        ]
    }
}
