//! Memory of a CUDA device, and pinned host memory.

#![expect(unsafe_code, reason = "allocates, zeroes and frees memory through the driver")]

use super::context::Context;
use super::stream::{RawStream, Users};
use crate::device::access::Accesses;
use crate::device::buffer::HostSide;
use crate::device::{Buffer, Counter, DeviceError, Object};
use cudarc::driver::result;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

/// Device memory.
pub(super) struct DeviceMemory {
    address: sys::CUdeviceptr,
    /// Streams that read or write the memory, which are waited for before it is freed. The driver
    /// does not guarantee that freeing waits for them.
    users: Users,
    context: Arc<Context>,
}

impl DeviceMemory {
    /// Allocates `bytes` bytes and waits until they are zeroed. Memory is allocated at start only,
    /// so the driver's synchronous allocation suffices; its addresses are aligned to 256 bytes.
    pub(super) fn zeroed(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let size = bytes.max(1);
        // SAFETY: the context is current, and the bytes are zeroed before anything reads them.
        let address = unsafe { result::malloc_sync(size) };
        let address = context.check_memory("allocating memory", size, address)?;
        context.counters.count(Counter::Allocations);
        let memory = Self { address, users: Users::default(), context: Arc::clone(context) };
        // SAFETY: `address` is valid for `size` bytes that nothing else uses yet. The stream is
        // waited for below, because the synchronous call may return before the memory is zeroed.
        let zeroed = unsafe { result::memset_d8_async(address, 0, size, context.setup().raw()) };
        context.check("zeroing memory", zeroed)?;
        context.wait_for_setup("zeroing memory")?;
        Ok(memory)
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Adds a stream that reads or writes the memory.
    pub(super) fn used_by(&self, stream: &Arc<RawStream>) {
        self.users.add(stream);
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _ = self.context.bind();
        self.users.wait();
        // SAFETY: `address` was allocated in `zeroed` and is freed only here, after the work of its
        // streams. The result is ignored: a lost device has freed the memory already.
        let _ = unsafe { result::free_sync(self.address) };
        self.context.counters.count(Counter::Frees);
    }
}

/// Pinned host memory, which the device copies from and to by DMA.
///
/// It is cached, not write-combined, because the host reads outputs from it.
pub(super) struct PinnedMemory {
    start: NonNull<c_void>,
    /// Streams that copy from or to the memory, which are waited for before it is freed.
    pub(super) users: Users,
    accesses: Accesses,
    context: Arc<Context>,
}

// SAFETY: `start` is only an address here; this value gives no references to the memory and only
// frees it.
unsafe impl Send for PinnedMemory {}
// SAFETY: as above.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    pub(super) fn zeroed(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let size = bytes.max(1);
        // SAFETY: the context is current, and the bytes are written before anything reads them.
        let start = unsafe { result::malloc_host(size, 0) };
        let start = context.check_memory("pinning host memory", size, start)?;
        context.counters.count(Counter::Allocations);
        let start = NonNull::new(start).expect("the driver reported success");
        // SAFETY: `start` is valid for `size` bytes that nothing else uses yet.
        unsafe { start.cast::<u8>().write_bytes(0, size) };
        let (users, accesses) = (Users::default(), Accesses::default());
        Ok(Self { start, users, accesses, context: Arc::clone(context) })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr().cast()
    }

    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }
}

impl HostSide for PinnedMemory {
    fn is_being_copied(&self) -> bool {
        // Querying the driver at every access would cost more than the access.
        false
    }

    fn accesses(&self) -> &Accesses {
        &self.accesses
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        let _ = self.context.bind();
        self.users.wait();
        // SAFETY: `start` was allocated in `zeroed` and is freed only here, after the work of the
        // streams that copy from or to it.
        let _ = unsafe { result::free_host(self.start.as_ptr()) };
        self.context.counters.count(Counter::Frees);
    }
}

/// Returns the memory of `buffer`; fails for memory of another device.
pub(super) fn own<'a>(
    buffer: &'a Buffer,
    context: &Arc<Context>,
) -> Result<&'a DeviceMemory, DeviceError> {
    match buffer.owner().downcast_ref::<DeviceMemory>() {
        Some(memory) if Arc::ptr_eq(&memory.context, context) => Ok(memory),
        _ => Err(DeviceError::Foreign(Object::Buffer)),
    }
}
