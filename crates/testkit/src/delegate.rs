//! One real delegate process.

use std::path::{Path, PathBuf};

use legation_model::secret::SecretText;
use tokio::process::Command;

use crate::Process;

/// A delegate with a state directory of its own; the process is killed when this is dropped.
#[derive(Debug)]
pub struct Delegate {
    /// Its `DELEGATE_NAME`.
    pub name: String,
    /// The running program.
    pub process: Process,
    launch: Launch,
}

/// What a delegate is started with, so that it can be started again.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

impl Launch {
    /// The environment every delegate under test begins with: the names people know, and nothing of ours.
    pub(crate) fn new(program: &Path, directory: PathBuf, name: &str, token: &SecretText, manager: &str) -> Self {
        let state = directory.join("state");
        let environment = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ("DELEGATE_NAME", name),
            ("DELEGATE_TOKEN", token.expose()),
            ("MANAGER_HOST_AND_PORT", manager),
            ("DELEGATE_STATE_DIR", state.to_str().expect("a temporary directory's path is text")),
            ("DELEGATE_LOG", "debug"),
            // Attempts have their rooms here; what a killed delegate leaves goes with the world.
            ("TMPDIR", directory.to_str().expect("a temporary directory's path is text")),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { program: program.to_owned(), directory, environment }
    }

    /// Sets one variable; an empty value takes it away.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.environment.retain(|(known, _)| known != key);
        if !value.is_empty() {
            self.environment.push((key.to_owned(), value.to_owned()));
        }
    }
}

impl Delegate {
    pub(crate) fn start(name: &str, launch: Launch) -> Self {
        std::fs::create_dir_all(&launch.directory).expect("a world's directory takes directories");
        let process = run(name, &launch);
        Self { name: name.to_owned(), process, launch }
    }

    /// Its process id while it lives.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pid(&self) -> u32 {
        self.process.pid().expect("the delegate runs")
    }

    /// Where its log and its state are.
    pub fn directory(&self) -> &Path {
        &self.launch.directory
    }

    /// Starts the same delegate again, with the same state, after it has ended. Variables given here are set
    /// first; an empty value takes one away.
    pub fn restart(&mut self, environment: &[(&str, &str)]) {
        environment.iter().for_each(|(key, value)| self.launch.set(key, value));
        self.process = run(&self.name, &self.launch);
    }
}

fn run(name: &str, launch: &Launch) -> Process {
    let mut command = Command::new(&launch.program);
    command.env_clear().envs(launch.environment.iter().map(|(key, value)| (key, value)));
    Process::spawn(&format!("delegate {name}"), &mut command, &launch.directory.join("log"))
        .expect("the delegate starts")
}
