//! Delegate tokens: created, issued once, listed without secrets, revoked, deleted.

use ipnet::IpNet;
use legation_model::{
    Millis, Name, Scope, Text,
    ids::{ReceiptId, TokenId},
    name::NamePattern,
    secret::SecretText,
    token::{DelegateToken, Enrolment, TokenLimits, TokenStatus},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    Problem,
    wraps::{self, Wrap, WrapCode},
};

/// Entries in each of a token's lists, so that admission stays cheap.
pub const LIMIT_ENTRIES_MAX: usize = 64;
/// Delegates that one token may admit at most.
pub const MAX_DELEGATES_MAX: u32 = 1_000_000;

/// A token as the Manager knows it; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Public id.
    #[schema(value_type = String, example = "0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: TokenId,
    /// The one scope it belongs to.
    #[schema(value_type = String, example = "default")]
    pub scope: Scope,
    /// Unique among the scope's tokens that are not deleted.
    #[schema(value_type = String, example = "default_token")]
    pub name: Name,
    /// Free text.
    #[schema(value_type = String)]
    pub description: Text,
    /// Where it stands in its life.
    #[schema(schema_with = crate::schema::token_status)]
    pub status: TokenStatus,
    /// The number of its newest secret, 0 while unissued.
    pub generation: u32,
    /// From this time on it is revoked by itself.
    pub expires_at: Option<Millis>,
    /// How many delegates may be connected or hold a lease at once.
    pub max_delegates: Option<u32>,
    /// From where a delegate may connect; empty for everywhere.
    #[serde(with = "crate::spelled::list")]
    #[schema(value_type = Vec<String>)]
    pub allowed_cidrs: Vec<IpNet>,
    /// Which delegate names may be used; a trailing `*` stands for any ending; empty for all.
    #[serde(with = "crate::spelled::list")]
    #[schema(value_type = Vec<String>)]
    pub allowed_names: Vec<NamePattern>,
    /// Tags that the token vouches for; only these match `pinned:` selectors.
    #[schema(value_type = Vec<String>)]
    pub pinned_tags: Vec<Name>,
    /// Whether a delegate key that nobody knows yet may join: at once, when a person has approved it, or not at all.
    #[schema(schema_with = crate::schema::enrolment)]
    pub enrolment: Enrolment,
    /// Whether its delegates are forgotten when their leases have ended.
    pub ephemeral: bool,
    /// Whether it is bait: whoever proves it is written down and gets nothing.
    pub canary: bool,
    /// Counts its changes; the `ETag` of the answer, for `If-Match`.
    pub version: u64,
    /// When it is revoked, if that was set: a draining token ends then.
    pub revoke_at: Option<Millis>,
    /// Who set that.
    pub scheduled_by: Option<String>,
    /// Why.
    pub scheduled_reason: Option<String>,
    /// When it was created.
    pub created_at: Millis,
    /// Who created it.
    pub created_by: String,
    /// When its first secret was made.
    pub issued_at: Option<Millis>,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
    /// Why it was revoked.
    pub revoked_reason: Option<String>,
    /// The record of its revocation.
    #[schema(value_type = Option<String>)]
    pub receipt: Option<ReceiptId>,
    /// The last time a delegate proved it, to within a minute.
    pub last_used_at: Option<Millis>,
    /// How many connections were let in with it, up to the newest few seconds.
    #[serde(default)]
    pub uses: u64,
    /// What became of its value, if that was put under a one-time code.
    pub wrap: Option<Wrap>,
}

impl From<&DelegateToken> for Token {
    fn from(token: &DelegateToken) -> Self {
        let limits = token.limits.clone();
        Self {
            id: token.id,
            scope: token.scope.clone(),
            name: token.name.clone(),
            description: token.description.clone(),
            status: token.status,
            generation: token.generation,
            expires_at: limits.expires_at,
            max_delegates: limits.max_delegates,
            allowed_cidrs: limits.allowed_cidrs,
            allowed_names: limits.allowed_names,
            pinned_tags: limits.pinned_tags,
            enrolment: limits.enrolment,
            ephemeral: limits.ephemeral,
            canary: limits.canary,
            version: token.version,
            revoke_at: token.schedule.as_ref().map(|schedule| schedule.at),
            scheduled_by: token.schedule.as_ref().map(|schedule| schedule.by.clone()),
            scheduled_reason: token.schedule.as_ref().map(|schedule| schedule.reason.clone()),
            created_at: token.created_at,
            created_by: token.created_by.clone(),
            issued_at: token.issued_at,
            revoked_at: token.revoked_at,
            revoked_reason: token.revoked_reason.clone(),
            receipt: token.receipt,
            last_used_at: token.last_used_at,
            uses: token.uses,
            wrap: None,
        }
    }
}

