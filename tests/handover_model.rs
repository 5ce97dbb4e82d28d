//! The pool and the handover, every interleaving of a few threads: the very source of
//! `src/kv_cache`, compiled against loom's synchronization.

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

/// A slot whose every access loom watches: a write beside a read ends the run.
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

/// Fills a slot with its version and publishes it; false if no slot was free or it came too late.
fn refresh(shared: &Shared, version: u64) -> bool {
    let Some(writer) = shared.0.writer() else { return false };
    writer.slot().with_mut(|value| write(value, version));
    shared.1.publish(writer.seal_with(Version(version))).is_ok()
}

#[expect(unsafe_code, reason = "loom hands out raw pointers to watch what they are used for")]
fn write(value: *mut u64, version: u64) {
    // SAFETY: points into the cell whose `with_mut` is running; loom fails on any other access.
    unsafe { value.write(version) }
}

#[expect(unsafe_code, reason = "loom hands out raw pointers to watch what they are used for")]
fn read(value: *const u64) -> u64 {
    // SAFETY: points into the cell whose `with` is running; loom fails if it is written meanwhile.
    unsafe { value.read() }
}

/// Reads the newest snapshot, checks that it is whole, and returns its version.
fn tick(shared: &Shared) -> Option<u64> {
    let snapshot = shared.1.latest()?;
    let version = snapshot.meta().version();
    snapshot.slot().with(|value| assert_eq!(read(value), version, "torn or recycled"));
    Some(version)
}

/// Explores every schedule: the state space is small enough to go without a bound on preemptions.
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
fn readers_see_whole_prefixes_that_never_go_back() {
    explore(|| {
        let shared = shared(2);
        let writer = Arc::clone(&shared);
        let refreshes = thread::spawn(move || (1..=3).filter(|&v| refresh(&writer, v)).count());
        let (first, second) = (tick(&shared), tick(&shared));
        assert!(first <= second, "went back from {first:?} to {second:?}");
        assert!(refreshes.join().unwrap() >= 2, "two slots hold at least two prefixes in turn");
        assert_eq!(shared.0.free(), 1, "one slot is published, the other is home");
    });
}

#[test]
fn two_readers_share_a_snapshot_while_its_successor_is_written() {
    explore(|| {
        let shared = shared(3);
        assert!(refresh(&shared, 1));
        let readers: [_; 2] = std::array::from_fn(|_| {
            let reader = Arc::clone(&shared);
            thread::spawn(move || assert!(tick(&reader) >= Some(1)))
        });
        assert!(refresh(&shared, 2) && refresh(&shared, 3));
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(shared.0.free(), 2);
    });
}

#[test]
fn of_two_publishers_the_newer_stays() {
    explore(|| {
        let shared = shared(3);
        let other = Arc::clone(&shared);
        let newer = thread::spawn(move || assert!(refresh(&other, 2)));
        refresh(&shared, 1);
        newer.join().unwrap();
        assert_eq!(tick(&shared), Some(2));
        assert_eq!(shared.0.free(), 2);
    });
}
