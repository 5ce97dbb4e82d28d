//! Locks of `std`, whose holders do not panic.

use std::sync::{LockResult, Mutex, MutexGuard};

/// Locks `mutex`.
///
/// # Panics
/// If a thread panicked while it held the lock.
#[track_caller]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// Returns the guard that locking or waiting on a condition variable gave.
///
/// # Panics
/// If a thread panicked while it held the lock.
#[track_caller]
pub(crate) fn unpoisoned<G>(result: LockResult<G>) -> G {
    result.expect("no code panics while it holds this lock")
}
