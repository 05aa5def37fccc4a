//! The common form of credentials that are presented to the Manager: `<prefix><id><secret>_<check>`.
//!
//! The id is public and finds the row; the secret proves the rest. A double click selects the whole, and a typing error is
//! found without asking anybody.

use zeroize::Zeroizing;

use crate::{Secret, base62, ids::ID_CHARS, secret::SecretText};

const SECRET_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;

/// How many characters a credential has behind its prefix.
pub(crate) const CHARS: usize = ID_CHARS + SECRET_CHARS + 1 + CHECK_CHARS;

/// The one spelling of a credential.
pub(crate) fn spell(prefix: &str, id: &[u8; 16], secret: &Secret<32>) -> SecretText {
    let mut text = String::with_capacity(prefix.len() + CHARS);
    text.push_str(prefix);
    base62::encode(id, ID_CHARS, &mut text);
    base62::encode(secret.expose(), SECRET_CHARS, &mut text);
    text.push('_');
    let check = crc32fast::hash(text.as_bytes());
    base62::encode(&check.to_be_bytes(), CHECK_CHARS, &mut text);
    SecretText::new(text)
}

/// The id and the secret of a credential with this prefix; nothing if the text is no such credential.
pub(crate) fn read(prefix: &str, text: &str) -> Option<([u8; 16], Secret<32>)> {
    let text = text.trim();
    if text.len() != prefix.len() + CHARS || !text.is_ascii() {
        return None;
    }
    let (body, check) = text.split_at(text.len() - CHECK_CHARS);
    let (id, secret) = body.strip_prefix(prefix)?.strip_suffix('_')?.split_at(ID_CHARS);
    let (mut id_bytes, mut secret_bytes, mut check_bytes) = ([0; 16], Zeroizing::new([0; 32]), [0; 4]);
    base62::decode(id, &mut id_bytes)?;
    base62::decode(secret, secret_bytes.as_mut_slice())?;
    base62::decode(check, &mut check_bytes)?;
    (u32::from_be_bytes(check_bytes) == crc32fast::hash(body.as_bytes()))
        .then(|| (id_bytes, Secret::new(*secret_bytes)))
}
