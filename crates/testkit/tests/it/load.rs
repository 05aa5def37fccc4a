//! The load generator measures what it says: each phase runs, small, and nothing goes wrong in it.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

const DELEGATES: usize = 20;
const PHASES: [&str; 8] = ["storm", "idle", "churn", "dispatch", "revoke", "heartbeat", "restart", "create"];

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.ancestors().nth(2).expect("a test lies two levels below the programs").join("legation-load")
}

async fn measure(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect("run `cargo build --workspace --bins` first");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn every_phase_measures_without_an_error() {
    let count = DELEGATES.to_string();
    let lines = measure(&["--delegates", &count, "--seconds", "1", "--phases", &PHASES.join(",")]).await;
    let of = |phase: &str| lines.iter().filter(|line| line["phase"] == phase).collect::<Vec<_>>();
    for phase in PHASES {
        let found = of(phase);
        assert_eq!(found.len(), if phase == "dispatch" { 2 } else { 1 }, "{phase}: {lines:?}");
        for line in found {
            assert!(line["errors"].as_u64().is_none_or(|errors| errors == 0), "{line}");
            assert!(line["operations"].as_u64().is_none_or(|operations| operations > 0), "{line}");
        }
    }
    assert_eq!(of("storm")[0]["operations"], DELEGATES);
    assert_eq!(
        (&of("revoke")[0]["receipt_lines_cut"], &of("revoke")[0]["goodbyes"]),
        (&DELEGATES.into(), &DELEGATES.into())
    );
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused() {
    for arguments in [["--delegates", "0"], ["--seconds", "0"], ["--manager", "/nowhere"]] {
        let output = Command::new(program()).args(arguments).output().await.expect("the program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.starts_with("legation-load: "), "{said}");
    }
}
