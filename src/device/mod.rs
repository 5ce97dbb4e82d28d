//! Devices: the host, or a GPU.
//!
//! A [`Device`] allocates memory ([`Buffer`], and [`Staged`] memory that host and device share),
//! and creates [`Stream`]s, which execute work in order, and [`Event`]s, which mark a position in a
//! stream. Enqueuing work does not wait for it; a stream waits for another stream's event without
//! the host. Nothing here synchronizes a whole device, and memory is allocated at start only.
//!
//! Three devices implement one behavior and pass one conformance suite:
//!
//! - [`HostDevice::new`], the default: work runs on the caller's thread when it is enqueued, and
//!   staged memory is device memory, so that nothing is copied;
//! - [`HostDevice::emulating`], which emulates a GPU: each stream is a thread, device memory is
//!   separate, and tests can delay or fail any operation;
//! - CUDA (feature `cuda`), whose driver is loaded at run time.
//!
//! Besides the errors listed at a method, every operation fails if the device is lost
//! ([`DeviceError::Lost`]), if an object belongs to another device ([`DeviceError::Foreign`]), or
//! if an allocation exceeds the free memory ([`DeviceError::OutOfMemory`]).

mod access;
mod buffer;
mod counters;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod host;
mod tensor;

pub use access::HostAccess;
pub use buffer::{Buffer, Staged, StagedRef, StagedRefMut};
pub use counters::{Counter, Counts, DeviceCounters};
pub use error::{DeviceError, Object};
pub use host::{Emulation, HostDevice, HostStream, Operation, OperationHook, OperationKind, Work};
pub use tensor::{DeviceTensor, DeviceView, DeviceViewMut, StagedTensor};

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A device with memory and streams.
pub trait Device: Send + Sync {
    /// Returns a description for tables and result files.
    fn name(&self) -> String;

    /// Returns free and total memory, or `None` if the device does not report it.
    fn memory(&self) -> Result<Option<MemoryInfo>, DeviceError>;

    /// Allocates zeroed device memory.
    fn allocate(&self, bytes: usize) -> Result<Buffer, DeviceError>;

    /// Allocates zeroed staged memory.
    fn stage(&self, bytes: usize) -> Result<Staged, DeviceError>;

    /// Creates the streams of the two experts. `fast_share` is the fraction of the device's
    /// multiprocessors, from 0 to 1, that is reserved for the fast stream; the slow stream has the
    /// rest. `None` shares all of them by stream priority. [`ExpertStreams::sharing`] reports
    /// whether the device was partitioned.
    fn streams(&self, fast_share: Option<f64>) -> Result<ExpertStreams, DeviceError>;

    /// Creates an event.
    fn event(&self) -> Result<Arc<dyn Event>, DeviceError>;

    /// Copies a buffer of the same length to the host and waits for the copy; for setup
    /// and tests, never on a tick.
    fn read(&self, from: &Buffer, into: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies host bytes of the same length to a buffer and waits for the copy; for setup
    /// and tests, never on a tick.
    fn write(&self, from: &[u8], into: &Buffer) -> Result<(), DeviceError>;

    /// Returns the counts of allocations, copies and waits.
    fn counts(&self) -> Counts;
}

/// A queue of work that is executed in order. Enqueuing returns at once; events
/// order the work of two streams.
pub trait Stream: Any + Send + Sync {
    /// Enqueues a copy from the host side to the device side.
    fn upload(&self, staged: &Staged) -> Result<(), DeviceError>;

    /// Enqueues a copy from the device side to the host side.
    fn download(&self, staged: &Staged) -> Result<(), DeviceError>;

    /// Enqueues a copy between two buffers of the same length.
    fn copy(&self, from: &Buffer, into: &Buffer) -> Result<(), DeviceError>;

    /// Records `event` at the current end of this stream, replacing its previous position.
    fn record(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError>;

    /// Makes later work of this stream wait for the current position of `event`, without blocking
    /// the host. Fails during a capture.
    fn wait(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError>;

    /// Starts capturing the calling thread's work on this stream into a graph instead of executing
    /// it. Fails during a capture.
    fn begin_capture(&self) -> Result<(), DeviceError>;

    /// Ends the capture and returns the graph. Fails without a capture, or if an
    /// operation cannot be captured.
    fn end_capture(&self) -> Result<Arc<dyn Graph>, DeviceError>;

    /// Enqueues a captured graph as one operation.
    fn launch(&self, graph: &Arc<dyn Graph>) -> Result<(), DeviceError>;

    /// Blocks the host until all enqueued work is finished. After a failed operation the stream
    /// skips further work, and events recorded later report the failure, until this is called.
    ///
    /// # Errors
    /// The failure of any operation since the last call.
    fn synchronize(&self) -> Result<(), DeviceError>;
}

/// A position in a stream.
pub trait Event: Any + Send + Sync {
    /// Returns true once the stream has reached the last recorded position; false if
    /// the event was never recorded.
    fn is_complete(&self) -> Result<bool, DeviceError>;

    /// Blocks the host until the stream has reached the last recorded position.
    ///
    /// # Errors
    /// The failure of an earlier operation of the stream, or that the event was never recorded.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// Returns the time at which the stream reached the position, on the clock of
    /// [`now_ns`](crate::timing::now_ns); `None` before. Differences of two times are measured by
    /// the device; their offset to the host clock comes from one reading of both clocks.
    fn completed_ns(&self) -> Option<u64>;
}

/// Work that was captured once and can be launched repeatedly (a CUDA graph on a GPU).
pub trait Graph: Any + Send + Sync {
    /// Returns the number of captured operations.
    fn nodes(&self) -> usize;
}

/// Streams of the two experts.
#[derive(Clone)]
pub struct ExpertStreams {
    pub fast: Arc<dyn Stream>,
    pub slow: Arc<dyn Stream>,
    pub sharing: Sharing,
}

/// How two streams share a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Each has its own multiprocessors (green contexts), counted here.
    Partitions {
        fast: u32,
        slow: u32,
    },
    /// Work of the fast stream has the higher stream priority.
    Priorities {
        /// Reason why a requested partition is not possible.
        instead: Option<String>,
    },
    Host,
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions { fast, slow } => {
                write!(f, "{fast} multiprocessors for the fast stream, {slow} for the slow stream")
            }
            Self::Priorities { instead: None } => f.write_str("stream priorities"),
            Self::Priorities { instead: Some(reason) } => {
                write!(f, "stream priorities, because the device cannot be partitioned: {reason}")
            }
            Self::Host => f.write_str("host threads"),
        }
    }
}

/// Memory of a device in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryInfo {
    pub free: u64,
    pub total: u64,
}
