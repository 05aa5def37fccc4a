//! `legation token edit`: changes a token that nobody else has changed meanwhile.

use clap::Args;
use ipnet::IpNet;
use legation_api::token_update::{Spelled, UpdateToken};
use legation_model::{Millis, Name, Text, name::NamePattern, token::Enrolment};

use crate::{
    Context, Failure, exit_codes,
    tokens::{Which, enrolment},
    values::time,
};

/// What to change. Lists are replaced as a whole.
#[derive(Debug, Args)]
pub struct Edit {
    /// Which token.
    #[command(flatten)]
    token: Which,
    /// Give it another name
    #[arg(long, value_name = "NAME")]
    rename: Option<Name>,
    /// Describe it anew
    #[arg(long)]
    description: Option<Text>,
    /// When it is revoked by itself: RFC 3339, or 30d from now
    #[arg(long, value_parser = time, value_name = "TIME", conflicts_with = "no_expires")]
    expires: Option<Millis>,
    /// It is not revoked by itself any more
    #[arg(long)]
    no_expires: bool,
    /// How many delegates may use it at once; those beyond are disconnected, the newest first
    #[arg(long, value_name = "N", conflicts_with = "no_max_delegates")]
    max_delegates: Option<u32>,
    /// Any number of delegates may use it
    #[arg(long)]
    no_max_delegates: bool,
    /// From which networks its delegates may connect; may be repeated. Others are disconnected
    #[arg(long = "allow-cidr", value_name = "CIDR", conflicts_with = "allow_all_cidrs")]
    allowed_cidrs: Vec<IpNet>,
    /// Its delegates may connect from everywhere
    #[arg(long)]
    allow_all_cidrs: bool,
    /// Which delegate names it admits (build-7, build-*); may be repeated. Others are disconnected
    #[arg(long = "allow-name", value_name = "NAME", conflicts_with = "allow_all_names")]
    allowed_names: Vec<NamePattern>,
    /// It admits all delegate names
    #[arg(long)]
    allow_all_names: bool,
    /// Tag that it vouches for, for pinned: selectors; may be repeated
    #[arg(long = "pin-tag", value_name = "TAG", conflicts_with = "no_pin_tags")]
    pinned_tags: Vec<Name>,
    /// It vouches for no tag
    #[arg(long)]
    no_pin_tags: bool,
    /// Whether a delegate that is not known yet may join: at once, when a person has approved it, or not at all
    #[arg(long, value_parser = enrolment(), value_name = "KIND")]
    enrolment: Option<Enrolment>,
    /// Whether to forget its delegates when their leases have ended: true or false
    #[arg(long, value_name = "BOOL")]
    ephemeral: Option<bool>,
    /// Only say what the token would be
    #[arg(long)]
    dry_run: bool,
}

impl Edit {
    /// Does it.
    ///
    /// # Errors
    /// Nothing is to be changed, or as the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let update = self.update();
        if update == UpdateToken::default() {
            return Err(Failure::usage("nothing is to be changed", "name what, such as --max-delegates 3; see --help"));
        }
        let token = self.token.find(&context.client).await?;
        if self.dry_run {
            context.ui.note("the token would be:");
            context.ui.show(&context.client.preview_update(token.id, token.version, &update).await?)?;
            return Ok(exit_codes::OK);
        }
        context.ui.show(&context.client.update_token(token.id, token.version, &update).await?)?;
        context.ui.next(&[format!("legation delegate ls --token {}", token.id)]);
        Ok(exit_codes::OK)
    }

    fn update(&self) -> UpdateToken {
        UpdateToken {
            name: self.rename.clone(),
            description: self.description.clone(),
            expires_at: set_or_not(self.expires, self.no_expires),
            max_delegates: set_or_not(self.max_delegates, self.no_max_delegates),
            allowed_cidrs: list(&self.allowed_cidrs, self.allow_all_cidrs).map(|list| list.map(Spelled)),
            allowed_names: list(&self.allowed_names, self.allow_all_names).map(|list| list.map(Spelled)),
            pinned_tags: list(&self.pinned_tags, self.no_pin_tags),
            enrolment: self.enrolment,
            ephemeral: self.ephemeral,
        }
    }
}

/// A field of the change: set, taken away, or left as it is.
const fn set_or_not<T: Copy>(value: Option<T>, none: bool) -> Option<Option<T>> {
    match (value, none) {
        (Some(value), _) => Some(Some(value)),
        (None, true) => Some(None),
        (None, false) => None,
    }
}

fn list<T: Clone>(values: &[T], none: bool) -> Option<Option<Vec<T>>> {
    match (values, none) {
        ([], false) => None,
        ([], true) => Some(None),
        (values, _) => Some(Some(values.to_vec())),
    }
}