/// Creates a token and, unless asked not to, issues it in the same step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// The one scope it belongs to.
    #[schema(value_type = String, example = "default")]
    pub scope: Scope,
    /// Unique among the scope's tokens that are not deleted.
    #[schema(value_type = String, example = "build-farm")]
    pub name: Name,
    /// Free text.
    #[serde(default)]
    #[schema(value_type = String)]
    pub description: Text,
    /// Whether to make its secret now; `false` leaves it unissued.
    #[serde(default = "yes")]
    pub issue: bool,
    /// From this time on it is revoked by itself.
    #[serde(default)]
    pub expires_at: Option<Millis>,
    /// How many delegates may be connected or hold a lease at once.
    #[serde(default)]
    pub max_delegates: Option<u32>,
    /// From where a delegate may connect; empty for everywhere.
    #[serde(default, with = "crate::spelled::list")]
    #[schema(value_type = Vec<String>)]
    pub allowed_cidrs: Vec<IpNet>,
    /// Which delegate names may be used; a trailing `*` stands for any ending; empty for all.
    #[serde(default, with = "crate::spelled::list")]
    #[schema(value_type = Vec<String>)]
    pub allowed_names: Vec<NamePattern>,
    /// Tags that the token vouches for; only these match `pinned:` selectors.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub pinned_tags: Vec<Name>,
    /// Whether a delegate key that nobody knows yet may join: at once (`open`, the default), when a person has approved it
    /// (`approval`), or not at all (`closed`).
    #[serde(default)]
    #[schema(schema_with = crate::schema::enrolment)]
    pub enrolment: Enrolment,
    /// Whether its delegates are forgotten when their leases have ended.
    #[serde(default)]
    pub ephemeral: bool,
    /// Whether it is bait, to be left where only a thief finds it: whoever proves it is welcomed, written down in the audit
    /// record, and cut off; it never becomes a delegate.
    #[serde(default)]
    pub canary: bool,
    /// Answers with a one-time code in the place of the value; how long the code opens: a minute to 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap_ttl_ms: Option<Millis>,
}

const fn yes() -> bool {
    true
}

impl CreateToken {
    /// A token of that scope and name, issued at once and without restrictions.
    pub fn new(scope: Scope, name: Name) -> Self {
        Self {
            scope,
            name,
            description: Text::default(),
            issue: true,
            expires_at: None,
            max_delegates: None,
            allowed_cidrs: Vec::new(),
            allowed_names: Vec::new(),
            pinned_tags: Vec::new(),
            enrolment: Enrolment::Open,
            ephemeral: false,
            canary: false,
            wrap_ttl_ms: None,
        }
    }

    /// The rules that a type cannot express; `now` is the Manager's wall clock.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead.
    pub fn check(&self, now: Millis) -> Result<(), Problem> {
        if self.wrap_ttl_ms.is_some() && !self.issue {
            let fix = "leave it out, or ask for the code when the token is issued";
            return Err(Problem::invalid("wrap_ttl_ms", "a token that is not issued has no value", fix));
        }
        wraps::check_ttl(self.wrap_ttl_ms)?;
        check_limits(&self.limits(), now)
    }

    /// The restrictions asked for.
    pub fn limits(&self) -> TokenLimits {
        TokenLimits {
            expires_at: self.expires_at,
            max_delegates: self.max_delegates,
            allowed_cidrs: self.allowed_cidrs.clone(),
            allowed_names: self.allowed_names.clone(),
            pinned_tags: self.pinned_tags.clone(),
            enrolment: self.enrolment,
            ephemeral: self.ephemeral,
            canary: self.canary,
        }
    }
}

/// Issues a token that has no value yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueToken {
    /// Answers with a one-time code in the place of the value; how long the code opens: a minute to 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap_ttl_ms: Option<Millis>,
}

