//! The host as a device, and emulation of a GPU.

#![expect(unsafe_code, reason = "builds staged memory from its allocations, copies by address")]

mod event;
mod memory;
mod stream;

pub use stream::{HostStream, Operation, OperationKind, Work};

use self::event::HostEvent;
use self::memory::HostMemory;
use super::access::Access;
use super::buffer::HostSide;
use super::{
    Buffer, Counts, Device, DeviceCounters, DeviceError, Event, ExpertStreams, MemoryInfo, Sharing,
    Staged,
};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Device number of the host, shared by all values of [`HostDevice::new`].
const THE_HOST: u64 = 0;

/// Next number of an emulated device, by which a device recognizes its own memory.
static NEXT: AtomicU64 = AtomicU64::new(THE_HOST + 1);

/// Hook that an emulated device calls before each operation, on the stream's thread. Its duration
/// counts as duration of the operation, and its error as failure of the operation.
pub type OperationHook = dyn Fn(&Operation) -> Result<(), DeviceError> + Send + Sync;

/// Behavior of an emulated device.
#[derive(Clone)]
pub struct Emulation {
    /// Called before each operation.
    pub before: Arc<OperationHook>,
    /// Size of the device memory in bytes; `None` for no limit.
    pub memory_bytes: Option<u64>,
}

impl Default for Emulation {
    /// Adds no delay and no failure.
    fn default() -> Self {
        Self { before: Arc::new(|_| Ok(())), memory_bytes: None }
    }
}

/// The host, or an emulated device.
pub struct HostDevice {
    id: u64,
    emulation: Option<Emulation>,
    counters: Arc<DeviceCounters>,
    in_use: Arc<AtomicU64>,
}

impl HostDevice {
    /// Creates the host device, which runs work on the caller's thread when it is enqueued.
    pub fn new() -> Self {
        Self { id: THE_HOST, emulation: None, counters: Arc::default(), in_use: Arc::default() }
    }

    /// Creates an emulated device with one thread per stream and separate memory.
    pub fn emulating(emulation: Emulation) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, emulation: Some(emulation), ..Self::new() }
    }

    fn memory_for(&self, bytes: usize) -> Result<Arc<HostMemory>, DeviceError> {
        let limit = self.emulation.as_ref().and_then(|emulation| emulation.memory_bytes);
        let used = self.in_use.load(Ordering::Relaxed);
        if let Some(limit) = limit.filter(|&limit| used + bytes as u64 > limit) {
            return Err(self.out_of_memory(bytes, &format!("{} bytes", limit - used)));
        }
        HostMemory::zeroed(self.id, bytes, &self.counters, &self.in_use)
            .map(Arc::new)
            .ok_or_else(|| self.out_of_memory(bytes, "an unknown amount"))
    }

    fn out_of_memory(&self, requested: usize, free: &str) -> DeviceError {
        DeviceError::OutOfMemory { device: self.name(), requested, free: free.to_owned() }
    }

    fn stream(&self, stream: &'static str) -> Result<Arc<HostStream>, DeviceError> {
        HostStream::start(stream, self.id, self.emulation.clone(), Arc::clone(&self.counters))
            .map(Arc::new)
            .map_err(|error| DeviceError::Failed {
                what: format!("spawning the thread of the {stream} stream"),
                reason: error.to_string(),
            })
    }
}

impl Default for HostDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl Device for HostDevice {
    fn name(&self) -> String {
        if self.emulation.is_some() { "an emulated device" } else { "the host" }.to_owned()
    }

    fn memory(&self) -> Result<Option<MemoryInfo>, DeviceError> {
        let total = self.emulation.as_ref().and_then(|emulation| emulation.memory_bytes);
        let used = self.in_use.load(Ordering::Relaxed);
        Ok(total.map(|total| MemoryInfo { free: total - used, total }))
    }

    fn allocate(&self, bytes: usize) -> Result<Buffer, DeviceError> {
        let memory = self.memory_for(bytes)?;
        Ok(Buffer::new(memory.address(), bytes, memory))
    }

    fn stage(&self, bytes: usize) -> Result<Staged, DeviceError> {
        let host = self.memory_for(bytes)?;
        let buffer = match &self.emulation {
            None => Buffer::new(host.address(), bytes, Arc::clone(&host) as _),
            Some(_) => self.allocate(bytes)?,
        };
        // SAFETY: `host` owns `bytes` zeroed bytes at this address and gives no references to them.
        Ok(unsafe { Staged::new(host.address() as *mut u8, host, buffer) })
    }

    fn streams(&self, _: Option<f64>) -> Result<ExpertStreams, DeviceError> {
        Ok(ExpertStreams {
            fast: self.stream("fast")?,
            slow: self.stream("slow")?,
            sharing: Sharing::Host,
        })
    }

    fn event(&self) -> Result<Arc<dyn Event>, DeviceError> {
        Ok(Arc::new(HostEvent::new(self.id, Arc::clone(&self.counters))))
    }

    fn read(&self, from: &Buffer, into: &mut [u8]) -> Result<(), DeviceError> {
        assert_eq!(from.bytes(), into.len(), "the lengths of a copy differ");
        let _reads = memory::of(from, self.id)?.accesses().begin(Access::Read)?;
        // SAFETY: `from` is valid for `into.len()` initialized bytes while it is borrowed, `into`
        // does not overlap it, and the access excludes writes to `from`.
        unsafe {
            ptr::copy_nonoverlapping(from.address() as *const u8, into.as_mut_ptr(), into.len());
        }
        Ok(())
    }

    fn write(&self, from: &[u8], into: &Buffer) -> Result<(), DeviceError> {
        assert_eq!(from.len(), into.bytes(), "the lengths of a copy differ");
        let _writes = memory::of(into, self.id)?.accesses().begin(Access::Write)?;
        // SAFETY: as in `read`, in the other direction; the access excludes all other accesses to
        // `into`.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), into.address() as *mut u8, from.len());
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counters.counts()
    }
}
