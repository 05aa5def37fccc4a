//! Where `up` keeps what, and the lock that keeps a second one away.

use std::{
    env, fs,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
};

use rustix::fs::{FlockOperation, flock};

use crate::{Failure, config, exit_codes, private_file};

/// Directories, programs and files.
#[derive(Debug)]
pub(super) struct Places {
    /// Database and logs.
    pub(super) data: PathBuf,
    /// Keys and settings.
    pub(super) config: PathBuf,
    /// Address and port of the Manager, port 0 for any.
    pub(super) listen: String,
    /// `legation-manager`.
    pub(super) manager: PathBuf,
    /// `legation-delegate`.
    pub(super) delegate: PathBuf,
    /// Held as long as this process lives.
    _lock: File,
}

impl Places {
    /// Makes the directories, finds the programs, takes the lock.
    pub(super) fn prepare(data: Option<PathBuf>, config: Option<PathBuf>, listen: &str) -> Result<Self, Failure> {
        let data = absolute(data.map_or_else(config::data_dir, Ok)?)?;
        let config = absolute(config.map_or_else(config::config_dir, Ok)?)?;
        if data == config {
            let fix = "give --data-dir and --config-dir (LEGATION_DATA_DIR, LEGATION_CONFIG_DIR) different \
                       directories, so that a backup of one lacks the keys";
            return Err(Failure::settings("the data and the keys that seal it would lie in one directory", fix));
        }
        let manager = program("legation-manager", "LEGATION_MANAGER_BIN")?;
        let delegate = program("legation-delegate", "LEGATION_DELEGATE_BIN")?;
        for directory in [&data, &config, &data.join("logs"), &data.join("delegate")] {
            private_file::make_dir(directory)?;
        }
        let lock = lock(&data.join("up.lock"))?;
        let places = Self { data, config, listen: listen.to_owned(), manager, delegate, _lock: lock };
        // Left by a run that was killed; it must not be taken for this one's.
        let _ = fs::remove_file(places.ready_file());
        Ok(places)
    }

    /// The CLI's settings.
    pub(super) fn settings(&self) -> PathBuf {
        self.config.join(config::FILE)
    }

    /// The delegate's token, kept for the next run.
    pub(super) fn token(&self) -> PathBuf {
        self.config.join("up-token")
    }

    /// Where the Manager writes its address once it serves.
    pub(super) fn ready_file(&self) -> PathBuf {
        self.data.join("manager.ready")
    }

    /// The Manager's address, once the whole line is there.
    pub(super) fn ready_url(&self) -> Option<String> {
        let text = fs::read_to_string(self.ready_file()).ok()?;
        let (first, _) = text.split_once('\n')?;
        first.starts_with("http").then(|| first.to_owned())
    }

    /// A child's log.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.data.join("logs").join(format!("{name}.log"))
    }

    /// How a person calls this program, with what it takes to find these directories again.
    pub(super) fn program(&self) -> String {
        let name = env::args().next().unwrap_or_else(|| "legation".to_owned());
        let usual = config::config_dir().is_ok_and(|usual| usual == self.config);
        if usual { name } else { format!("LEGATION_CONFIG_DIR={} {name}", self.config.display()) }
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path)
        .map_err(|error| Failure::settings(format!("{} is no path: {error}", path.display()), "name another directory"))
}

/// The program beside this one, or the one that the environment names.
fn program(name: &str, variable: &str) -> Result<PathBuf, Failure> {
    let named = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let beside = || env::current_exe().ok().and_then(|own| own.parent().map(|directory| directory.join(name)));
    let path = named.or_else(beside).unwrap_or_else(|| PathBuf::from(name));
    if path.is_file() {
        return Ok(path);
    }
    let what = format!("there is no program {}", path.display());
    Err(Failure::settings(what, format!("build it (cargo build --workspace --bins), or name it in {variable}")))
}

fn lock(path: &Path) -> Result<File, Failure> {
    let wrong = |error: std::io::Error| {
        Failure::settings(format!("{} cannot be opened: {error}", path.display()), "make the data directory writable")
    };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(wrong)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = (&file).take(32).read_to_string(&mut holder);
        let data = path.parent().unwrap_or(path).display();
        let what = format!("another `legation up` (process {}) runs on {data}", holder.trim());
        return Err(Failure::new(
            exit_codes::CHILD_DIED,
            what,
            "stop it, or choose another --data-dir and --config-dir (for make: LEGATION_DATA_DIR, LEGATION_CONFIG_DIR)",
        ));
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", process::id())).map_err(wrong)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_on_the_same_data_is_refused_by_process_id() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("up.lock");
        let held = lock(&path).expect("a lock");
        let refused = lock(&path).expect_err("a refusal");
        assert!(refused.what.contains(&process::id().to_string()), "{refused:?}");
        drop(held);
        assert!(lock(&path).is_ok());
    }
}
