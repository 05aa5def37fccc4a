//! The scope tree: account, organization, project.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest identifier of one level.
pub const IDENTIFIER_MAX: usize = 64;
/// The account that a new Manager is born with.
pub const DEFAULT_ACCOUNT: &str = "default";
/// Account, organization, project.
pub const LEVELS_MAX: usize = 3;
/// Scopes that a list is confined to at once: as many as one principal may have grants in.
pub const WITHIN_MAX: usize = 64;

/// How deep in the tree a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// The top of a tree: one tenant.
    Account,
    /// A part of an account.
    Organization,
    /// A part of an organization; nothing lies below it.
    Project,
}

impl ScopeKind {
    /// Every kind, from the top down.
    pub const ALL: [Self; LEVELS_MAX] = [Self::Account, Self::Organization, Self::Project];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Organization => "organization",
            Self::Project => "project",
        }
    }

    /// The kind of what lies directly below; nothing below a project.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Account => Some(Self::Organization),
            Self::Organization => Some(Self::Project),
            Self::Project => None,
        }
    }

    /// How many levels lie above.
    pub const fn depth(self) -> usize {
        self as usize
    }
}

crate::word::words!(ScopeKind);

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

    /// How deep it is.
    pub fn kind(&self) -> ScopeKind {
        match self.0.split('/').count() {
            1 => ScopeKind::Account,
            2 => ScopeKind::Organization,
            _ => ScopeKind::Project,
        }
    }

    /// The identifier of its own level.
    pub fn own(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The scope in which it lies; none above an account.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(above, _)| Self(above.to_owned()))
    }

    /// The scopes above it, the account first.
    pub fn above(&self) -> Vec<Self> {
        self.0.match_indices('/').map(|(at, _)| Self(self.0[..at].to_owned())).collect()
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

/// The part of the scope tree that something is confined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// The whole tree.
    Everywhere,
    /// These scopes and what is below them; none of them contains another. Nowhere without any.
    Below(Vec<Scope>),
}

impl Within {
    /// These scopes and what is below them, at most [`WITHIN_MAX`]: what is beyond is left out, because what cannot
    /// be shown to be allowed is denied.
    pub fn below(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let mut all: Vec<Scope> = scopes.into_iter().collect();
        // A scope sorts before everything below it.
        all.sort();
        let mut tops: Vec<Scope> = Vec::new();
        for scope in all {
            if !tops.iter().any(|top| top.contains(&scope)) {
                tops.push(scope);
            }
        }
        tops.truncate(WITHIN_MAX);
        Self::Below(tops)
    }

    /// Whether a scope lies within.
    pub fn contains(&self, scope: &Scope) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Below(scopes) => scopes.iter().any(|top| top.contains(scope)),
        }
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

/// A scope as the path of a request spells it: dots between the levels, `acme.eng.web`.
///
/// No identifier has a dot, so nothing needs escaping; a slash would, and proxies undo that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dotted(pub Scope);

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.0.replace('/', "."))
    }
}

impl FromStr for Dotted {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.contains('/') { Err(ScopeError) } else { text.replace('.', "/").parse().map(Self) }
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
    fn every_level_knows_what_is_above_it() {
        let kinds = ["acme", "acme/eng", "acme/eng/web"].map(|text| scope(text).kind());
        assert_eq!(kinds, ScopeKind::ALL);
        assert_eq!(scope("acme/eng/web").above(), [scope("acme"), scope("acme/eng")]);
        assert_eq!(scope("acme/eng/web").parent(), Some(scope("acme/eng")));
        assert_eq!((scope("acme").parent(), scope("acme").above().len()), (None, 0));
        assert_eq!((scope("acme").own(), scope("acme/eng").own()), ("acme", "eng"));
        for kind in ScopeKind::ALL {
            assert_eq!(kind.below(), ScopeKind::ALL.get(kind.depth() + 1).copied());
        }
    }

    #[test]
    fn a_path_spells_levels_with_dots_and_in_no_other_way() {
        for text in ["acme", "acme/eng", "acme/eng/web"] {
            let dotted = Dotted(scope(text));
            assert_eq!(dotted.to_string(), text.replace('/', "."));
            assert_eq!(dotted.to_string().parse(), Ok(dotted));
        }
        for text in ["acme/eng", "acme.", ".acme", "a..b", "a.b.c.d", "", "."] {
            assert!(text.parse::<Dotted>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_within_is_reduced_to_its_tops_and_bounded() {
        let within = Within::below(["b/x", "a/x/y", "a", "a/x", "a-b", "b/x"].map(scope));
        assert_eq!(within, Within::Below(["a", "a-b", "b/x"].map(scope).to_vec()));
        for (inside, text) in [(true, "a"), (true, "a/z"), (true, "b/x/1"), (false, "b"), (false, "b/xy"), (false, "c")]
        {
            assert_eq!(within.contains(&scope(text)), inside, "{text}");
        }
        assert!(Within::Everywhere.contains(&scope("a")) && !Within::below([]).contains(&scope("a")));
        let many = Within::below((0..=WITHIN_MAX).map(|number| scope(&format!("a{number:03}"))));
        assert!(matches!(&many, Within::Below(scopes) if scopes.len() == WITHIN_MAX));
    }

    #[test]
    fn strange_spellings_are_refused() {
        let long = "a".repeat(65);
        for text in ["", "/", "a/", "/a", "a//b", "A", "-a", "a.b", "..", "a/b/c/d", "ä", "a\u{202e}", &long] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }
}
