//! Memory of the host device.

#![expect(unsafe_code, reason = "allocates memory that streams read and write by address")]

use crate::device::access::{Access, Accesses};
use crate::device::buffer::HostSide;
use crate::device::{Buffer, Counter, DeviceCounters, DeviceError, HostAccess, Object};
use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Cache-line alignment of every allocation.
const ALIGNMENT: usize = 64;

/// Bytes at a fixed address, to which this type gives no references.
pub(super) struct HostMemory {
    device: u64,
    start: NonNull<u8>,
    layout: Layout,
    /// Number of enqueued copies from or to this memory that are not finished.
    copies: AtomicUsize,
    accesses: Accesses,
    counters: Arc<DeviceCounters>,
    in_use: Arc<AtomicU64>,
}

// SAFETY: `start` is only an address here. Every read or write begins an access first, which
// excludes conflicting ones; this value itself only frees the memory.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Allocates `bytes` zeroed bytes; returns `None` if the host is out of memory.
    pub(super) fn zeroed(
        device: u64,
        bytes: usize,
        counters: &Arc<DeviceCounters>,
        in_use: &Arc<AtomicU64>,
    ) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the size of `layout` is not zero.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        counters.count(Counter::Allocations);
        in_use.fetch_add(layout.size() as u64, Ordering::Relaxed);
        let (counters, in_use) = (Arc::clone(counters), Arc::clone(in_use));
        let (copies, accesses) = (AtomicUsize::new(0), Accesses::default());
        Some(Self { device, start, layout, copies, accesses, counters, in_use })
    }

    pub(super) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Counts an enqueued copy.
    pub(super) fn copy_enqueued(&self) {
        self.copies.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts an enqueued copy as finished.
    pub(super) fn copy_finished(&self) {
        self.copies.fetch_sub(1, Ordering::AcqRel);
    }
}

impl HostSide for HostMemory {
    fn is_being_copied(&self) -> bool {
        self.copies.load(Ordering::Acquire) > 0
    }

    fn accesses(&self) -> &Accesses {
        &self.accesses
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.counters.count(Counter::Frees);
        self.in_use.fetch_sub(self.layout.size() as u64, Ordering::Relaxed);
        // SAFETY: `start` was allocated with `layout` in `zeroed` and is freed only here.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Returns the memory of `buffer`; fails for memory of another device.
pub(super) fn of(buffer: &Buffer, device: u64) -> Result<&HostMemory, DeviceError> {
    let memory = any(buffer)?;
    if memory.device == device { Ok(memory) } else { Err(FOREIGN) }
}

fn any(buffer: &Buffer) -> Result<&HostMemory, DeviceError> {
    buffer.owner().downcast_ref().ok_or(FOREIGN)
}

const FOREIGN: DeviceError = DeviceError::Foreign(Object::Buffer);

impl<'a> HostAccess<'a> {
    /// Begins a read access to memory of a host device. Fails during a write access, or if the
    /// memory is not a host device's.
    pub fn read(buffer: &'a Buffer) -> Result<Self, DeviceError> {
        any(buffer)?.accesses.begin(Access::Read)
    }

    /// Begins a write access to memory of a host device. Fails during any access, or if the
    /// memory is not a host device's.
    pub fn write(buffer: &'a Buffer) -> Result<Self, DeviceError> {
        any(buffer)?.accesses.begin(Access::Write)
    }
}
