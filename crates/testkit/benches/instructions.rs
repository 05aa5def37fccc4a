//! Instructions that single operations take, counted by callgrind and held to `instructions.txt`.
//!
//! `make bench-instructions` compares and `make bench-instructions-record` records. Each operation has a process of its
//! own under callgrind, which counts only within [`counted_run`]; what an operation needs is made outside of it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};
use legation_testkit::micro::{
    ALL, Measured, Operation,
    counts::{Counts, RECORD, Verdict, change, judge},
};

/// Runs before the first one that counts: until then constants are parsed and buffers made.
const WARM_UP: u32 = 2;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(false),
        ["--strict"] => compare(true),
        ["--record"] => record(),
        ["--run", name] => run(ALL.iter().find(|operation| operation.name == name).context("no such operation")?),
        _ => bail!("usage: [--record | --strict]"),
    }
}

/// What runs under callgrind.
fn run(operation: &Operation) -> anyhow::Result<ExitCode> {
    let mut measured = (operation.setup)();
    for _ in 0..WARM_UP {
        measured.prepare();
        measured.run();
    }
    for _ in 0..operation.runs {
        measured.prepare();
        counted_run(&mut *measured);
    }
    Ok(ExitCode::SUCCESS)
}

/// Callgrind knows it by its name.
#[inline(never)]
fn counted_run(measured: &mut dyn Measured) {
    measured.run();
}

fn record() -> anyhow::Result<ExitCode> {
    let counts = count()?;
    fs::write(baseline(), counts.to_string()).context("the baseline cannot be written")?;
    say(&counts.to_string());
    Ok(ExitCode::SUCCESS)
}

/// Where it is strict, counts that cannot be compared are a failure too.
fn compare(strict: bool) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(baseline()).with_context(|| format!("no baseline: record one with `{RECORD}`"))?;
    let (baseline, now) = (text.parse::<Counts>()?, count()?);
    say(&table(&baseline, &now));
    let verdict = judge(&baseline, &now);
    let word = match &verdict {
        Verdict::Open { better: false } => "every operation is within its baseline".to_owned(),
        Verdict::Open { better: true } => format!("some became better: let the baseline say so with `{RECORD}`"),
        Verdict::NotComparable(why) => format!("NOT COMPARABLE, nothing was held to the baseline: {why}"),
        Verdict::Shut(why) => why.clone(),
    };
    say(&format!("\n{word}"));
    Ok(if verdict.passes(strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

/// Every operation with what it took and takes.
fn table(baseline: &Counts, now: &Counts) -> String {
    let mut table = format!("{:<34}{:>12}{:>12}{:>9}", "operation", "baseline", "now", "change");
    for Operation { name, .. } in &ALL {
        let row = match (baseline.operations.get(*name), now.operations.get(*name)) {
            (Some(before), Some(now)) => format!("{before:>12}{now:>12}{:>+8.2}%", change(*before, *now)),
            (_, now) => format!("{:>12}{:>12}", "none", now.copied().unwrap_or_default()),
        };
        table.push_str(&format!("\n{name:<34}{row}"));
    }
    table
}

fn count() -> anyhow::Result<Counts> {
    let operations = ALL.iter().map(|operation| Ok((operation.name.to_owned(), count_one(operation)?)));
    Ok(Counts { tools: tools()?, operations: operations.collect::<anyhow::Result<_>>()? })
}

/// Instructions of one run, on average.
fn count_one(operation: &Operation) -> anyhow::Result<u64> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_run*"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(env::current_exe()?);
    said(valgrind.args(["--run", operation.name]))?;
    let total = fs::read_to_string(&out)?.lines().find_map(|line| line.strip_prefix("totals: ")?.parse::<u64>().ok());
    let total = total.with_context(|| format!("callgrind counted nothing of {operation}"))?;
    ensure!(total > 0, "callgrind did not see {operation} run");
    Ok(total / u64::from(operation.runs))
}

/// On what counts depend beside the code. The C library brings the allocator and the copying of memory.
fn tools() -> anyhow::Result<BTreeMap<String, String>> {
    let rustc = said(Command::new(env::var_os("RUSTC").unwrap_or("rustc".into())).arg("-vV"))?;
    let of_rustc = |key: &str| rustc.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("unknown").to_owned();
    Ok([
        ("rustc", of_rustc("rustc ")),
        ("target", of_rustc("host: ")),
        (
            "valgrind",
            said(Command::new("valgrind").arg("--version"))?.trim().trim_start_matches("valgrind-").to_owned(),
        ),
        ("libc", said(Command::new("getconf").arg("GNU_LIBC_VERSION"))?.trim().to_owned()),
    ]
    .map(|(tool, version)| (tool.to_owned(), version))
    .into())
}

/// What a program says when it succeeds.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {complaint}", command.get_program().display());
    Ok(String::from_utf8(output.stdout)?)
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn say(text: &str) {
    println!("{text}");
}
