//! `legation up` with a Manager and a delegate made of shell scripts in front of the prepared answers.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use legation_api::{
    Code,
    output::Stream,
    tokens::{IssuedToken, Token},
    whoami::Whoami,
};
use legation_cli::exit_codes;
use legation_model::{
    access::PrincipalKind,
    ids::{ApiKeyId, PrincipalId},
    secret::Secret,
    task::TaskState,
    token::{Token as TokenValue, TokenStatus},
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStderr},
    time::timeout,
};

use crate::{
    fake::Fake,
    nouns::{TASK, TOKEN, delegate, end, list, output, task, token},
    run::{Home, KEY, Ran, finish, script},
};

/// Far beyond what a run needs; only a hanging test reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: &str = r#"#!/bin/sh
ready=; key=; create=; first=$1
while [ $# -gt 0 ]; do
  case $1 in --ready-file) ready=$2;; --key-file) key=$2;; --create) create=1;; esac
  shift
done
if [ "$first" = admin ]; then [ "$create" ] || exit 1; umask 077; echo KEY > "$key"; echo made >> DIR/admins; exit 0; fi
trap 'echo manager >> DIR/order; exit 0' TERM
echo $$ >> DIR/pids
env > DIR/manager.env
echo URL > "$ready.new"; mv "$ready.new" "$ready"
while kill -0 $PPID; do sleep 0.05 & wait $!; done
"#;

const DELEGATE: &str = r#"#!/bin/sh
trap 'echo delegate >> DIR/order; exit 0' TERM
echo $$ >> DIR/pids
env > DIR/delegate.env
cat "$DELEGATE_TOKEN_FILE" > DIR/used.new; mv DIR/used.new DIR/used
while kill -0 $PPID; do [ -e DIR/say ] && exit $(cat DIR/say); sleep 0.05 & wait $!; done
"#;

/// A machine on which `up` runs.
struct Machine {
    home: Home,
    fake: Fake,
}

