//! Delegates that were stopped or quarantined, for the sessions that were on their way in meanwhile.
//!
//! The store decides who comes in, in an order of which each admission has its number. Whoever stops a delegate has a number
//! in the same order: sessions with a lower one end, whether they are on the books by then or only come to be. One that the
//! store let in later, because the delegate was allowed again, has a higher one, so that nothing has to be undone here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use legation_model::ids::DelegateId;
use legation_wire::message::Goodbye;

use crate::{Manager, lock::lock};

/// Those that are remembered. Only a session that the store let in before is looked up, and that is on the books a moment
/// later; when there are more, all are forgotten, and the next connection is refused by the store.
const BARRED_MAX: usize = 4_096;

/// Who was stopped at which place in the order of admissions, and what it is told.
#[derive(Default)]
pub(crate) struct Barred(Mutex<HashMap<DelegateId, (u64, Arc<Goodbye>)>>);

impl Barred {
    /// What a session of this delegate is told that has this place in the order of admissions, if it may not be.
    pub(crate) fn of(&self, delegate: DelegateId, admission: u64) -> Option<Arc<Goodbye>> {
        let barred = lock(&self.0);
        barred.get(&delegate).filter(|(mark, _)| admission < *mark).map(|(_, goodbye)| Arc::clone(goodbye))
    }

    fn insert(&self, delegate: DelegateId, mark: u64, goodbye: Arc<Goodbye>) {
        let mut barred = lock(&self.0);
        if barred.len() >= BARRED_MAX {
            barred.clear();
        }
        barred.insert(delegate, (mark, goodbye));
    }
}

impl Manager {
    /// Ends the sessions of a delegate that were admitted before this place in the order of admissions.
    pub(crate) fn bar(&self, delegate: DelegateId, mark: u64, goodbye: Goodbye) {
        let goodbye = Arc::new(goodbye);
        // First, so that a session which is being admitted is found here or finds it.
        self.barred.insert(delegate, mark, Arc::clone(&goodbye));
        if let Some(session) = self.sessions.newest(delegate).filter(|session| session.admission < mark) {
            session.stop_with(Some(goodbye));
        }
    }
}

#[cfg(test)]
mod tests {
    use legation_wire::close::GoodbyeReason;

    use super::*;

    #[test]
    fn only_what_was_admitted_before_is_barred() {
        let (barred, delegate) = (Barred::default(), DelegateId([1; 16]));
        let goodbye = |text: &str| Arc::new(Goodbye::new(GoodbyeReason::DelegateStopped, text));
        barred.insert(delegate, 7, goodbye("first"));
        assert!(barred.of(delegate, 6).is_some() && barred.of(delegate, 8).is_none());
        barred.insert(delegate, 12, goodbye("second"));
        assert_eq!(barred.of(delegate, 8).expect("barred again").text, "second");
        assert!(barred.of(DelegateId([2; 16]), 1).is_none());
        for number in 0..BARRED_MAX as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            barred.insert(DelegateId(id), 1, goodbye("many"));
        }
        assert!(lock(&barred.0).len() <= BARRED_MAX);
    }
}
