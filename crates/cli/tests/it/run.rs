//! Running the program in an environment of its own.

use std::{path::Path, process::Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use crate::fake::Fake;

/// The API key in the test's settings file.
pub(crate) const KEY: &str = "lak_of_the_test";

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A home directory with a settings file for one Manager.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

impl Home {
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn of(fake: &Fake) -> Self {
        let home = Self::empty();
        home.settings(&format!("url = {:?}\napi_key = {KEY:?}\n", fake.url));
        home
    }

    pub(crate) fn settings(&self, text: &str) {
        legation_cli::private_file::make_dir(&self.config()).expect("a directory");
        legation_cli::private_file::write(&self.config().join("cli.toml"), text).expect("settings");
    }

    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("config")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_legation"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path());
        command.env("LEGATION_CONFIG_DIR", self.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments)).await
    }
}

pub(crate) async fn finish(mut command: Command) -> Ran {
    let output = command.output().await.expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let ran = Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.out.contains(KEY) && !ran.err.contains(KEY), "{ran:?}");
    ran
}

/// Makes a file executable by its owner.
pub(crate) fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).expect("a script");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("a mode");
}
