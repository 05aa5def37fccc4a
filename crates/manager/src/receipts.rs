//! Receipts: signed statements about one revocation, each chained to the one before.
//!
//! The opening statement says who was connected and who may still hold a lease; it is written when the last session is
//! closed, or by the sweep when the call did not live to do it. Later statements only append what became known since:
//! when sessions were closed, that a delegate's own key reported its stop.

use legation_api::proof::{hex, sha256};
use legation_model::{
    Millis, Scope,
    ids::{BootId, DelegateId, ReceiptId, TokenId},
    receipt::{Receipt, ReceiptLine, Statement},
};
use legation_store::{Page, Paged, StoreError, Tx, delegates, job, receipts, token_uses};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Manager, access::Caller, error::Refusal, keys::Keys, revoke::Cuts};

impl Keys {
    /// Signs the next statement of a receipt.
    pub fn sign_statement(&self, previous: Option<&Statement>, receipt: ReceiptId, said: impl Serialize) -> Statement {
        let number = previous.map_or(0, |statement| statement.number + 1);
        let previous = previous.map(|previous| hex(&sha256(previous.body.as_bytes())));
        let body = serde_json::to_string(&Body { receipt, number, previous, said }).expect("a statement is JSON");
        let signature = self.signing.sign(body.as_bytes()).as_ref().to_vec();
        Statement { number, body, signature, key: self.signing_public() }
    }
}

/// What is signed: the place in the receipt, and what is said there.
#[derive(Serialize)]
struct Body<Said> {
    receipt: ReceiptId,
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(flatten)]
    said: Said,
}

/// What the opening statement says.
#[derive(Serialize)]
pub struct OpeningStatement<'a> {
    statement: &'static str,
    token: TokenId,
    scope: &'a Scope,
    cause: &'static str,
    reason: &'a str,
    actor: &'a str,
    revoked_at: Millis,
    attempts_lost: u32,
    delegates: Vec<OpeningLine<'a>>,
}

#[derive(Serialize)]
struct OpeningLine<'a> {
    delegate: DelegateId,
    boot: BootId,
    name: &'a str,
    connected: bool,
    lease_ends_by: Millis,
}

/// The opening statement of a receipt.
pub fn opening(receipt: &Receipt) -> OpeningStatement<'_> {
    OpeningStatement {
        statement: "revoked",
        token: receipt.token,
        scope: &receipt.scope,
        cause: receipt.cause.as_str(),
        reason: &receipt.reason,
        actor: &receipt.actor,
        revoked_at: receipt.revoked_at,
        attempts_lost: receipt.attempts_lost,
        delegates: receipt.lines.iter().map(opening_line).collect(),
    }
}

fn opening_line(line: &ReceiptLine) -> OpeningLine<'_> {
    OpeningLine {
        delegate: line.delegate,
        boot: line.boot,
        name: &line.name,
        connected: line.connected,
        lease_ends_by: line.lease_ends_by,
    }
}

/// What the second statement says.
#[derive(Serialize)]
struct Closed<'a> {
    statement: &'static str,
    at: Millis,
    how: &'a str,
    delegates: Vec<ClosedLine>,
}

#[derive(Serialize)]
struct ClosedLine {
    delegate: DelegateId,
    cut_at: Millis,
}

fn closed<'a>(receipt: &Receipt, at: Millis, how: &'a str) -> Closed<'a> {
    let cut =
        receipt.lines.iter().filter_map(|line| Some(ClosedLine { delegate: line.delegate, cut_at: line.cut_at? }));
    Closed { statement: "cut", at, how, delegates: cut.collect() }
}

/// A report that came before its line; the delegate repeats it.
fn unwritten() -> StoreError {
    StoreError::Unavailable("the receipt is not written yet".to_owned())
}

/// Signs and stores the next statement of a receipt, within the caller's transaction.
///
/// # Errors
/// Those of the store.
pub async fn append(tx: &mut Tx, keys: &Keys, id: ReceiptId, body: Value) -> Result<(), StoreError> {
    let last = receipts::last_statement(tx, id).await?;
    let statement = keys.sign_statement(Some(&last), id, body);
    receipts::add_statement(tx, id, &statement).await
}

impl Manager {
    /// One receipt.
    ///
    /// # Errors
    /// `not_found` for a receipt that the caller may not see.
    pub async fn receipt(&self, caller: &Caller, id: ReceiptId) -> Result<Receipt, Refusal> {
        let receipt = self.stored_receipt(id).await?;
        caller.require_sight(&receipt.scope, "receipt")?;
        Ok(receipt)
    }

