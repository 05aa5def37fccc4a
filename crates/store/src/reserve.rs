//! Disk space that only a revocation may use.
//!
//! A file beside an embedded database keeps blocks allocated. Before each urgent transaction it is emptied, so
//! that what the transaction writes finds room on a disk that is full for everyone else, and filled again after.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

/// Bytes kept: the receipt of 10,000 delegates, their lost attempts and the log around both take about 3 MiB.
pub(crate) const RESERVE: u64 = 4 << 20;
/// The least that is worth keeping: one revocation of a small token, with its pages in the log.
const LEAST: u64 = 128 << 10;

/// The reserve of one database.
pub(crate) struct Reserve {
    file: Option<File>,
    held: u64,
}

impl Reserve {
    /// The reserve beside the database file, empty: what the last process kept makes room for opening.
    pub(crate) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".reserve");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).ok();
        Self { file, held: 0 }
    }

    /// Gives the space back to the file system.
    pub(crate) fn release(&mut self) {
        // Where this fails the revocation may still find room; it is told the truth if not.
        if self.file.as_ref().is_some_and(|file| ftruncate(file, 0).is_ok()) {
            self.held = 0;
        }
    }

    /// Takes the space, or as much of it as there is.
    pub(crate) fn hold(&mut self) {
        let mut size = RESERVE;
        while size >= LEAST && size > self.held {
            if self.allocate(size) {
                self.held = size;
                return;
            }
            size /= 2;
        }
    }

    fn allocate(&self, size: u64) -> bool {
        let Some(file) = &self.file else { return false };
        let done = fallocate(file, FallocateFlags::empty(), 0, size).is_ok();
        // A failed allocation may leave a part of the blocks behind.
        done || ftruncate(file, self.held).is_err_and(|error| {
            tracing::warn!(%error, "reserved disk space cannot be given back");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn space_is_really_taken_and_really_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("db");
        let mut reserve = Reserve::beside(&database);
        reserve.hold();
        let blocks = || std::fs::metadata(dir.path().join("db.reserve")).unwrap().blocks() * 512;
        assert!(blocks() >= RESERVE, "{} bytes", blocks());
        reserve.release();
        assert_eq!(blocks(), 0);
        reserve.hold();
        assert!(blocks() >= RESERVE);
    }
}
