//! One supervisor and the tasks that try to escape it.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use legation_delegate::{
    supervisor::order::{Begin, Frames, Order, Report, RunAs, frame},
    system::SystemEntropy,
};
use legation_model::{
    Millis,
    ids::{AttemptId, TaskId},
    secret::SecretText,
    task::TaskState,
};
use legation_wire::message::{Assignment, Finished, SecretVar, Stream, Work};

use crate::support::{Mark, eventually, in_ms};

const HOUR: Millis = 3_600_000;
/// Leaves the session, forks twice and stays: what a daemon does.
const DAEMON: &str = "setsid sh -c 'setsid sleep 600 & setsid sleep 600 & exec sleep 600' & ";

/// A script as the task of an attempt.
pub(crate) fn script(text: &str) -> Assignment {
    Assignment {
        attempt: AttemptId::random(&SystemEntropy),
        task: TaskId::random(&SystemEntropy),
        timeout: HOUR as u64,
        output_limit: 1 << 20,
        work: Work::Shell { script: text.to_owned(), interpreter: vec![], env: vec![], cwd: None, stdin: vec![] },
        secrets: vec![],
    }
}

struct Supervisor {
    child: Child,
    orders: Option<ChildStdin>,
    reports: ChildStdout,
    frames: Frames,
    mark: Mark,
    /// Output bytes seen so far.
    seen: u64,
}

/// Everything that a supervisor said.
struct Told {
    stdout: String,
    stderr: String,
    end: Option<Finished>,
}

impl Supervisor {
    fn start(assignment: Assignment) -> Self {
        Self::start_with(assignment, |_| {})
    }

    fn start_with(assignment: Assignment, change: impl FnOnce(&mut Begin)) -> Self {
        let mark = Mark::new();
        let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        let room = std::env::temp_dir().join(format!("legation-{}", assignment.attempt));
        let mut begin = Begin {
            assignment,
            lease_until: in_ms(HOUR),
            user: None,
            protected: vec![],
            env: vec![path, mark.variable()],
            room: room.to_str().expect("a text").to_owned(),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        };
        change(&mut begin);
        let mut child = Command::new(env!("CARGO_BIN_EXE_legation-delegate"))
            .arg("supervise")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let orders = child.stdin.take();
        let reports = child.stdout.take().expect("piped");
        let mut supervisor = Self { child, orders, reports, frames: Frames::default(), mark, seen: 0 };
        supervisor.order(&Order::Begin(Box::new(begin)));
        supervisor
    }

    fn order(&mut self, order: &Order) {
        self.orders.as_mut().expect("open").write_all(&frame(order)).expect("it reads");
    }

    fn report(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = self.frames.take().expect("good frames") {
                return Some(report);
            }
            let mut buffer = [0; 65536];
            let count = self.reports.read(&mut buffer).expect("a pipe");
            if count == 0 {
                return None;
            }
            self.frames.push(&buffer[..count]);
        }
    }

    /// Reads on until the output so far contains the text.
    fn await_output(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.report() {
                Some(Report::Output { bytes, .. }) => {
                    self.seen += bytes.len() as u64;
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                Some(Report::Started) => {}
                other => panic!("{other:?} before {text:?} after {seen:?}"),
            }
        }
    }

    fn all(mut self) -> Told {
        let (mut streams, mut end) = ([vec![], vec![]], None);
        while let Some(report) = self.report() {
            match report {
                Report::Started => {}
                Report::Output { stream, bytes } => {
                    self.seen += bytes.len() as u64;
                    streams[stream as usize].extend(bytes);
                }
                Report::Ended(finished) => {
                    assert_eq!(self.mark.alive(), 0, "nothing is left when the end is reported");
                    assert_eq!(finished.output_bytes, self.seen);
                    end = Some(finished);
                }
            }
        }
        self.child.wait().expect("it ended");
        let [stdout, stderr] = streams.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Told { stdout, stderr, end }
    }
}

fn run(assignment: Assignment) -> (Told, Finished) {
    let mut told = Supervisor::start(assignment).all();
    let end = told.end.take().expect("it reports the end");
    (told, end)
}

/// Changes the variables, directory and input of a shell task.
fn change(
    assignment: &mut Assignment,
    change: impl FnOnce(&mut Vec<String>, &mut Vec<(String, String)>, &mut Option<String>, &mut Vec<u8>),
) {
    match &mut assignment.work {
        Work::Shell { interpreter, env, cwd, stdin, .. } => change(interpreter, env, cwd, stdin),
        Work::Http { .. } => unreachable!("these tests run scripts"),
    }
}

