//! Memory of the host device.

#![expect(
    unsafe_code,
    reason = "allocates memory that work on streams reads and writes by address"
)]

use crate::device::access::Accesses;
use crate::device::buffer::HostSide;
use crate::device::{Buffer, Counter, DeviceError, HostAccess, Object, Traffic};
use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Every allocation starts on a cache line.
const ALIGNMENT: usize = 64;

/// Zeroed bytes at a fixed address, to which it hands out no reference.
pub(super) struct HostMemory {
    device: u64,
    start: NonNull<u8>,
    layout: Layout,
    /// Copies from or to here that were handed over and are not done.
    copies: AtomicUsize,
    accesses: Accesses,
    traffic: Arc<Traffic>,
    in_use: Arc<AtomicU64>,
}

// SAFETY: the pointer is an address. Whoever reads or writes there has begun an access first, which
// excludes those that do not go with it; this value itself only frees the memory.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// So many zeroed bytes; `None` if the host has not so many.
    pub(super) fn zeroed(
        device: u64,
        bytes: usize,
        traffic: &Arc<Traffic>,
        in_use: &Arc<AtomicU64>,
    ) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        traffic.count(Counter::Allocations);
        in_use.fetch_add(layout.size() as u64, Ordering::Relaxed);
        let (traffic, in_use) = (Arc::clone(traffic), Arc::clone(in_use));
        let (copies, accesses) = (AtomicUsize::new(0), Accesses::default());
        Some(Self { device, start, layout, copies, accesses, traffic, in_use })
    }

    pub(super) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// A copy was handed over, or (`false`) is done.
    pub(super) fn copying(&self, begins: bool) {
        if begins {
            self.copies.fetch_add(1, Ordering::AcqRel);
        } else {
            self.copies.fetch_sub(1, Ordering::AcqRel);
        }
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
        self.traffic.count(Counter::Frees);
        self.in_use.fetch_sub(self.layout.size() as u64, Ordering::Relaxed);
        // SAFETY: allocated with this layout in `zeroed`, and freed only here.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The memory that `buffer` is of; refuses memory of another device.
pub(super) fn of(buffer: &Buffer, device: u64) -> Result<&HostMemory, DeviceError> {
    let memory = any(buffer)?;
    if memory.device == device { Ok(memory) } else { Err(FOREIGN) }
}

fn any(buffer: &Buffer) -> Result<&HostMemory, DeviceError> {
    buffer.owner().downcast_ref().ok_or(FOREIGN)
}

const FOREIGN: DeviceError = DeviceError::Foreign(Object::Buffer);

impl<'a> HostAccess<'a> {
    /// Begins to read memory of a host device.
    ///
    /// # Errors
    /// If something is writing it, or it is no host device's.
    pub fn read(buffer: &'a Buffer) -> Result<Self, DeviceError> {
        any(buffer)?.accesses.begin(false)
    }

    /// Begins to write memory of a host device.
    ///
    /// # Errors
    /// If something is reading or writing it, or it is no host device's.
    pub fn write(buffer: &'a Buffer) -> Result<Self, DeviceError> {
        any(buffer)?.accesses.begin(true)
    }
}
