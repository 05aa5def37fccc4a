//! Looking for secrets where none may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use legation_model::token::Token;
use memchr::memmem::Finder;

use crate::procfs;

/// A secret, in every spelling in which it could leak.
#[derive(Debug)]
pub struct Canary {
    name: String,
    spellings: Vec<(&'static str, Finder<'static>)>,
}

impl Canary {
    /// A secret text.
    pub fn text(name: &str, secret: &str) -> Self {
        Self::bytes(name, secret.as_bytes())
    }

    /// Secret bytes: searched for as they are, in hexadecimal and, at any alignment, in base64.
    pub fn bytes(name: &str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 8, "a short secret would be found by chance");
        let mut canary = Self { name: name.to_owned(), spellings: Vec::new() };
        canary.spelling("as it is", secret);
        canary.spelling("in hexadecimal", hexadecimal(secret).as_bytes());
        canary.spelling("in hexadecimal", hexadecimal(secret).to_uppercase().as_bytes());
        for offset in 0..3 {
            canary.spelling("in base64", &inner_base64(&STANDARD_NO_PAD, secret, offset));
            canary.spelling("in base64", &inner_base64(&URL_SAFE_NO_PAD, secret, offset));
        }
        canary
    }

    /// The secret part of a token, also in base62, which is how the token itself spells it.
    ///
    /// # Panics
    /// When the text is not a token.
    pub fn token(text: &str) -> Self {
        let token: Token = text.parse().expect("a token");
        let mut canary = Self::bytes("the token's secret", token.secret.expose());
        // ldt_<id>_<generation 3><secret 43>_<key and check>
        let secret = text.split('_').nth(2).expect("the third part of a token");
        canary.spelling("in base62", &secret.as_bytes()[3..]);
        canary
    }

    /// How the bytes contain the secret, if they do.
    pub fn in_bytes(&self, bytes: &[u8]) -> Option<String> {
        let (how, _) = self.spellings.iter().find(|(_, finder)| finder.find(bytes).is_some())?;
        Some(format!("{} {how}", self.name))
    }

    /// Files below a directory that contain the secret, except those named. A file that vanishes meanwhile
    /// is passed over, one that cannot be read is an error.
    ///
    /// # Panics
    /// When a file cannot be read: it would count as clean.
    pub fn in_tree(&self, directory: &Path, except: &[&Path]) -> Vec<String> {
        let files = files(directory).into_iter().filter(|file| !except.contains(&file.as_path()));
        files.filter_map(|file| Some(format!("{}: {}", file.display(), self.in_bytes(&content(&file))?))).collect()
    }

    /// How the arguments or the environment of a process contain the secret, if they do.
    pub fn in_process(&self, pid: u32) -> Option<String> {
        Some(format!("process {pid}: {}", self.in_bytes(&procfs::exposed(pid))?))
    }

    fn spelling(&mut self, how: &'static str, bytes: &[u8]) {
        self.spellings.push((how, Finder::new(bytes).into_owned()));
    }
}

fn content(file: &Path) -> Vec<u8> {
    match fs::read(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("cannot search {}: {error}", file.display())
        }
        read => read.unwrap_or_default(),
    }
}

/// Every regular file below a directory, at any depth.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The characters of base64 that the secret alone decides when `offset` bytes stand before it.
fn inner_base64(alphabet: &impl Engine, secret: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let text = alphabet.encode(&padded).into_bytes();
    let first = (offset * 8).div_ceil(6);
    let whole = padded.len() * 8 / 6;
    text[first..whole].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_spelling_and_at_every_place() {
        let secret = b"\xfb\xef\x01 the secret \xff\xfe";
        let canary = Canary::bytes("it", secret);
        for before in 0..5 {
            let mut inner = vec![b'x'; before];
            inner.extend_from_slice(secret);
            inner.extend_from_slice(b"after");
            assert!(canary.in_bytes(&inner).is_some());
            assert!(canary.in_bytes(hexadecimal(&inner).as_bytes()).is_some());
            assert!(canary.in_bytes(STANDARD_NO_PAD.encode(&inner).as_bytes()).is_some(), "{before}");
            assert!(canary.in_bytes(URL_SAFE_NO_PAD.encode(&inner).as_bytes()).is_some(), "{before}");
        }
        assert_eq!(canary.in_bytes(b"the secre and nothing more"), None);
    }

    #[test]
    fn a_tree_is_searched_to_its_leaves() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("a/b");
        fs::create_dir_all(&deep).expect("directories");
        fs::write(deep.join("log"), "a line with hunter2hunter2 in it").expect("a file");
        let canary = Canary::text("the password", "hunter2hunter2");
        assert_eq!(canary.in_tree(directory.path(), &[]).len(), 1);
        assert_eq!(canary.in_tree(directory.path(), &[&deep.join("log")]), Vec::<String>::new());
    }
}
