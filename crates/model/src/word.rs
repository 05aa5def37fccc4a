//! Words from closed lists: states, kinds and roles, as rows and documents spell them.

/// Gives an enum with `ALL` and `as_str` its `Display` and `FromStr`.
macro_rules! words {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::word::WordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.into_iter().find(|word| word.as_str() == text).ok_or($crate::word::WordError)
            }
        }
    };
}
pub(crate) use words;

/// A word that is not in the closed list it should come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of the known words")]
pub struct WordError;
