//! The audit chain on the command line, and its exports without any Manager.

use std::fs;

use insta::assert_snapshot;
use legation_api::{Code, audit::AuditRecord, audit_export::ExportLine};
use legation_cli::exit_codes;
use legation_model::audit::Outcome;
use serde_json::json;

use crate::{
    fake::Fake,
    nouns::{AT, TOKEN, list},
    run::{Home, Ran},
};

/// An export of twelve records with three checkpoints.
const EXPORT: &str = include_str!("../../../api/tests/fixtures/audit-export.jsonl");
/// The key that signed it.
const KEY: &str = "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";

fn record() -> AuditRecord {
    AuditRecord {
        number: 17,
        format: 2,
        at: AT,
        actor: "alice (key_0000000000000000000001)".to_owned(),
        address: Some("192.0.2.7".to_owned()),
        action: "token.revoke".to_owned(),
        object: TOKEN.to_string(),
        scope: "default".parse().ok(),
        before: json!({"status": "active"}).as_object().cloned(),
        after: json!({"status": "revoked", "cause": "kill"}).as_object().cloned(),
        detail: "it leaked".to_owned(),
        outcome: Outcome::Done,
        request: Some("r-1".to_owned()),
        previous: "ab".repeat(32),
        hash: "cd".repeat(32),
    }
}

