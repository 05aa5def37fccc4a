//! The load generator measures what it says: each phase runs, small, and nothing goes wrong in it.

use std::{path::PathBuf, process::Stdio};

use legation_testkit::Engine;
use serde_json::Value;
use tokio::process::Command;

on_both!(nothing_happens_after_a_revoke_has_returned);

const DELEGATES: usize = 20;
const PHASES: [&str; 11] =
    ["storm", "idle", "churn", "dispatch", "revoke", "heartbeat", "restart", "create", "tokens", "neighbour", "spawn"];
/// Revokes of one run, each under the load of the others.
const REVOKES: u64 = 50;

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
    assert_eq!(of("tokens")[0]["tokens"], 10_000);
    assert_eq!(
        (&of("revoke")[0]["receipt_lines_cut"], &of("revoke")[0]["goodbyes"]),
        (&DELEGATES.into(), &DELEGATES.into())
    );
}

#[tokio::test]
async fn the_phases_of_the_link_are_measured_over_tls_too() {
    let lines = measure(&["--delegates", "5", "--seconds", "1", "--tls"]).await;
    let phases: Vec<_> = lines.iter().map(|line| line["phase"].as_str().expect("a phase")).collect();
    assert_eq!(phases, ["storm", "idle", "heartbeat"]);
    assert!(lines.iter().all(|line| line["tls"] == true && line["errors"] == 0), "{lines:?}");
}

/// Delegates go on reporting and come back, under load, and nothing of it counts.
async fn nothing_happens_after_a_revoke_has_returned(engine: Engine) {
    let revokes = REVOKES.to_string();
    let arguments = ["--delegates", "1", "--phases", "effects", "--revokes", &revokes, "--postgres"];
    let arguments = if engine == Engine::Postgres { &arguments[..] } else { &arguments[..arguments.len() - 1] };
    let lines = measure(arguments).await;
    let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
    assert_eq!((&line["operations"], &line["effects"]), (&REVOKES.into(), &0.into()), "{line}");
    let tried = |what: &str| line[what].as_u64().expect("a number");
    assert!(tried("refused") >= 8 * REVOKES && tried("reports_after") > REVOKES && tried("tasks") > 0, "{line}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused() {
    let unable: [(&str, &[&str]); 6] = [
        ("error: ", &["--delegates", "0"]),
        ("error: ", &["--seconds", "121"]),
        ("error: ", &["--revokes", "0"]),
        ("legation-load: ", &["--manager", "/nowhere"]),
        ("legation-load: ", &["--phases", "spawn", "--delegate", "/nowhere"]),
        ("legation-load: ", &["--tls", "--phases", "revoke"]),
    ];
    for (complaint, arguments) in unable {
        let output = Command::new(program()).args(arguments).output().await.expect("the program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.starts_with(complaint), "{said}");
    }
}
