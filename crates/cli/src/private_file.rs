//! Files that hold secrets: read only if nobody else can, written so that nobody else ever could.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::Failure;

/// The largest settings or key file: they hold a few lines.
const SIZE_MAX: u64 = 64 << 10;
/// Any permission of group and others.
const OTHERS: u32 = 0o077;

/// The text of a file that only its owner can read; `None` if there is no such file. Pipes are read as they are.
///
/// # Errors
/// A file that others can read, with the command that changes it; one that is too large or unreadable.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    let wrong = |error: io::Error| {
        Failure::settings(format!("{} cannot be read: {error}", path.display()), "check its owner and permissions")
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    let about = file.metadata().map_err(wrong)?;
    if about.is_file() && about.mode() & OTHERS != 0 {
        let what = format!("{} holds a secret and others can read it", path.display());
        return Err(Failure::settings(what, format!("chmod 600 {}", path.display())));
    }
    let mut text = String::new();
    file.take(SIZE_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(Failure::settings(format!("{} is too large", path.display()), "name another file"));
    }
    Ok(Some(text))
}

/// Writes a file with mode 0600, whole or not at all, also across a power cut.
///
/// # Errors
/// The directory is not writable or full.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = path.with_extension("new");
    let written = fs::remove_file(&temporary).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    written.and_then(|()| write_and_rename(&temporary, path, text)).map_err(|error| {
        let what = format!("{} cannot be written: {error}", path.display());
        Failure::settings(what, "make its directory writable, with room left on the disk")
    })
}

fn write_and_rename(temporary: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a directory, and those above it, that only its owner can enter, and checks that it can be written.
///
/// # Errors
/// It cannot be made or written; one that exists and is open to others gets the command that changes it.
pub fn make_dir(path: &Path) -> Result<(), Failure> {
    let wrong = |error: io::Error| {
        let what = format!("the directory {} cannot be used: {error}", path.display());
        Failure::settings(
            what,
            "choose another with --data-dir or --config-dir (LEGATION_DATA_DIR, LEGATION_CONFIG_DIR), or make \
             this one writable",
        )
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(wrong)?;
    let about = fs::metadata(path).map_err(wrong)?;
    if about.mode() & OTHERS != 0 {
        let what = format!("the directory {} is open to others", path.display());
        return Err(Failure::settings(what, format!("chmod 700 {}", path.display())));
    }
    let probe = path.join(".writable");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&probe).map_err(wrong)?;
    fs::remove_file(&probe).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_comes_back_and_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        assert_eq!(read(&path), Ok(None));
        for text in ["first", "second"] {
            write(&path, text).expect("written");
            assert_eq!(read(&path), Ok(Some(text.to_owned())));
            assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_to_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        for mode in [0o644, 0o640, 0o604] {
            write(&path, "secret").expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let failure = read(&path).expect_err("a refusal");
            assert_eq!(failure.fix, format!("chmod 600 {}", path.display()));
        }
    }

    #[test]
    fn an_open_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b");
        assert_eq!(make_dir(&path), Ok(()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        assert_eq!(make_dir(&path).expect_err("a refusal").fix, format!("chmod 700 {}", path.display()));
    }
}