#[test]
fn a_script_runs_and_its_exit_code_decides() {
    let (told, end) = run(script("echo out; echo err >&2"));
    assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!((end.state, end.exit_code), (TaskState::Succeeded, Some(0)));
    let (_, end) = run(script("exit 7"));
    assert_eq!((end.state, end.exit_code), (TaskState::Failed, Some(7)));
    let (_, end) = run(script("kill -9 $$"));
    assert_eq!((end.state, end.exit_code), (TaskState::Failed, Some(137)));
}

#[test]
fn environment_directory_and_input_are_what_the_task_says_and_nothing_else() {
    let mut task = script("cat; pwd; env | cut -d= -f1 | sort | tr '\\n' ' '; ls /proc/$$/fd | tr '\\n' ' '");
    change(&mut task, |_, env, cwd, stdin| {
        env.push(("MINE".into(), "1".into()));
        *cwd = Some("/usr".into());
        *stdin = vec![b'x'; 200_000];
    });
    let (told, _) = run(task);
    let rest = told.stdout.trim_start_matches('x');
    assert_eq!(told.stdout.len() - rest.len(), 200_000);
    // The shell's own: its script and copies of it above 9, and variables such as PWD.
    let lines: Vec<&str> = rest.lines().collect();
    assert_eq!(lines[0], "/usr");
    let known = ["MINE", "OLDPWD", "PATH", "PWD", "SHLVL", "TEST_MARK", "_", "0", "1", "2"];
    for word in lines[1].split_whitespace() {
        let own = word.parse::<u32>().is_ok_and(|fd| fd >= 10);
        assert!(own || known.contains(&word), "{word} in {:?}", lines[1]);
    }
}

#[test]
fn a_missing_interpreter_or_directory_is_said_in_a_sentence() {
    let mut task = script("true");
    change(&mut task, |interpreter, _, _, _| interpreter.push("/no/such/interpreter".into()));
    let (_, end) = run(task);
    assert_eq!(end.state, TaskState::Failed);
    assert!(end.reason.contains("\"/no/such/interpreter\" does not exist"), "{}", end.reason);
    let mut task = script("true");
    change(&mut task, |_, _, cwd, _| *cwd = Some("/no/such/place".into()));
    let (_, end) = run(task);
    assert!(end.reason.contains("working directory"), "{}", end.reason);
}

#[test]
fn a_daemon_dies_when_the_script_ends() {
    let (_, end) = run(script(&format!("{DAEMON} sleep 0.2")));
    assert_eq!(end.state, TaskState::Succeeded);
}

#[test]
fn a_daemon_dies_when_the_pipe_closes() {
    let mut supervisor = Supervisor::start(script(&format!("{DAEMON} echo up; trap '' TERM HUP; sleep 600")));
    supervisor.await_output("up");
    eventually("the daemons run", || supervisor.mark.alive() >= 4);
    supervisor.orders = None;
    eventually("nothing is left", || supervisor.mark.alive() == 0);
    supervisor.child.wait().expect("it ended too");
}

#[test]
fn a_daemon_dies_when_the_lease_ends_though_nobody_says_so() {
    let task = script(&format!("{DAEMON} echo up; sleep 600"));
    let mut supervisor = Supervisor::start_with(task, |begin| begin.lease_until = in_ms(1_500));
    supervisor.await_output("up");
    eventually("nothing is left", || supervisor.mark.alive() == 0);
    supervisor.child.wait().expect("it does not wait for a reader either");
}

#[test]
fn a_lease_that_is_renewed_does_not_end_the_task() {
    let task = script("echo up; sleep 1.5; echo done");
    let mut supervisor = Supervisor::start_with(task, |begin| begin.lease_until = in_ms(800));
    supervisor.order(&Order::Lease { until: in_ms(HOUR) });
    supervisor.order(&Order::Lease { until: in_ms(100) });
    assert_eq!(supervisor.all().stdout, "up\ndone\n");
}

#[test]
fn a_timeout_kills_what_ignores_every_signal() {
    let mut task = script(&format!("{DAEMON} trap '' TERM INT HUP; while :; do sleep 1; done"));
    task.timeout = 300;
    let (_, end) = run(task);
    assert_eq!(end.state, TaskState::TimedOut);
    assert!(end.reason.contains("300 ms"));
}

#[test]
fn a_cancelled_task_may_clean_up_within_its_grace() {
    let mut supervisor =
        Supervisor::start(script("trap 'echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.05; done"));
    supervisor.await_output("up");
    supervisor.order(&Order::Cancel { grace: 20_000 });
    let told = supervisor.all();
    assert_eq!(told.end.map(|end| end.state), Some(TaskState::Cancelled));
    assert_eq!(told.stdout, "cleaned\n");
}

