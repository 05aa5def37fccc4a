//! Receipts that are checked with nothing but a public key.

use legation_api::{
    proof::PublicKey,
    receipt_verify::{ReceiptFault, verify},
    receipts::Receipt,
    revoke::RevokeToken,
};
use legation_testkit::{Engine, Inside, eventually};
use legation_wire::message::Stopped;
use serde_json::{Value, json};

super::on_both!(a_receipt_proves_what_it_says_and_nothing_in_it_can_be_changed, the_time_to_a_stop_is_measured);

/// A revoked token with two delegates, of which one has reported that it stopped.
async fn revoked(inside: &Inside) -> Receipt {
    let token = inside.token("revoked").await;
    let mut first = inside.puppet("first", &token);
    first.join().await;
    inside.puppet("second", &token).join().await;
    let why = RevokeToken::kill("it leaked".parse().expect("a text"));
    let receipt = inside.client.revoke_token(token.id, &why).await.expect("revoked");
    let goodbye = first.goodbye().await;
    first.report_stop(Stopped { receipt: goodbye.receipt.expect("a receipt"), tasks_killed: 2 }).await;
    eventually("the stop is recorded", async || {
        let receipt = inside.client.receipt(receipt.id).await.expect("a receipt");
        (receipt.statements.len() == 3).then_some(receipt)
    })
    .await
}

async fn keys(inside: &Inside) -> Vec<PublicKey> {
    inside.client.signing_keys().await.expect("keys").items.iter().map(|key| key.public_key).collect()
}

/// Every document that differs from this one in one place: a value that is another one, a field or item that is missing,
/// an item that stands twice.
fn changed(document: &Value) -> Vec<Value> {
    match document {
        Value::Null => vec![json!(1)],
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => vec![json!(number.as_i64().expect("an integer") + 1), Value::Null],
        Value::String(text) => vec![json!(format!("{text}x")), json!(text.replacen(|c: char| c != 'z', "z", 1))],
        Value::Array(items) => {
            let mut all = Vec::new();
            for at in 0..items.len() {
                let with = |change: &dyn Fn(&mut Vec<Value>)| {
                    let mut items = items.clone();
                    change(&mut items);
                    Value::Array(items)
                };
                all.push(with(&|items| drop(items.remove(at))));
                all.push(with(&|items| items.push(items[at].clone())));
                all.extend(changed(&items[at]).into_iter().map(|item| with(&|items| items[at] = item.clone())));
            }
            all
        }
        Value::Object(fields) => {
            let mut all = Vec::new();
            for (name, value) in fields {
                all.extend(changed(value).into_iter().map(|value| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), value);
                    Value::Object(fields)
                }));
                let mut without = fields.clone();
                without.remove(name);
                all.push(Value::Object(without));
                let mut more = fields.clone();
                more.insert(format!("{name}_too"), value.clone());
                all.push(Value::Object(more));
            }
            all
        }
    }
}

async fn a_receipt_proves_what_it_says_and_nothing_in_it_can_be_changed(engine: Engine) {
    let inside = Inside::start(engine).await;
    let receipt = revoked(&inside).await;
    let keys = keys(&inside).await;
    let text = serde_json::to_vec_pretty(&receipt).expect("JSON");
    assert_eq!(verify(&text, &keys), Ok(receipt.clone()));

    let document = serde_json::to_value(&receipt).expect("JSON");
    let all = changed(&document);
    assert!(all.len() > 150, "{}", all.len());
    for other in &all {
        let text = serde_json::to_vec(other).expect("JSON");
        assert!(verify(&text, &keys).is_err(), "{other}");
    }
    // Consistent changes of both sides need the Manager's key.
    let mut moved = receipt.clone();
    moved.statements.swap(1, 2);
    let mut swapped = receipt.clone();
    swapped.lines.swap(0, 1);
    let other = inside.token("other").await;
    let other = inside.client.revoke_token(other.id, &RevokeToken::default()).await.expect("revoked");
    let mut mixed = receipt.clone();
    mixed.statements[1] = other.statements[1].clone();
    for (wrong, fault) in [(&moved, 1), (&mixed, 1)] {
        let text = serde_json::to_vec(wrong).expect("JSON");
        let found = verify(&text, &keys).expect_err("a fault");
        assert!(matches!(&found, ReceiptFault::Statement(place, _) if *place == fault), "{found}");
    }
    assert!(verify(&serde_json::to_vec(&swapped).expect("JSON"), &keys).is_ok(), "lines have no order");
    let stranger = verify(&text, &[PublicKey::from([9; 32])]).expect_err("another key");
    assert!(matches!(stranger, ReceiptFault::Statement(0, _)), "{stranger}");
    assert!(matches!(verify(b"[]", &keys), Err(ReceiptFault::Unreadable(_))));
    let under_way = Receipt { statements: Vec::new(), ..receipt };
    let text = serde_json::to_vec(&under_way).expect("JSON");
    assert!(matches!(verify(&text, &keys), Err(ReceiptFault::Unsigned(_))));
}

async fn the_time_to_a_stop_is_measured(engine: Engine) {
    let inside = Inside::start(engine).await;
    let metrics = async || inside.client.metrics().await.expect("metrics");
    assert!(!metrics().await.contains("recent_seconds{"), "nothing is shown before the first value");
    revoked(&inside).await;
    let shown = eventually("the stop is measured", async || {
        let text = metrics().await;
        text.contains("legation_revoke_to_stop_seconds_count 1").then_some(text)
    })
    .await;
    assert!(shown.contains("legation_revoke_to_cut_seconds_count 1"), "{shown}");
    for time in ["cut", "stop"] {
        for quantile in ["0.5", "0.99", "1"] {
            let line = format!("legation_revoke_to_{time}_recent_seconds{{quantile=\"{quantile}\"}} ");
            let value = shown.lines().find_map(|shown| shown.strip_prefix(&line)).unwrap_or_else(|| panic!("{line}"));
            let seconds: f64 = value.parse().expect("a number");
            assert!((0.0..30.0).contains(&seconds), "{line}{value}");
        }
    }
}
