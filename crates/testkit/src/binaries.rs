//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Paths of the three programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `legation-manager`.
    pub manager: PathBuf,
    /// `legation-delegate`.
    pub delegate: PathBuf,
    /// `legation`.
    pub cli: PathBuf,
}

impl Binaries {
    /// The programs that `cargo build --workspace --bins` put beside the running test.
    ///
    /// # Panics
    /// When one of them was not built.
    pub fn built() -> Self {
        let test = env::current_exe().expect("a running test has a path");
        // Tests are in target/<profile>/deps, examples in target/<profile>/examples.
        Self::of(test.ancestors().nth(2).expect("a test lies two levels below the programs"))
    }

    /// The programs of one directory.
    ///
    /// # Panics
    /// When one of them was not built.
    pub fn of(directory: &Path) -> Self {
        let program = |name: &str| {
            let path = directory.join(name);
            assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
            path
        };
        Self { manager: program("legation-manager"), delegate: program("legation-delegate"), cli: program("legation") }
    }
}