impl Machine {
    async fn new() -> Self {
        let machine = Self { home: Home::empty(), fake: Fake::start().await };
        machine.program("legation-manager", MANAGER);
        machine.program("legation-delegate", DELEGATE);
        machine.answers();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn program(&self, name: &str, text: &str) {
        let text = text.replace("DIR", &self.home.dir.path().display().to_string());
        script(&self.path(name), &text.replace("URL", &self.fake.url).replace("KEY", KEY));
    }

    fn answers(&self) {
        let whoami = Whoami {
            principal: PrincipalId([0; 16]),
            kind: PrincipalKind::ServiceAccount,
            name: "break-glass".parse().expect("a name"),
            key: Some(ApiKeyId([1; 16])),
            key_name: "up".parse().ok(),
            session: None,
            authenticated_at: None,
            key_scope: None,
            grants: Vec::new(),
            expires_at: None,
            manager_version: "0.1.0".to_owned(),
        };
        let done = task(TaskState::Succeeded);
        let events = [output(0, Stream::Stdout, "hello from delegate\n"), end(&done)].concat();
        self.fake
            .on("GET /api/v1/whoami", &whoami)
            .on(DEFAULT, &list(vec![with_status(TokenStatus::Unissued)]))
            .on(&format!("POST /api/v1/tokens/{TOKEN}/issue?dry_run=false"), &issued(1))
            .on("POST /api/v1/tokens", &issued(2))
            .on(&format!("GET /api/v1/delegates?token={TOKEN}&name=local&connected=true"), &list(vec![delegate()]))
            .on("POST /api/v1/tasks", &done)
            .on(&format!("GET /api/v1/tasks/{TASK}"), &done)
            .stream(&format!("GET /api/v1/tasks/{TASK}/output?follow=true"), events, None);
    }

    fn command(&self, listen: &str) -> tokio::process::Command {
        let mut command = self.home.command(&["up", "--listen", listen]);
        command
            .env("LEGATION_DATA_DIR", self.path("data"))
            .env("LEGATION_MANAGER_BIN", self.path("legation-manager"))
            .env("LEGATION_DELEGATE_BIN", self.path("legation-delegate"))
            .env("LEGATION_API_KEY", "lak_of_the_shell")
            .env("DELEGATE_TOKEN", "ldt_of_the_shell");
        command
    }

    async fn fails(&self, listen: &str) -> Ran {
        let ran = timeout(PATIENCE, finish(self.command(listen))).await.expect("an end");
        assert!(ran.err.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{ran:?}");
        self.nothing_is_left();
        ran
    }

    /// Runs it until everything is up, the delegate's program included: the Manager's answers do not wait for it.
    async fn up(&self) -> Running {
        let _ = fs::remove_file(self.path("used"));
        let mut child = self.command("127.0.0.1:0").spawn().expect("the program");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let said = until(&mut lines, "Ctrl-C stops").await;
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        let begun = async {
            while !self.path("used").exists() {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, begun).await.expect("the delegate's program begins");
        Running { child, lines, said }
    }

    /// Has the delegate's program exit with this code. The file appears with its content: the program may look at
    /// any moment.
    fn end_delegate(&self, code: u8) {
        let whole = self.path("say.new");
        fs::write(&whole, code.to_string()).expect("written");
        fs::rename(whole, self.path("say")).expect("renamed");
    }

    fn nothing_is_left(&self) {
        for pid in self.read("pids").lines() {
            let pid = Pid::from_raw(pid.parse().expect("an id")).expect("an id");
            assert!(test_kill_process(pid).is_err(), "{pid:?} is left");
        }
    }
}

const DEFAULT: &str = "GET /api/v1/tokens?scope=default&name=default_token&include_revoked=false";

fn with_status(status: TokenStatus) -> Token {
    Token { status, name: "default_token".parse().expect("a name"), ..token() }
}

fn value(secret: u8) -> TokenValue {
    TokenValue { id: TOKEN, generation: 1, secret: Secret::new([secret; 32]), manager_key: [8; 32] }
}

fn issued(secret: u8) -> IssuedToken {
    IssuedToken {
        token: with_status(TokenStatus::Active),
        value: Some(value(secret).reveal()),
        code: None,
        wrapped: None,
    }
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: String,
}

impl Running {
    /// Ends it by a signal; its exit code.
    async fn end(mut self, signal: Signal) -> Option<i32> {
        let id = i32::try_from(self.child.id().expect("a running program")).expect("an id");
        kill_process(Pid::from_raw(id).expect("an id"), signal).expect("a signal");
        timeout(PATIENCE, self.child.wait()).await.expect("an end").expect("an end").code()
    }
}

async fn until(lines: &mut Lines<BufReader<ChildStderr>>, words: &str) -> String {
    let mut said = String::new();
    while !said.contains(words) {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a line in time").expect("text");
        said += &line.unwrap_or_else(|| panic!("no {words:?} in {said:?}"));
        said.push('\n');
    }
    said
}

#[tokio::test]
async fn from_nothing_to_a_first_task_and_down_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let machine = Machine::new().await;
        let mut running = machine.up().await;
        assert!(running.said.contains("Everything runs"), "{}", running.said);
        assert!(!running.said.contains(KEY) && !running.said.contains("ldt_"), "{}", running.said);
        let mut hello = [0; 19];
        running.child.stdout.take().expect("a pipe").read_exact(&mut hello).await.expect("output");
        assert_eq!(&hello, b"hello from delegate");
        assert_eq!(running.end(signal).await, Some(0), "{signal:?}");
        assert_eq!(machine.read("order"), "delegate\nmanager\n");
        machine.nothing_is_left();
    }
}

#[tokio::test]
async fn secrets_are_in_private_files_and_nowhere_else() {
    let machine = Machine::new().await;
    machine.up().await.end(Signal::TERM).await;
    assert_eq!(machine.read("used").trim(), value(1).reveal().expose());
    assert!(machine.read("config/cli.toml").contains(KEY));
    for file in ["config/cli.toml", "config/up-token", "data/logs/manager.log", "data/up.lock"] {
        assert_eq!(fs::metadata(machine.path(file)).expect(file).mode() & 0o077, 0, "{file}");
    }
    assert!(!machine.path("config/up-admin-key").exists());
    for child in ["manager.env", "delegate.env"] {
        let environment = machine.read(child);
        assert!(environment.contains("LEGATION_EXIT_WITH_PARENT=1"), "{environment}");
        assert!(!environment.contains("lak_") && !environment.contains("ldt_"), "{environment}");
    }
}

#[tokio::test]
async fn a_second_run_finds_everything_as_it_was() {
    let machine = Machine::new().await;
    machine.up().await.end(Signal::TERM).await;
    machine.fake.on(&format!("GET /api/v1/tokens/{TOKEN}"), &with_status(TokenStatus::Active));
    machine.up().await.end(Signal::TERM).await;
    assert_eq!(machine.read("admins"), "made\n");
    let made = |line: &str| machine.fake.asked().iter().filter(|asked| asked.line == line).count();
    assert_eq!(made(&format!("POST /api/v1/tokens/{TOKEN}/issue?dry_run=false")), 1);
    assert_eq!(made("POST /api/v1/tokens"), 0);
}

#[tokio::test]
async fn a_token_that_was_revoked_meanwhile_is_replaced_and_told() {
    let machine = Machine::new().await;
    machine.up().await.end(Signal::TERM).await;
    machine.fake.on(&format!("GET /api/v1/tokens/{TOKEN}"), &with_status(TokenStatus::Revoked));
    let running = machine.up().await;
    assert!(running.said.contains("is revoked: making a new one"), "{}", running.said);
    running.end(Signal::TERM).await;
    assert_eq!(machine.read("used").trim(), value(2).reveal().expose());
}

#[tokio::test]
async fn a_key_of_data_that_is_gone_is_replaced_and_told() {
    let machine = Machine::new().await;
    machine.home.settings("url = \"http://127.0.0.1:1\"\napi_key = \"lak_of_old\"\n");
    let whoami = machine.fake.clone();
    // The first answer is for the old key, the next for the new one.
    whoami.first_refuse("GET /api/v1/whoami", Code::Unauthenticated);
    let running = machine.up().await;
    assert!(running.said.contains("made again"), "{}", running.said);
    running.end(Signal::TERM).await;
    assert!(machine.read("config/cli.toml").contains(KEY));
}

#[tokio::test]
async fn a_revoked_delegate_leaves_the_manager_up() {
    let machine = Machine::new().await;
    let mut running = machine.up().await;
    machine.end_delegate(78);
    until(&mut running.lines, "the Manager stays up").await;
    assert_eq!(running.end(Signal::TERM).await, Some(0));
    assert_eq!(machine.read("order"), "manager\n");
}

#[tokio::test]
async fn a_delegate_that_dies_ends_it_and_takes_the_manager_along() {
    let machine = Machine::new().await;
    let mut running = machine.up().await;
    machine.end_delegate(9);
    let said = until(&mut running.lines, "fix: ").await;
    assert!(said.contains("the delegate ended by itself (exit code 9)"), "{said}");
    let status = timeout(PATIENCE, running.child.wait()).await.expect("an end").expect("an end");
    assert_eq!(status.code(), Some(i32::from(exit_codes::CHILD_DIED)));
    machine.nothing_is_left();
}

#[tokio::test]
async fn a_manager_that_cannot_start_is_quoted() {
    let machine = Machine::new().await;
    let refuses = "#!/bin/sh\n[ $1 = admin ] && { shift 5; umask 077; echo KEY > $1; exit 0; }\necho 'the database is locked' >&2\nexit 3\n";
    machine.program("legation-manager", refuses);
    let ran = machine.fails("127.0.0.1:0").await;
    assert_eq!(ran.code, i32::from(exit_codes::CHILD_DIED));
    assert!(ran.err.contains("the Manager ended by itself (exit code 3)"), "{ran:?}");
    assert!(ran.err.contains("the database is locked"), "{ran:?}");
}

#[tokio::test]
async fn a_busy_port_is_one_sentence() {
    let machine = Machine::new().await;
    let busy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let ran = machine.fails(&busy.local_addr().expect("an address").to_string()).await;
    assert_eq!(ran.code, i32::from(exit_codes::CHILD_DIED));
    assert!(ran.err.contains("LEGATION_LISTEN=127.0.0.1:0 make run"), "{ran:?}");
    assert!(ran.err.contains("--listen 127.0.0.1:0") && !ran.err.contains("stopping"), "{ran:?}");
}

#[tokio::test]
async fn a_second_one_on_the_same_data_is_one_sentence() {
    let machine = Machine::new().await;
    let running = machine.up().await;
    let ran = timeout(PATIENCE, finish(machine.command("127.0.0.1:0"))).await.expect("an end");
    assert_eq!(ran.code, i32::from(exit_codes::CHILD_DIED));
    let first = running.child.id().expect("a running program").to_string();
    assert!(ran.err.contains(&format!("(process {first})")) && ran.err.contains("LEGATION_DATA_DIR"), "{ran:?}");
    assert_eq!(running.end(Signal::TERM).await, Some(0));
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_one_sentence() {
    let machine = Machine::new().await;
    fs::write(machine.path("data"), "a file").expect("written");
    assert_eq!(machine.fails("127.0.0.1:0").await.code, i32::from(exit_codes::SETTINGS));
    let machine = Machine::new().await;
    let mut same = machine.command("127.0.0.1:0");
    same.env("LEGATION_DATA_DIR", machine.home.config());
    assert_eq!(finish(same).await.code, i32::from(exit_codes::SETTINGS));
}

#[tokio::test]
async fn settings_for_another_manager_stay_as_they_are() {
    let machine = Machine::new().await;
    let text = format!("url = \"https://manager.example.com\"\napi_key = {KEY:?}\n");
    machine.home.settings(&text);
    let ran = machine.fails("127.0.0.1:0").await;
    assert_eq!(ran.code, i32::from(exit_codes::SETTINGS));
    assert!(ran.err.contains("https://manager.example.com"), "{ran:?}");
    assert_eq!(machine.read("config/cli.toml"), text);
}
