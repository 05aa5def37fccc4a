//! How the model's nouns look in CBOR, and the bound of each text and list, checked while it is read.

use std::{fmt::Display, str::FromStr};

use legation_model::{Text, name::TEXT_MAX, secret::SecretText, task::TaskState};
use minicbor::{
    Decode, Decoder, Encoder,
    decode::Error,
    encode::{Error as EncodeError, Write},
};

use crate::message::INTERVAL_MAX;

/// The longest text of a model noun, in bytes: a description of 1,024 four-byte characters.
const WORD_MAX: usize = 4 * TEXT_MAX;

/// A 16-byte id as a byte string.
pub(crate) mod id {
    use super::*;

    pub(crate) fn encode<C, T: AsRef<[u8; 16]>, W: Write>(
        id: &T,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(id.as_ref())?.ok()
    }

    pub(crate) fn decode<C, T: From<[u8; 16]>>(d: &mut Decoder<'_>, _: &mut C) -> Result<T, Error> {
        let bytes: [u8; 16] = d.bytes()?.try_into().map_err(|_| Error::message("an id has 16 bytes"))?;
        Ok(T::from(bytes))
    }
}

/// An id that may be missing.
pub(crate) mod opt_id {
    use super::*;

    pub(crate) fn encode<C, T: AsRef<[u8; 16]>, W: Write>(
        value: &Option<T>,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(value) => id::encode(value, e, c),
            None => e.null()?.ok(),
        }
    }

    pub(crate) fn decode<C, T: From<[u8; 16]>>(d: &mut Decoder<'_>, c: &mut C) -> Result<Option<T>, Error> {
        if d.datatype()? == minicbor::data::Type::Null {
            d.null()?;
            return Ok(None);
        }
        id::decode(d, c).map(Some)
    }

    #[expect(clippy::option_option, reason = "the shape that minicbor asks for: the nil of an optional field")]
    pub(crate) fn nil<T>() -> Option<Option<T>> {
        Some(None)
    }

    pub(crate) fn is_nil<T>(value: &Option<T>) -> bool {
        value.is_none()
    }
}

/// A name, a scope, a state: whatever the model reads from a text and refuses otherwise.
pub(crate) mod word {
    use super::*;

    pub(crate) fn encode<C, T: Display, W: Write>(
        value: &T,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.str(&value.to_string())?.ok()
    }

    pub(crate) fn decode<C, T: FromStr>(d: &mut Decoder<'_>, _: &mut C) -> Result<T, Error> {
        let text = bounded_str(d, WORD_MAX)?;
        text.parse().map_err(|_| Error::message("a text that the model refuses"))
    }
}

/// At most `N` such words.
pub(crate) mod words {
    use super::*;

    pub(crate) fn encode<C, T: Display, W: Write>(
        values: &[T],
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(values.len() as u64)?;
        values.iter().try_for_each(|value| word::encode(value, e, c))
    }

    pub(crate) fn decode<C, T: FromStr, const N: usize>(d: &mut Decoder<'_>, c: &mut C) -> Result<Vec<T>, Error> {
        elements(d, N, |d| word::decode(d, c))
    }
}

/// Text that the far side wrote for a person: cut when it is too long, and cleared of what could deceive
/// its reader, rather than refused, because the fact that it explains matters more.
pub(crate) mod reason {
    use super::*;

