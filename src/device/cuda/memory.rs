//! Memory of a CUDA device, and pinned memory of the host.

#![expect(unsafe_code, reason = "allocates, zeroes and frees memory of the driver")]

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

/// Zeroed bytes of the device.
pub(super) struct DeviceMemory {
    address: sys::CUdeviceptr,
    /// Streams whose work reads or writes them; they are waited for before the memory is freed. The
    /// driver only says that it may wait.
    users: Users,
    context: Arc<Context>,
}

impl DeviceMemory {
    /// So many zeroed bytes, there when this returns. Memory is given out at start, so the driver's
    /// plain allocation does, whose addresses are aligned to 256 bytes.
    pub(super) fn zeroed(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let size = bytes.max(1);
        // SAFETY: the context is current; nothing reads the bytes before they are zeroed.
        let address = unsafe { result::malloc_sync(size) };
        let address = context.check_memory("allocating memory", size, address)?;
        context.traffic.count(Counter::Allocations);
        let memory = Self { address, users: Users::default(), context: Arc::clone(context) };
        // SAFETY: so many bytes stand there, which nobody knows of yet. Zeroing goes to a stream,
        // since the driver's plain call may return before it is done.
        let zeroed = unsafe { result::memset_d8_async(address, 0, size, context.setup().raw()) };
        context.check("zeroing memory", zeroed)?;
        context.wait_for_setup("zeroing memory")?;
        Ok(memory)
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Notes a stream whose work reads or writes the memory.
    pub(super) fn used_by(&self, stream: &Arc<RawStream>) {
        self.users.note(stream);
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _ = self.context.bind();
        self.users.wait();
        // SAFETY: allocated in `zeroed`, and freed only here, after the work of its streams. On a lost device it is gone already.
        let _ = unsafe { result::free_sync(self.address) };
        self.context.traffic.count(Counter::Frees);
    }
}

/// Zeroed bytes of the host that the device copies from and to without the host's help.
///
/// They are cached as other memory is, not write-combined: the host reads outputs in them.
pub(super) struct PinnedMemory {
    start: NonNull<c_void>,
    /// Streams that copy from or to here; they are waited for before the memory goes.
    pub(super) users: Users,
    accesses: Accesses,
    context: Arc<Context>,
}

// SAFETY: the pointer is an address that work on streams reads and writes; this value hands out no
// reference into it and only frees it.
unsafe impl Send for PinnedMemory {}
// SAFETY: as above.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    pub(super) fn zeroed(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let size = bytes.max(1);
        // SAFETY: the context is current; the bytes are written before anyone reads them.
        let start = unsafe { result::malloc_host(size, 0) };
        let start = context.check_memory("pinning host memory", size, start)?;
        context.traffic.count(Counter::Allocations);
        let start = NonNull::new(start).expect("the driver reported success");
        // SAFETY: so many bytes stand there, which nobody knows of yet.
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
        // Only the driver knows, and asking it at every access would cost more than the access.
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
        // SAFETY: allocated in `zeroed`, freed only here, and the streams that copy from or to it have
        // done what they were handed.
        let _ = unsafe { result::free_host(self.start.as_ptr()) };
        self.context.traffic.count(Counter::Frees);
    }
}

/// Memory that is a device's; refuses that of another.
pub(super) fn own<'a>(
    buffer: &'a Buffer,
    context: &Arc<Context>,
) -> Result<&'a DeviceMemory, DeviceError> {
    match buffer.owner().downcast_ref::<DeviceMemory>() {
        Some(memory) if Arc::ptr_eq(&memory.context, context) => Ok(memory),
        _ => Err(DeviceError::Foreign(Object::Buffer)),
    }
}
