//! The comparison compares: each phase runs against each server, small, nothing goes wrong, and ratios are printed.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::process::Command;

const CLIENTS: usize = 20;
const SERVERS: [&str; 3] = ["legation-manager", "nats-server", "mosquitto"];
const PHASES: [&str; 5] = ["storm", "idle", "heartbeat", "dispatch", "revoke"];

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.ancestors().nth(2).expect("a test lies two levels below the programs").join("legation-compare")
}

async fn compare(arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.output().await.expect("run `cargo build --workspace --bins` first")
}

fn check(line: &Value) {
    assert_eq!(
        (&line["round"], &line["delegates"], &line["errors"]),
        (&1.into(), &CLIENTS.into(), &0.into()),
        "{line}"
    );
    assert!(line["operations"].as_u64().is_none_or(|operations| operations > 0), "{line}");
    assert!(line["version"].as_str().is_some_and(|version| version.contains('.')), "{line}");
}

#[tokio::test]
async fn every_phase_runs_against_every_server_and_ratios_are_printed() {
    let output = compare(&["--delegates", &CLIENTS.to_string(), "--rounds", "1", "--seconds", "1"]).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`make test` installs nats-server and mosquitto\n{out}\n{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    lines.iter().for_each(check);
    for server in SERVERS {
        for phase in PHASES {
            let found = |line: &&Value| line["server"] == server && line["phase"] == phase;
            assert!(lines.iter().any(|line| found(&line)), "{server} {phase}: {out}");
        }
    }
    for figure in ["memory", "connect", "heartbeat", "revoke"] {
        for other in &SERVERS[1..] {
            assert!(err.lines().any(|row| row.contains(figure) && row.contains(other)), "{figure} {other}: {err}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    for (complaint, arguments) in [
        ("error: ", ["--delegates", "0"]),
        ("error: ", ["--rounds", "0"]),
        ("error: ", ["--seconds", "0"]),
        ("legation-compare: ", ["--manager", "/nowhere"]),
    ] {
        let output = compare(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.starts_with(complaint), "{said}");
    }
}
