//! A fixed set of slots that move: free, being written, sealed, free again.
//!
//! Each phase is a type that owns the slot, so a slot is in one place by construction and goes
//! home when the last owner is dropped. Generic over what a slot holds, because the model checker
//! plays with slots of one number.

use super::sync::{Arc, Mutex};

/// What the lock guards: pointers to the free slots and one counter.
struct Free<S> {
    /// Has room for every slot, so that a return never allocates.
    slots: Vec<Box<S>>,
    exhausted: u64,
}

/// The slots that nobody holds, and how often there was none.
pub struct Pool<S> {
    free: Arc<Mutex<Free<S>>>,
}

impl<S> Pool<S> {
    /// A pool of these slots, which are all that it will ever have.
    pub fn of(slots: Vec<Box<S>>) -> Self {
        Self { free: Arc::new(Mutex::new(Free { slots, exhausted: 0 })) }
    }

    /// A free slot, to be written; `None`, which is counted, if all are held. Never waits for one.
    pub fn writer(&self) -> Option<Writer<S>> {
        let mut free = self.free.lock().expect("no code panics while it holds this lock");
        let slot = free.slots.pop();
        if slot.is_none() {
            free.exhausted += 1;
        }
        drop(free);
        slot.map(|slot| Writer(Lease { slot: Some(slot), home: Arc::clone(&self.free) }))
    }

    /// Slots that nobody holds right now.
    pub fn free(&self) -> usize {
        self.free.lock().expect("no code panics while it holds this lock").slots.len()
    }

    /// How often [`Self::writer`] found no slot.
    pub fn exhausted(&self) -> u64 {
        self.free.lock().expect("no code panics while it holds this lock").exhausted
    }
}

/// A slot on loan; dropping it returns the slot.
struct Lease<S> {
    /// `None` only inside `drop`.
    slot: Option<Box<S>>,
    home: Arc<Mutex<Free<S>>>,
}

impl<S> Lease<S> {
    fn slot(&self) -> &S {
        self.slot.as_deref().expect("the slot leaves only when the lease is dropped")
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let mut free = self.home.lock().expect("no code panics while it holds this lock");
            free.slots.push(slot);
        }
    }
}

/// The one owner of a slot while it is filled. Dropping it unsealed gives the slot back.
pub struct Writer<S>(Lease<S>);

impl<S> Writer<S> {
    /// What was written so far; at first what the slot's previous user left.
    pub fn slot(&self) -> &S {
        self.0.slot()
    }

    /// The slot, to be filled.
    pub fn slot_mut(&mut self) -> &mut S {
        self.0.slot.as_deref_mut().expect("the slot leaves only when the lease is dropped")
    }

    /// Ends writing. Taking `self` makes "published but still being written" unrepresentable.
    pub fn seal_with<M>(self, meta: M) -> Snapshot<S, M> {
        Snapshot { lease: self.0, meta }
    }
}

/// A sealed slot: readable by many, writable by nobody, home when the last reader is done.
pub struct Snapshot<S, M> {
    lease: Lease<S>,
    meta: M,
}

impl<S, M> Snapshot<S, M> {
    /// What was written.
    pub fn slot(&self) -> &S {
        self.lease.slot()
    }

    /// What it was written from.
    pub fn meta(&self) -> &M {
        &self.meta
    }
}
