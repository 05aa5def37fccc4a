//! Delegates, their tags, and the selectors that choose among them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Millis, Name, Scope, Text,
    ids::{BootId, DelegateId, TokenId},
    word::words,
};

/// Whether the Manager lets a delegate key work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DelegateStatus {
    /// Its token wants a person to let it join first; its key is told to come again.
    Pending,
    /// May connect and work.
    Allowed,
    /// Stopped by a person; its key is refused.
    Stopped,
    /// Two processes used its key at once; both are refused until a person has looked.
    Quarantined,
}

impl DelegateStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Allowed, Self::Stopped, Self::Quarantined];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Allowed => "allowed",
            Self::Stopped => "stopped",
            Self::Quarantined => "quarantined",
        }
    }
}

words!(DelegateStatus);

/// How well a delegate keeps its tasks away from its own credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Tasks run as another user: the guarantee.
    User,
    /// Tasks are confined by Landlock: best effort.
    Landlock,
    /// Tasks run as the delegate's own user; treat a task as holding the token.
    None,
}

impl Isolation {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::User, Self::Landlock, Self::None];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }
}

words!(Isolation);

/// A delegate as the Manager knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Identity within the Manager.
    pub id: DelegateId,
    /// The scope of the token it joined with.
    pub scope: Scope,
    /// Its static X25519 public key: the identity itself.
    pub public_key: [u8; 32],
    /// The token it last proved.
    pub token: TokenId,
    /// `DELEGATE_NAME`: delegates that share it are replicas of one group.
    pub name: Name,
    /// The machine it runs on.
    pub host: Name,
    /// Claimed tags; routing, not security.
    pub tags: Vec<Name>,
    /// Free text.
    pub description: Text,
    /// Version of its program.
    pub version: String,
    /// How well it isolates tasks.
    pub isolation: Isolation,
    /// How many tasks it runs at once.
    pub capacity: u32,
    /// Whether its key may work.
    pub status: DelegateStatus,
    /// Who gave it that status; nothing for one that has the status it came with.
    pub standing: Option<Standing>,
    /// The process start the Manager counts as the real one.
    pub boot: BootId,
    /// The newest session counter of that start.
    pub counter: u64,
    /// Starts that were superseded, newest last; one that comes back is a clone.
    pub former_boots: Vec<BootId>,
    /// First connection.
    pub first_seen: Millis,
    /// Last answered heartbeat that reached the store.
    pub last_seen: Millis,
    /// Address of the last connection.
    pub address: String,
}

/// Who gave a delegate its status, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// Who, as the audit record names them.
    pub by: String,
    /// When.
    pub at: Millis,
}

/// One of two processes that used one key, as it showed itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSide {
    /// Which start.
    pub boot: BootId,
    /// `DELEGATE_NAME`.
    pub name: Name,
    /// The machine it says it runs on.
    pub host: Name,
    /// Where its last connection came from.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Claimed tags.
    pub tags: Vec<Name>,
    /// Free text.
    pub description: Text,
    /// When it was last heard.
    pub seen_at: Millis,
}

impl From<&Delegate> for CloneSide {
    /// What the last connection of a delegate showed.
    fn from(delegate: &Delegate) -> Self {
        Self {
            boot: delegate.boot,
            name: delegate.name.clone(),
            host: delegate.host.clone(),
            address: delegate.address.clone(),
            version: delegate.version.clone(),
            tags: delegate.tags.clone(),
            description: delegate.description.clone(),
            seen_at: delegate.last_seen,
        }
    }
}

/// Two processes that used one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneReport {
    /// The one that counted as the real one: the newer start.
    pub counted: CloneSide,
    /// The one that it had superseded, and that came back.
    pub returned: CloneSide,
}

/// The former starts that are remembered for telling a clone from a restart.
pub const FORMER_BOOTS_MAX: usize = 16;
/// Tags on one delegate.
pub const TAGS_MAX: usize = 64;
/// Selectors on one task.
pub const SELECTORS_MAX: usize = 16;

/// One condition on the delegate that runs a task; all of a task's selectors must match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A tag that the delegate claims, its name or its host.
    Claimed(Name),
    /// `pinned:<tag>`: a tag fixed by the delegate's token.
    Pinned(Name),
}

impl Selector {
    /// Whether what a delegate says of itself fulfils the condition. A tag that its token vouches for
    /// ([`Selector::tag`]) fulfils either kind.
    pub fn claimed_by(&self, name: &Name, host: &Name, tags: &[Name]) -> bool {
        match self {
            Self::Claimed(tag) => tag == name || tag == host || tags.contains(tag),
            Self::Pinned(_) => false,
        }
    }

    /// The tag that it asks for.
    pub const fn tag(&self) -> &Name {
        match self {
            Self::Claimed(tag) | Self::Pinned(tag) => tag,
        }
    }
}

impl FromStr for Selector {
    type Err = crate::name::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("pinned:") {
            Some(tag) => tag.parse().map(Self::Pinned),
            None => text.parse().map(Self::Claimed),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed(tag) => write!(f, "{tag}"),
            Self::Pinned(tag) => write!(f, "pinned:{tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_tag_never_satisfies_a_pinned_selector() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let matches = |selector: &str, claimed: &[Name], pinned: &[Name]| {
            let selector: Selector = selector.parse().expect("a selector");
            selector.claimed_by(&name("web"), &name("host1"), claimed) || pinned.contains(selector.tag())
        };
        assert!(matches("gpu", &[name("gpu")], &[]));
        assert!(matches("web", &[], &[]) && matches("host1", &[], &[]));
        assert!(!matches("pinned:gpu", &[name("gpu")], &[]));
        assert!(!matches("pinned:web", &[], &[]));
        assert!(matches("pinned:gpu", &[], &[name("gpu")]));
        assert!(matches("gpu", &[], &[name("gpu")]));
    }
}
