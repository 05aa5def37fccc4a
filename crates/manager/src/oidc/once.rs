//! What waits for somebody to come back: for a while, once, and never too many.

use std::{collections::HashMap, sync::Mutex};

use legation_model::Millis;

use crate::lock::lock;

/// Those that wait at the same time, half a megabyte; the oldest makes room. To make a person's round the oldest within
/// the half minute that it takes, somebody would need more sources than a few.
const WAITING_MAX: usize = 2_048;

/// Values by a word that is handed out.
pub(super) struct Once<T> {
    waiting: Mutex<HashMap<String, (Millis, T)>>,
    /// How long one waits.
    lasts: Millis,
}

impl<T> Once<T> {
    pub(super) fn new(lasts: Millis) -> Self {
        Self { waiting: Mutex::default(), lasts }
    }

    /// Keeps a value until it is taken.
    pub(super) fn put(&self, word: String, value: T, now: Millis) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= WAITING_MAX {
            waiting.retain(|_, (since, _)| now - *since < self.lasts);
        }
        if waiting.len() >= WAITING_MAX
            && let Some(oldest) = waiting.iter().min_by_key(|(_, (since, _))| *since).map(|(word, _)| word.clone())
        {
            waiting.remove(&oldest);
        }
        waiting.insert(word, (now, value));
    }

    /// Takes the value of a word, which is of no use from then on.
    pub(super) fn take(&self, word: &str, now: Millis) -> Option<T> {
        let (since, value) = lock(&self.waiting).remove(word)?;
        (now - since < self.lasts).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_once_and_in_time() {
        let once = Once::new(10);
        once.put("a".to_owned(), 1, 0);
        once.put("b".to_owned(), 2, 0);
        assert_eq!((once.take("a", 9), once.take("a", 9)), (Some(1), None));
        assert_eq!(once.take("b", 10), None, "too late");
    }

    #[test]
    fn the_oldest_makes_room() {
        let once = Once::new(1_000_000);
        for number in 0..=WAITING_MAX as Millis {
            once.put(number.to_string(), number, number);
        }
        assert_eq!((once.take("0", 0), once.take("1", 0)), (None, Some(1)));
        assert_eq!(lock(&once.waiting).len(), WAITING_MAX - 1);
    }
}
