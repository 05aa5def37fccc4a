//! Accounts: the tops of scope trees. What lies below them, and what can be changed, is in [`crate::scopes`].

use legation_model::{Millis, Scope, Text, reveal::Reveal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Problem;

/// The shortest lease an account may set: 15 seconds.
pub const LEASE_MIN: Millis = 15 * 1000;
/// The longest lease an account may set: 24 hours.
pub const LEASE_MAX: Millis = 24 * 60 * 60 * 1000;

/// An account as the Manager knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Account)]
pub struct Account {
    /// Its identifier, which is also its scope.
    #[schema(value_type = String, example = "default")]
    pub id: Scope,
    /// Free text.
    #[schema(value_type = String)]
    pub description: Text,
    /// How long its delegates may act after the last answered heartbeat; `null` for the Manager's default.
    pub lease_ms: Option<Millis>,
    /// Whether the values of tokens that are issued in it and below are kept, to be seen again.
    #[schema(schema_with = crate::schema::reveal)]
    pub reveal: Reveal,
    /// When it was created.
    pub created_at: Millis,
    /// Who created it.
    pub created_by: String,
}

/// Creates an account, its unissued `default_token` with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Its identifier: 1 to 64 of `a-z 0-9 _ -`, starting with a letter or digit.
    #[schema(value_type = String, example = "acme")]
    pub id: Scope,
    /// Free text.
    #[serde(default)]
    #[schema(value_type = String)]
    pub description: Text,
    /// How long its delegates may act after the last answered heartbeat, 15 seconds to 24 hours; the Manager's
    /// default when absent.
    #[serde(default)]
    pub lease_ms: Option<Millis>,
}

impl CreateAccount {
    /// The rules that a type cannot express.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead.
    pub fn check(&self) -> Result<(), Problem> {
        if self.id.as_str() != self.id.account() {
            return Err(Problem::invalid("id", "an account has one level", "leave out everything from the first / on"));
        }
        check_lease(self.lease_ms)
    }
}

/// Refuses a lease that is out of range.
pub(crate) fn check_lease(lease: Option<Millis>) -> Result<(), Problem> {
    if lease.is_none_or(|lease| (LEASE_MIN..=LEASE_MAX).contains(&lease)) {
        return Ok(());
    }
    let fix = format!("use {LEASE_MIN} to {LEASE_MAX} milliseconds (15 seconds to 24 hours)");
    Err(Problem::invalid("lease_ms", "the lease is out of range", fix))
}

/// Which accounts to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AccountsQuery {
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
