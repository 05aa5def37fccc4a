//! Canary tokens: bait. No delegate of ours uses one, so whoever proves it has found it where it was left.
//!
//! Such a peer is welcomed like any other and what it says of itself is written down; then its connection breaks. Nothing
//! tells it that it was found out: no Goodbye, and no other timing than that of a network that fails.

use std::{collections::HashMap, sync::Mutex};

use legation_api::proof::hex;
use legation_model::{
    Millis,
    ids::{DelegateId, TokenId},
};
use legation_store::{job, tokens};
use legation_wire::{
    Proof,
    message::{Hello, ToDelegate},
};
use serde_json::json;

use crate::{
    Manager,
    audit::{self, Actor, Change},
    link::GOODBYE_DEADLINE,
    live::LiveToken,
    lock::lock,
    session::Link,
    source::Source,
};

/// How often one key that proves one canary is written down: it comes again every second.
const RECORDED_EVERY: Millis = 60 * 60 * 1000;
/// Keys that are told apart meanwhile; what comes beyond is counted in the metric alone.
const KEYS_MAX: usize = 1_024;

/// Who was written down lately.
#[derive(Default)]
pub(crate) struct Canaries(Mutex<HashMap<(TokenId, [u8; 32]), Millis>>);

impl Canaries {
    /// Whether it is time to write this key down.
    fn due(&self, token: TokenId, key: [u8; 32], now: Millis) -> bool {
        let mut known = lock(&self.0);
        if known.len() >= KEYS_MAX {
            known.retain(|_, at| now - *at < RECORDED_EVERY);
        }
        match known.get(&(token, key)) {
            Some(at) if now - at < RECORDED_EVERY => false,
            None if known.len() >= KEYS_MAX => false,
            _ => {
                known.insert((token, key), now);
                true
            }
        }
    }

    fn forget(&self, token: TokenId, key: [u8; 32]) {
        lock(&self.0).remove(&(token, key));
    }
}

impl Manager {
    /// Receives whoever proved a canary.
    pub(crate) async fn spring(&self, mut link: Link, live: &LiveToken, proof: &Proof, hello: &Hello, source: &Source) {
        let entered = match live.enter(&self.clock) {
            Ok(entered) => entered,
            // Its end is told like that of any other.
            Err(goodbye) => return self.say_goodbye(link, &goodbye).await,
        };
        self.metrics.canaries.inc();
        tracing::error!(
            token = %live.id, source = %source.address, peer = %source.peer, name = %hello.name, host = %hello.host,
            "a canary token was proved: whoever has it found or stole it"
        );
        if self.canaries.due(live.id, proof.identity, self.clock.boot()) {
            self.write_down(live, proof, hello, source).await;
        }
        let welcome = self.welcome(live, DelegateId::random(&*self.entropy), proof.hint.generation);
        if link.end_mut().send(&ToDelegate::Welcome(welcome)).is_ok() {
            // Whether it arrives is of no consequence.
            let _ = tokio::time::timeout(GOODBYE_DEADLINE, link.flush()).await;
        }
        drop(entered);
    }

    async fn write_down(&self, live: &LiveToken, proof: &Proof, hello: &Hello, source: &Source) {
        let (token, now) = (live.id, self.clock.wall());
        let change = Change::new("token.canary", token, live.scope.clone())
            .after(json!({
                "name": hello.name,
                "host": hello.host,
                "tags": hello.tags,
                "description": hello.description,
                "version": hello.version,
                "boot": hello.boot,
                "key": hex(&proof.identity),
                "generation": proof.hint.generation,
                "peer": source.peer.to_string(),
            }))
            .detail("a canary token was proved");
        let actor = Actor::system_for(source.address);
        let work = job(move |tx| {
            Box::pin(async move {
                tokens::touch_used(tx, &[(token, now)]).await?;
                audit::append(tx, &actor, now, change).await
            })
        });
        if let Err(error) = self.store.write(work).await {
            self.canaries.forget(token, proof.identity);
            tracing::error!(%token, %error, "the use of a canary token could not be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_written_down_once_an_hour_and_not_without_bound() {
        let (canaries, token) = (Canaries::default(), TokenId([1; 16]));
        let key = |number: u64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        assert!(canaries.due(token, key(0), 0) && !canaries.due(token, key(0), RECORDED_EVERY - 1));
        assert!(canaries.due(token, key(1), 1) && canaries.due(TokenId([2; 16]), key(0), 1));
        assert!(canaries.due(token, key(0), RECORDED_EVERY));
        let many = (10..10 + 2 * KEYS_MAX as u64).filter(|number| canaries.due(token, key(*number), 1)).count();
        assert!(many < KEYS_MAX && lock(&canaries.0).len() <= KEYS_MAX);
        assert!(canaries.due(token, key(9_999), 2 * RECORDED_EVERY), "room comes again");
    }
}
