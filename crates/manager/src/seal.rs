//! The envelope around every secret in the store.
//!
//! A key-encryption key, kept apart from the database, wraps one data key; the data key seals each value with
//! AES-256-GCM. The associated data names table, row and column, so that a sealed value moved to another place
//! does not open.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, bail};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use legation_api::proof::hex;
use legation_model::{Entropy, Secret};
use zeroize::Zeroizing;

use crate::whole_file;

/// The file in the configuration directory that holds the key-encryption key, as 64 hexadecimal digits.
pub const KEK_FILE: &str = "kek";

/// The next one while it takes the place of the present one; see `rotate.rs`.
pub const KEK_NEXT_FILE: &str = "kek.new";

/// Seals and opens values, and makes keyed hashes.
pub struct Sealer {
    key: LessSafeKey,
    hashing: hmac::Key,
}

/// A sealed value that does not open: the wrong key-encryption key, or a changed database.
#[derive(Debug, thiserror::Error)]
#[error(
    "a sealed value in {0} does not open: the key-encryption key does not belong to this database, or the database \
     was changed; restore the matching key file"
)]
pub struct SealError(String);

impl Sealer {
    /// A sealer of this key.
    pub fn new(key: &Secret<32>) -> Self {
        let unbound = UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 bytes are an AES-256 key");
        let hashing = derive(key, "legation keyed hash v1");
        Self { key: LessSafeKey::new(unbound), hashing: hmac::Key::new(hmac::HMAC_SHA256, hashing.expose()) }
    }

    /// Seals a value for one place, spelled `table.column.row`: nonce, then ciphertext with its tag.
    pub fn seal(&self, place: &str, value: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(NONCE_LEN + value.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        let mut body = Zeroizing::new(value.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut body)
            .expect("a value far below the limit of AES-GCM seals");
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed for the same place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let error = || SealError(place.to_owned());
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(error)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| error())?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.key.open_in_place(nonce, Aad::from(place), &mut body).map_err(|_| error())?.len();
        body.truncate(length);
        Ok(body)
    }

    /// Opens a value of exactly 32 bytes.
    pub fn open_key(&self, place: &str, sealed: &[u8]) -> Result<Secret<32>, SealError> {
        let opened = self.open(place, sealed)?;
        let bytes: [u8; 32] = opened.as_slice().try_into().map_err(|_| SealError(place.to_owned()))?;
        Ok(Secret::new(bytes))
    }

    /// A keyed hash: equal inputs can be recognised, and nothing else learned, without the key.
    pub fn keyed_hash(&self, value: &[u8]) -> Vec<u8> {
        hmac::sign(&self.hashing, value).as_ref().to_vec()
    }

    /// Whether a value has this keyed hash, in constant time.
    pub fn hash_matches(&self, value: &[u8], hash: &[u8]) -> bool {
        hmac::verify(&self.hashing, value, hash).is_ok()
    }
}

/// HKDF-SHA256 of a key for one purpose.
pub fn derive(key: &Secret<32>, purpose: &str) -> Secret<32> {
    let mut derived = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"legation sealer v1")
        .extract(key.expose())
        .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .expect("32 bytes are within what HKDF-SHA256 gives");
    Secret::new(*derived)
}

/// Reads the key-encryption key, or makes one when there is none: for a database that is new.
///
/// # Errors
/// When the file is readable by others, malformed, or unwritable.
pub fn make_kek(directory: &Path, entropy: &dyn Entropy) -> anyhow::Result<Secret<32>> {
    let path = directory.join(KEK_FILE);
    match read_kek(&path)? {
        Some(key) => Ok(key),
        None => create_kek(&path, entropy),
    }
}

/// Reads the key-encryption key of a database that is not new.
///
/// # Errors
/// When the file is readable by others, malformed, or missing.
pub fn load_kek(directory: &Path) -> anyhow::Result<Secret<32>> {
    let path = directory.join(KEK_FILE);
    match read_kek(&path)? {
        Some(key) => Ok(key),
        None => bail!(
            "{} is missing, but the database is not new: restore the key file, without it no token and no key in the \
             database can be opened",
            path.display()
        ),
    }
}

/// The key in a file; `None` if there is no such file.
///
/// # Errors
/// When the file is readable by others, malformed, or unreadable.
pub(crate) fn read_kek(path: &Path) -> anyhow::Result<Option<Secret<32>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        bail!("{} can be read by others: run `chmod 600 {0}`", path.display());
    }
    let key = parse_hex(text.trim()).with_context(|| {
        format!("{} does not hold 64 hexadecimal digits: restore it from its backup", path.display())
    })?;
    Ok(Some(key))
}

/// Draws a key into a new file.
pub(crate) fn create_kek(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<Secret<32>> {
    let key = Secret::random(entropy);
    let text = Zeroizing::new(hex(key.expose()));
    whole_file::create(path, &text, 0o600)?;
    Ok(key)
}

fn parse_hex(text: &str) -> Option<Secret<32>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Secret::new(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemEntropy;

    #[test]
    fn a_sealed_value_opens_only_in_its_place_and_only_whole() {
        let sealer = Sealer::new(&Secret::new([1; 32]));
        let sealed = sealer.seal("t.c.1", b"secret", &SystemEntropy);
        assert_eq!(sealer.open("t.c.1", &sealed).expect("opens").as_slice(), b"secret");
        assert!(sealer.open("t.c.2", &sealed).is_err());
        assert!(Sealer::new(&Secret::new([2; 32])).open("t.c.1", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open("t.c.1", &changed).is_err());
            assert!(sealer.open("t.c.1", &sealed[..at]).is_err());
        }
    }

    #[test]
    fn the_key_file_is_made_once_private_and_never_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(load_kek(directory.path()).is_err(), "an old database needs its old key");
        let made = make_kek(directory.path(), &SystemEntropy).expect("made");
        let path = directory.path().join(KEK_FILE);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(make_kek(directory.path(), &SystemEntropy).expect("read"), made);
        assert_eq!(load_kek(directory.path()).expect("read"), made);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let refused = load_kek(directory.path()).expect_err("readable by others");
        assert!(refused.to_string().contains("chmod 600"));
    }
}
