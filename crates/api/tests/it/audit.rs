//! An export that was changed in any way is told from the one that the Manager made.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use legation_api::{
    audit::{AuditRecord, hash, spell},
    audit_export::{Checkpoint, ExportLine, Signed, statement},
    audit_verify::{Anchor, Fault, FaultKind, Trusted, Verified, verify},
};
use legation_model::audit::{self as model, Outcome};
use proptest::prelude::*;
use serde_json::json;

/// Records of the export that is changed.
const RECORDS: u64 = 12;
/// A checkpoint behind each so many of them.
const EVERY: u64 = 4;

fn signer(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key")
}

fn public(signer: &Ed25519KeyPair) -> [u8; 32] {
    signer.public_key().as_ref().try_into().expect("32 bytes")
}

fn place(signer: &Ed25519KeyPair, signed: Signed, number: u64, hash: &[u8], previous: u64) -> Checkpoint {
    let key = public(signer);
    let mut place = model::Checkpoint { number, hash: hash.to_vec(), at: 9, previous, signature: Vec::new(), key };
    place.signature = signer.sign(statement(signed, &place).as_bytes()).as_ref().to_vec();
    Checkpoint::from(&place)
}

fn record(number: u64, previous: &[u8], detail: &str) -> model::AuditRecord {
    let fields = json!({"status": "active", "n": number, "list": [1, "two", null, {"a": true}]});
    let mut record = model::AuditRecord {
        number,
        format: if number.is_multiple_of(5) { 1 } else { 2 },
        at: 1_800_000_000_000 + number as i64,
        actor: "someone (key_1)".to_owned(),
        address: "192.0.2.7".to_owned(),
        action: "token.revoke".to_owned(),
        object: format!("object-{number}"),
        scope: (!number.is_multiple_of(3) || number.is_multiple_of(5)).then(|| "acme/eng".parse().expect("a scope")),
        before: spell(fields.as_object()),
        after: String::new(),
        detail: detail.to_owned(),
        outcome: if number.is_multiple_of(4) { Outcome::Refused } else { Outcome::Done },
        request: "r1".to_owned(),
        previous: previous.to_vec(),
        hash: Vec::new(),
    };
    if record.format == 1 {
        record.address.clear();
        record.before.clear();
        record.outcome = Outcome::Done;
    }
    record.hash = hash(&record).expect("a known format").to_vec();
    record
}

/// The records behind `after`, with their checkpoints.
fn export_behind(after: u64) -> Vec<String> {
    let signer = signer(7);
    let (mut lines, mut previous, mut signed) = (Vec::new(), Vec::new(), 0);
    for number in 1..=RECORDS {
        let record = record(number, &previous, "why");
        previous = record.hash.clone();
        let checkpoint = number.is_multiple_of(EVERY) || number == RECORDS;
        if number > after {
            lines.push(ExportLine::Record(Box::new(AuditRecord::from(&record))));
            if checkpoint {
                lines.push(ExportLine::Checkpoint(place(&signer, Signed::Checkpoint, number, &previous, signed)));
            }
        } else if number == after && after.is_multiple_of(EVERY) && after > 0 {
            lines.push(ExportLine::Base(place(&signer, Signed::Base, number, &previous, 0)));
        }
        signed = if checkpoint { number } else { signed };
    }
    lines.iter().map(|line| serde_json::to_string(line).expect("JSON")).collect()
}

static EXPORT: LazyLock<Vec<String>> = LazyLock::new(|| export_behind(0));
static TRUSTED: LazyLock<Trusted> =
    LazyLock::new(|| Trusted { keys: vec![public(&signer(7)).into()], ..Trusted::default() });

fn checked(lines: &[String]) -> Result<Verified, Fault> {
    verify(lines, &TRUSTED)
}

fn fault(lines: &[String]) -> (FaultKind, u64) {
    let fault = checked(lines).expect_err("a fault");
    (fault.kind, fault.number)
}

/// Where the record of this number stands.
fn at(lines: &[String], number: u64) -> usize {
    let wanted =
        |line: &String| matches!(serde_json::from_str(line), Ok(ExportLine::Record(record)) if record.number == number);
    lines.iter().position(wanted).expect("a record")
}

fn hash_of(number: u64) -> String {
    let Ok(ExportLine::Record(record)) = serde_json::from_str(&EXPORT[at(&EXPORT, number)]) else { panic!("a record") };
    record.hash
}

