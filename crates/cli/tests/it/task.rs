//! Tasks: live output, exit codes, Ctrl-C.

use std::time::Duration;

use legation_api::{output::Stream, tasks::CancelledTask};
use legation_cli::exit_codes;
use legation_model::task::TaskState;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    time::timeout,
};

use crate::{
    fake::Fake,
    nouns::{TASK, end, output, task},
    run::Home,
};

/// Far beyond what a run needs; only a task that nobody asks about reaches it.
const PATIENCE: Duration = Duration::from_secs(30);
const SUBMIT: &str = "POST /api/v1/tasks";

fn stream() -> String {
    format!("GET /api/v1/tasks/{TASK}/output?follow=true")
}

fn cancel() -> String {
    format!("POST /api/v1/tasks/{TASK}/cancel?dry_run=false")
}

async fn ended(state: TaskState, exit_code: Option<i32>) -> Fake {
    let fake = Fake::start().await;
    let mut task = task(state);
    task.exit_code = exit_code;
    let text = [output(0, Stream::Stdout, "out\n"), output(4, Stream::Stderr, "err\u{1b}[0m\n"), end(&task)].concat();
    fake.on(SUBMIT, &task).stream(&stream(), text, None);
    fake.on(&format!("GET /api/v1/tasks/{TASK}"), &task);
    fake
}

#[tokio::test]
async fn output_and_exit_code_are_handed_through() {
    let fake = ended(TaskState::Failed, Some(3)).await;
    let ran = Home::of(&fake).run(&["task", "run", "--on", "gpu", "--", "false"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (3, "out\n"));
    assert!(ran.err.starts_with("err\u{1b}[0m\n") && ran.err.contains("failed with exit code 3"), "{ran:?}");
    let body = String::from_utf8(fake.asked()[0].body.to_vec()).expect("text");
    assert!(body.contains(r#""script":"false""#) && body.contains(r#""selectors":["gpu"]"#), "{body}");
}

#[tokio::test]
async fn every_end_has_its_exit_code() {
    let ends = [
        (TaskState::Succeeded, exit_codes::OK),
        (TaskState::TimedOut, exit_codes::TASK_TIMED_OUT),
        (TaskState::Cancelled, exit_codes::TASK_CANCELLED),
        (TaskState::Lost, exit_codes::TASK_LOST),
        (TaskState::Rejected, exit_codes::TASK_REJECTED),
    ];
    for (state, code) in ends {
        let ran = Home::of(&ended(state, None).await).run(&["task", "run", "--", "x"]).await;
        assert_eq!(ran.code, i32::from(code), "{state}: {ran:?}");
    }
}

#[tokio::test]
async fn a_format_leaves_standard_output_to_the_task_itself() {
    let fake = ended(TaskState::Succeeded, Some(0)).await;
    let ran = Home::of(&fake).run(&["task", "run", "-o", "json", "--", "x"]).await;
    let shown: legation_api::tasks::Task = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((ran.code, shown.state), (0, TaskState::Succeeded));
    assert!(ran.err.contains("out\n"));
    let detached = Home::of(&fake).run(&["task", "run", "--detach", "-o", "name", "--", "x"]).await;
    assert_eq!(detached.out, format!("{TASK}\n"));
}

/// A task that waits until somebody has asked why.
async fn queued() -> Fake {
    let (fake, show) = (Fake::start().await, format!("GET /api/v1/tasks/{TASK}"));
    let mut waits = task(TaskState::Queued);
    waits.reason = "no delegate that serves scope default is connected".to_owned();
    fake.on(SUBMIT, &task(TaskState::Queued)).on(&show, &waits);
    fake.stream(&stream(), String::new(), Some((show, end(&task(TaskState::Succeeded)))));
    fake
}

#[tokio::test]
async fn a_task_that_waits_says_why() {
    let fake = queued().await;
    let home = Home::of(&fake);
    let ran = timeout(PATIENCE, home.run(&["task", "run", "--", "x"])).await.expect("somebody asks why");
    let told = format!("task {TASK} waits for a delegate: no delegate that serves scope default is connected");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.matches(&told).count()), (0, "", 1), "{ran:?}");
}

#[tokio::test]
async fn the_first_interrupt_cancels_and_the_task_is_seen_to_its_end() {
    let fake = Fake::start().await;
    let cancelled = CancelledTask { task: task(TaskState::Running) };
    fake.on(SUBMIT, &task(TaskState::Queued)).on(&cancel(), &cancelled);
    fake.on(&format!("GET /api/v1/tasks/{TASK}"), &task(TaskState::Running));
    fake.stream(&stream(), output(0, Stream::Stdout, "working\n"), Some((cancel(), end(&task(TaskState::Cancelled)))));
    let home = Home::of(&fake);
    let mut child = home.command(&["task", "run", "--", "sleep 600"]).spawn().expect("the program");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).await.expect("a line");
    assert_eq!(line, "working\n");
    interrupt(&child);
    let status = child.wait().await.expect("an end");
    assert_eq!(status.code(), Some(i32::from(exit_codes::TASK_CANCELLED)));
}

#[tokio::test]
async fn the_second_interrupt_leaves() {
    let fake = Fake::start().await;
    let never = Some(("NEVER".to_owned(), String::new()));
    fake.on(SUBMIT, &task(TaskState::Queued)).on(&cancel(), &CancelledTask { task: task(TaskState::Running) });
    fake.on(&format!("GET /api/v1/tasks/{TASK}"), &task(TaskState::Running));
    fake.stream(&stream(), output(0, Stream::Stdout, "working\n"), never);
    let home = Home::of(&fake);
    let mut child = home.command(&["task", "run", "--", "sleep 600"]).spawn().expect("the program");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    out.read_line(&mut String::new()).await.expect("a line");
    interrupt(&child);
    fake.asked_for(&cancel()).await;
    interrupt(&child);
    let mut err = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut err).await.expect("text");
    assert_eq!(child.wait().await.expect("an end").code(), Some(i32::from(exit_codes::INTERRUPTED)));
    assert!(err.contains("the task goes on"), "{err}");
}

fn interrupt(child: &tokio::process::Child) {
    let id = i32::try_from(child.id().expect("a running program")).expect("an id");
    kill_process(Pid::from_raw(id).expect("an id"), Signal::INT).expect("a signal");
}

#[tokio::test]
async fn logs_print_what_there_is() {
    let fake = Fake::start().await;
    let text = [output(0, Stream::Stdout, "so far\n"), end(&task(TaskState::Running))].concat();
    fake.stream(&format!("GET /api/v1/tasks/{TASK}/output?follow=false"), text, None);
    let ran = Home::of(&fake).run(&["task", "logs", &TASK.to_string()]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "so far\n"));
}
