//! The host as a device.

#![expect(unsafe_code, reason = "staged memory is made of this device's own allocations")]

mod event;
mod memory;
mod stream;

pub use stream::{HostStream, Kind, Piece, Work};

use self::event::HostEvent;
use self::memory::HostMemory;
use super::buffer::HostSide;
use super::{
    Buffer, Counts, Device, DeviceError, Event, Lanes, MemoryInfo, Sharing, Staged, Traffic,
};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The host as it is, of which there is one, however many values stand for it.
const THE_HOST: u64 = 0;

/// Numbers the emulated devices of this process, so that each knows its own memory.
static NEXT: AtomicU64 = AtomicU64::new(THE_HOST + 1);

/// What is asked before each piece of work of an emulated device, on its stream's thread. It may
/// take its time, which is then the work's, and what it fails with is what the work failed with.
pub type Interruption = dyn Fn(&Piece) -> Result<(), DeviceError> + Send + Sync;

/// How an emulated device behaves.
#[derive(Clone)]
pub struct Emulation {
    /// Asked before each piece of work.
    pub before: Arc<Interruption>,
    /// Bytes that can be allocated in all; `None`: as many as the host gives.
    pub memory_bytes: Option<u64>,
}

impl Default for Emulation {
    /// Nothing is late and nothing fails.
    fn default() -> Self {
        Self { before: Arc::new(|_| Ok(())), memory_bytes: None }
    }
}

/// The host's memory and threads.
pub struct HostDevice {
    id: u64,
    emulation: Option<Emulation>,
    traffic: Arc<Traffic>,
    /// Bytes given out and not given back.
    in_use: Arc<AtomicU64>,
}

impl HostDevice {
    /// The host as it is: work runs when it is handed over, on the caller's thread.
    pub fn new() -> Self {
        Self { id: THE_HOST, emulation: None, traffic: Arc::default(), in_use: Arc::default() }
    }

    /// A device apart from the host, with a thread per stream and copies between the two memories.
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
        HostMemory::zeroed(self.id, bytes, &self.traffic, &self.in_use)
            .map(Arc::new)
            .ok_or_else(|| self.out_of_memory(bytes, "how many is unknown"))
    }

    fn out_of_memory(&self, asked: usize, free: &str) -> DeviceError {
        DeviceError::OutOfMemory { device: self.name(), asked, free: free.to_owned() }
    }

    fn stream(&self, lane: &'static str) -> Result<Arc<HostStream>, DeviceError> {
        HostStream::start(lane, self.id, self.emulation.clone(), Arc::clone(&self.traffic))
            .map(Arc::new)
            .map_err(|error| DeviceError::Failed {
                what: format!("starting the thread of the {lane} lane"),
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
        // SAFETY: `host` holds so many zeroed bytes, and hands out no reference to them.
        Ok(unsafe { Staged::new(host.address() as *mut u8, host, buffer) })
    }

    fn lanes(&self, _: Option<f64>) -> Result<Lanes, DeviceError> {
        Ok(Lanes { fast: self.stream("fast")?, slow: self.stream("slow")?, sharing: Sharing::Host })
    }

    fn event(&self) -> Result<Arc<dyn Event>, DeviceError> {
        Ok(Arc::new(HostEvent::new(self.id, Arc::clone(&self.traffic))))
    }

    fn read(&self, from: &Buffer, into: &mut [u8]) -> Result<(), DeviceError> {
        assert_eq!(from.bytes(), into.len(), "a copy of another length");
        let _reads = memory::of(from, self.id)?.accesses().begin(false)?;
        // SAFETY: the buffer holds so many initialized bytes as long as it is borrowed, `into` is the
        // host's own, and nobody writes the buffer during the access.
        unsafe {
            ptr::copy_nonoverlapping(from.address() as *const u8, into.as_mut_ptr(), into.len());
        }
        Ok(())
    }

    fn write(&self, from: &[u8], into: &Buffer) -> Result<(), DeviceError> {
        assert_eq!(from.len(), into.bytes(), "a copy of another length");
        let _writes = memory::of(into, self.id)?.accesses().begin(true)?;
        // SAFETY: as in `read`, the other way round; nobody else reads or writes it meanwhile.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), into.address() as *mut u8, from.len());
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.traffic.counts()
    }
}