    /// Receipts, newest first, without lines and statements.
    ///
    /// # Errors
    /// `not_found` for a scope that the caller may not see.
    pub async fn list_receipts(
        &self,
        caller: &Caller,
        scope: Option<Scope>,
        token: Option<TokenId>,
        page: Page,
    ) -> Result<Paged<Receipt>, Refusal> {
        let within = caller.confine(scope)?;
        let list = job(move |conn| Box::pin(async move { receipts::list(conn, &within, token, &page).await }));
        Ok(self.store.read(list).await?)
    }

    pub(crate) async fn stored_receipt(&self, id: ReceiptId) -> Result<Receipt, Refusal> {
        let found = self.store.read(move |conn| Box::pin(receipts::get(conn, id))).await?;
        found.ok_or_else(|| Refusal::not_found("receipt"))
    }

    /// Writes down whom a revocation has cut and who may still hold a lease; a receipt that is complete stays as it is.
    /// Only the token's own writes are finished by now: those of its neighbours go on between the portions.
    pub(crate) async fn complete_receipt(
        &self,
        id: ReceiptId,
        cuts: &Cuts,
        how: &'static str,
    ) -> Result<Receipt, StoreError> {
        let read = job(move |conn| Box::pin(async move { receipts::get(conn, id).await?.ok_or(StoreError::NotFound) }));
        let mut receipt = self.store.read(read).await?;
        if receipt.completed_at.is_some() {
            return Ok(receipt);
        }
        let token = receipt.token;
        let holders = self.store.read(move |conn| Box::pin(delegates::holders(conn, token))).await?;
        let lines = self.lease_holders(&holders, token, cuts);
        let fresh = receipt.lines.is_empty();
        receipt.lines = self.write_lines(id, lines, fresh).await?;
        let now = self.clock.wall();
        let opening = self.keys.sign_statement(None, id, opening(&receipt));
        let closed = self.keys.sign_statement(Some(&opening), id, closed(&receipt, now, how));
        receipt.statements = vec![opening, closed];
        receipt.completed_at = Some(now);
        let complete = receipt.clone();
        // Of those that were on their way in when the token ended.
        let noted = self.token_uses.take_of(token);
        let written = noted.clone();
        let work = job(move |tx| {
            Box::pin(async move {
                token_uses::note(tx, &written).await?;
                receipts::complete(tx, &complete).await
            })
        });
        if let Err(error) = self.store.write_first(work).await {
            self.token_uses.keep(noted);
            return Err(error);
        }
        Ok(receipt)
    }

    /// Writes the lines of a receipt, and answers those that it has then: unless it is `fresh`, some are left of an
    /// earlier try.
    async fn write_lines(
        &self,
        id: ReceiptId,
        mut lines: Vec<ReceiptLine>,
        fresh: bool,
    ) -> Result<Vec<ReceiptLine>, StoreError> {
        lines.sort_by(|one, other| (&one.name, one.delegate).cmp(&(&other.name, other.delegate)));
        let mut added = 0;
        for portion in lines.chunks(receipts::LINES_TOGETHER) {
            let portion = portion.to_vec();
            let work = job(move |tx| Box::pin(async move { receipts::add_lines(tx, id, &portion).await }));
            added += self.store.write_first(work).await?;
        }
        if fresh && added == lines.len() as u64 {
            return Ok(lines);
        }
        self.store.read(move |conn| Box::pin(receipts::lines(conn, id))).await
    }

    /// Records what a delegate's own key said: that it has stopped. Touches no other line.
    pub(crate) async fn record_stop(
        &self,
        receipt: ReceiptId,
        delegate: DelegateId,
        tasks_killed: u32,
    ) -> Result<(), StoreError> {
        let (keys, now) = (self.keys.clone(), self.clock.wall());
        let work = job(move |tx| {
            Box::pin(async move {
                let Some(revoked_at) = receipts::stopped(tx, receipt, delegate, now, tasks_killed).await? else {
                    return if receipts::is_complete(tx, receipt).await? { Ok(None) } else { Err(unwritten()) };
                };
                let body =
                    json!({"statement": "stopped", "delegate": delegate, "at": now, "tasks_killed": tasks_killed});
                append(tx, &keys, receipt, body).await?;
                Ok(Some(revoked_at))
            })
        });
        if let Some(revoked_at) = self.store.write(work).await? {
            self.metrics.revoke_to_stop((now - revoked_at).max(0));
        }
        Ok(())
    }
}