#[tokio::test]
async fn records_in_lists_and_alone() {
    let fake = Fake::start().await;
    let line = "GET /api/v1/audit?scope=acme&actor=alice&action=token&outcome=refused&until_at=1000&limit=500";
    fake.on(line, &list(vec![record()])).on("GET /api/v1/audit/17", &record());
    let home = Home::of(&fake);
    let arguments = "audit ls --scope acme --actor alice --action token --refused --until 1970-01-01T00:00:01Z";
    let ran = home.run(&arguments.split(' ').collect::<Vec<_>>()).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_snapshot!("audit_ls", ran.out);
    let ran = home.run(&["audit", "show", "17"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_snapshot!("audit_show", ran.out);
    let json = home.run(&["audit", "show", "17", "-o", "json"]).await.out;
    assert_eq!(serde_json::from_str::<AuditRecord>(&json).expect("JSON"), record());
}

#[tokio::test]
async fn a_tail_prints_a_line_for_each_and_ends_when_it_is_refused() {
    let fake = Fake::start().await;
    let event = format!("event: record\nid: 17\ndata: {}\n\n", serde_json::to_string(&record()).expect("JSON"));
    let behind = "event: behind\ndata: {\"records\":900}\n\n".to_owned();
    let line = "GET /api/v1/audit/tail?after=16";
    fake.stream(line, behind + &event, None).refuse(line, Code::Unauthenticated);
    let ran = Home::of(&fake).run(&["audit", "tail", "--after", "16", "-o", "json"]).await;
    assert_eq!(ran.code, i32::from(exit_codes::NOT_ALLOWED), "{ran:?}");
    assert_eq!(serde_json::from_str::<AuditRecord>(ran.out.trim_end()).expect("one line of JSON"), record());
    assert!(ran.err.starts_with("900 records behind; they follow\n"), "{ran:?}");
}

#[tokio::test]
async fn an_export_is_written_private_and_continued() {
    let fake = Fake::start().await;
    let (first, rest) = EXPORT.split_at(EXPORT.find("{\"line\":\"record\",\"number\":9").expect("a ninth"));
    fake.stream("GET /api/v1/audit/export?after=0", first.to_owned(), None);
    fake.stream("GET /api/v1/audit/export?after=8", rest.to_owned(), None);
    let home = Home::of(&fake);
    let file = home.dir.path().join("export");
    let path = file.to_str().expect("text");
    assert_eq!(home.run(&["audit", "export", path]).await.code, 0);
    assert_eq!(fs::read_to_string(&file).expect("a file"), first);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = home.run(&["audit", "export", path]).await;
    assert_eq!(again.code, i32::from(exit_codes::SETTINGS), "{again:?}");
    assert!(again.err.contains("add --resume"), "{again:?}");
    assert_eq!(home.run(&["audit", "export", path, "--resume"]).await.code, 0);
    assert_eq!(fs::read_to_string(&file).expect("a file"), EXPORT);
    assert_eq!(home.run(&["audit", "export"]).await.out, first, "without a file it goes to standard output");
}

#[tokio::test]
async fn an_export_is_not_continued_with_another_chain_and_stays_as_it_is() {
    let fake = Fake::start().await;
    let (first, rest) = EXPORT.split_at(EXPORT.find("{\"line\":\"record\",\"number\":9").expect("a ninth"));
    // What a restored Manager has behind a record of the same number.
    let other = |number: u64| {
        let record = AuditRecord { number, ..record() };
        format!("{}\n", serde_json::to_string(&ExportLine::Record(Box::new(record))).expect("JSON"))
    };
    fake.stream("GET /api/v1/audit/export?after=8", other(9), None);
    fake.stream("GET /api/v1/audit/export?after=11", other(12), None);
    fake.stream("GET /api/v1/audit/export?after=6", String::new(), None);
    let home = Home::of(&fake);
    let path = home.dir.path().join("export");
    let whole = rest.lines().count() - 1;
    let twelfth: String = rest.lines().take(whole).map(|line| format!("{line}\n")).collect();
    let seventh = &first[..first.find("{\"line\":\"record\",\"number\":8").expect("an eighth")];
    let cut_off = format!("{first}{}", &rest[..20]);
    for text in [first.to_owned(), cut_off, format!("{first}{twelfth}"), seventh.to_owned()] {
        fs::write(&path, &text).expect("a file");
        let ran = home.run(&["audit", "export", path.to_str().expect("text"), "--resume"]).await;
        assert_eq!(ran.code, i32::from(exit_codes::SETTINGS), "{ran:?}");
        assert!(ran.err.contains("restored from a backup") && ran.err.contains("export to a new one"), "{ran:?}");
        assert_eq!(fs::read_to_string(&path).expect("a file"), text, "not a byte is touched");
    }
    fs::write(&path, "something else\n").expect("a file");
    assert_ne!(home.run(&["audit", "export", path.to_str().expect("text"), "--resume"]).await.code, 0);
    assert_eq!(fs::read_to_string(&path).expect("a file"), "something else\n", "another file stays as it is");
}

async fn verified(home: &Home, text: &str, arguments: &[&str]) -> Ran {
    let file = home.dir.path().join("export");
    fs::write(&file, text).expect("a file");
    home.run(&[&["audit", "verify", file.to_str().expect("text")], arguments].concat()).await
}

#[tokio::test]
async fn an_export_is_checked_without_any_manager() {
    // No settings, no key, no address: nothing to ask.
    let home = Home::empty();
    let ran = verified(&home, EXPORT, &["--key", KEY]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_snapshot!("audit_verify", ran.out);
    assert!(ran.err.contains("what came behind record 12 cannot be known"), "{ran:?}");
    let key_file = home.dir.path().join("keys");
    fs::write(&key_file, format!("# the Manager's\n{KEY}\n")).expect("a file");
    assert_eq!(verified(&home, EXPORT, &["--key", key_file.to_str().expect("text")]).await.code, 0);
    let last = verified(&home, EXPORT, &["--key", KEY, "-o", "name"]).await.out;
    assert_eq!(verified(&home, EXPORT, &["--key", KEY, "--expect", last.trim()]).await.code, 0);

    let lines: Vec<&str> = EXPORT.lines().collect();
    let without = |number: usize| [&lines[..number], &lines[number + 1..]].concat().join("\n");
    for (text, told) in [
        (EXPORT.replacen("object-6", "object-5", 1), "record 6 (line 7): altered: "),
        (without(6), "record 6 (line 7): removed: record 7 comes next"),
        (lines[..9].join("\n"), "record 9 (line 9): truncated: "),
        ("something else".to_owned(), "record 1 (line 1): truncated: "),
    ] {
        let ran = verified(&home, &text, &["--key", KEY]).await;
        assert_eq!(ran.code, i32::from(exit_codes::NOT_GENUINE), "{ran:?}");
        assert!(ran.err.contains(told) && ran.err.contains("fix: "), "{told}: {ran:?}");
        assert_eq!(ran.out, "");
    }
    let shorter: String = lines[..10].iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(verified(&home, &shorter, &["--key", KEY]).await.code, 0, "nothing shows");
    let ran = verified(&home, &shorter, &["--key", KEY, "--expect", last.trim()]).await;
    assert!(ran.code == i32::from(exit_codes::NOT_GENUINE) && ran.err.contains("truncated"), "{ran:?}");

    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(verified(&home, EXPORT, &["--key", other]).await.err.contains("wrong key"));
    for arguments in [&["--key", "no-key"][..], &[], &["--key", KEY, "--expect", "12"]] {
        assert_eq!(verified(&home, EXPORT, arguments).await.code, i32::from(exit_codes::USAGE), "{arguments:?}");
    }
    let missing = home.run(&["audit", "verify", "/no/such/file", "--key", KEY]).await;
    assert_eq!(missing.code, i32::from(exit_codes::SETTINGS), "{missing:?}");
}
