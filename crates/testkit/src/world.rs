//! One Manager with everything that belongs to it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use legation_api::{
    client::{Client, OutputItem},
    delegates::{self, DelegatesQuery},
    output::OutputQuery,
    receipts::Receipt,
    revoke::RevokeToken,
    tasks::{Shell, SubmitTask, Task, Work},
    tokens::CreateToken,
};
use legation_model::{
    Scope,
    ids::{TaskId, TokenId},
    secret::SecretText,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Engine, Process,
    binaries::Binaries,
    delegate::{Delegate, Launch},
    eventually, procfs,
};

/// The variable that marks every task of a world, so that what becomes of it can be found.
pub const MARK: &str = "LEGATION_TEST_MARK";

const DATABASE_URL: &str = "LEGATION_DATABASE_URL";

/// A Manager, its database, its directories and a client with an admin's key.
#[derive(Debug)]
pub struct World {
    /// Talks to the Manager as admin.
    pub client: Client,
    /// The programs.
    pub binaries: Binaries,
    manager: Process,
    address: SocketAddr,
    url: String,
    environment: Vec<(String, String)>,
    mark: String,
    directory: TempDir,
}

/// A token as a test holds it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its public id.
    pub id: TokenId,
    /// Its whole value.
    pub value: SecretText,
}

impl World {
    /// Starts a Manager on an empty database.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    /// Starts a Manager with further environment variables; with one for the database, no other is made.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn with(engine: Engine, settings: &[(&str, &str)]) -> Self {
        Self::of(Binaries::built(), engine, settings).await
    }

    /// Starts a Manager from other programs than those beside the test.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn of(binaries: Binaries, engine: Engine, settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("legation-world.").tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("a directory of ours takes directories");
        let mut environment = vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("LEGATION_LOG".to_owned(), "debug".to_owned()),
            ("LEGATION_DATA_DIR".to_owned(), path_text(&data)),
            ("LEGATION_CONFIG_DIR".to_owned(), path_text(&directory.path().join("config"))),
        ];
        if settings.iter().all(|(key, _)| *key != DATABASE_URL) {
            environment.push((DATABASE_URL.to_owned(), engine.create(&data).await));
        }
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));

        let (manager, url) = serve(&binaries, &environment, directory.path(), "127.0.0.1:0").await;
        let client = admin(&binaries, &environment, directory.path(), &url).await;
        let address = url.rsplit('/').next().and_then(|text| text.parse().ok()).expect("the ready file has an address");
        let mark = format!("world-{:016x}", rand::random::<u64>());
        Self { client, binaries, manager, address, url, environment, mark, directory }
    }

    /// The Manager's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The Manager's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The running Manager.
    pub fn manager(&mut self) -> &mut Process {
        &mut self.manager
    }

    /// Where all files of this world are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The Manager's environment, for starting another program on the same data.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Where its database is.
    pub fn database_url(&self) -> &str {
        let (_, url) = self.environment.iter().find(|(key, _)| key == DATABASE_URL).expect("set at the start");
        url
    }

    /// The certificate to trust when the Manager serves TLS with its own.
    pub fn ca_file(&self) -> PathBuf {
        ca_file(self.directory.path())
    }

    /// Starts the Manager again, after it has ended, at the same address and on the same data.
    pub async fn restart_manager(&mut self) {
        let listen = self.address.to_string();
        (self.manager, _) = serve(&self.binaries, &self.environment, self.directory.path(), &listen).await;
    }

    /// Runs a `legation-manager` command on this world's data to its end.
    pub async fn manager_command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binaries.manager);
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.output().await.expect("the Manager's program starts")
    }

    /// Runs the command line tool as the admin, to its end, in this world's directory.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binaries.cli);
        command.current_dir(self.directory.path()).env_clear().env("PATH", "/usr/bin:/bin");
        // Whatever the person who runs the tests has set up for themselves is not read.
        command.env("HOME", self.directory.path()).env("LEGATION_URL", &self.url);
        command.arg("--api-key-file").arg(admin_key(self.directory.path())).args(arguments);
        command.output().await.expect("the command line tool starts")
    }

    /// Creates and issues a token in the account `default`.
    pub async fn token(&self, name: &str) -> Issued {
        self.token_with(name, |_| {}).await
    }

    /// The same with restrictions.
    pub async fn token_with(&self, name: &str, change: impl FnOnce(&mut CreateToken)) -> Issued {
        let mut request = CreateToken::new(scope(), name.parse().expect("a name"));
        change(&mut request);
        let issued = self.client.create_token(&request).await.expect("the token is created");
        Issued { id: issued.token.id, value: issued.value.expect("an issued token's value is shown once") }
    }

    /// Revokes a token.
    pub async fn revoke(&self, token: &Issued) -> Receipt {
        self.client.revoke_token(token.id, &RevokeToken::default()).await.expect("the token is revoked")
    }

    /// Starts a delegate and returns at once.
    pub fn delegate(&self, name: &str, token: &Issued) -> Delegate {
        self.delegate_with(name, &token.value, &[])
    }

    /// Starts a delegate with further environment variables; an empty value takes one away.
    pub fn delegate_with(&self, name: &str, token: &SecretText, environment: &[(&str, &str)]) -> Delegate {
        let directory = self.directory.path().join("delegates").join(name);
        let mut launch = Launch::new(&self.binaries.delegate, directory, name, token, &self.url);
        environment.iter().for_each(|(key, value)| launch.set(key, value));
        Delegate::start(name, launch)
    }

    /// Waits until the delegate is connected and says how the Manager sees it.
    pub async fn connected(&self, delegate: &Delegate) -> delegates::Delegate {
        let what = format!("{} is connected", delegate.name);
        eventually(&what, async || self.seen(&delegate.name).await.filter(|seen| seen.connected)).await
    }

    /// How the Manager sees the delegate of that name, if it knows one.
    pub async fn seen(&self, name: &str) -> Option<delegates::Delegate> {
        let query = DelegatesQuery { name: Some(name.parse().expect("a name")), ..DelegatesQuery::default() };
        self.client.delegates(&query).await.ok()?.items.pop()
    }

    /// Submits a script to the delegate of that name. Everything it starts carries the [mark](World::marked)
    /// of that name.
    pub async fn run(&self, delegate: &str, script: &str) -> Task {
        self.run_with(delegate, script, |_| {}).await
    }

    /// The same with other settings of the task.
    pub async fn run_with(&self, delegate: &str, script: &str, change: impl FnOnce(&mut SubmitTask)) -> Task {
        let env = [(MARK.to_owned(), self.mark(delegate))].into();
        let shell = Shell { script: script.to_owned(), env, ..Shell::default() };
        let mut request = SubmitTask::new(scope(), Work::Shell(shell));
        request.selectors = vec![delegate.parse().expect("a delegate's name is a selector")];
        change(&mut request);
        self.client.submit_task(&request).await.expect("the task is submitted")
    }

    /// Living processes that tasks of that delegate started, wherever they have gone since.
    pub fn marked(&self, delegate: &str) -> std::collections::BTreeSet<u32> {
        procfs::marked(&self.mark(delegate))
    }

    /// The task as it stands.
    pub async fn task(&self, id: TaskId) -> Task {
        self.client.task(id).await.expect("the task is known")
    }

    /// Waits until the task has ended.
    pub async fn finished(&self, id: TaskId) -> Task {
        let ended = async || self.client.task(id).await.ok().filter(|task| task.state.is_final());
        eventually("the task has ended", ended).await
    }

    /// All output of a task, once it has ended, standard output and error as they came.
    pub async fn output(&self, id: TaskId) -> Vec<u8> {
        let mut stream = self.client.output(id, OutputQuery::default());
        let mut bytes = Vec::new();
        while let Some(item) = stream.next().await.expect("the output can be read") {
            if let OutputItem::Chunk(chunk) = item {
                bytes.extend(chunk.bytes);
            }
        }
        bytes
    }

    fn mark(&self, delegate: &str) -> String {
        format!("{}-{delegate}.", self.mark)
    }
}

