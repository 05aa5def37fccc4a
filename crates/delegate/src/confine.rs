//! Keeps tasks that run as the delegate's own user from reading its key, its spool and its token file.
//!
//! Landlock knows only what is allowed, and what is allowed for a directory is allowed for all below it. So a
//! task may read whatever lies beside the way from the root to a protected place, and nothing on that way. A
//! file that appears later directly on the way cannot be read either; therefore a place below a directory
//! where scripts make files is not protected at all, and this delegate then reports no isolation.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use landlock::{
    AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Entries of directories on the way: each is a rule in the kernel, made anew for every task.
const RULES_MAX: usize = 4_096;
/// Where scripts make files, beside `HOME` and `TMPDIR`.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Why a task cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel has no Landlock, or it is switched off.
    #[error("this kernel has no Landlock")]
    Unsupported,
    /// Confined tasks would break.
    #[error("{} lies below {}, where scripts make files", .0.display(), .1.display())]
    Scratch(PathBuf, PathBuf),
    /// Too many neighbours.
    #[error("there are more than {RULES_MAX} files beside {}", .0.display())]
    Crowded(PathBuf),
    /// A place is gone or cannot be looked at.
    #[error("{} cannot be looked at: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    /// The kernel refuses.
    #[error("the kernel refuses: {0}")]
    Refused(Box<RulesetError>),
}

impl From<RulesetError> for ConfineError {
    fn from(error: RulesetError) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// Whether tasks here can be kept from these places without breaking them.
///
/// # Errors
/// Why not.
pub fn check(protected: &[PathBuf], home: &Path, temporary: &Path) -> Result<(), ConfineError> {
    handled().map_err(|_| ConfineError::Unsupported)?;
    let scratch = SCRATCH.into_iter().map(Path::new).chain([home, temporary]);
    let scratch: Vec<PathBuf> = scratch.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.into())).collect();
    for place in protected {
        let place = fs::canonicalize(place).map_err(|error| ConfineError::Unreadable(place.clone(), error))?;
        // A home of `/` is the home of a service that has none.
        let below = |directory: &&PathBuf| directory.parent().is_some() && place.starts_with(directory);
        if let Some(directory) = scratch.iter().find(below) {
            return Err(ConfineError::Scratch(place, directory.clone()));
        }
    }
    neighbours(protected).map(drop)
}

/// Takes from this thread, and from every process that it starts from now on, the right to read these places.
///
/// # Errors
/// Why it was not possible; then no task must start that was promised to be confined.
pub fn confine(protected: &[PathBuf]) -> Result<(), ConfineError> {
    let mut rules = handled().map_err(|_| ConfineError::Unsupported)?;
    // Renaming between directories stays possible; the kernel itself sees to it that nothing becomes readable.
    rules = rules.add_rule(PathBeneath::new(open(Path::new("/"))?, AccessFs::Refer))?;
    for path in neighbours(protected)? {
        // Not followed, because a link could lead to a protected place; gone by now, it needs no rule.
        let Ok(file) = open(&path) else { continue };
        if fstat(&file).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) != FileType::Symlink) {
            rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
    }
    rules.restrict_self()?;
    Ok(())
}

/// Only reading is confined: whatever else were, would be confined along the whole way as well.
fn handled() -> Result<RulesetCreated, RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::ReadFile)?;
    // From the second version on; the first never lets anything move between directories.
    rules.set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::Refer)?.create()
}

/// What lies beside the ways to the protected places.
fn neighbours(protected: &[PathBuf]) -> Result<BTreeSet<PathBuf>, ConfineError> {
    let places = existing(protected)?;
    let way: BTreeSet<&Path> = places.iter().flat_map(|place| place.ancestors()).collect();
    let mut found = BTreeSet::new();
    for directory in places.iter().flat_map(|place| place.ancestors().skip(1)).collect::<BTreeSet<_>>() {
        if places.iter().any(|place| directory.starts_with(place)) {
            continue;
        }
        let unreadable = |error| ConfineError::Unreadable(directory.to_owned(), error);
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if !way.contains(path.as_path()) {
                found.insert(path);
            }
            if found.len() > RULES_MAX {
                return Err(ConfineError::Crowded(directory.to_owned()));
            }
        }
    }
    Ok(found)
}

/// Where the places really are. One that is not there now has nothing to read, and what appears there later has
/// no rule.
fn existing(protected: &[PathBuf]) -> Result<Vec<PathBuf>, ConfineError> {
    let mut places = Vec::new();
    for place in protected {
        match fs::canonicalize(place) {
            Ok(real) => places.push(real),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ConfineError::Unreadable(place.clone(), error)),
        }
    }
    Ok(places)
}

fn open(path: &Path) -> Result<OwnedFd, ConfineError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty());
    opened.map_err(|error| ConfineError::Unreadable(path.to_owned(), error.into()))
}
