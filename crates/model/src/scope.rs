//! The scope tree: account, organization, project.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest identifier of one level.
pub const IDENTIFIER_MAX: usize = 64;
/// The account that a new Manager is born with.
pub const DEFAULT_ACCOUNT: &str = "default";
/// Account, organization, project.
pub const LEVELS_MAX: usize = 3;

/// A place in the scope tree, spelled `account`, `account/organization` or `account/organization/project`.
///
/// Each level matches `[a-z0-9][a-z0-9_-]{0,63}`, so a scope has one spelling, is safe in a path and never
/// looks like another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// The account at the top of this scope.
    pub fn account(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The scope of that account itself.
    pub fn top(&self) -> Self {
        Self(self.account().to_owned())
    }

    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this scope or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Why a text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a scope: use account, account/organization or account/organization/project, each 1 to 64 of a-z 0-9 _ - \
     starting with a letter or digit"
)]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let legal = text.len() <= LEVELS_MAX * (IDENTIFIER_MAX + 1)
            && text.split('/').count() <= LEVELS_MAX
            && text.split('/').all(is_identifier);
        if legal { Ok(Self(text.to_owned())) } else { Err(ScopeError) }
    }
}

fn is_identifier(level: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    level.len() <= IDENTIFIER_MAX
        && level.bytes().all(inner)
        && level.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().expect("a legal scope")
    }

    #[test]
    fn a_scope_contains_itself_and_what_is_below_but_no_neighbour() {
        assert!(scope("acme").contains(&scope("acme")));
        assert!(scope("acme").contains(&scope("acme/eng/web")));
        assert!(!scope("acme").contains(&scope("acme2")));
        assert!(!scope("acme/eng").contains(&scope("acme")));
    }

    #[test]
    fn strange_spellings_are_refused() {
        let long = "a".repeat(65);
        for text in ["", "/", "a/", "/a", "a//b", "A", "-a", "a.b", "..", "a/b/c/d", "ä", "a\u{202e}", &long] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }
}
