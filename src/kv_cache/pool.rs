//! A fixed set of slots, each of which is free, being written or sealed.
//!
//! Each state is a type that owns the slot, so a slot has one state by construction and returns to
//! the pool when its last owner is dropped. The pool is generic over the slot so that the model
//! checker can use slots of one number.

use super::sync::{Arc, Mutex};

/// State guarded by the lock of a pool.
struct Free<S> {
    /// Has capacity for every slot, so that returning a slot never allocates.
    slots: Vec<Box<S>>,
    exhausted: u64,
}

/// Free slots, and a count of failed leases.
pub struct Pool<S> {
    free: Arc<Mutex<Free<S>>>,
}

impl<S> Pool<S> {
    /// Creates a pool of these slots; no slot is added later.
    pub fn of(slots: Vec<Box<S>>) -> Self {
        Self { free: Arc::new(Mutex::new(Free { slots, exhausted: 0 })) }
    }

    /// Calls `prepare` for every free slot and stops at the first error. To be called before the
    /// first lease: while it runs, [`Self::writer`] finds no slot.
    pub fn prepare_slots<E>(
        &self,
        mut prepare: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<(), E> {
        let lock = || self.free.lock().expect("no code panics while it holds this lock");
        // The lock is not held while `prepare` runs, which may panic.
        let mut slots = std::mem::take(&mut lock().slots);
        // In the order in which `writer` would lease them.
        let result = slots.iter_mut().rev().try_for_each(|slot| prepare(slot));
        let mut free = lock();
        slots.append(&mut free.slots);
        free.slots = slots;
        result
    }

    /// Leases a free slot for writing. If there is none, counts that and
    /// returns `None` without waiting.
    pub fn writer(&self) -> Option<Writer<S>> {
        let mut free = self.free.lock().expect("no code panics while it holds this lock");
        let slot = free.slots.pop();
        if slot.is_none() {
            free.exhausted += 1;
        }
        drop(free);
        slot.map(|slot| Writer(Lease { slot: Some(slot), pool: Arc::clone(&self.free) }))
    }

    /// Returns the number of free slots.
    pub fn free(&self) -> usize {
        self.free.lock().expect("no code panics while it holds this lock").slots.len()
    }

    /// Returns how many calls of [`Self::writer`] found no free slot.
    pub fn exhausted(&self) -> u64 {
        self.free.lock().expect("no code panics while it holds this lock").exhausted
    }
}

/// A leased slot; dropping the lease returns the slot to the pool.
struct Lease<S> {
    /// `None` only inside `drop`.
    slot: Option<Box<S>>,
    pool: Arc<Mutex<Free<S>>>,
}

impl<S> Lease<S> {
    fn slot(&self) -> &S {
        self.slot.as_deref().expect("only `drop` takes the slot out of the lease")
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let mut free = self.pool.lock().expect("no code panics while it holds this lock");
            free.slots.push(slot);
        }
    }
}

/// The only owner of a slot while it is written. Dropping it unsealed returns the slot to the pool.
pub struct Writer<S>(Lease<S>);

impl<S> Writer<S> {
    /// Returns the slot, which at first has the contents that its previous owner wrote.
    pub fn slot(&self) -> &S {
        self.0.slot()
    }

    /// Returns the slot for writing.
    pub fn slot_mut(&mut self) -> &mut S {
        self.0.slot.as_deref_mut().expect("only `drop` takes the slot out of the lease")
    }

    /// Ends writing. Taking `self` rules out writing to a sealed slot.
    pub fn seal_with<M>(self, meta: M) -> Snapshot<S, M> {
        Snapshot { lease: self.0, meta }
    }
}

/// A sealed, read-only slot, which returns to the pool when the snapshot is dropped.
pub struct Snapshot<S, M> {
    lease: Lease<S>,
    meta: M,
}

impl<S, M> Snapshot<S, M> {
    /// Returns the sealed slot.
    pub fn slot(&self) -> &S {
        self.lease.slot()
    }

    /// Returns the metadata that the slot was sealed with.
    pub fn meta(&self) -> &M {
        &self.meta
    }
}
