//! What a device was made to do, so that "nothing after the start" can be counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one device since it was opened.
#[derive(Default, Debug)]
pub struct Traffic {
    allocations: AtomicU64,
    frees: AtomicU64,
    uploads: AtomicU64,
    uploaded_bytes: AtomicU64,
    downloads: AtomicU64,
    downloaded_bytes: AtomicU64,
    host_waits: AtomicU64,
    launches: AtomicU64,
}

/// A reading of a device's [`Traffic`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Allocations of device and staged memory.
    pub allocations: u64,
    /// Of those, how many were given back.
    pub frees: u64,
    /// Copies from the host to the device.
    pub uploads: u64,
    /// Bytes of them.
    pub uploaded_bytes: u64,
    /// Copies from the device to the host.
    pub downloads: u64,
    /// Bytes of them.
    pub downloaded_bytes: u64,
    /// How often the host waited for a stream or an event.
    pub host_waits: u64,
    /// Graphs launched.
    pub launches: u64,
}

impl Traffic {
    /// One allocation.
    pub(super) fn allocated(&self) {
        self.allocations.fetch_add(1, Relaxed);
    }

    /// One allocation was given back.
    pub(super) fn freed(&self) {
        self.frees.fetch_add(1, Relaxed);
    }

    /// A copy to the device.
    pub(super) fn uploaded(&self, bytes: usize) {
        self.uploads.fetch_add(1, Relaxed);
        self.uploaded_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A copy to the host.
    pub(super) fn downloaded(&self, bytes: usize) {
        self.downloads.fetch_add(1, Relaxed);
        self.downloaded_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The host waited.
    pub(super) fn waited(&self) {
        self.host_waits.fetch_add(1, Relaxed);
    }

    /// A graph was launched.
    pub(super) fn launched(&self) {
        self.launches.fetch_add(1, Relaxed);
    }

    /// What was counted so far.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            allocations: self.allocations.load(Relaxed),
            frees: self.frees.load(Relaxed),
            uploads: self.uploads.load(Relaxed),
            uploaded_bytes: self.uploaded_bytes.load(Relaxed),
            downloads: self.downloads.load(Relaxed),
            downloaded_bytes: self.downloaded_bytes.load(Relaxed),
            host_waits: self.host_waits.load(Relaxed),
            launches: self.launches.load(Relaxed),
        }
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    /// What came between two readings.
    fn sub(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations - earlier.allocations,
            frees: self.frees - earlier.frees,
            uploads: self.uploads - earlier.uploads,
            uploaded_bytes: self.uploaded_bytes - earlier.uploaded_bytes,
            downloads: self.downloads - earlier.downloads,
            downloaded_bytes: self.downloaded_bytes - earlier.downloaded_bytes,
            host_waits: self.host_waits - earlier.host_waits,
            launches: self.launches - earlier.launches,
        }
    }
}
