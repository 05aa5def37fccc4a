//! What the others' figures are, divided by ours.

use std::io::Write as _;

use super::OURS;
use crate::load::Figures;

/// One figure that all servers have; less is better.
struct Figure {
    name: &'static str,
    phase: &'static str,
    field: &'static str,
}

const FIGURES: [Figure; 5] = [
    Figure { name: "memory for each connection, KiB", phase: "idle", field: "kib_per_delegate" },
    Figure { name: "processor time for a connect, µs", phase: "storm", field: "server_cpu_us" },
    Figure { name: "processor time for a heartbeat, µs", phase: "heartbeat", field: "server_cpu_us" },
    Figure { name: "revoke to the last closed, ms", phase: "revoke", field: "last_closed_seen_ms" },
    Figure { name: "dispatch to the answer, p50, µs (*)", phase: "dispatch", field: "answer_p50_us" },
];

/// Why the last row is to be read with care.
const NOTE: &str = "(*) ours: from the assignment's commit to the delegate's answer in the Manager; \
                    theirs: from a publisher over the server to the client and back, nothing stored";

/// Prints the table for people, apart from the lines for machines; nobody may be reading any more.
pub(super) fn print(lines: &[Figures], others: &[&str]) {
    let _ = std::io::stderr().write_all(table(lines, others).as_bytes());
}

fn table(lines: &[Figures], others: &[&str]) -> String {
    let rows = FIGURES.iter().flat_map(|figure| others.iter().filter_map(|other| row(lines, figure, other)));
    let head = format!("\n{:36} {:12} {:>10} {:>10} {:>7}  {}\n", "", "", "theirs", "ours", "ratio", "each round");
    rows.fold(head, |table, row| table + &row) + NOTE + "\n"
}

/// One figure beside one other server: medians, the median of the ratios, and the ratio of each round.
fn row(lines: &[Figures], figure: &Figure, other: &str) -> Option<String> {
    let (theirs, ours) = (values(lines, figure, other), values(lines, figure, OURS));
    let ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect();
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let (theirs, ours, ratio) = (median(theirs)?, median(ours)?, median(ratios)?);
    let name = figure.name;
    Some(format!("{name:36} {other:12} {theirs:10.1} {ours:10.1} {ratio:7.2}  {}\n", each.join(" ")))
}

/// A server's figure of each round, in the order of the rounds. Of dispatches only the one with nothing beside it has
/// its like with all servers.
fn values(lines: &[Figures], figure: &Figure, server: &str) -> Vec<f64> {
    let is = |line: &&Figures| {
        let text = |name: &str| line.get(name).and_then(|value| value.as_str());
        let alone = line.get("window").is_none_or(|window| window == 1);
        text("server") == Some(server) && text("phase") == Some(figure.phase) && alone
    };
    lines.iter().filter(is).filter_map(|line| line.get(figure.field)?.as_f64()).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(server: &str, phase: &str, field: &str, value: f64) -> Figures {
        Figures::new(phase, 1).with("server", server).with(field, value)
    }

    #[test]
    fn a_median_is_the_middle() {
        let cases =
            [(vec![], None), (vec![3.0], Some(3.0)), (vec![4.0, 1.0], Some(2.5)), (vec![9.0, 1.0, 2.0], Some(2.0))];
        for (values, expect) in cases {
            assert_eq!(median(values.clone()), expect, "{values:?}");
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_their_median_of_all() {
        let idle = |server, value| line(server, "idle", "kib_per_delegate", value);
        let lines = [idle(OURS, 4.0), idle("nats", 36.0), idle(OURS, 5.0), idle("nats", 40.0)];
        let table = table(&lines, &["nats"]);
        let row = table.lines().find(|line| line.starts_with("memory")).expect("a row");
        let words: Vec<_> = row.split_whitespace().rev().take(5).collect();
        assert_eq!(words, ["8.00", "9.00", "8.50", "4.5", "38.0"], "{table}");
    }

    #[test]
    fn only_the_dispatch_with_nothing_beside_it_is_compared_and_only_where_both_have_it() {
        let dispatch = |server, window, value| line(server, "dispatch", "answer_p50_us", value).with("window", window);
        let lines = [dispatch(OURS, 1, 50.0), dispatch(OURS, 64, 900.0), dispatch("nats", 1, 100.0)];
        assert!(table(&lines, &["nats"]).contains(" 2.00"));
        assert!(!table(&lines[1..], &["nats"]).contains("nats"));
    }
}
