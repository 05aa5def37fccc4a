//! Who used a token, when, and from where.
//!
//! A connection that is let in is noted in memory, which costs the way in one lock. The sweep writes what was noted, the
//! transaction of a revocation what there is of its token, and a Manager that is stopped the rest: one that is killed
//! loses at most what happened since the last sweep. Like everything that comes of a token's sessions, a note is written
//! inside its gate.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use legation_model::{
    Millis,
    ids::{DelegateId, TokenId},
    token_use::TokenUse,
};
use legation_store::{Page, Paged, StoreError, job, token_uses, tokens};

use crate::{Manager, access::Caller, error::Refusal, gate::Entered, lock::lock, session::Session};

/// Delegates, addresses and tokens that are told apart between two writes: more than can be let in within the five
/// seconds of a sweep. Beyond it a connection is not noted, and the log says so.
const NOTED_MAX: usize = 65_536;
/// Rows in one transaction, so that connections that wait to be let in are written in between.
const WRITTEN_TOGETHER: usize = 500;
/// How often it is noted that a session still lasts: ten thousand sessions are 167 rows a second.
const NOTED_EVERY: Millis = 60_000;

/// What was noted and is not written yet.
#[derive(Default)]
pub struct TokenUses {
    noted: Mutex<HashMap<Key, TokenUse>>,
    /// Boot-clock time at which all sessions were last noted to last.
    lasting_noted_at: AtomicI64,
    /// Held while something is written, so that whoever waits for it finds everything in the store.
    writing: tokio::sync::Mutex<()>,
}

type Key = (TokenId, DelegateId, IpAddr);

impl TokenUses {
    /// Notes connections that were let in, or none and only that one goes on.
    pub fn note(&self, noted: TokenUse) {
        let mut all = lock(&self.noted);
        let full = all.len() >= NOTED_MAX;
        match all.entry((noted.token, noted.delegate, noted.address)) {
            Entry::Occupied(mut known) => known.get_mut().merge(&noted),
            Entry::Vacant(_) if full => {
                tracing::error!(token = %noted.token, delegate = %noted.delegate, "the use of a token is not noted: too many wait for the store");
            }
            Entry::Vacant(vacant) => drop(vacant.insert(noted)),
        }
    }

    /// Takes what there is of one token, for its last write.
    pub(crate) fn take_of(&self, token: TokenId) -> Vec<TokenUse> {
        let mut taken = Vec::new();
        lock(&self.noted).retain(|key, noted| {
            key.0 != token || {
                taken.push(noted.clone());
                false
            }
        });
        taken
    }

    /// Takes a portion of tokens that let it be written.
    fn take(&self, mut may: impl FnMut(TokenId) -> bool) -> Vec<TokenUse> {
        let mut all = lock(&self.noted);
        let keys: Vec<Key> = all.keys().filter(|key| may(key.0)).take(WRITTEN_TOGETHER).copied().collect();
        keys.iter().filter_map(|key| all.remove(key)).collect()
    }

    /// Puts back what could not be written.
    pub(crate) fn keep(&self, noted: Vec<TokenUse>) {
        noted.into_iter().for_each(|noted| self.note(noted));
    }
}

impl Manager {
    /// Notes that a session was let in, or (`uses` is 0) that it still lasts.
    pub(crate) fn note_use(&self, session: &Session, uses: u64) {
        let (answered, at) = (session.last_answered.load(Ordering::Relaxed), self.clock.wall());
        let last_at = at - (self.clock.boot() - answered).max(0);
        self.token_uses.note(TokenUse {
            token: session.token.id,
            delegate: session.delegate,
            name: session.name.clone(),
            address: session.address,
            first_at: last_at,
            last_at,
            uses,
        });
    }

