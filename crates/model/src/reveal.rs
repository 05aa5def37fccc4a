//! Whether the values of an account's tokens can be seen again.

use serde::{Deserialize, Serialize};

/// What an account does with the values of tokens that are issued in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reveal {
    /// They are shown once and kept nowhere.
    #[default]
    Never,
    /// They are kept, sealed; who is permitted to sees one again, with a reason that is recorded first.
    Audited,
}

impl Reveal {
    /// Every policy.
    pub const ALL: [Self; 2] = [Self::Never, Self::Audited];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Audited => "audited",
        }
    }
}

crate::word::words!(Reveal);