    pub(crate) fn encode<C, W: Write>(text: &str, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.str(&mend(text))?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, Error> {
        Ok(mend(bounded_str(d, WORD_MAX)?))
    }

    /// The same text as the model's [`Text`] would take it.
    fn mend(text: &str) -> String {
        let cut: String = text.chars().take(TEXT_MAX).collect();
        if cut.parse::<Text>().is_ok() {
            return cut;
        }
        let legal = |c: char| c.encode_utf8(&mut [0; 4]).parse::<Text>().is_ok();
        cut.chars().map(|c| if legal(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
    }
}

/// A task's final state as a delegate may report it; `rejected` is the Manager's alone.
pub(crate) fn ended<C>(d: &mut Decoder<'_>, c: &mut C) -> Result<TaskState, Error> {
    let state: TaskState = word::decode(d, c)?;
    let reportable = state.is_final() && state != TaskState::Rejected;
    reportable.then_some(state).ok_or_else(|| Error::message("not a state that a delegate reports"))
}

/// A text of at most `N` bytes.
pub(crate) fn text<C, const N: usize>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, Error> {
    bounded_str(d, N).map(str::to_owned)
}

/// A text of at most `N` bytes that may be missing.
pub(crate) fn opt_text<C, const N: usize>(d: &mut Decoder<'_>, c: &mut C) -> Result<Option<String>, Error> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    text::<C, N>(d, c).map(Some)
}

/// At most `COUNT` texts of at most `N` bytes.
pub(crate) fn texts<C, const COUNT: usize, const N: usize>(
    d: &mut Decoder<'_>,
    c: &mut C,
) -> Result<Vec<String>, Error> {
    elements(d, COUNT, |d| text::<C, N>(d, c))
}

/// At most `COUNT` pairs of a key of at most `K` bytes and a value of at most `V`.
pub(crate) fn pairs<C, const COUNT: usize, const K: usize, const V: usize>(
    d: &mut Decoder<'_>,
    c: &mut C,
) -> Result<Vec<(String, String)>, Error> {
    elements(d, COUNT, |d| {
        if d.array()? != Some(2) {
            return Err(Error::message("a pair has two elements"));
        }
        Ok((text::<C, K>(d, c)?, text::<C, V>(d, c)?))
    })
}

/// At most `COUNT` elements that read themselves.
pub(crate) fn list<'b, C, T: Decode<'b, C>, const COUNT: usize>(
    d: &mut Decoder<'b>,
    c: &mut C,
) -> Result<Vec<T>, Error> {
    elements(d, COUNT, |d| T::decode(d, c))
}

/// A byte string of at most `N` bytes.
pub(crate) fn bytes<C, const N: usize>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, Error> {
    let bytes = d.bytes()?;
    if bytes.len() > N {
        return Err(Error::message("a byte string above its bound"));
    }
    Ok(bytes.to_vec())
}

/// Bytes as a CBOR byte string, not as an array of numbers.
pub(crate) fn put_bytes<C, W: Write>(bytes: &[u8], e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
    e.bytes(bytes)?.ok()
}

fn bounded_str<'b>(d: &mut Decoder<'b>, max: usize) -> Result<&'b str, Error> {
    let text = d.str()?;
    if text.len() > max { Err(Error::message("a text above its bound")) } else { Ok(text) }
}

/// Reads a list whose stated length is checked before anything is reserved for it.
fn elements<'b, T>(
    d: &mut Decoder<'b>,
    max: usize,
    mut read: impl FnMut(&mut Decoder<'b>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    match d.array()? {
        Some(count) if count <= max as u64 => (0..count).map(|_| read(d)).collect(),
        _ => Err(Error::message("a list above its bound")),
    }
}

/// A secret text of at most `N` bytes.
pub(crate) fn secret<C, const N: usize>(d: &mut Decoder<'_>, c: &mut C) -> Result<SecretText, Error> {
    text::<C, N>(d, c).map(SecretText::new)
}

/// Writes a secret text.
pub(crate) fn put_secret<C, W: Write>(
    secret: &SecretText,
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    e.str(secret.expose())?.ok()
}

/// A short text of visible ASCII, such as a version: 1 to `N` bytes.
pub(crate) fn label<C, const N: usize>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, Error> {
    let text = bounded_str(d, N)?;
    let legal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    legal.then(|| text.to_owned()).ok_or_else(|| Error::message("not a label"))
}

/// At most `COUNT` labels.
pub(crate) fn labels<C, const COUNT: usize, const N: usize>(
    d: &mut Decoder<'_>,
    c: &mut C,
) -> Result<Vec<String>, Error> {
    elements(d, COUNT, |d| label::<C, N>(d, c))
}

/// Milliseconds of something that repeats: not zero, at most [`INTERVAL_MAX`].
pub(crate) fn interval<C>(d: &mut Decoder<'_>, c: &mut C) -> Result<u64, Error> {
    match delay(d, c)? {
        0 => Err(Error::message("an interval of nothing")),
        interval => Ok(interval),
    }
}

/// Milliseconds to wait: at most [`INTERVAL_MAX`].
pub(crate) fn delay<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<u64, Error> {
    let delay = d.u64()?;
    if delay > INTERVAL_MAX { Err(Error::message("a delay above its bound")) } else { Ok(delay) }
}
