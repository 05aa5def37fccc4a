//! Names and free text that people choose.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest name, in bytes.
pub const NAME_MAX: usize = 128;
/// The longest description, in characters.
pub const TEXT_MAX: usize = 1024;

/// A name, a tag or a host: 1 to 128 of `A-Z a-z 0-9 . _ : = @ -`, starting with a letter or digit.
///
/// The alphabet leaves out everything that can be mistaken for another name, moved about by bidirectional
/// text, or read as a path, a query or markup.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name: use 1 to 128 of A-Z a-z 0-9 . _ : = @ - starting with a letter or digit")]
pub struct NameError;

impl Name {
    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest legal name to a text that the machine and not a person chose, such as a host name.
    pub fn lossy(text: &str) -> Self {
        let kept: String = text.chars().filter(|c| c.is_ascii() && is_inner(*c as u8)).take(NAME_MAX).collect();
        let kept = kept.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        Self(if kept.is_empty() { "unnamed".to_owned() } else { kept.to_owned() })
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= NAME_MAX && text.bytes().all(is_inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError)
        }
    }
}

fn is_inner(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:=@-".contains(&byte)
}

/// A name, or the beginning of names followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether the name is covered.
    pub fn matches(&self, name: &Name) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => name.as_str().starts_with(start),
            None => name.as_str() == self.0,
        }
    }

    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NamePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let start = text.strip_suffix('*').unwrap_or(text);
        if !(text == "*" || start.parse::<Name>().is_ok()) {
            return Err(NameError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Free text such as a description or a reason: at most 1,024 characters, no control or bidirectional ones.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(String);

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a text: use at most 1024 characters, without control or text-direction characters")]
pub struct TextError;

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Text {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let short = text.len() <= TEXT_MAX * 4 && text.chars().count() <= TEXT_MAX;
        if short && !text.chars().any(is_treacherous) { Ok(Self(text.to_owned())) } else { Err(TextError) }
    }
}

/// Control characters, and those that reorder or hide what a person reads (Unicode TR 36).
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

macro_rules! as_string {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_string!(Name, Text);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_deceive_are_refused() {
        let long = "a".repeat(10_000_000);
        for text in ["", " a", "-a", "../a", "a/b", "a\0", "a\nb", "a\u{202e}b", "а", "a' OR 1=1", "<b>", &long] {
            assert!(text.parse::<Name>().is_err());
        }
        assert!("build-7.eu:zone=a".parse::<Name>().is_ok());
    }

    #[test]
    fn a_machine_chosen_name_is_mended() {
        assert_eq!(Name::lossy("..my host\n").as_str(), "myhost");
        assert_eq!(Name::lossy("\u{202e}").as_str(), "unnamed");
    }

    #[test]
    fn text_takes_any_script_but_nothing_that_hides() {
        assert!("Schlüssel für 東京".parse::<Text>().is_ok());
        assert!("a\u{202e}b".parse::<Text>().is_err());
        assert!("a\u{7}b".parse::<Text>().is_err());
        assert!("x".repeat(1025).parse::<Text>().is_err());
    }

    #[test]
    fn name_patterns_cover_what_they_say() {
        let name: Name = "build-7".parse().expect("a name");
        let covers = |pattern: &str| pattern.parse::<NamePattern>().is_ok_and(|pattern| pattern.matches(&name));
        assert!(covers("build-7") && covers("build-*") && covers("*"));
        assert!(!covers("build-") && !covers("build-77") && !covers("b*7"));
    }
}
