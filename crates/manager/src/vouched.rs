//! What is remembered of keys and sessions: whom the store vouched for, and when each was used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use legation_model::Millis;
use legation_store::standing::{Credential, CredentialId, Standing};
use tokio::sync::watch;

use crate::lock::lock;

/// Keys and sessions that are remembered: more than people and scripts have, and a few hundred bytes each.
const VOUCHED_MAX: usize = 1024;

/// How exact the store's time of a last use is: a write for every request would cost more than it tells.
const USED_STEP: Millis = 10_000;

/// Keys and sessions that the store vouched for, for when it is gone: a revocation cuts even when it cannot be written,
/// and who asks for it must be known then. Every other call needs the store anyway and says so.
///
/// What takes access away is written by this process alone, which has it forgotten here before it answers.
#[derive(Default)]
pub(crate) struct Vouched {
    known: Mutex<Known>,
    /// When each was used, until that is written down.
    used: Mutex<HashMap<CredentialId, Millis>>,
    /// Raised by each change of access.
    epoch: watch::Sender<u64>,
}

/// Each with the turn in which the store last vouched for it.
#[derive(Default)]
struct Known {
    standings: BTreeMap<CredentialId, (u64, Arc<Standing>)>,
    turn: u64,
}

impl Known {
    /// Makes room for one more: those that have ended by themselves go, else the one that was looked up longest ago.
    fn make_room(&mut self, is_current: impl Fn(&Credential) -> bool) {
        if self.standings.len() < VOUCHED_MAX {
            return;
        }
        self.standings.retain(|_, (_, standing)| is_current(&standing.credential));
        let oldest = self.standings.iter().min_by_key(|(_, (turn, _))| *turn).map(|(id, _)| *id);
        if let Some(oldest) = oldest.filter(|_| self.standings.len() >= VOUCHED_MAX) {
            self.standings.remove(&oldest);
        }
    }
}

impl Vouched {
    /// How many changes of access there were.
    pub(crate) fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Tells of each change of access.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Remembers what was read in this epoch; what was read before a change may be what the change took away.
    pub(crate) fn remember(&self, standing: &Arc<Standing>, read_in: u64, is_current: impl Fn(&Credential) -> bool) {
        let (mut known, id) = (lock(&self.known), standing.credential.id());
        if *self.epoch.borrow() != read_in {
            return;
        }
        if !known.standings.contains_key(&id) {
            known.make_room(is_current);
        }
        known.turn += 1;
        let turn = known.turn;
        known.standings.insert(id, (turn, Arc::clone(standing)));
    }

    /// Forgets those that a change of access concerns, and has everybody who goes on for long look again.
    pub(crate) fn forget(&self, concerned: impl Fn(&Standing) -> bool) {
        let mut known = lock(&self.known);
        known.standings.retain(|_, (_, standing)| !concerned(standing));
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets one that is not there any more.
    pub(crate) fn drop(&self, id: CredentialId) {
        lock(&self.known).standings.remove(&id);
    }

    pub(crate) fn get(&self, id: CredentialId) -> Option<Arc<Standing>> {
        lock(&self.known).standings.get(&id).map(|(_, standing)| Arc::clone(standing))
    }

    /// Notes that one was used, unless the store knows of a use just now.
    pub(crate) fn note_use(&self, credential: &Credential, now: Millis) {
        if credential.last_used_at().is_none_or(|noted| now - noted >= USED_STEP) {
            lock(&self.used).insert(credential.id(), now);
        }
    }

    /// When one was last used, as far as anybody knows.
    pub(crate) fn last_use(&self, credential: &Credential) -> Option<Millis> {
        lock(&self.used).get(&credential.id()).copied().max(credential.last_used_at())
    }

    /// The uses that are not written down yet.
    pub(crate) fn used(&self) -> Vec<(CredentialId, Millis)> {
        lock(&self.used).iter().map(|(id, at)| (*id, *at)).collect()
    }

    /// Forgets uses that are written down now.
    pub(crate) fn written(&self, uses: &[(CredentialId, Millis)]) {
        let mut used = lock(&self.used);
        for (id, at) in uses {
            if used.get(id) == Some(at) {
                used.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use legation_model::access::Permission;

    use super::*;
    use crate::access::tests::caller;

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let vouched = Vouched::default();
        let standing = caller(&[], Permission::TaskView).standing;
        let epoch = vouched.epoch();
        let current = |_: &Credential| true;
        vouched.remember(&standing, epoch, current);
        assert!(vouched.get(standing.credential.id()).is_some());
        vouched.forget(|other| other.credential.id() == standing.credential.id());
        assert!(vouched.get(standing.credential.id()).is_none());
        vouched.remember(&standing, epoch, current);
        assert!(vouched.get(standing.credential.id()).is_none(), "a removed key came back");
        vouched.remember(&standing, epoch + 1, current);
        vouched.forget(|_| false);
        assert!(vouched.get(standing.credential.id()).is_some(), "somebody else's change");
    }

    #[test]
    fn when_there_is_no_room_those_go_that_have_ended_and_else_the_one_of_longest_ago() {
        let vouched = Vouched::default();
        let numbered = |number: u16| {
            let mut standing = Standing::clone(&caller(&[], Permission::TaskView).standing);
            let Credential::Key(key) = &mut standing.credential else { panic!("a key") };
            key.id.0[..2].copy_from_slice(&number.to_be_bytes());
            Arc::new(standing)
        };
        let ended = numbered(7).credential.id();
        let knows = |number: u16| vouched.get(numbered(number).credential.id()).is_some();
        let full = VOUCHED_MAX as u16;
        for number in (0..full).chain([0]) {
            vouched.remember(&numbered(number), 0, |_| true);
        }
        assert!((0..full).all(knows));
        vouched.remember(&numbered(full), 0, |credential| credential.id() != ended);
        assert!(!knows(7) && knows(0) && knows(1) && knows(full), "the one that has ended goes");
        vouched.remember(&numbered(full + 1), 0, |_| true);
        assert!(!knows(1) && knows(0) && knows(2) && knows(full + 1), "the one that was looked up longest ago");
        assert_eq!(lock(&vouched.known).standings.len(), VOUCHED_MAX);
    }

    #[test]
    fn a_use_that_was_noted_while_another_was_written_is_kept() {
        let (vouched, credential) = (Vouched::default(), caller(&[], Permission::TaskView).standing.credential.clone());
        vouched.note_use(&credential, 5);
        let writing = vouched.used();
        vouched.note_use(&credential, 9);
        vouched.written(&writing);
        assert_eq!(vouched.last_use(&credential), Some(9));
        vouched.written(&vouched.used());
        assert_eq!((vouched.used(), vouched.last_use(&credential)), (Vec::new(), None));
    }
}
