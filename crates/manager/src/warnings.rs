//! Warnings before a token expires: two weeks, one week, a day and an hour before, each once.

use std::{collections::HashMap, sync::Mutex};

use legation_model::{
    Millis, Scope,
    ids::TokenId,
    token::{EXPIRY_WARNINGS, expiry_warning},
};
use legation_store::{StoreError, Tx, job, tokens};
use serde_json::json;

use crate::{
    Manager,
    audit::{self, Actor, Change},
    lock::lock,
};

/// Warnings in one transaction; more wait for the next sweep.
const TOGETHER_MAX: usize = 256;

/// The warning that was last given of each token: of which expiry, and how long before.
#[derive(Default)]
pub(crate) struct Warned(Mutex<HashMap<TokenId, (Millis, Millis)>>);

/// A warning that may be due.
#[derive(Clone)]
struct Warning {
    token: TokenId,
    scope: Scope,
    expires_at: Millis,
    left: Millis,
    threshold: (Millis, &'static str),
}

impl Manager {
    /// Warns of tokens that expire soon and have not been warned of yet, and counts them. Of several thresholds that were
    /// passed meanwhile the nearest counts.
    pub async fn warn_of_expiry(&self) {
        if self.clock.jumped() {
            // By a clock in doubt nothing expires either.
            return;
        }
        let soon = self.expiring();
        for (at, gauge) in self.metrics.expiring.iter().enumerate() {
            gauge.set(soon.iter().filter(|warning| warning.left <= EXPIRY_WARNINGS[at].0).count() as i64);
        }
        let due: Vec<Warning> = {
            let mut warned = lock(&self.warned.0);
            warned.retain(|token, _| soon.iter().any(|warning| warning.token == *token));
            let told =
                |warning: &&Warning| warned.get(&warning.token) != Some(&(warning.expires_at, warning.threshold.0));
            soon.iter().filter(told).take(TOGETHER_MAX).cloned().collect()
        };
        if due.is_empty() {
            return;
        }
        let (written, now) = (due.clone(), self.clock.wall());
        let work = job(move |tx| Box::pin(async move { write(tx, &written, now).await }));
        match self.store.write(work).await {
            Ok(()) => {
                let mut warned = lock(&self.warned.0);
                warned.extend(due.iter().map(|one| (one.token, (one.expires_at, one.threshold.0))));
            }
            Err(error) => tracing::debug!(%error, "warnings of expiry wait for the store"),
        }
    }

    /// Tokens that are accepted and expire within the longest threshold.
    fn expiring(&self) -> Vec<Warning> {
        let now = self.clock.wall();
        let live = self.tokens.all().into_iter().filter(|live| live.gate.is_open() && live.ends_at() < Millis::MAX);
        let warning = |live: std::sync::Arc<crate::live::LiveToken>| {
            let expires_at = live.rules().limits.expires_at?;
            let left = expires_at - now;
            let threshold = expiry_warning(left)?;
            Some(Warning { token: live.id, scope: live.scope.clone(), expires_at, left, threshold })
        };
        live.filter_map(warning).collect()
    }
}

/// Only what the store has not heard of is said: an earlier process may have warned.
async fn write(tx: &mut Tx, due: &[Warning], now: Millis) -> Result<(), StoreError> {
    let mut changes = Vec::new();
    for warning in due {
        if tokens::warn(tx, warning.token, warning.expires_at, warning.threshold.0).await? {
            let (token, within) = (warning.token, warning.threshold.1);
            tracing::warn!(%token, scope = %warning.scope, "the token expires within {within}");
            let change = Change::new("token.expires_soon", token, warning.scope.clone())
                .after(json!({"expires_at": warning.expires_at, "within_ms": warning.threshold.0}))
                .detail(format!("it expires within {within}"));
            changes.push((Actor::system(), change));
        }
    }
    audit::append_all(tx, now, changes).await
}
