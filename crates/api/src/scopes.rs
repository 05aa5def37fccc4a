//! The scope tree: accounts, organizations in them, and projects in those.
//!
//! In the path of a request a scope is spelled with dots, `acme.eng.web`; everywhere else with slashes, `acme/eng/web`.

use legation_model::{Millis, Scope as Place, Text, reveal::Reveal, scope::ScopeKind};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Problem, accounts::check_lease};

/// A place in the scope tree as the Manager knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Scope)]
pub struct Scope {
    /// The place, with everything above it.
    #[schema(value_type = String, example = "acme/eng/web")]
    pub scope: Place,
    /// How deep in the tree it is.
    #[schema(schema_with = crate::schema::scope_kind)]
    pub kind: ScopeKind,
    /// The identifier of its own level.
    #[schema(example = "web")]
    pub id: String,
    /// Free text.
    #[schema(value_type = String)]
    pub description: Text,
    /// Of an account: how long its delegates may act after the last answered heartbeat. `null` for the Manager's default,
    /// and for a place that is no account.
    pub lease_ms: Option<Millis>,
    /// Of an account: whether the values of tokens that are issued in it and below are kept, to be seen again. `null` for
    /// a place that is no account.
    #[schema(schema_with = crate::schema::reveal)]
    pub reveal: Option<Reveal>,
    /// Counts its changes, from 1; also in the header `ETag`.
    pub version: u64,
    /// When it was created.
    pub created_at: Millis,
    /// Who created it.
    pub created_by: String,
}

/// Creates a place, its unissued `default_token` with it. What lies above it must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateScope {
    /// The place: one level for an account, two for an organization, three for a project.
    #[schema(value_type = String, example = "acme/eng")]
    pub scope: Place,
    /// Free text.
    #[serde(default)]
    #[schema(value_type = String)]
    pub description: Text,
    /// Of an account: how long its delegates may act after the last answered heartbeat, 15 seconds to 24 hours; the
    /// Manager's default when absent.
    #[serde(default)]
    pub lease_ms: Option<Millis>,
}

impl CreateScope {
    /// The rules that a type cannot express.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead.
    pub fn check(&self) -> Result<(), Problem> {
        lease_fits(self.scope.kind(), self.lease_ms)
    }
}

/// Changes a place: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateScope {
    /// A new text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Text>,
    /// Of an account: another lease, which delegates are granted from their next connection on; `null` for the Manager's
    /// default.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub lease_ms: Option<Option<Millis>>,
    /// Of an account: `audited` keeps the values of tokens that are issued from now on, to be seen again with a reason that
    /// is recorded; `never` erases those that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::schema::reveal)]
    pub reveal: Option<Reveal>,
}

/// Tells `null` from a field that is not there.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl UpdateScope {
    /// The rules that a type cannot express, for a place of this kind.
    ///
    /// # Errors
    /// `invalid_request` with the field and what to write instead.
    pub fn check(&self, kind: ScopeKind) -> Result<(), Problem> {
        if self == &Self::default() {
            return Err(Problem::invalid("body", "nothing to change", "send description, lease_ms or reveal"));
        }
        if self.reveal.is_some() && kind != ScopeKind::Account {
            return Err(only_of_account("reveal"));
        }
        lease_fits(kind, self.lease_ms.flatten())
    }
}

fn only_of_account(field: &str) -> Problem {
    let rule = format!("only an account has a {}", field.trim_end_matches("_ms"));
    Problem::invalid(field, &rule, "leave it out, or set it on the account at the top")
}

fn lease_fits(kind: ScopeKind, lease: Option<Millis>) -> Result<(), Problem> {
    if lease.is_some() && kind != ScopeKind::Account {
        return Err(only_of_account("lease_ms"));
    }
    check_lease(lease)
}

/// What deleting would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedScope {
    /// The place as it stood.
    pub scope: Scope,
}

/// Which places to list; all of them in the order of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ScopesQuery {
    /// Only this one and everything below it.
    #[param(value_type = Option<String>)]
    pub scope: Option<Place>,
    /// Only those directly below this one.
    #[param(value_type = Option<String>)]
    pub parent: Option<Place>,
    /// Only accounts, only organizations or only projects.
    #[param(schema_with = crate::schema::scope_kind)]
    pub kind: Option<ScopeKind>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// What a query asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// This place and everything below it; the whole tree without one.
    pub within: Option<Place>,
    /// Only places of this kind.
    pub kind: Option<ScopeKind>,
}

impl ScopesQuery {
    /// The part of the tree that is wanted, and the kind; no kind at all where nothing can match.
    ///
    /// # Errors
    /// `invalid_request` when `scope` and `parent` are both given.
    pub fn wanted(&self) -> Result<Option<Wanted>, Problem> {
        let Some(parent) = &self.parent else {
            return Ok(Some(Wanted { within: self.scope.clone(), kind: self.kind }));
        };
        if self.scope.is_some() {
            let fix = "use parent for what lies directly below, or scope for everything below";
            return Err(Problem::invalid("parent", "it excludes scope", fix));
        }
        let below = parent.kind().below().filter(|below| self.kind.is_none_or(|kind| kind == *below));
        Ok(below.map(|below| Wanted { within: Some(parent.clone()), kind: Some(below) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().expect("a scope")
    }

    #[test]
    fn only_an_account_has_a_lease_and_keeps_values() {
        let create = |scope, lease_ms| CreateScope { scope: place(scope), description: Text::default(), lease_ms };
        assert!(create("acme", Some(15_000)).check().is_ok());
        assert!(create("acme", Some(14_999)).check().is_err());
        assert!(create("acme/eng", None).check().is_ok());
        let told = create("acme/eng", Some(15_000)).check().expect_err("no account");
        assert!(told.detail.contains("lease_ms"), "{told}");
        let kept = UpdateScope { reveal: Some(Reveal::Audited), ..UpdateScope::default() };
        assert!(kept.check(ScopeKind::Account).is_ok() && kept.check(ScopeKind::Project).is_err());
    }

    #[test]
    fn null_is_a_change_and_nothing_is_none() {
        let patch = |text: &str| crate::json::parse::<UpdateScope>(text.as_bytes()).expect("a patch");
        assert_eq!(patch(r#"{"lease_ms":null}"#).lease_ms, Some(None));
        assert!(patch(r#"{"lease_ms":null}"#).check(ScopeKind::Account).is_ok());
        assert!(patch("{}").check(ScopeKind::Account).is_err());
        assert_eq!(serde_json::to_string(&patch(r#"{"lease_ms":null}"#)).expect("JSON"), r#"{"lease_ms":null}"#);
    }

    #[test]
    fn directly_below_is_one_kind_of_one_part_of_the_tree() {
        let wanted = |query: ScopesQuery| query.wanted().expect("a query");
        let below = |parent, kind| ScopesQuery { parent: Some(place(parent)), kind, ..ScopesQuery::default() };
        assert_eq!(
            wanted(below("a", None)),
            Some(Wanted { within: Some(place("a")), kind: Some(ScopeKind::Organization) })
        );
        assert_eq!(wanted(below("a", Some(ScopeKind::Project))), None);
        assert_eq!(wanted(below("a/b/c", None)), None);
        assert_eq!(wanted(ScopesQuery::default()), Some(Wanted { within: None, kind: None }));
        assert!(ScopesQuery { scope: Some(place("a")), ..below("a", None) }.wanted().is_err());
    }
}
