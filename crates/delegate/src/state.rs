//! The state directory: the delegate's identity, and a lock so that one process has it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use legation_model::{Entropy, Secret};
use legation_wire::KeyPair;
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

/// Why the directory cannot be used, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds it.
    #[error("another delegate uses {0}: stop it, or give each delegate a DELEGATE_STATE_DIR of its own")]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot use the state directory {0}: {1}: make it writable for this user or set DELEGATE_STATE_DIR")]
    Unusable(PathBuf, io::Error),
    /// The path, or a part of it, is a file.
    #[error(
        "the state directory {0} is a file or below one: name a directory in DELEGATE_STATE_DIR, or move the file away"
    )]
    NotADirectory(PathBuf),
    /// The key file is not a key.
    #[error("{0} is not a delegate key: restore it, or remove it to join as a new delegate")]
    BadKey(PathBuf),
}

/// The directory, held by this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory (0700) if needed and takes it.
    ///
    /// # Errors
    /// [`StateError::InUse`], [`StateError::NotADirectory`] or [`StateError::Unusable`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => StateError::NotADirectory(path.to_owned()),
            _ => StateError::Unusable(path.to_owned(), error),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => StateError::InUse(path.to_owned()),
            error => unusable(error.into()),
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where attempts are kept.
    pub fn attempts(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// The delegate's key; made at the first start.
    ///
    /// # Errors
    /// [`StateError::BadKey`] rather than a new identity when the file is damaged.
    pub fn identity(&self, entropy: &dyn Entropy) -> Result<KeyPair, StateError> {
        let path = self.path.join("key");
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| StateError::BadKey(path))?;
                Ok(KeyPair::from_private(Secret::new(bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = KeyPair::generate(entropy);
                self.write("key", pair.private.expose()).map_err(|error| StateError::Unusable(path, error))?;
                Ok(pair)
            }
            Err(error) => Err(StateError::Unusable(path, error)),
        }
    }

    /// A small file of this directory.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(name)).ok()
    }

    /// Replaces a small file of this directory, durably and as a whole.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_durably(&self.path, name, bytes)
    }
}

/// Writes a file (0600) so that after a crash it is either as before or whole.
pub(crate) fn write_durably(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let half = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemEntropy;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/state");
        let state = StateDir::open(&path).expect("usable");
        let first = state.identity(&SystemEntropy).expect("made").public;
        assert_eq!(state.identity(&SystemEntropy).expect("read").public, first);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("key"))), (0o700, 0o600));
        fs::write(path.join("key"), b"short").expect("written");
        assert!(matches!(state.identity(&SystemEntropy), Err(StateError::BadKey(_))));
    }

    #[test]
    fn a_second_process_is_told_in_a_sentence() {
        let directory = tempfile::tempdir().expect("a directory");
        let _held = StateDir::open(directory.path()).expect("usable");
        let error = StateDir::open(directory.path()).expect_err("held").to_string();
        assert!(error.contains("another delegate uses") && error.contains("DELEGATE_STATE_DIR"));
    }

    #[test]
    fn a_file_in_its_place_is_called_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("state");
        fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("below")] {
            let error = StateDir::open(&path).expect_err("a file").to_string();
            assert!(error.contains("is a file or below one") && !error.contains("writable"), "{error}");
        }
    }
}