#[test]
fn a_whole_export_is_genuine_and_says_how_far_it_goes() {
    let verified = checked(&EXPORT).expect("genuine");
    assert_eq!((verified.first, verified.last, verified.records, verified.checkpoints), (1, 12, 12, 3));
    assert_eq!((verified.base, verified.hash), (None, hash_of(12)));
}

/// An export of the first version that had any. It never changes: what people have kept must verify for ever.
const KEPT: &str = include_str!("../fixtures/audit-export.jsonl");

#[test]
fn what_was_exported_once_verifies_for_ever() {
    assert_eq!(KEPT.lines().collect::<Vec<_>>(), *EXPORT);
    assert_eq!(verify(KEPT.lines(), &TRUSTED), checked(&EXPORT));
}

#[test]
fn what_retention_left_over_still_verifies() {
    let left = export_behind(4);
    assert_eq!(left.len(), 1 + 8 + 2);
    let verified = checked(&left).expect("genuine");
    assert_eq!((verified.first, verified.last, verified.base), (5, 12, Some(4)));
    assert_eq!(fault(&left[1..]), (FaultKind::Removed, 1), "without its base it begins nowhere");
}

#[test]
fn a_part_verifies_behind_what_is_known() {
    let part = &EXPORT[at(&EXPORT, 6)..];
    assert_eq!(fault(part), (FaultKind::Removed, 1));
    let after = |number, hash| Trusted { after: Some(Anchor { number, hash }), ..TRUSTED.clone() };
    assert_eq!(verify(part, &after(5, hash_of(5))).expect("genuine").first, 6);
    assert_eq!(verify(part, &after(5, hash_of(4))).expect_err("another record").kind, FaultKind::Altered);
}

#[test]
fn each_kind_of_change_is_named_with_the_first_number_that_it_concerns() {
    let changed = |change: fn(&mut Vec<String>)| {
        let mut lines = EXPORT.clone();
        change(&mut lines);
        fault(&lines)
    };
    let altered = changed(|lines| {
        let at = at(lines, 6);
        lines[at] = lines[at].replace("object-6", "object-7");
    });
    assert_eq!(altered, (FaultKind::Altered, 6));
    let removed = changed(|lines| drop(lines.remove(at(lines, 7))));
    assert_eq!(removed, (FaultKind::Removed, 7));
    let first_removed = changed(|lines| drop(lines.remove(0)));
    assert_eq!(first_removed, (FaultKind::Removed, 1));
    let repeated = changed(|lines| lines.insert(at(lines, 6), lines[at(lines, 6)].clone()));
    assert_eq!(repeated, (FaultKind::Inserted, 6));
    let forged = changed(|lines| {
        let previous = legation_api::proof::unhex(&hash_of(5)).expect("a hash");
        let forged = AuditRecord::from(&record(6, &previous, "forged"));
        lines.insert(at(lines, 6), serde_json::to_string(&ExportLine::Record(Box::new(forged))).expect("JSON"));
    });
    assert_eq!(forged, (FaultKind::Inserted, 6));
    let reordered = changed(|lines| {
        let first = at(lines, 6);
        lines.swap(first, first + 1);
    });
    assert_eq!(reordered, (FaultKind::Reordered, 6));
    let cut = changed(|lines| lines.truncate(at(lines, 11)));
    assert_eq!(cut, (FaultKind::Truncated, 11));
    let cut_in_a_line = changed(|lines| {
        lines.truncate(at(lines, 11) + 1);
        lines.last_mut().expect("a line").truncate(40);
    });
    assert_eq!(cut_in_a_line, (FaultKind::Truncated, 11));
    let unsigned = changed(|lines| drop(lines.pop()));
    assert_eq!(unsigned, (FaultKind::Truncated, 13));
    let checkpoint_removed = changed(|lines| drop(lines.remove(at(lines, 8) + 1)));
    assert_eq!(checkpoint_removed, (FaultKind::Removed, 8));
    let checkpoint_first_removed = changed(|lines| drop(lines.remove(at(lines, 4) + 1)));
    assert_eq!(checkpoint_first_removed, (FaultKind::Removed, 4));
    assert_eq!(fault(&[]), (FaultKind::Truncated, 1));
}