    /// Writes what was noted, of tokens that are accepted now: of one that has ended its revocation has written it, or
    /// its receipt will.
    ///
    /// # Errors
    /// Those of the store; what was not written stays noted.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        let _alone = self.token_uses.writing.lock().await;
        loop {
            let mut gates: HashMap<TokenId, Option<Entered>> = HashMap::new();
            let noted = self.token_uses.take(|token| gates.entry(token).or_insert_with(|| self.enter(token)).is_some());
            if noted.is_empty() {
                return Ok(());
            }
            let written = noted.clone();
            let write = job(move |tx| Box::pin(async move { token_uses::note(tx, &written).await }));
            if let Err(error) = self.store.write(write).await {
                self.token_uses.keep(noted);
                return Err(error);
            }
        }
    }

    fn enter(&self, token: TokenId) -> Option<Entered> {
        self.tokens.get(token)?.enter(&self.clock).ok()
    }

    /// Notes of sessions that last that they do, and writes what was noted.
    pub(crate) async fn sweep_uses(&self) {
        let (noted_at, now) = (&self.token_uses.lasting_noted_at, self.clock.boot());
        if now - noted_at.load(Ordering::Relaxed) >= NOTED_EVERY {
            noted_at.store(now, Ordering::Relaxed);
            self.note_lasting();
        }
        if let Err(error) = self.write_uses().await {
            tracing::debug!(%error, "uses of tokens wait for the store");
        }
    }

    fn note_lasting(&self) {
        for session in self.sessions.all() {
            if let Ok(_inside) = session.token.enter(&self.clock) {
                self.note_use(&session, 0);
            }
        }
    }

    /// Brings the times at which tokens were last used up to date in the store: whoever asks which are not used is told
    /// the truth of this moment.
    pub(crate) async fn settle_uses(&self) -> Result<(), StoreError> {
        self.write_uses().await?;
        let now = self.clock.wall();
        let mut gates: HashMap<TokenId, Option<Entered>> = HashMap::new();
        for session in self.sessions.current() {
            gates.entry(session.token.id).or_insert_with(|| self.enter(session.token.id));
        }
        gates.retain(|_, entered| entered.is_some());
        let used: Vec<_> = gates.keys().map(|token| (*token, now)).collect();
        if used.is_empty() {
            return Ok(());
        }
        self.store.write(job(move |tx| Box::pin(async move { tokens::touch_used(tx, &used).await }))).await
    }

    /// Who used a token, newest first.
    ///
    /// # Errors
    /// `not_found` for a token that the caller may not see; `store_unavailable`, also when what was noted cannot be
    /// written.
    pub async fn token_uses(&self, caller: &Caller, id: TokenId, page: Page) -> Result<Paged<TokenUse>, Refusal> {
        self.token(caller, id).await?;
        self.write_uses().await?;
        let list = job(move |conn| Box::pin(async move { token_uses::list(conn, id, &page).await }));
        Ok(self.store.read(list).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(number: u64, uses: u64, at: Millis) -> TokenUse {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let (name, address) = ("one".parse().expect("a name"), "192.0.2.1".parse().expect("an address"));
        let (token, delegate) = (TokenId([1; 16]), DelegateId(id));
        TokenUse { token, delegate, name, address, first_at: at, last_at: at, uses }
    }

    #[test]
    fn what_is_noted_twice_is_one_and_there_is_a_bound() {
        let all = TokenUses::default();
        (0..2 * NOTED_MAX as u64).for_each(|number| all.note(used(number, 1, 5)));
        assert_eq!(lock(&all.noted).len(), NOTED_MAX);
        all.note(used(3, 1, 7));
        all.note(used(3, 0, 6));
        assert_eq!(all.take(|_| false), []);
        let portion = all.take(|_| true);
        assert_eq!(portion.len(), WRITTEN_TOGETHER);
        all.keep(portion);
        assert_eq!(all.take_of(TokenId([2; 16])), []);
        let taken = all.take_of(TokenId([1; 16]));
        assert_eq!((taken.len(), lock(&all.noted).len()), (NOTED_MAX, 0));
        let three = taken.iter().find(|noted| noted.delegate == used(3, 0, 0).delegate).expect("it is there");
        assert_eq!((three.uses, three.first_at, three.last_at), (2, 5, 7));
    }
}
