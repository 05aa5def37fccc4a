//! Seeing the value of a token again: only where its account keeps it, and never without a record that comes first.

use std::sync::Arc;

use legation_api::{Code, Problem};
use legation_model::{
    Text,
    ids::TokenId,
    secret::SecretText,
    token::{DelegateToken, Token, TokenStatus},
};
use legation_store::{
    StoreError, Tx, job,
    token_values::{self, TokenValue},
    tokens,
};
use serde_json::json;

use crate::{Manager, access::Caller, audit, error::Refusal, keys::Keys, tokens::change};

/// A value that is shown again.
#[derive(Debug)]
pub struct Revealed {
    /// Whose.
    pub token: DelegateToken,
    /// Of which generation.
    pub generation: u32,
    /// The whole value.
    pub value: SecretText,
}

impl Manager {
    /// Shows the value of a token again. The transaction that reads it records who asked and why; when that is not
    /// written, nothing is shown.
    ///
    /// # Errors
    /// `not_revealable` for a value that is not kept, `token_ended`, `not_found`, `forbidden`, `store_unavailable`.
    pub async fn reveal_token(&self, caller: &Caller, id: TokenId, reason: Text) -> Result<Revealed, Refusal> {
        self.token(caller, id).await?;
        let (keys, caller, now) = (Arc::clone(&self.keys), caller.clone(), self.clock.wall());
        let work = job(move |tx| {
            Box::pin(async move {
                let actor = caller.actor();
                let found = match find(tx, caller, id).await? {
                    Ok(found) => found,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let revealed = open(&keys, found)?;
                let generation = json!({"generation": revealed.generation});
                let change = change("token.reveal", &revealed.token, reason.to_string()).after(generation);
                audit::append(tx, &actor, now, change).await?;
                Ok(Ok(revealed))
            })
        });
        let revealed = self.store.write(work).await??;
        self.metrics.revealed.inc();
        tracing::warn!(token = %id, "the value of a token was shown again");
        Ok(revealed)
    }

    /// Seals a value for an account that keeps it.
    pub(crate) fn seal_value(&self, value: &Token) -> Vec<u8> {
        let place = place(value.id, value.generation);
        self.keys.sealer.seal(&place, value.reveal().expose().as_bytes(), &*self.entropy)
    }
}

/// The token and its kept value, for a caller who may see it still.
async fn find(
    tx: &mut Tx,
    caller: Caller,
    id: TokenId,
) -> Result<Result<(DelegateToken, TokenValue), Refusal>, StoreError> {
    let Some(token) = tokens::get(tx, id).await? else { return Ok(Err(Refusal::not_found("token"))) };
    if let Err(refusal) = caller.still(tx).await?.and_then(|caller| caller.require_sight(&token.scope, "token")) {
        return Ok(Err(refusal));
    }
    if let Err(refusal) = revealable(&token) {
        return Ok(Err(refusal));
    }
    Ok(token_values::newest(tx, id).await?.ok_or_else(|| not_kept(&token)).map(|value| (token, value)))
}

fn revealable(token: &DelegateToken) -> Result<(), Refusal> {
    let (code, why, fix) = match token.status {
        TokenStatus::Active | TokenStatus::Draining => return Ok(()),
        TokenStatus::Unissued => {
            let fix = format!("issue it, which shows its value: `legation token issue {}`", token.id);
            (Code::NotRevealable, "has no value yet", fix)
        }
        TokenStatus::Revoked | TokenStatus::Deleted => {
            (Code::TokenEnded, "has ended, and its value was erased", "create a new token".to_owned())
        }
    };
    Err(Problem::new(code, format!("the token {} {why}", token.name)).with_fix(fix).into())
}

fn not_kept(token: &DelegateToken) -> Refusal {
    let account = token.scope.account();
    let detail = format!(
        "the value of the token {} is not kept: when it was issued, or since, the account {account} had the policy \
         reveal = never",
        token.name
    );
    let fix = format!(
        "if it is lost, create a new token and revoke this one; for tokens that are issued from now on, `legation \
         account edit {account} --reveal audited` has values kept"
    );
    Problem::new(Code::NotRevealable, detail).with_fix(fix).into()
}

fn open(keys: &Keys, (token, kept): (DelegateToken, TokenValue)) -> Result<Revealed, StoreError> {
    let corrupt = || StoreError::Corrupt(format!("the kept value of the token {} does not open", token.id));
    let value = keys.sealer.open(&place(token.id, kept.generation), &kept.sealed).map_err(|_| corrupt())?;
    let value = SecretText::new(std::str::from_utf8(&value).map_err(|_| corrupt())?.to_owned());
    Ok(Revealed { token, generation: kept.generation, value })
}

fn place(id: TokenId, generation: u32) -> String {
    format!("token_values.sealed.{id}.{generation}")
}
