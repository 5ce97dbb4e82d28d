//! The prefix KV cache: complete prefixes, in order, in slots that are never lost or shared.

use arrayvec::ArrayVec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tandem::device::HostDevice;
use tandem::kv_cache::{
    Handover, KvSnapshot, KvWriter, Layout, Outdated, PrefixMeta, Slot, SlotPool,
};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::Timestamp;

const SLOTS: usize = 3;

const LAYOUT: Layout =
    Layout { layers: 2, heads: 2, capacity: 16, key_dim: 8, value_dim: 4, dtype: DType::I64 };

fn meta(version: u64) -> PrefixMeta {
    PrefixMeta {
        version,
        frames: ArrayVec::from_iter([version]),
        captured_at: Timestamp::after(Duration::from_millis(version)),
        valid_length: LAYOUT.capacity,
        next_position: 7,
    }
}

/// A pool of `count` slots on the host.
fn slots(count: usize) -> SlotPool {
    SlotPool::new(&(Arc::new(HostDevice::new()) as _), LAYOUT, count).unwrap()
}

/// Fills every tensor with `stamp`.
fn fill(writer: &mut KvWriter, stamp: u64) {
    let device = HostDevice::new();
    for tensor in writer.slot_mut().tensors_mut() {
        let values = vec![stamp as i64; tensor.shape().iter().product()];
        tensor.set(&device, &HostTensor::from_slice(tensor.shape(), &values)).unwrap();
    }
}

/// Checks that every value of a snapshot equals its version.
#[track_caller]
fn check_complete(snapshot: &KvSnapshot) {
    let version = snapshot.meta().version;
    for tensor in snapshot.slot().tensors() {
        let tensor = tensor.to_host(snapshot.slot().device()).unwrap();
        let torn = tensor.as_slice::<i64>().iter().find(|&&value| value != version as i64);
        assert_eq!(torn, None, "version {version} has a value of another prefix");
    }
}

/// A sealed snapshot whose values equal its version.
fn sealed(pool: &SlotPool, version: u64) -> KvSnapshot {
    let mut writer = pool.writer().unwrap();
    fill(&mut writer, version);
    writer.seal(meta(version))
}

#[test]
fn slot_has_the_layouts_tensors_and_size() {
    let pool = slots(1);
    let writer = pool.writer().unwrap();
    assert_eq!(writer.slot().keys(1).shape(), [2, 16, 8]);
    assert_eq!(writer.slot().values(1).shape(), [2, 16, 4]);
    let bytes: usize = writer.slot().tensors().map(|tensor| tensor.buffer().bytes()).sum();
    assert_eq!(bytes, LAYOUT.bytes());
}

#[test]
fn exhausted_pool_is_counted() {
    let pool = slots(2);
    let held = [pool.writer().unwrap(), pool.writer().unwrap()];
    assert!(pool.writer().is_none());
    assert!(pool.writer().is_none());
    assert_eq!(pool.exhausted(), 2);
    drop(held);
    assert!(pool.writer().is_some());
    assert_eq!(pool.exhausted(), 2);
}

#[test]
fn dropped_writer_returns_its_slot() {
    let pool = slots(1);
    drop(pool.writer().unwrap());
    assert_eq!(pool.free(), 1);
}

#[test]
fn old_prefix_stays_readable_for_its_readers() {
    let (pool, handover) = (slots(SLOTS), Handover::new());
    assert!(handover.latest().is_none());
    handover.publish(sealed(&pool, 1)).unwrap();
    let reader = handover.latest().unwrap();
    let next = sealed(&pool, 2);
    assert_eq!(handover.latest().unwrap().meta(), &meta(1));
    handover.publish(next).unwrap();
    assert_eq!(handover.latest().unwrap().meta(), &meta(2));
    assert_eq!(pool.free(), 1);
    check_complete(&reader);
    drop(reader);
    assert_eq!(pool.free(), 2);
}

#[test]
fn late_version_is_refused_and_its_slot_returned() {
    let (pool, handover) = (slots(SLOTS), Handover::new());
    handover.publish(sealed(&pool, 5)).unwrap();
    for offered in [5, 4] {
        let refused = handover.publish(sealed(&pool, offered));
        assert_eq!(refused, Err(Outdated { published: 5, offered }));
        assert_eq!(pool.free(), 2);
    }
    assert_eq!(handover.latest().unwrap().meta().version, 5);
}

#[test]
fn pool_may_be_dropped_before_its_readers() {
    let (pool, handover) = (slots(1), Handover::new());
    handover.publish(sealed(&pool, 1)).unwrap();
    drop(pool);
    check_complete(&handover.latest().unwrap());
}

