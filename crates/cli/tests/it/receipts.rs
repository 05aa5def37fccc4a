//! A receipt that is checked without any Manager.

use std::fs;

use legation_api::receipts::Receipt;
use legation_cli::exit_codes;

use crate::run::{Home, Ran};

/// A receipt of two delegates, of which one reported its stop, as it was shown once. It never changes: what people have
/// kept must verify for ever.
const RECEIPT: &str = include_str!("../fixtures/receipt.json");
/// The key that signed it.
const KEY: &str = "oW9coLlbWbnhSLyYo6593bWiQyx2AULAb4uNDV3N96c=";

async fn verified(home: &Home, text: &str, arguments: &[&str]) -> Ran {
    let file = home.dir.path().join("receipt.json");
    fs::write(&file, text).expect("a file");
    home.run(&[&["receipt", "verify", file.to_str().expect("text")], arguments].concat()).await
}

#[tokio::test]
async fn a_kept_receipt_is_checked_without_any_manager() {
    // No settings, no key, no address: nothing to ask.
    let home = Home::empty();
    let ran = verified(&home, RECEIPT, &["--key", KEY, "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let receipt: Receipt = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(receipt, serde_json::from_str(RECEIPT).expect("JSON"));
    assert!(ran.err.contains("genuine: all that it says is in its 3 signed statements"), "{ran:?}");

    for (from, to, told) in [
        ("it leaked", "it broke", "statement 0: the receipt says something else of reason"),
        ("\"tasks_killed\": 2", "\"tasks_killed\": 3", "statement 2: the receipt says something else of tasks_killed"),
        ("\\\"tasks_killed\\\":2", "\\\"tasks_killed\\\":3", "statement 2: its signature is not the Manager's"),
        ("\"token\":", "\"other\": 1, \"token\":", "fields that this program does not know"),
    ] {
        assert!(RECEIPT.contains(from), "{from}");
        let ran = verified(&home, &RECEIPT.replacen(from, to, 1), &["--key", KEY]).await;
        assert_eq!(ran.code, i32::from(exit_codes::NOT_GENUINE), "{ran:?}");
        assert!(ran.err.contains(told) && ran.err.contains("fix: "), "{told}: {ran:?}");
        assert_eq!(ran.out, "");
    }
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(verified(&home, RECEIPT, &["--key", other]).await.err.contains("signed with a key that is none of those"));
    assert_eq!(verified(&home, RECEIPT, &[]).await.code, i32::from(exit_codes::USAGE));
    let missing = home.run(&["receipt", "verify", "/no/such/file", "--key", KEY]).await;
    assert_eq!(missing.code, i32::from(exit_codes::SETTINGS), "{missing:?}");
}
