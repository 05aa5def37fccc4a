//! Locking, where a panic elsewhere is no reason to stop.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose holder cannot leave a half-made value behind.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