#[test]
#[should_panic(expected = "a prefix of 17 tokens in a slot of 16")]
fn prefix_longer_than_its_slot_panics() {
    let pool = slots(1);
    pool.writer().unwrap().seal(PrefixMeta { valid_length: 17, ..meta(1) });
}

#[test]
fn readers_on_other_threads_never_see_a_torn_prefix() {
    const LAST: u64 = 3000;
    const READERS: usize = 3;
    // One slot fewer than readers, newest prefix and writer can hold, so that the pool is
    // exhausted, too.
    let (pool, handover) = (slots(READERS + 1), Handover::new());
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut newest = 0;
                while newest < LAST {
                    if let Some(snapshot) = handover.latest() {
                        let version = snapshot.meta().version;
                        assert!(version >= newest, "went back from {newest} to {version}");
                        check_complete(&snapshot);
                        newest = version;
                    }
                    std::thread::yield_now();
                }
            });
        }
        let mut version = 1;
        while version <= LAST {
            let Some(mut writer) = pool.writer() else {
                std::thread::yield_now();
                continue;
            };
            fill(&mut writer, version);
            handover.publish(writer.seal(meta(version))).unwrap();
            version += 1;
        }
    });
    assert_eq!(pool.free(), READERS, "all slots except the published one are free");
}

/// A random action; numbers select among the existing holders.
#[derive(Clone, Copy, Debug)]
enum Action {
    Begin,
    Seal(usize),
    Abandon(usize),
    Publish(usize),
    Read,
    Leave(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Begin),
        (0..9_usize).prop_map(Action::Seal),
        (0..9_usize).prop_map(Action::Abandon),
        (0..9_usize).prop_map(Action::Publish),
        Just(Action::Read),
        (0..9_usize).prop_map(Action::Leave),
    ]
}

/// Holders of slots.
#[derive(Default)]
struct Holders {
    writers: Vec<(u64, KvWriter)>,
    sealed: Vec<KvSnapshot>,
    readers: Vec<Arc<KvSnapshot>>,
    begun: u64,
}

impl Holders {
    fn act(&mut self, action: Action, pool: &SlotPool, handover: &Handover) {
        match action {
            Action::Begin => {
                if let Some(mut writer) = pool.writer() {
                    self.begun += 1;
                    fill(&mut writer, self.begun);
                    self.writers.push((self.begun, writer));
                }
            }
            Action::Seal(which) => {
                if let Some((version, writer)) = take(&mut self.writers, which) {
                    self.sealed.push(writer.seal(meta(version)));
                }
            }
            Action::Abandon(which) => drop(take(&mut self.writers, which)),
            Action::Publish(which) => {
                if let Some(snapshot) = take(&mut self.sealed, which) {
                    let newest = handover.latest().map_or(0, |newest| newest.meta().version);
                    let is_newer = snapshot.meta().version > newest;
                    assert_eq!(handover.publish(snapshot).is_ok(), is_newer);
                }
            }
            Action::Read => self.readers.extend(handover.latest()),
            Action::Leave(which) => drop(take(&mut self.readers, which)),
        }
    }

    /// Checks that every slot has one state: free, owned by one writer, or sealed.
    fn check(&self, pool: &SlotPool, handover: &Handover) {
        let newest = handover.latest();
        let shared: BTreeSet<*const Slot> = self
            .readers
            .iter()
            .chain(&newest)
            .map(|held| std::ptr::from_ref(held.slot()))
            .collect();
        let writers = self.writers.iter().map(|(_, writer)| std::ptr::from_ref(writer.slot()));
        let sealed = self.sealed.iter().map(|snapshot| std::ptr::from_ref(snapshot.slot()));
        let owned: Vec<*const Slot> = writers.chain(sealed).collect();
        let mut all = shared.clone();
        all.extend(&owned);
        assert_eq!(all.len(), shared.len() + owned.len(), "a slot has two owners");
        assert_eq!(pool.free() + all.len(), SLOTS, "a slot is lost or duplicated");
        self.readers.iter().for_each(|reader| check_complete(reader));
        self.sealed.iter().for_each(check_complete);
    }
}

fn take<T>(holders: &mut Vec<T>, which: usize) -> Option<T> {
    (!holders.is_empty()).then(|| holders.swap_remove(which % holders.len()))
}

proptest! {
    #[test]
    fn slots_are_never_lost_or_shared(
        script in prop::collection::vec(action(), 1..80)
    ) {
        let (pool, handover) = (slots(SLOTS), Handover::new());
        let mut holders = Holders::default();
        let mut newest = 0;
        for action in script {
            holders.act(action, &pool, &handover);
            holders.check(&pool, &handover);
            let version = handover.latest().map_or(0, |snapshot| snapshot.meta().version);
            prop_assert!(version >= newest);
            newest = version;
        }
        drop((holders, handover));
        prop_assert_eq!(pool.free(), SLOTS);
    }
}
