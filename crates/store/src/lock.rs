//! The lock beside an embedded database: one Manager at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{StoreError, db::held_by};

/// The longest text that is read from a lock file.
const HOLDER_MAX: u64 = 256;

/// An advisory lock on `<database>.lock`, released by the kernel however its process ends.
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock of a database file, or says who has it.
    pub(crate) fn take(database: &Path) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let failed = |error| StoreError::Unavailable(format!("{} cannot be locked: {error}", path.display()));
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held_by(&holder(&file))),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The name only helps the next one's message; the lock holds without it, also on a full disk.
        drop(file.set_len(0).and_then(|()| file.write_all(holder_name().as_bytes())));
        Ok(Self { _file: file })
    }
}

/// How this process names itself to a second one.
pub(crate) fn holder_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = format!("legation process {} on {host}", std::process::id());
    // PostgreSQL cuts an application name at 63 bytes.
    name.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(63).collect()
}

fn holder(file: &File) -> String {
    let mut text = String::new();
    match file.take(HOLDER_MAX).read_to_string(&mut text) {
        Ok(length) if length > 0 => text,
        _ => "another process".to_owned(),
    }
}
