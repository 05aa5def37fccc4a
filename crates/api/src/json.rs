//! Reading JSON that a stranger sent.
//!
//! serde alone takes the last of two equal keys of a map, and takes nesting up to 128 levels; which value wins
//! should never be a question, and no request here is deeper than a few levels. So a first pass walks the text
//! without keeping anything and checks its shape, a second one reads the wanted type.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_path_to_error::{Deserializer as Tracked, Track};

use crate::{Code, Problem};

/// Objects and arrays inside each other. A path that a person can read is far shorter.
pub const DEPTH_MAX: usize = 64;

/// Reads one JSON value and nothing after it.
///
/// # Errors
/// `invalid_request` for text that is not JSON, for two equal keys in an object, for more than [`DEPTH_MAX`]
/// levels, for anything behind the value and for whatever the type refuses. The detail has the path of the
/// offending field, or line and column, and never a value.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    check_shape(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut track = Track::new();
    T::deserialize(Tracked::new(&mut reader, &mut track)).map_err(|error| refusal(&track.path(), &error))
}

fn check_shape(bytes: &[u8]) -> Result<(), Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut track = Track::new();
    Shape { left: DEPTH_MAX }
        .deserialize(Tracked::new(&mut reader, &mut track))
        .map_err(|error| refusal(&track.path(), &error))?;
    reader.end().map_err(|error| refusal_text(&error.to_string(), "send one JSON value and nothing after it"))
}

fn refusal(path: &serde_path_to_error::Path, error: &serde_json::Error) -> Problem {
    let text = shortened(&without_value(&error.to_string()));
    let fix = fix_for(&text);
    match path.iter().next() {
        Some(_) => refusal_text(&format!("{}: {text}", shortened(&path.to_string())), fix),
        None => refusal_text(&text, fix),
    }
}

fn refusal_text(detail: &str, fix: &str) -> Problem {
    Problem::new(Code::InvalidRequest, detail).with_fix(fix)
}

fn fix_for(text: &str) -> &'static str {
    const FIXES: [(&str, &str); 7] = [
        ("unknown field", "remove the field, or use one of those expected"),
        ("missing field", "add the field"),
        ("duplicate", "keep only one of the fields with that name"),
        ("levels", "send a flatter value; nothing in this API nests that deep"),
        ("recursion", "send a flatter value; nothing in this API nests that deep"),
        ("EOF", "send the whole JSON value; it seems to be cut short"),
        ("invalid type", "use the type that is expected"),
    ];
    let found = FIXES.into_iter().find(|(word, _)| text.contains(word));
    found.map_or("change the field so that it fits what the detail says", |(_, fix)| fix)
}

/// serde repeats a value of the wrong type; it may be a secret in the wrong place.
fn without_value(text: &str) -> String {
    let known = text.starts_with("invalid type: ") || text.starts_with("invalid value: ");
    match (text.find(['"', '`']), text.rfind(", expected ")) {
        (Some(value), Some(rest)) if known && value < rest => {
            format!("{}{}", text[..value].trim_end(), &text[rest..])
        }
        _ => text.to_owned(),
    }
}

/// Characters of a message or path that are worth repeating; what is longer was chosen by the sender.
const MESSAGE_MAX: usize = 300;

fn shortened(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut short: String = clean.take(MESSAGE_MAX).collect();
    if text.chars().nth(MESSAGE_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Walks a value without keeping it; `left` levels may still be entered.
#[derive(Clone, Copy)]
struct Shape {
    left: usize,
}

impl Shape {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left }),
            None => Err(E::custom(format!("nested more than {DEPTH_MAX} levels deep"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::{tasks::SubmitTask, tokens::CreateToken};

    fn detail<T: DeserializeOwned>(text: &str) -> String {
        let problem = parse::<T>(text.as_bytes()).err().expect("a refusal");
        assert_eq!(problem.code, Code::InvalidRequest);
        assert!(!problem.fix.is_empty());
        problem.detail
    }

    #[test]
    fn equal_keys_are_refused_at_every_depth() {
        assert!(detail::<Value>(r#"{"a":1,"a":2}"#).contains("duplicate field `a`"));
        assert!(detail::<Value>(r#"{"x":[{"a":1,"b":{"c":1,"c":2}}]}"#).starts_with("x[0].b"));
        assert!(detail::<BTreeMap<String, u8>>(r#"{"a":1,"a":2}"#).contains("duplicate"));
        assert!(detail::<CreateToken>(r#"{"scope":"a","scope":"b","name":"x"}"#).contains("duplicate"));
    }

    #[test]
    fn nesting_is_an_error_and_not_a_crash() {
        for depth in [65, 127, 129, 10_000, 1_000_000] {
            detail::<Value>(&"[".repeat(depth));
            detail::<Value>(&r#"{"a":"#.repeat(depth));
            detail::<Value>(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        }
        let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(parse::<Value>(deepest.as_bytes()).is_ok());
    }

    #[test]
    fn trailing_data_and_cut_texts_are_refused() {
        assert!(detail::<Value>("{} {}").contains("trailing"));
        assert!(detail::<Value>("").contains("EOF"));
        assert!(detail::<Value>(r#"{"a":"#).contains("EOF"));
    }

    #[test]
    fn the_detail_has_the_path_and_never_the_value() {
        let wrong = r#"{"scope":"default","name":"x","allowed_cidrs":["10.0.0.0/8"],"max_delegates":"hunter2"}"#;
        assert!(detail::<CreateToken>(wrong).starts_with("max_delegates: invalid type: string, expected u32"));
        let misplaced = r#"{"scope":"default","work":{"shell":{"script":"x"}},"secrets":"hunter2, expected `x`"}"#;
        assert!(detail::<SubmitTask>(misplaced).starts_with("secrets: invalid type: string, expected a map"));
        let unknown = r#"{"scope":"default","work":{"shell":{"script":"true","sript":1}}}"#;
        assert!(detail::<SubmitTask>(unknown).starts_with("work.shell.sript: unknown field"));
        assert!(
            detail::<SubmitTask>(r#"{"scope":"D","work":{"shell":{"script":"x"}}}"#).starts_with("scope: not a scope")
        );
    }

    #[test]
    fn a_name_of_ten_megabytes_is_not_repeated() {
        let text = format!(r#"{{"{}":1}}"#, "\\u001b".repeat(1_000_000));
        let detail = detail::<CreateToken>(&text);
        assert!(detail.len() < 2 * MESSAGE_MAX * 4 && !detail.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ours = parse::<Value>(&bytes);
            let plain = serde_json::from_slice::<Value>(&bytes);
            prop_assert!(ours.is_err() || plain.is_ok());
        }
    }
}
