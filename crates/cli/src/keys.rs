//! The public keys with which something that the Manager signed is checked.

use std::fs;

use clap::Args;
use legation_api::proof::PublicKey;

use crate::Failure;

/// Which keys may have signed.
#[derive(Clone, Debug, Args)]
pub struct Keys {
    /// Public key that may have signed, as `legation signing-key ls` shows it, or a file with one key a line; may be
    /// given more than once
    #[arg(long = "key", value_name = "KEY", required = true)]
    keys: Vec<String>,
}

impl Keys {
    /// The keys.
    ///
    /// # Errors
    /// A text that is neither a key nor the name of a file with keys.
    pub fn read(&self) -> Result<Vec<PublicKey>, Failure> {
        let mut keys = Vec::new();
        for text in &self.keys {
            match text.parse() {
                Ok(key) => keys.push(key),
                Err(_) => keys.extend(from_file(text)?),
            }
        }
        Ok(keys)
    }
}

fn from_file(path: &str) -> Result<Vec<PublicKey>, Failure> {
    let fix = "give a key as `legation signing-key ls` shows it, or a file with one key a line";
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("{path:?} is no public key, and no file that can be read: {error}"), fix)
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<PublicKey>, _> = lines.map(str::parse).collect();
    keys.map_err(|error| Failure::usage(format!("{path}: {error}"), fix))
}
