//! Passing the newest snapshot from its writer to its readers.

use super::pool::Snapshot;
use super::sync::{Arc, Mutex};

/// Metadata that says which of two snapshots is newer.
pub trait Versioned {
    /// Rises with each snapshot.
    fn version(&self) -> u64;
}

/// A snapshot that came too late: one as new or newer was published before. Its slot went home.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("version {offered} was offered when {published} was already published")]
pub struct Outdated {
    /// The version that stays.
    pub published: u64,
    /// The version that was refused.
    pub offered: u64,
}

/// The place where the newest snapshot is found.
///
/// The lock guards one pointer, for the time of a comparison and a swap; a slot is never returned
/// while it is held.
pub struct Handover<S, M> {
    newest: Mutex<Option<Arc<Snapshot<S, M>>>>,
}

impl<S, M: Versioned> Handover<S, M> {
    /// An empty place.
    pub fn new() -> Self {
        Self { newest: Mutex::new(None) }
    }

    /// Makes `snapshot` the newest.
    ///
    /// # Errors
    /// If one as new or newer was published already; the caller counts it and goes on.
    pub fn publish(&self, snapshot: Snapshot<S, M>) -> Result<(), Outdated> {
        let mut newest = self.newest.lock().expect("no code panics while it holds this lock");
        let published = newest.as_ref().map(|newest| newest.meta().version());
        let offered = snapshot.meta().version();
        if let Some(published) = published.filter(|&published| published >= offered) {
            drop(newest);
            return Err(Outdated { published, offered });
        }
        // Without a reader the old snapshot's place is used again: publishing allocates only when a
        // reader still holds it. Either way it is dropped outside the lock, which may return its slot.
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

    /// The newest snapshot; `None` before the first. Its slot stays as it is while the caller
    /// holds the `Arc`.
    pub fn latest(&self) -> Option<Arc<Snapshot<S, M>>> {
        self.newest.lock().expect("no code panics while it holds this lock").clone()
    }
}

impl<S, M: Versioned> Default for Handover<S, M> {
    fn default() -> Self {
        Self::new()
    }
}
