//! Checking a receipt with nothing but the Manager's public key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{
    json,
    proof::{PublicKey, hex, sha256},
    receipts::{Receipt, ReceiptLine, Statement},
};

/// The first thing that is wrong with a receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// The text is no receipt.
    #[error("it is not a receipt as `legation receipt show -o json` writes it: {0}")]
    Unreadable(String),
    /// A statement is not what was signed, or not at its place.
    #[error("statement {0}: {1}")]
    Statement(usize, String),
    /// The receipt says something that no statement says.
    #[error("{0}")]
    Unsigned(String),
}

/// Reads and checks a receipt: every statement is signed with one of the keys and follows the one before it, and what the
/// receipt says is what the statements say.
///
/// A genuine receipt may be an older copy of one to which delegates have reported since: that cannot be known from it.
///
/// # Errors
/// The first fault.
pub fn verify(text: &[u8], keys: &[PublicKey]) -> Result<Receipt, ReceiptFault> {
    let receipt: Receipt = json::parse(text).map_err(|problem| ReceiptFault::Unreadable(problem.detail))?;
    let unreadable = |error: serde_json::Error| ReceiptFault::Unreadable(error.to_string());
    let said: Value = serde_json::from_slice(text).map_err(unreadable)?;
    if serde_json::to_value(&receipt).map_err(unreadable)? != said {
        return Err(ReceiptFault::Unreadable(
            "it has fields that this program does not know; use a newer one".to_owned(),
        ));
    }
    if receipt.statements.is_empty() {
        let why = "it has no statements: the revocation is under way, or they were removed; fetch it again";
        return Err(ReceiptFault::Unsigned(why.to_owned()));
    }
    let mut checked = Checked::new(&receipt);
    let mut before = None;
    for (place, statement) in receipt.statements.iter().enumerate() {
        let wrong = |why: String| ReceiptFault::Statement(place, why);
        let said = signed(&receipt, place, statement, before, keys).map_err(wrong)?;
        checked.agrees(place, said).map_err(wrong)?;
        before = Some(statement);
    }
    checked.end()?;
    Ok(receipt)
}

/// What a statement says besides its place, if it is signed and stands there.
fn signed(
    receipt: &Receipt,
    place: usize,
    statement: &Statement,
    before: Option<&Statement>,
    keys: &[PublicKey],
) -> Result<Map<String, Value>, String> {
    let key = keys.iter().find(|key| key.bytes().as_slice() == statement.key);
    let key = key.ok_or("it is signed with a key that is none of those that you named")?;
    if !key.has_signed(statement.body.as_bytes(), &statement.signature) {
        return Err("its signature is not the Manager's, or its text was altered".to_owned());
    }
    let body: Value = json::parse(statement.body.as_bytes()).map_err(|problem| problem.detail)?;
    let Value::Object(mut said) = body else { return Err("it is no object".to_owned()) };
    if said.remove("receipt") != Some(json!(receipt.id)) {
        return Err("it belongs to another receipt".to_owned());
    }
    if said.remove("number") != Some(json!(place)) || statement.number as usize != place {
        return Err("it does not belong at this place: one is missing, repeated or moved".to_owned());
    }
    let previous = before.map(|before| Value::String(hex(&sha256(before.body.as_bytes()))));
    if said.remove("previous") != previous {
        return Err("it does not follow the statement before it".to_owned());
    }
    Ok(said)
}

/// What the statements have said so far.
struct Checked<'a> {
    receipt: &'a Receipt,
    lines: BTreeMap<String, &'a ReceiptLine>,
    stopped: BTreeSet<String>,
}

impl<'a> Checked<'a> {
    fn new(receipt: &'a Receipt) -> Self {
        let lines = receipt.lines.iter().map(|line| (line.delegate.to_string(), line)).collect();
        Self { receipt, lines, stopped: BTreeSet::new() }
    }

    /// Compares a statement with what the receipt says of the same.
    fn agrees(&mut self, place: usize, mut said: Map<String, Value>) -> Result<(), String> {
        let kind = said.get("statement").and_then(Value::as_str).unwrap_or_default().to_owned();
        let expected = match (place, kind.as_str()) {
            (0, "revoked") => self.opening(),
            (1, "cut") => self.cut(said.get("how").cloned()),
            (2.., "stopped") => self.stop(said.get("delegate"))?,
            _ => return Err(format!("a statement {kind:?} has no place here; a newer program may know it")),
        };
        sort(&mut said);
        let Value::Object(mut expected) = expected else { return Ok(()) };
        sort(&mut expected);
        for (field, value) in &said {
            if expected.get(field) != Some(value) {
                return Err(format!("the receipt says something else of {field}"));
            }
        }
        match expected.keys().find(|field| !said.contains_key(*field)) {
            Some(field) => Err(format!("it says nothing of {field}, and the receipt does")),
            None => Ok(()),
        }
    }

    fn opening(&self) -> Value {
        let line = |line: &ReceiptLine| {
            json!({
                "delegate": line.delegate,
                "boot": line.boot,
                "name": line.name,
                "connected": line.connected,
                "lease_ends_by": line.lease_ends_by,
            })
        };
        let receipt = self.receipt;
        json!({
            "statement": "revoked",
            "token": receipt.token,
            "scope": receipt.scope,
            "cause": receipt.cause.as_str(),
            "reason": receipt.reason,
            "actor": receipt.actor,
            "revoked_at": receipt.revoked_at,
            "attempts_lost": receipt.attempts_lost,
            "delegates": receipt.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }

    fn cut(&self, how: Option<Value>) -> Value {
        let cut = |line: &ReceiptLine| Some(json!({"delegate": line.delegate, "cut_at": line.cut_at?}));
        let cut: Vec<Value> = self.receipt.lines.iter().filter_map(cut).collect();
        json!({"statement": "cut", "at": self.receipt.completed_at, "how": how, "delegates": cut})
    }

    fn stop(&mut self, delegate: Option<&Value>) -> Result<Value, String> {
        let delegate = delegate.and_then(Value::as_str).unwrap_or_default();
        let line = self.lines.get(delegate).ok_or("it is about a delegate that the receipt has no line for")?;
        if !self.stopped.insert(delegate.to_owned()) {
            return Err("this delegate has reported before".to_owned());
        }
        Ok(json!({
            "statement": "stopped",
            "delegate": delegate,
            "at": line.stopped_reported_at,
            "tasks_killed": line.tasks_killed,
        }))
    }

    /// Nothing in the receipt is without a statement.
    fn end(self) -> Result<(), ReceiptFault> {
        if self.lines.len() != self.receipt.lines.len() {
            return Err(ReceiptFault::Unsigned("a delegate has two lines".to_owned()));
        }
        if self.receipt.statements.len() == 1 {
            let why = "the statement is missing that says when the sessions were cut";
            return Err(ReceiptFault::Unsigned(why.to_owned()));
        }
        let unsigned = |line: &&&ReceiptLine| {
            let says = line.stopped_reported_at.is_some() || line.tasks_killed.is_some();
            says && !self.stopped.contains(&line.delegate.to_string())
        };
        match self.lines.values().find(unsigned) {
            Some(line) => {
                let why = format!("no statement says that delegate {} reported its stop", line.delegate);
                Err(ReceiptFault::Unsigned(why))
            }
            None => Ok(()),
        }
    }
}

/// Lines have no order of their own.
fn sort(said: &mut Map<String, Value>) {
    if let Some(Value::Array(lines)) = said.get_mut("delegates") {
        lines.sort_by_key(|line| line["delegate"].to_string());
    }
}
