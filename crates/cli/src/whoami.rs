//! `legation whoami`.

use legation_api::whoami::{Granted, Whoami};
use legation_model::Scope;

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
        self.principal.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let key = self.key.map(|key| match &self.key_name {
            Some(name) => format!("{name} ({key})"),
            None => key.to_string(),
        });
        let mut fields = vec![
            ("name", self.name.to_string()),
            ("kind", self.kind.to_string()),
            ("principal", self.principal.to_string()),
            ("key", key.unwrap_or_default()),
            ("session", self.session.map(|session| session.to_string()).unwrap_or_default()),
            ("shown anew", show_when(self.authenticated_at)),
            ("key's scope", self.key_scope.as_ref().map(Scope::to_string).unwrap_or_default()),
            ("expires", show_when(self.expires_at)),
            ("manager", self.manager_version.clone()),
        ];
        fields.extend(self.grants.iter().map(|grant| ("grant", granted(grant))));
        fields
    }
}

/// One grant in a line.
fn granted(grant: &Granted) -> String {
    let place = grant.scope.as_ref().map_or_else(|| "everywhere".to_owned(), |scope| format!("in {scope}"));
    format!("{} {place}: {}", grant.role, grant.permissions.join(" "))
}