#[test]
fn a_chain_that_was_written_anew_is_signed_by_nobody() {
    // Whoever can write the database can also make new hashes, and not a signature of the Manager.
    let forge = |signer: &Ed25519KeyPair| {
        let (mut lines, mut previous) = (Vec::new(), Vec::new());
        for number in 1..=4 {
            let record = record(number, &previous, "rewritten");
            previous = record.hash.clone();
            lines.push(ExportLine::Record(Box::new(AuditRecord::from(&record))));
        }
        lines.push(ExportLine::Checkpoint(place(signer, Signed::Checkpoint, 4, &previous, 0)));
        lines.iter().map(|line| serde_json::to_string(line).expect("JSON")).collect::<Vec<_>>()
    };
    assert_eq!(fault(&forge(&signer(8))), (FaultKind::WrongKey, 4));
    let mut with_the_old_signature = forge(&signer(8));
    with_the_old_signature[4].clone_from(&EXPORT[at(&EXPORT, 4) + 1]);
    assert_eq!(fault(&with_the_old_signature), (FaultKind::Altered, 4));
    // A base is no checkpoint, although the same key has signed the same place.
    let mut base = EXPORT.clone();
    let checkpoint = at(&base, 8) + 1;
    base[checkpoint] = export_behind(8)[0].replace("\"base\"", "\"checkpoint\"");
    assert_eq!(fault(&base), (FaultKind::Altered, 8));
}

#[test]
fn what_was_cut_off_behind_a_checkpoint_shows_only_to_who_knows_of_it() {
    let cut = &EXPORT[..=at(&EXPORT, 8) + 1];
    assert_eq!(checked(cut).expect("nothing shows").last, 8);
    let expecting = |number, hash| Trusted { expect: vec![Anchor { number, hash }], ..TRUSTED.clone() };
    let fault = verify(cut, &expecting(12, hash_of(12))).expect_err("the end is missing");
    assert_eq!((fault.kind, fault.number), (FaultKind::Truncated, 9));
    assert!(verify(EXPORT.iter(), &expecting(12, hash_of(12))).is_ok());
    assert_eq!(verify(EXPORT.iter(), &expecting(6, hash_of(7))).expect_err("another").kind, FaultKind::Altered);
    let left = export_behind(4);
    assert!(verify(left.iter(), &expecting(4, hash_of(4))).is_ok(), "the base is that record");
    assert_eq!(verify(left.iter(), &expecting(3, hash_of(3))).expect_err("gone").kind, FaultKind::Removed);
}

/// What the text of an export says, line by line.
fn meaning(text: &str) -> Vec<Option<serde_json::Value>> {
    text.lines().map(|line| serde_json::from_str(line).ok()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_single_changed_byte_is_found(at: prop::sample::Index, to in 0_u8..128) {
        let whole = EXPORT.join("\n");
        let mut bytes = whole.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let text = String::from_utf8(bytes).expect("ASCII");
        // A changed digit of an escape, or a blank, that means the same is no change of what is said.
        prop_assume!(meaning(&text) != meaning(&whole));
        prop_assert!(verify(text.lines(), &TRUSTED).is_err(), "{text}");
    }

    #[test]
    fn any_single_line_removed_repeated_or_moved_is_found(from: prop::sample::Index, to: prop::sample::Index, what in 0..3) {
        let mut lines = EXPORT.clone();
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        match what {
            0 => drop(lines.remove(from)),
            1 => lines.insert(to, lines[from].clone()),
            _ => {
                prop_assume!(from != to);
                let line = lines.remove(from);
                lines.insert(to, line);
            }
        }
        prop_assert!(checked(&lines).is_err());
    }

    #[test]
    fn an_end_anywhere_but_behind_a_checkpoint_is_found(at: prop::sample::Index) {
        let whole = EXPORT.join("\n");
        let cut = &whole[..at.index(whole.len())];
        let behind_a_checkpoint = meaning(cut).last().is_some_and(|last| {
            last.as_ref().is_some_and(|last| last["line"] == "checkpoint")
        });
        prop_assert_eq!(verify(cut.lines(), &TRUSTED).is_ok(), behind_a_checkpoint);
        let known = Trusted { expect: vec![Anchor { number: RECORDS, hash: hash_of(RECORDS) }], ..TRUSTED.clone() };
        prop_assert!(verify(cut.lines(), &known).is_err());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        prop_assert!(verify(text.lines(), &TRUSTED).is_err());
    }
}
