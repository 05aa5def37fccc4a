//! Changes of a token that is there, as a merge patch (RFC 7396): what is absent stays, `null` takes a restriction away.

use ipnet::IpNet;
use legation_model::{
    Millis, Name, Text,
    name::NamePattern,
    token::{DelegateToken, Enrolment, TokenLimits},
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::{Problem, tokens::check_limits};

/// Changes a token; needs `If-Match` with the version that the change was thought of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateToken {
    /// A new name, unique among the scope's tokens that are not deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    /// A new text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Text>,
    /// From this time on it is revoked by itself; `null` for never.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<Option<Millis>>,
    /// How many delegates may be connected or hold a lease at once; `null` for any number. Those that are too many are
    /// disconnected, the newest first.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub max_delegates: Option<Option<u32>>,
    /// From where a delegate may connect; `null` or empty for everywhere. Others are disconnected.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub allowed_cidrs: Option<Option<Spelled<IpNet>>>,
    /// Which delegate names may be used; `null` or empty for all. Others are disconnected.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub allowed_names: Option<Option<Spelled<NamePattern>>>,
    /// Tags that the token vouches for, from the next assignment on; `null` or empty for none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub pinned_tags: Option<Option<Vec<Name>>>,
    /// Whether a delegate key that nobody knows yet may join, from the next connection on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::schema::enrolment)]
    pub enrolment: Option<Enrolment>,
    /// Whether its delegates are forgotten when their leases have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
}

/// A list of values that are spelled as texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    transparent,
    bound(serialize = "T: std::fmt::Display", deserialize = "T: std::str::FromStr<Err: std::fmt::Display>")
)]
pub struct Spelled<T>(#[serde(with = "crate::spelled::list")] pub Vec<T>);

/// Tells `null` from a field that is not there.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl UpdateToken {
    /// The token as it would be; `now` is the Manager's wall clock.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead. An expiry that stays is not held against the clock.
    pub fn apply(&self, token: &DelegateToken, now: Millis) -> Result<DelegateToken, Problem> {
        let old = &token.limits;
        let limits = TokenLimits {
            expires_at: self.expires_at.unwrap_or(old.expires_at),
            max_delegates: self.max_delegates.unwrap_or(old.max_delegates),
            allowed_cidrs: list(self.allowed_cidrs.as_ref(), |list| &list.0, &old.allowed_cidrs),
            allowed_names: list(self.allowed_names.as_ref(), |list| &list.0, &old.allowed_names),
            pinned_tags: list(self.pinned_tags.as_ref(), |list| list, &old.pinned_tags),
            enrolment: self.enrolment.unwrap_or(old.enrolment),
            ephemeral: self.ephemeral.unwrap_or(old.ephemeral),
            canary: old.canary,
        };
        let now = if self.expires_at.is_some() { now } else { Millis::MIN };
        check_limits(&limits, now)?;
        Ok(DelegateToken {
            name: self.name.clone().unwrap_or_else(|| token.name.clone()),
            description: self.description.clone().unwrap_or_else(|| token.description.clone()),
            limits,
            version: token.version + 1,
            ..token.clone()
        })
    }
}

fn list<L, T: Clone>(new: Option<&Option<L>>, items: impl Fn(&L) -> &Vec<T>, old: &[T]) -> Vec<T> {
    match new {
        None => old.to_vec(),
        Some(None) => Vec::new(),
        Some(Some(new)) => items(new).clone(),
    }
}

#[cfg(test)]
mod tests {
    use legation_model::ids::TokenId;

    use super::*;

    #[test]
    fn what_is_absent_stays_and_null_takes_a_limit_away() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let scope = "default".parse().expect("a scope");
        let mut token = DelegateToken::unissued(TokenId([1; 16]), scope, name("farm"), 5, "alice".to_owned());
        token.limits.max_delegates = Some(3);
        token.limits.allowed_cidrs = vec!["10.0.0.0/8".parse().expect("a network")];
        token.limits.expires_at = Some(10);

        let patch = |text: &str| crate::json::parse::<UpdateToken>(text.as_bytes()).expect("a patch");
        let same = patch("{}").apply(&token, 50).expect("nothing to check");
        assert_eq!(same, DelegateToken { version: 2, ..token.clone() });
        let open = patch(r#"{"max_delegates":null,"allowed_cidrs":null,"pinned_tags":["gpu"]}"#);
        let open = open.apply(&token, 50).expect("valid").limits;
        assert_eq!((open.max_delegates, open.allowed_cidrs.len(), open.expires_at), (None, 0, Some(10)));
        assert_eq!(open.pinned_tags, [name("gpu")]);
        let closed = patch(r#"{"enrolment":"closed","ephemeral":true}"#).apply(&token, 50).expect("valid").limits;
        assert_eq!((closed.enrolment, closed.ephemeral, closed.max_delegates), (Enrolment::Closed, true, Some(3)));
        let late = patch(r#"{"expires_at":50}"#).apply(&token, 50).expect_err("no time left");
        assert!(late.detail.contains("expires_at"), "{late}");
        assert!(patch(r#"{"max_delegates":0}"#).apply(&token, 50).is_err());
        let text = serde_json::to_string(&patch(r#"{"expires_at":null,"allowed_names":["a*"]}"#)).expect("JSON");
        assert_eq!(text, r#"{"expires_at":null,"allowed_names":["a*"]}"#);
    }
}