impl IssueToken {
    /// The rules that a type cannot express.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead.
    pub fn check(&self) -> Result<(), Problem> {
        wraps::check_ttl(self.wrap_ttl_ms)
    }
}

/// The rules for limits that a type cannot express.
pub(crate) fn check_limits(limits: &TokenLimits, now: Millis) -> Result<(), Problem> {
    if limits.expires_at.is_some_and(|at| at <= now) {
        let fix = format!("use a time after {now}, in milliseconds since 1970, or leave it out");
        return Err(Problem::invalid("expires_at", "the time has passed", fix));
    }
    if limits.max_delegates.is_some_and(|max| !(1..=MAX_DELEGATES_MAX).contains(&max)) {
        let fix = format!("use 1 to {MAX_DELEGATES_MAX}, or leave it out for no limit");
        return Err(Problem::invalid("max_delegates", "the number is out of range", fix));
    }
    let lists = [
        ("allowed_cidrs", limits.allowed_cidrs.len()),
        ("allowed_names", limits.allowed_names.len()),
        ("pinned_tags", limits.pinned_tags.len()),
    ];
    match lists.into_iter().find(|(_, entries)| *entries > LIMIT_ENTRIES_MAX) {
        Some((field, _)) => {
            Err(Problem::invalid(field, "too many entries", format!("use at most {LIMIT_ENTRIES_MAX}")))
        }
        None => Ok(()),
    }
}

/// The answer to creating and to issuing: the only place where a token's value is ever shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// The whole value, once; `null` if it was not issued, or was shown before.
    #[serde(with = "value")]
    #[schema(value_type = Option<String>)]
    pub value: Option<SecretText>,
    /// Why `value` is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<NoValue>,
    /// What opens the value, once, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<WrapCode>,
}

/// Why a token's value is not in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoValue {
    /// The request was a repetition (`Idempotency-Key`); the first answer had the value.
    ValueAlreadyShown,
    /// The token was created without being issued.
    NotIssued,
    /// It is under a one-time code, which the answer has.
    Wrapped,
}

/// What issuing would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuePreview {
    /// The token as it stands.
    pub token: Token,
    /// The generation that issuing would make.
    pub generation: u32,
}

/// What deleting would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedToken {
    /// The token; after the deed its status is `deleted`.
    pub token: Token,
}

/// Which tokens to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TokensQuery {
    /// Only those of this scope and below.
    #[param(value_type = Option<String>)]
    pub scope: Option<Scope>,
    /// Only those of this name.
    #[param(value_type = Option<String>)]
    pub name: Option<Name>,
    /// Also those that are revoked; deleted ones appear only by their status.
    #[serde(default)]
    pub include_revoked: bool,
    /// Only those of this status; revoked and deleted ones too, if it is theirs.
    #[param(schema_with = crate::schema::token_status)]
    pub status: Option<TokenStatus>,
    /// Only those that expire within so many milliseconds and have not ended; more than nothing.
    pub expiring_within_ms: Option<Millis>,
    /// Only those that were created before this time and not used since; it must have come.
    pub unused_since: Option<Millis>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl TokensQuery {
    /// By when tokens expire that are asked for, if that is asked for; `now` is the Manager's wall clock.
    ///
    /// # Errors
    /// `invalid_request` for a length or a time that asks for nothing.
    pub fn expires_by(&self, now: Millis) -> Result<Option<Millis>, Problem> {
        if self.unused_since.is_some_and(|since| since > now) {
            let fix = format!("use a time up to {now}, in milliseconds since 1970, or leave it out");
            return Err(Problem::invalid("unused_since", "the time has not come", fix));
        }
        let Some(within) = self.expiring_within_ms else { return Ok(None) };
        // The last millisecond stands for no time at all.
        let by = (within > 0).then(|| now.checked_add(within)).flatten().filter(|by| *by < Millis::MAX);
        let fix = "use a length of time in milliseconds, such as 604800000 for a week, or leave it out";
        by.map(Some).ok_or_else(|| Problem::invalid("expiring_within_ms", "the length is out of range", fix))
    }
}

pub(crate) mod value {
    use legation_model::secret::SecretText;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<SecretText>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(value.expose()),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretText>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(SecretText::new))
    }
}
