//! New files that are there whole or not at all, and that never take another's place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process,
};

use anyhow::Context;

/// Writes a new file, whole also after a crash: under a name of this process first, synced, then under its own.
///
/// # Errors
/// The file is there already, or its directory cannot be written; both with the fix.
pub(crate) fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let half = path.with_added_extension(format!("{}.new", process::id()));
    let made = write(&half, text, mode).and_then(|()| publish(&half, path));
    // What a crash left here under this process's number holds nothing that is in use.
    let _ = fs::remove_file(&half);
    made.with_context(|| {
        format!(
            "cannot create {}: choose a file that is not there yet, in a directory that this user can write",
            path.display()
        )
    })
}

fn write(half: &Path, text: &str, mode: u32) -> io::Result<()> {
    let _ = fs::remove_file(half);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A link instead of a rename: it fails where a file is already.
fn publish(half: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(half, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(directory.unwrap_or(Path::new(".")))
}

/// Makes names in a directory outlast a crash.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_made_once_private_and_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        // Left by a process of the same number that was killed while it wrote.
        fs::write(directory.path().join(format!("key.{}.new", process::id())), "ha").expect("written");
        create(&path, "whole", 0o600).expect("made");
        let refused = create(&path, "another", 0o600).expect_err("it is there");
        assert!(format!("{refused:#}").contains("not there yet"), "{refused:#}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "whole");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1, "nothing else is left");
    }
}
