//! Where the token comes from, and what is wrong with a file that should hold it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use legation_model::{secret::SecretText, token::Token};

use crate::{config::ConfigError, settings};

/// The largest token file: a token has 123 characters, and a little white space is fine.
const TOKEN_FILE_MAX: u64 = 4 << 10;
/// Any permission of group and others.
const OTHERS: u32 = 0o077;

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// The environment: it stays the same for the life of the process.
    Value(SecretText),
    /// A file that may be replaced.
    File(PathBuf),
}

impl TokenSource {
    /// Reads the token.
    ///
    /// # Errors
    /// A sentence that names the setting and the fix, never the value.
    pub fn read(&self) -> Result<Token, ConfigError> {
        let (text, source) = match self {
            Self::Value(text) => (text.clone(), settings::TOKEN.env.to_owned()),
            Self::File(path) => (read_token(path)?, format!("{} {}", settings::TOKEN_FILE.env, path.display())),
        };
        text.expose().parse().map_err(|error| ConfigError(format!("{source}: {error}")))
    }

    /// A sentence about a token file that other users can reach. systemd guards its credentials by an access list,
    /// whose mask looks like a permission of the group; `credentials` is the directory in which it keeps them.
    pub fn exposure(&self, credentials: Option<&Path>) -> Option<String> {
        let Self::File(path) = self else { return None };
        let guarded = credentials.is_some_and(|directory| path.starts_with(directory));
        let mode = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.permissions().mode();
        let text = || format!("other users can reach the token in {0}: chmod 600 {0}", path.display());
        (!guarded && mode & OTHERS != 0).then(text)
    }
}

fn read_token(path: &Path) -> Result<SecretText, ConfigError> {
    let failed = |reason: &dyn std::fmt::Display, fix: &str| {
        ConfigError(format!("{} {}: {reason}: {fix}", settings::TOKEN_FILE.env, path.display()))
    };
    let unread = |error: io::Error| failed(&error, fix(error.kind()));
    let size = fs::metadata(path).map_err(unread)?.len();
    if size > TOKEN_FILE_MAX {
        return Err(failed(&"it is too large for a token", "put the token there, and nothing else"));
    }
    fs::read_to_string(path).map(SecretText::new).map_err(unread)
}

fn fix(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "make the user that runs the delegate its owner (chown), with chmod 600, in a directory that user can enter"
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => "name the file itself",
        _ => "put the token there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, mode: u32) -> TokenSource {
        let path = directory.join("token");
        fs::write(&path, "ldt_x").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        TokenSource::File(path)
    }

    #[test]
    fn a_file_that_others_can_reach_is_told_with_the_command() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in [0o640, 0o604, 0o620] {
            let told = file(directory.path(), mode).exposure(None).expect("a warning");
            assert!(told.ends_with(&format!("chmod 600 {}", directory.path().join("token").display())), "{told}");
        }
        assert_eq!(file(directory.path(), 0o600).exposure(None), None);
        assert_eq!(file(directory.path(), 0o440).exposure(Some(directory.path())), None);
        assert_eq!(TokenSource::Value(SecretText::new("ldt_x".to_owned())).exposure(None), None);
    }

    #[test]
    fn each_trouble_has_its_own_fix() {
        let directory = tempfile::tempdir().expect("a directory");
        let told = |path: PathBuf| TokenSource::File(path).read().expect_err("no token").to_string();
        assert!(told(directory.path().join("none")).ends_with("put the token there"));
        assert!(told(directory.path().to_owned()).ends_with("name the file itself"));
        // Whoever runs the tests as root is never denied.
        assert!(fix(io::ErrorKind::PermissionDenied).contains("chown"));
    }
}
