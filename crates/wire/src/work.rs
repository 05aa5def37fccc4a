//! What an attempt does, and the secrets that it gets.

use legation_model::{
    secret::SecretText,
    task::{ENV_MAX, HEADERS_MAX, INTERPRETER_MAX, KEY_MAX, SECRET_MAX, TaskKind, VALUE_MAX, WORK_MAX, WORK_TOTAL_MAX},
};
use minicbor::{Decode, Encode};

use crate::{
    close::Close,
    codec,
    message::{from_slice, to_vec},
};

/// The most bytes that work may have in CBOR. With the largest secrets (32 of 16 KiB) it still fits a frame.
pub const WORK_ENCODED_MAX: usize = 384 << 10;
/// CBOR writes at most 5 bytes before each text of work: with all of them, the largest work still fits.
const _: () = assert!(WORK_TOTAL_MAX + 5 * (2 * ENV_MAX + INTERPRETER_MAX + 16) <= WORK_ENCODED_MAX);
const _: () = assert!(HEADERS_MAX <= ENV_MAX);

/// What an attempt does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Work {
    /// Runs a script.
    #[n(0)]
    Shell {
        /// The script, given to the interpreter as a file.
        #[n(0)]
        #[cbor(decode_with = "codec::text::<_, WORK_MAX>")]
        script: String,
        /// Program and arguments; empty means `/bin/sh`.
        #[n(1)]
        #[cbor(decode_with = "codec::texts::<_, INTERPRETER_MAX, VALUE_MAX>")]
        interpreter: Vec<String>,
        /// Environment variables.
        #[n(2)]
        #[cbor(decode_with = "codec::pairs::<_, ENV_MAX, KEY_MAX, VALUE_MAX>")]
        env: Vec<(String, String)>,
        /// Working directory; a fresh one if missing.
        #[n(3)]
        #[cbor(decode_with = "codec::opt_text::<_, VALUE_MAX>", nil = "codec::opt_id::nil")]
        cwd: Option<String>,
        /// Standard input.
        #[n(4)]
        #[cbor(encode_with = "codec::put_bytes", decode_with = "codec::bytes::<_, WORK_MAX>")]
        stdin: Vec<u8>,
    },
    /// Sends one HTTP request.
    #[n(1)]
    Http {
        /// Such as `GET`.
        #[n(0)]
        #[cbor(decode_with = "codec::text::<_, KEY_MAX>")]
        method: String,
        /// Absolute URL.
        #[n(1)]
        #[cbor(decode_with = "codec::text::<_, VALUE_MAX>")]
        url: String,
        /// Headers, in order.
        #[n(2)]
        #[cbor(decode_with = "codec::pairs::<_, HEADERS_MAX, KEY_MAX, VALUE_MAX>")]
        headers: Vec<(String, String)>,
        /// Body.
        #[n(3)]
        #[cbor(encode_with = "codec::put_bytes", decode_with = "codec::bytes::<_, WORK_MAX>")]
        body: Vec<u8>,
    },
}

/// Work that is larger than a delegate would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the work is too large: a script, standard input or body has at most 256 KiB, a variable, header, argument or \
     URL 32 KiB, there are at most 256 variables, 128 headers and 16 interpreter arguments, and all of it together \
     has at most 384 KiB"
)]
pub struct WorkError;

impl Work {
    /// What kind it is.
    pub const fn kind(&self) -> TaskKind {
        match self {
            Self::Shell { .. } => TaskKind::Shell,
            Self::Http { .. } => TaskKind::Http,
        }
    }

    /// The work in CBOR, as the Manager stores it.
    ///
    /// # Errors
    /// [`WorkError`] for work that [`Work::decode`] would refuse, so that none is stored that no delegate
    /// would take.
    pub fn encode(&self) -> Result<Vec<u8>, WorkError> {
        let bytes = to_vec(self).to_vec();
        Self::decode(&bytes).map(|_| bytes).map_err(|_| WorkError)
    }

    /// Reads stored work back.
    ///
    /// # Errors
    /// [`Close::TooLarge`] above [`WORK_ENCODED_MAX`], [`Close::BadFrame`] for anything that is not work.
    pub fn decode(bytes: &[u8]) -> Result<Self, Close> {
        if bytes.len() > WORK_ENCODED_MAX {
            return Err(Close::TooLarge);
        }
        from_slice(bytes)
    }
}

/// An environment variable that must not be shown.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SecretVar {
    /// The variable.
    #[n(0)]
    #[cbor(decode_with = "codec::text::<_, KEY_MAX>")]
    pub name: String,
    /// Its value.
    #[n(1)]
    #[cbor(encode_with = "codec::put_secret", decode_with = "codec::secret::<_, SECRET_MAX>")]
    pub value: SecretText,
}

impl SecretVar {
    /// A task's secrets in CBOR, for the Manager to seal.
    pub fn encode_all(secrets: &[Self]) -> zeroize::Zeroizing<Vec<u8>> {
        to_vec(&secrets)
    }

    /// Reads a task's secrets back.
    ///
    /// # Errors
    /// [`Close::BadFrame`] for anything that is not a list of secrets within its bounds.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Close> {
        let secrets: Vec<Self> = from_slice(bytes)?;
        if secrets.len() > legation_model::task::SECRETS_MAX { Err(Close::BadFrame) } else { Ok(secrets) }
    }
}
