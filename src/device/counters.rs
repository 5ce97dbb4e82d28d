//! Counters of a device's allocations, copies, waits and launches, so that tests can check that
//! nothing is allocated after the start.

use std::ops::{Index, Sub};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One counter of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Allocations of device and staged memory.
    Allocations,
    /// Allocations that were freed.
    Frees,
    /// Copies from the host to the device.
    Uploads,
    /// Bytes copied from the host to the device.
    UploadedBytes,
    /// Copies from the device to the host.
    Downloads,
    /// Bytes copied from the device to the host.
    DownloadedBytes,
    /// Waits of the host for a stream or an event.
    HostWaits,
    /// Launched CUDA graphs.
    Launches,
}

impl Counter {
    /// Every counter, in declaration order.
    pub const ALL: [Self; 8] = [
        Self::Allocations,
        Self::Frees,
        Self::Uploads,
        Self::UploadedBytes,
        Self::Downloads,
        Self::DownloadedBytes,
        Self::HostWaits,
        Self::Launches,
    ];
}

/// Direction of a copy between the two sides of staged memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// From the host to the device.
    Upload,
    /// From the device to the host.
    Download,
}

/// Counters of one device since it was opened.
#[derive(Default, Debug)]
pub struct DeviceCounters([AtomicU64; Counter::ALL.len()]);

/// Snapshot of [`DeviceCounters`], indexed by [`Counter`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts([u64; Counter::ALL.len()]);

impl DeviceCounters {
    /// Adds one to `counter`.
    pub(super) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts one copy of `bytes` bytes.
    pub(super) fn copied(&self, direction: Direction, bytes: usize) {
        let (copies, copied_bytes) = match direction {
            Direction::Upload => (Counter::Uploads, Counter::UploadedBytes),
            Direction::Download => (Counter::Downloads, Counter::DownloadedBytes),
        };
        self.count(copies);
        self.add(copied_bytes, bytes as u64);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.0[counter as usize].fetch_add(amount, Relaxed);
    }

    /// Reads all counters.
    pub(super) fn counts(&self) -> Counts {
        Counts(self.0.each_ref().map(|counter| counter.load(Relaxed)))
    }
}

impl Index<Counter> for Counts {
    type Output = u64;

    fn index(&self, counter: Counter) -> &u64 {
        &self.0[counter as usize]
    }
}

impl Sub for Counts {
    type Output = Self;

    /// Returns the counts between two snapshots.
    fn sub(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] - earlier.0[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_subtract_counter_by_counter() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index, "{counter:?}");
        }
        let counters = DeviceCounters::default();
        counters.count(Counter::Allocations);
        let before = counters.counts();
        counters.copied(Direction::Upload, 7);
        counters.copied(Direction::Download, 9);
        counters.copied(Direction::Download, 2);
        let counts = counters.counts() - before;
        let found = Counter::ALL.map(|counter| counts[counter]);
        assert_eq!(found, [0, 0, 1, 7, 2, 11, 0, 0]);
    }
}
