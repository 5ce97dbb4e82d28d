//! Model checking of the slot pool and the snapshot handover: the sources of `src/kv_cache`,
//! compiled with loom's synchronization primitives, under every interleaving of a few threads.

#![expect(unreachable_pub, dead_code, reason = "the modules are written for the library")]

mod sync {
    pub(super) use loom::sync::{Arc, Mutex};
}
#[path = "../src/kv_cache/handover.rs"]
mod handover;
#[path = "../src/kv_cache/pool.rs"]
mod pool;

use handover::{Handover, Versioned};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use pool::Pool;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A slot whose accesses loom checks: a write during a read fails the test.
type Watched = UnsafeCell<u64>;

struct Version(u64);

impl Versioned for Version {
    fn version(&self) -> u64 {
        self.0
    }
}

type Shared = (Pool<Watched>, Handover<Watched, Version>);

fn shared(slots: usize) -> Arc<Shared> {
    let slots = (0..slots).map(|_| Box::new(UnsafeCell::new(0))).collect();
    Arc::new((Pool::of(slots), Handover::new()))
}

/// Fills a slot with its version and publishes it. Returns false if no slot was free or a newer
/// version was published already.
fn prefill(shared: &Shared, version: u64) -> bool {
    let Some(writer) = shared.0.writer() else { return false };
    writer.slot().with_mut(|value| write(value, version));
    shared.1.publish(writer.seal_with(Version(version))).is_ok()
}

#[expect(unsafe_code, reason = "loom gives access through raw pointers")]
fn write(value: *mut u64, version: u64) {
    // SAFETY: `value` points into the cell whose `with_mut` calls this; loom fails on a concurrent
    // access.
    unsafe { value.write(version) }
}

#[expect(unsafe_code, reason = "loom gives access through raw pointers")]
fn read(value: *const u64) -> u64 {
    // SAFETY: `value` points into the cell whose `with` calls this; loom fails on a concurrent
    // write.
    unsafe { value.read() }
}

/// Checks that every value of the newest snapshot has its version, which is returned.
fn tick(shared: &Shared) -> Option<u64> {
    let snapshot = shared.1.latest()?;
    let version = snapshot.meta().version();
    snapshot.slot().with(|value| assert_eq!(read(value), version, "torn or reused"));
    Some(version)
}

/// Explores every schedule; the state space is small enough without a bound on preemptions.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&schedules);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let schedules = schedules.load(Ordering::Relaxed);
    assert!(schedules > 10, "only {schedules} schedules: the model checker did not see the locks");
}

#[test]
fn readers_see_complete_prefixes_in_order() {
    explore(|| {
        let shared = shared(2);
        let writer = Arc::clone(&shared);
        let prefills = thread::spawn(move || (1..=3).filter(|&v| prefill(&writer, v)).count());
        let (first, second) = (tick(&shared), tick(&shared));
        assert!(first <= second, "went back from {first:?} to {second:?}");
        assert!(prefills.join().unwrap() >= 2, "two slots hold at least two prefixes in turn");
        assert_eq!(shared.0.free(), 1, "one slot is published, the other is free");
    });
}

#[test]
fn two_readers_share_a_snapshot_during_the_next_write() {
    explore(|| {
        let shared = shared(3);
        assert!(prefill(&shared, 1));
        let readers: [_; 2] = std::array::from_fn(|_| {
            let reader = Arc::clone(&shared);
            thread::spawn(move || assert!(tick(&reader) >= Some(1)))
        });
        assert!(prefill(&shared, 2) && prefill(&shared, 3));
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(shared.0.free(), 2);
    });
}

#[test]
fn newest_of_two_published_prefixes_wins() {
    explore(|| {
        let shared = shared(3);
        let other = Arc::clone(&shared);
        let newer = thread::spawn(move || assert!(prefill(&other, 2)));
        prefill(&shared, 1);
        newer.join().unwrap();
        assert_eq!(tick(&shared), Some(2));
        assert_eq!(shared.0.free(), 2);
    });
}