impl Drop for World {
    /// Whatever a test left of its tasks ends with it.
    fn drop(&mut self) {
        for pid in procfs::marked(&self.mark).into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // One that has ended by itself since we looked is as good.
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// The scope of everything in a world.
///
/// # Panics
/// Never: it is a legal scope.
pub fn scope() -> Scope {
    "default".parse().expect("a legal scope")
}

async fn serve(
    binaries: &Binaries,
    environment: &[(String, String)],
    directory: &Path,
    listen: &str,
) -> (Process, String) {
    let ready = directory.join("ready");
    // Of an earlier start; a missing one is what we want.
    drop(fs::remove_file(&ready));
    let mut command = Command::new(&binaries.manager);
    command.env_clear().envs(environment.iter().map(|(key, value)| (key, value)));
    command.arg("--listen").arg(listen).arg("--ready-file").arg(&ready);
    let log = directory.join("manager.log");
    let mut process = Process::spawn("manager", &mut command, &log).expect("the Manager's program starts");
    let url = eventually("the Manager is ready", async || {
        assert_eq!(process.ended(), None, "the Manager ended before it was ready");
        let text = fs::read_to_string(&ready).ok()?;
        // A line without its end is still being written.
        text.split_once('\n').map(|(first, _)| first.to_owned())
    });
    let url = url.await;
    (process, url)
}

async fn admin(binaries: &Binaries, environment: &[(String, String)], directory: &Path, url: &str) -> Client {
    let file = admin_key(directory);
    let mut command = Command::new(&binaries.manager);
    command.env_clear().envs(environment.iter().map(|(key, value)| (key, value)));
    command.args(["admin", "reset", "--key-file"]).arg(&file);
    let output = command.output().await.expect("the Manager's program starts");
    assert!(output.status.success(), "admin reset: {}", String::from_utf8_lossy(&output.stderr));
    let key = SecretText::new(fs::read_to_string(&file).expect("the key file").trim().to_owned());
    let ca = ca_file(directory);
    Client::new(url, Some(&key), url.starts_with("https:").then_some(ca.as_path())).expect("a client")
}

fn admin_key(directory: &Path) -> PathBuf {
    directory.join("admin.key")
}

fn ca_file(directory: &Path) -> PathBuf {
    directory.join("config").join("manager.crt")
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("a temporary directory's path is text").to_owned()
}

/// A script that never ends by itself: a child, and a grandchild that was forked twice into a session of its own.
pub const LONG_WORK: &str = "(setsid sh -c 'sleep 600 & wait' >/dev/null 2>&1 &) ; sleep 600";
/// Processes of [`LONG_WORK`] once it has forked: two shells and two sleepers.
pub const LONG_WORK_PROCESSES: usize = 4;

/// Time within which everything of a revoked delegate has ended, by the promise of a revocation.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(2);
