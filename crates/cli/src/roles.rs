//! `legation role`: ls, create, show, edit, rm.

use clap::Subcommand;
use legation_api::{
    page::PageQuery,
    roles::{CreateRole, Role, UpdateRole},
};
use legation_model::{Name, Text, access::Permission};

use crate::{
    Context, Failure,
    args::Paging,
    ask::Care,
    exit_codes,
    ui::{Row, Show},
    values::show_when,
};

/// What to do with roles.
#[derive(Debug, Subcommand)]
pub enum Roles {
    /// List roles and what they hold
    Ls {
        /// How much to show.
        #[command(flatten)]
        paging: Paging,
    },
    /// Create a role from permissions that you hold everywhere; `legation role show admin` lists all there are
    Create {
        /// Name
        name: Name,
        /// What it is to hold; may be repeated
        #[arg(long = "permission", value_name = "PERMISSION", required = true)]
        permissions: Vec<Permission>,
        /// What it is for
        #[arg(long, default_value = "")]
        description: Text,
        /// Makes a repetition of this command harmless: the same key creates once
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Show a role
    Show {
        /// Name
        name: Name,
    },
    /// Change what a role holds, for all who have it, at once
    Edit {
        /// Name
        name: Name,
        /// What it is to hold as well; may be repeated
        #[arg(long, value_name = "PERMISSION")]
        add: Vec<Permission>,
        /// What it is to hold no longer; may be repeated
        #[arg(long, value_name = "PERMISSION")]
        remove: Vec<Permission>,
        /// What it is for
        #[arg(long)]
        description: Option<Text>,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
    /// Delete a role that nobody has
    Rm {
        /// Name
        name: Name,
        /// Whether to ask.
        #[command(flatten)]
        care: Care,
    },
}

impl Roles {
    /// Does it.
    ///
    /// # Errors
    /// As the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        match self {
            Self::Ls { paging } => {
                let page = async |limit, cursor| client.roles(&PageQuery { limit, cursor }).await;
                ui.list(&paging.collect(page).await?)?;
            }
            Self::Create { name, permissions, description, idempotency_key } => {
                let client = context.idempotent(idempotency_key.as_deref());
                let permissions = permissions.iter().map(Permission::to_string).collect();
                let role = client.create_role(&CreateRole { name, description, permissions }).await?;
                ui.show(&role)?;
                ui.next(&[format!("legation grant create PRINCIPAL {} --scope SCOPE", role.name)]);
            }
            Self::Show { name } => ui.show(&client.role(&name).await?)?,
            Self::Edit { name, add, remove, description, care } => {
                let role = client.role(&name).await?;
                let edited = edited(&role, &add, &remove, description)?;
                let deed = format!("have role {name} hold {}", edited.permissions.join(" "));
                if care.dry_run {
                    ui.note(&format!("would {deed}"));
                    ui.show(&role)?;
                    return Ok(exit_codes::OK);
                }
                care.confirm(&deed, "for all who have it")?;
                ui.show(&client.update_role(&name, &edited).await?)?;
            }
            Self::Rm { name, care } => {
                let preview = client.preview_delete_role(&name).await?;
                if care.dry_run {
                    ui.note(&format!("would delete role {name}"));
                    ui.show(&preview.role)?;
                    return Ok(exit_codes::OK);
                }
                care.confirm(&format!("delete role {name}"), "")?;
                ui.show(&client.delete_role(&name).await?.role)?;
            }
        }
        Ok(exit_codes::OK)
    }
}

/// The whole of a role after additions and removals. A removal wins, and a word that this program does not know stays.
fn edited(
    role: &Role,
    add: &[Permission],
    remove: &[Permission],
    description: Option<Text>,
) -> Result<UpdateRole, Failure> {
    let mut permissions = role.permissions.clone();
    permissions.extend(add.iter().map(Permission::to_string));
    permissions.sort();
    permissions.dedup();
    permissions.retain(|word| remove.iter().all(|removed| removed.as_str() != word));
    let description = match description {
        Some(description) => description,
        None => role.description.parse().map_err(|error| {
            Failure::new(
                exit_codes::UNEXPECTED,
                format!("the role's description cannot be kept: {error}"),
                "give a new one with --description",
            )
        })?,
    };
    Ok(UpdateRole { description, permissions })
}

impl Show for Role {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("role", self.name.to_string()),
            ("built in", if self.built_in { "yes" } else { "no" }.to_owned()),
            ("description", self.description.clone()),
            (
                "created",
                self.created_by
                    .as_ref()
                    .map(|by| format!("{} by {by}", show_when(self.created_at)))
                    .unwrap_or_default(),
            ),
        ];
        fields.extend(self.permissions.iter().map(|permission| ("holds", permission.clone())));
        fields
    }
}

impl Row for Role {
    const COLUMNS: &'static [&'static str] = &["role", "built in", "description", "permissions"];

    fn row(&self) -> Vec<String> {
        let built_in = if self.built_in { "yes" } else { "" };
        vec![self.name.to_string(), built_in.to_owned(), self.description.clone(), self.permissions.join(" ")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_adds_and_removes_and_keeps_the_rest() {
        let role = Role {
            name: "revoker".parse().expect("a name"),
            built_in: false,
            description: "stops".to_owned(),
            permissions: vec!["core_delegate_view".to_owned(), "core_of_tomorrow".to_owned()],
            created_at: None,
            created_by: None,
        };
        let (add, remove) = ([Permission::DelegateEdit, Permission::TaskRun], [Permission::TaskRun]);
        let changed = edited(&role, &add, &remove, None).expect("a role");
        assert_eq!(changed.permissions, ["core_delegate_edit", "core_delegate_view", "core_of_tomorrow"]);
        assert_eq!(changed.description.as_str(), "stops");
        let changed = edited(&role, &[], &[Permission::DelegateView], Some(Text::default())).expect("a role");
        assert_eq!((changed.permissions.len(), changed.description.as_str()), (1, ""));
    }
}
