//! Instruction counts beside those of a baseline: the same on a busy machine as on a quiet one, and so a gate.
//!
//! A baseline names the tools it was counted with. With others the same code has other counts, which says nothing
//! about the code: then it is said that nothing can be compared. Whoever has other tools is not kept from working by
//! that; the machine that is the gate asks to be strict, so that a new compiler there does not open it unseen.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// How much more an operation may take than its baseline, in percent.
pub const TOLERANCE: f64 = 5.0;
/// How much more finding a token among ten thousand may take than finding the only one, in percent.
const LOOKUP_TOLERANCE: u64 = 10;
/// What records a baseline.
pub const RECORD: &str = "make bench-instructions-record";

const HEAD: &str = "# Instructions that callgrind counts for one run of each operation of crates/testkit/benches.";

/// What was counted, and with which tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Name and version of each tool.
    pub tools: BTreeMap<String, String>,
    /// Operation and its instructions.
    pub operations: BTreeMap<String, u64>,
}

/// A line that is neither a comment nor a tool nor an operation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of the baseline cannot be read: record it anew with `{RECORD}`")]
pub struct Unreadable(usize);

impl FromStr for Counts {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut counts = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((tool, version)) = line.split_once(": ") {
                counts.tools.insert(tool.to_owned(), version.to_owned());
            } else if let Some((operation, count)) = line.split_once(' ') {
                let count = count.trim().parse().map_err(|_| Unreadable(number))?;
                counts.operations.insert(operation.to_owned(), count);
            } else {
                return Err(Unreadable(number));
            }
        }
        Ok(counts)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\n# Written by `{RECORD}`.\n")?;
        self.tools.iter().try_for_each(|(tool, version)| writeln!(f, "{tool}: {version}"))?;
        writeln!(f)?;
        self.operations.iter().try_for_each(|(operation, count)| writeln!(f, "{operation:<35} {count:>12}"))
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every operation is within the tolerance, or better.
    Open {
        /// Some are better by more than the tolerance, which the baseline should say.
        better: bool,
    },
    /// Nothing can be said, because the tools are others than the baseline's; which, and what to do.
    NotComparable(String),
    /// The gate is shut; why, and what to do.
    Shut(String),
}

impl Verdict {
    /// Whether a change may go on with it. A strict gate lets nothing pass that it cannot judge.
    pub const fn passes(&self, strict: bool) -> bool {
        match self {
            Self::Open { .. } => true,
            Self::NotComparable(_) => !strict,
            Self::Shut(_) => false,
        }
    }
}

/// Judges counts by a baseline.
pub fn judge(baseline: &Counts, now: &Counts) -> Verdict {
    // First, because it is so whatever the tools are.
    if !baseline.operations.keys().eq(now.operations.keys()) {
        return Verdict::Shut(format!("the baseline has other operations: record it anew with `{RECORD}`"));
    }
    if let Some(why) = grows_with_tokens(now) {
        return Verdict::Shut(why);
    }
    let others = other_tools(baseline, now);
    if !others.is_empty() {
        return Verdict::NotComparable(format!(
            "the baseline was counted with other tools than {}, and says nothing about code built and counted with \
             these. To compare, record one with `{RECORD}` on the commit before yours",
            others.join(", ")
        ));
    }
    let worse = changed(baseline, now, |percent| percent > TOLERANCE);
    let better = !changed(baseline, now, |percent| percent < -TOLERANCE).is_empty();
    if worse.is_empty() {
        return Verdict::Open { better };
    }
    Verdict::Shut(format!(
        "more than {TOLERANCE} % above the baseline: {}. Find out where the instructions come from; if they are worth \
         it, record the baseline anew with `{RECORD}` and say why in the commit",
        worse.join(", ")
    ))
}

/// The tools of now that are not those of the baseline.
fn other_tools(baseline: &Counts, now: &Counts) -> Vec<String> {
    let others = now.tools.iter().filter(|(tool, version)| baseline.tools.get(*tool) != Some(version));
    others.map(|(tool, version)| format!("{tool} {version}")).collect()
}

