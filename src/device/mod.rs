//! Where bytes live and work is done: the host, or a GPU.
//!
//! A [`Device`] gives memory ([`Buffer`], and [`Staged`] memory that both sides reach), [`Stream`]s
//! on which work is done in order, and [`Event`]s that mark a place in a stream. Handing work over
//! never waits for it; a stream waits for another stream's event without the host. Nothing here
//! waits for a whole device, and memory is only given out at start.
//!
//! There are three devices of one behavior, held by one test suite:
//!
//! - [`HostDevice::new`], the embedded default: work runs when it is handed over, on the caller's
//!   thread, and staged memory is device memory, so that nothing is copied;
//! - [`HostDevice::emulating`], which behaves like a GPU without being one: each stream is a thread
//!   of its own, memory is apart from the host's, and tests may delay or break any piece of work;
//! - CUDA (feature `cuda`), whose driver is found at run time.

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
pub use counters::{Counter, Counts, Traffic};
pub use error::{DeviceError, Object};
pub use host::{Emulation, HostDevice, HostStream, Interruption, Kind, Piece, Work};
pub use tensor::{DeviceTensor, DeviceView, DeviceViewMut, StagedTensor};

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A place with memory and streams.
pub trait Device: Send + Sync {
    /// What it is, for tables and records.
    fn name(&self) -> String;

    /// Free and total memory; `None` if the device cannot tell.
    ///
    /// # Errors
    /// If the device is lost.
    fn memory(&self) -> Result<Option<MemoryInfo>, DeviceError>;

    /// Zeroed memory of the device.
    ///
    /// # Errors
    /// If there is not so much left, or the device is lost.
    fn allocate(&self, bytes: usize) -> Result<Buffer, DeviceError>;

    /// Zeroed memory that the host writes or reads and the device has a copy of.
    ///
    /// # Errors
    /// If there is not so much left, or the device is lost.
    fn stage(&self, bytes: usize) -> Result<Staged, DeviceError>;

    /// The streams of the two experts. `fast_share` is the part of the device's multiprocessors, from
    /// 0 to 1, that the fast lane has for itself, the slow lane having the rest; `None` leaves both to
    /// the device's priorities. A device that cannot be split says so in [`Lanes::sharing`].
    ///
    /// # Errors
    /// If the device is lost.
    fn lanes(&self, fast_share: Option<f64>) -> Result<Lanes, DeviceError>;

    /// A new event, which no stream has reached.
    ///
    /// # Errors
    /// If the device is lost.
    fn event(&self) -> Result<Arc<dyn Event>, DeviceError>;

    /// Copies a buffer's bytes to the host and waits until they are there: for setting up and for
    /// tests, never on a tick.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If the lengths differ.
    fn read(&self, from: &Buffer, into: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies the host's bytes to a buffer and waits until they are there: for setting up and for
    /// tests, never on a tick.
    ///
    /// # Errors
    /// If the device is lost.
    ///
    /// # Panics
    /// If the lengths differ.
    fn write(&self, from: &[u8], into: &Buffer) -> Result<(), DeviceError>;

    /// What was allocated, copied and waited for so far.
    fn counts(&self) -> Counts;
}

/// Work in order. Handing work over returns at once; the order of two streams is given by events.
pub trait Stream: Any + Send + Sync {
    /// Copies what the host wrote to the device.
    ///
    /// # Errors
    /// If the device is lost or the memory is another device's.
    fn upload(&self, staged: &Staged) -> Result<(), DeviceError>;

    /// Copies the device's bytes to where the host reads them.
    ///
    /// # Errors
    /// If the device is lost or the memory is another device's.
    fn download(&self, staged: &Staged) -> Result<(), DeviceError>;

    /// Copies from one buffer of the device to another.
    ///
    /// # Errors
    /// If the device is lost or the memory is another device's.
    ///
    /// # Panics
    /// If the lengths differ.
    fn copy(&self, from: &Buffer, into: &Buffer) -> Result<(), DeviceError>;

    /// Marks this place of the stream by `event`; what it marked before is forgotten.
    ///
    /// # Errors
    /// If the device is lost or the event is another device's.
    fn record(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError>;

    /// Lets later work of this stream wait until another stream has reached the place that `event`
    /// marks now. The host does not wait.
    ///
    /// # Errors
    /// If the device is lost, the event is another device's, or this stream is capturing.
    fn wait(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError>;

    /// From here on this thread's work is noted instead of done.
    ///
    /// # Errors
    /// If the stream is capturing already, or the device is lost.
    fn begin_capture(&self) -> Result<(), DeviceError>;

    /// Ends noting; gives what was noted.
    ///
    /// # Errors
    /// If the stream is not capturing, or something handed over since cannot be captured.
    fn end_capture(&self) -> Result<Arc<dyn Graph>, DeviceError>;

    /// Does everything that was noted, as one piece of work.
    ///
    /// # Errors
    /// If the device is lost or the graph is another device's.
    fn launch(&self, graph: &Arc<dyn Graph>) -> Result<(), DeviceError>;

    /// Waits on the host until all work handed over so far is done. Work that fails lets the stream
    /// leave out what comes behind it, and every event behind it tells so, until this is called.
    ///
    /// # Errors
    /// What any of it failed with since the last call.
    fn synchronize(&self) -> Result<(), DeviceError>;
}

/// A place in a stream.
pub trait Event: Any + Send + Sync {
    /// True once the stream has reached the place marked last; false before the first record.
    ///
    /// # Errors
    /// If the device is lost.
    fn is_complete(&self) -> Result<bool, DeviceError>;

    /// Waits on the host until the stream has reached the place marked last.
    ///
    /// # Errors
    /// What work before that place failed with, or that the event was never recorded.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// When the stream reached that place, as [`now_ns`](crate::timing::now_ns) counts; `None` while
    /// it has not. Differences are the device's own, the offset is from one reading of both clocks.
    fn completed_ns(&self) -> Option<u64>;
}

/// Work that was captured once and is launched many times.
pub trait Graph: Any + Send + Sync {
    /// Pieces of work in it.
    fn pieces(&self) -> usize;
}

/// The streams of the two experts.
#[derive(Clone)]
pub struct Lanes {
    /// Stream of the fast expert.
    pub fast: Arc<dyn Stream>,
    /// Stream of the slow expert.
    pub slow: Arc<dyn Stream>,
    /// How the two share the device.
    pub sharing: Sharing,
}

/// How two streams share a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Each has multiprocessors of its own (green contexts).
    Partitions {
        /// Multiprocessors of the fast lane.
        fast: u32,
        /// Multiprocessors of the slow lane.
        slow: u32,
    },
    /// The fast lane's work goes first where both are ready.
    Priorities {
        /// Why the device is not split, if that was asked for.
        instead: Option<String>,
    },
    /// Both are the host's.
    Host,
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions { fast, slow } => {
                write!(f, "{fast} multiprocessors for the fast lane, {slow} for the slow one")
            }
            Self::Priorities { instead: None } => f.write_str("stream priorities"),
            Self::Priorities { instead: Some(reason) } => {
                write!(f, "stream priorities, as the device cannot be split: {reason}")
            }
            Self::Host => f.write_str("host threads"),
        }
    }
}

/// A device's memory, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryInfo {
    /// Not given out.
    pub free: u64,
    /// In all.
    pub total: u64,
}
