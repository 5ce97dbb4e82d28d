//! Publishes the newest snapshot of one writer to its readers.

use super::pool::Snapshot;
use super::sync::{Arc, Mutex};

/// Metadata that orders snapshots by age.
pub trait Versioned {
    /// Number that increases with each snapshot.
    fn version(&self) -> u64;
}

/// Error returned for a snapshot that is not newer than the published one; its
/// slot was returned to the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("version {offered} was offered when {published} was already published")]
pub struct Outdated {
    pub published: u64,
    pub offered: u64,
}

/// Holds the newest snapshot.
///
/// The lock guards one pointer and is held for one comparison and one swap. No slot is returned to
/// the pool while it is held.
pub struct Handover<S, M> {
    newest: Mutex<Option<Arc<Snapshot<S, M>>>>,
}

impl<S, M: Versioned> Handover<S, M> {
    /// Creates a handover without a snapshot.
    pub fn new() -> Self {
        Self { newest: Mutex::new(None) }
    }

    /// Publishes `snapshot`, unless a snapshot of the same or a higher
    /// version was published before.
    pub fn publish(&self, snapshot: Snapshot<S, M>) -> Result<(), Outdated> {
        let mut newest = self.newest.lock().expect("no code panics while it holds this lock");
        let published = newest.as_ref().map(|newest| newest.meta().version());
        let offered = snapshot.meta().version();
        if let Some(published) = published.filter(|&published| published >= offered) {
            drop(newest);
            return Err(Outdated { published, offered });
        }
        // Reuses the allocation of the old snapshot unless a reader still holds it. The old
        // snapshot is dropped after the lock is released, because that may return its slot to the
        // pool.
        if let Some(place) = newest.as_mut().and_then(Arc::get_mut) {
            let old = std::mem::replace(place, snapshot);
            drop(newest);
            drop(old);
        } else {
            let old = newest.replace(Arc::new(snapshot));
            drop(newest);
            drop(old);
        }
        Ok(())
    }

    /// Returns the newest snapshot, or `None` before the first. Its slot is not written while
    /// the caller holds the `Arc`.
    pub fn latest(&self) -> Option<Arc<Snapshot<S, M>>> {
        self.newest.lock().expect("no code panics while it holds this lock").clone()
    }
}

impl<S, M: Versioned> Default for Handover<S, M> {
    fn default() -> Self {
        Self::new()
    }
}