/// Checking one token among many must cost what checking the only one does, with whatever tools that is counted.
fn grows_with_tokens(now: &Counts) -> Option<String> {
    let count = |many: &str| now.operations.get(&format!("token-lookup/{many}"));
    let (one, many) = (count("1")?, count("10000")?);
    (many * 100 > one * (100 + LOOKUP_TOLERANCE)).then(|| {
        format!("finding a token among 10,000 takes {many} instructions and the only one {one}: it must not grow")
    })
}

/// The operations whose change is of that kind.
fn changed<'a>(baseline: &Counts, now: &'a Counts, kind: impl Fn(f64) -> bool) -> Vec<&'a str> {
    let changes = now.operations.iter().map(|(name, count)| (name.as_str(), change(baseline.operations[name], *count)));
    changes.filter(|(_, percent)| kind(*percent)).map(|(name, _)| name).collect()
}

/// By how many percent a count changed.
pub fn change(baseline: u64, now: u64) -> f64 {
    (now as f64 - baseline as f64) / baseline as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, operations: &[(&str, u64)]) -> Counts {
        Counts {
            tools: [("rustc", rustc), ("valgrind", "3")]
                .map(|(tool, version)| (tool.to_owned(), version.to_owned()))
                .into(),
            operations: operations.iter().map(|(operation, count)| ((*operation).to_owned(), *count)).collect(),
        }
    }

    fn shut(baseline: &Counts, now: &Counts) -> String {
        match judge(baseline, now) {
            Verdict::Shut(why) => why,
            other => panic!("{other:?} for {now} by {baseline}"),
        }
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let written =
            counts("1.2.3 (4 5)", &[("gate/enter", 12), ("a-name-that-is-longer-than-its-column-is/64KiB", 7)]);
        assert_eq!(written.to_string().parse(), Ok(written));
        assert_eq!("# comment\n\nrustc\n".parse::<Counts>(), Err(Unreadable(3)));
        assert_eq!("gate/enter many".parse::<Counts>(), Err(Unreadable(1)));
    }

    #[test]
    fn the_gate_is_shut_above_the_tolerance_and_open_below_it() {
        let baseline = counts("1", &[("a", 1_000), ("b", 1_000)]);
        assert_eq!(judge(&baseline, &counts("1", &[("a", 1_050), ("b", 950)])), Verdict::Open { better: false });
        assert_eq!(judge(&baseline, &counts("1", &[("a", 1_000), ("b", 949)])), Verdict::Open { better: true });
        let why = shut(&baseline, &counts("1", &[("a", 1_051), ("b", 1)]));
        assert!(why.contains("baseline: a. ") && why.contains(RECORD), "{why}");
    }

    #[test]
    fn other_operations_shut_it_whatever_the_tools() {
        let baseline = counts("1", &[("a", 1_000)]);
        for now in [counts("1", &[]), counts("1", &[("a", 1_000), ("b", 1)]), counts("2", &[("b", 1_000)])] {
            assert!(shut(&baseline, &now).contains(RECORD));
        }
    }

    #[test]
    fn a_look_up_that_grows_with_the_tokens_shuts_it_whatever_the_tools() {
        let lookups = |tools, many| counts(tools, &[("token-lookup/1", 100), ("token-lookup/10000", many)]);
        assert_eq!(judge(&lookups("1", 110), &lookups("1", 110)), Verdict::Open { better: false });
        for tools in ["1", "2"] {
            assert!(shut(&lookups("1", 111), &lookups(tools, 111)).contains("must not grow"));
        }
    }

    #[test]
    fn with_other_tools_nothing_can_be_compared_however_many_instructions_there_are() {
        let baseline = counts("1", &[("a", 1_000)]);
        for count in [1, 1_000, 9_000] {
            let verdict = judge(&baseline, &counts("2", &[("a", count)]));
            let Verdict::NotComparable(why) = verdict else { panic!("{verdict:?}") };
            assert!(why.contains("than rustc 2,") && why.contains(RECORD), "{why}");
        }
    }

    #[test]
    fn only_a_strict_gate_stops_what_it_cannot_compare() {
        for (verdict, lenient, strict) in [
            (Verdict::Open { better: false }, true, true),
            (Verdict::Open { better: true }, true, true),
            (Verdict::NotComparable(String::new()), true, false),
            (Verdict::Shut(String::new()), false, false),
        ] {
            assert_eq!((verdict.passes(false), verdict.passes(true)), (lenient, strict), "{verdict:?}");
        }
    }
}