#[test]
fn a_cancelled_task_that_ignores_it_is_killed_after_its_grace() {
    let mut supervisor =
        Supervisor::start(script(&format!("{DAEMON} trap '' TERM; echo up; while :; do sleep 1; done")));
    supervisor.await_output("up");
    supervisor.order(&Order::Cancel { grace: 200 });
    assert_eq!(supervisor.all().end.map(|end| end.state), Some(TaskState::Cancelled));
}

#[test]
fn forking_does_not_outrun_the_kill() {
    // Every process starts another and ends: at no moment is any of them in two listings, for 200 at a time.
    let text = "f() { ( f & ) ; }; i=0; while [ $i -lt 200 ]; do ( while :; do ( : & ) ; done ) & i=$((i+1)); done; echo up; wait";
    let mut supervisor = Supervisor::start(script(text));
    supervisor.await_output("up");
    supervisor.orders = None;
    eventually("nothing is left", || supervisor.mark.alive() == 0);
    supervisor.child.wait().expect("it ended too");
}

#[test]
fn output_above_the_limit_is_counted_and_neither_blocks_nor_fills_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let peak = directory.path().join("peak");
    let text = format!("head -c 200000000 /dev/zero; grep VmHWM /proc/$PPID/status > {}; exit 3", peak.display());
    let mut task = script(&text);
    task.output_limit = 1 << 20;
    let (told, end) = run(task);
    assert_eq!((end.state, end.exit_code), (TaskState::Failed, Some(3)));
    assert!(told.stdout.ends_with("dropped]\n"));
    assert!(told.stdout.len() < (1 << 20) + 200);
    assert!(end.dropped_bytes >= 200_000_000 - (1 << 20), "{}", end.dropped_bytes);
    let peak = std::fs::read_to_string(peak).expect("written");
    let kilobytes: u32 = peak.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    assert!(kilobytes < 32_000, "the supervisor used {kilobytes} kB");
}

#[test]
fn a_delegate_that_does_not_read_holds_a_task_up_but_not_its_lease() {
    let mut task = script("head -c 20000000 /dev/zero");
    task.output_limit = 64 << 20;
    let mut supervisor = Supervisor::start_with(task, |begin| begin.lease_until = in_ms(1_000));
    let pid = supervisor.child.id();
    supervisor.child.wait().expect("it ends with the lease");
    assert!(supervisor.report().is_some(), "what fitted into the pipe is there ({pid})");
    assert_eq!(supervisor.mark.alive(), 0);
}

#[test]
fn neither_script_nor_secret_is_an_argument_of_any_process() {
    let canary = format!("canary{}", Mark::new().value);
    let mut task = script(&format!("# {canary}\necho up $KEY; sleep 600"));
    task.secrets.push(SecretVar { name: "KEY".into(), value: SecretText::new(canary.clone()) });
    let mut supervisor = Supervisor::start(task);
    supervisor.await_output("up ***\n");
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&canary), "{:?}", entry.path());
    }
}

#[test]
fn nothing_of_an_attempt_stays_on_disk() {
    let task = script("echo data > file; ls; stat -c '%a %n' \"$0\"");
    let room = std::env::temp_dir().join(format!("legation-{}", task.attempt));
    let (told, _) = run(task);
    assert_eq!(told.stdout, format!("file\n600 {}\n", room.join("script").display()));
    assert!(!room.exists());
}

#[test]
fn a_task_of_another_user_is_that_user_alone_and_dies_as_surely() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let nobody = RunAs { uid: 65534, gid: 65534 };
    let task = script(&format!("{DAEMON} id -u; id -G; id > file; cat /proc/$PPID/environ; exit 5"));
    let supervisor = Supervisor::start_with(task, |begin| begin.user = Some(nobody));
    let told = supervisor.all();
    assert_eq!(told.stdout, "65534\n65534\n");
    assert!(told.stderr.contains("ermission denied"), "{}", told.stderr);
    assert_eq!(told.end.and_then(|end| end.exit_code), Some(5));
}

#[test]
fn a_supervisor_without_orders_just_ends() {
    let mut supervisor = Supervisor::start(script("sleep 600"));
    supervisor.orders.as_mut().expect("open").write_all(&[0xff; 64]).expect("it reads");
    supervisor.child.wait().expect("garbage ends it");
    eventually("nothing is left", || supervisor.mark.alive() == 0);
    assert_eq!(Stream::Stdout as usize, 0, "streams index the two outputs");
}
