//! Streams of a CUDA device.

#![expect(unsafe_code, reason = "enqueues work through the driver")]

use super::context::Context;
use super::event::{CudaEvent, Position};
use super::event_context::EventContext;
use super::graph::{Captured, Copied, CudaGraph};
use super::handle::{GraphHandle, StreamHandle};
use super::memory::{self, PinnedMemory};
use crate::device::access::Access;
use crate::device::buffer::HostSide;
use crate::device::counters::Direction;
use crate::device::{Buffer, Counter, DeviceError, Event, Graph, Object, Staged, Stream};
use crate::sync::lock;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUstreamCaptureMode};
use std::any::Any;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// A stream of the driver. Dropping it waits for its work, so that memory is not
/// freed while the stream uses it.
pub(super) struct RawStream {
    handle: StreamHandle,
    /// Context of the stream, a green one on a partitioned device. Declared after the stream,
    /// which must be dropped first.
    event_context: Arc<EventContext>,
    context: Arc<Context>,
}

impl RawStream {
    pub(super) fn new(
        handle: StreamHandle,
        event_context: Arc<EventContext>,
        context: &Arc<Context>,
    ) -> Self {
        Self { handle, event_context, context: Arc::clone(context) }
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.handle.raw()
    }

    pub(super) fn handle(&self) -> &StreamHandle {
        &self.handle
    }

    /// Returns the context of the stream.
    pub(super) fn event_context(&self) -> &Arc<EventContext> {
        &self.event_context
    }

    fn wait(&self) -> Result<(), result::DriverError> {
        // SAFETY: `self.handle` is alive.
        unsafe { result::stream::synchronize(self.raw()) }
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // Ignored: a lost device has no work to wait for.
        let _ = self.wait();
    }
}

/// Streams that use an object.
#[derive(Default)]
pub(super) struct Users(Mutex<Vec<Weak<RawStream>>>);

impl Users {
    /// Adds a stream, unless it was added before.
    pub(super) fn add(&self, stream: &Arc<RawStream>) {
        let mut users = lock(&self.0);
        if !users.iter().any(|user| user.as_ptr() == Arc::as_ptr(stream)) {
            users.push(Arc::downgrade(stream));
        }
    }

    /// Waits for the enqueued work of all streams. Dropped streams have finished theirs.
    pub(super) fn wait(&self) {
        let users = lock(&self.0);
        for user in users.iter().filter_map(Weak::upgrade) {
            // Ignored: a lost device has no work that could access the object.
            let _ = user.wait();
        }
    }
}

/// A stream of a CUDA device.
///
/// Wrappers of libraries enqueue their own work through [`raw`](Self::raw), on a thread in which
/// the device's context is [current](Self::make_current).
pub struct CudaStream {
    raw: Arc<RawStream>,
    /// State of a capture. The lock also separates a capture from work of other threads.
    captured: Mutex<Option<Captured>>,
    context: Arc<Context>,
}

impl CudaStream {
    pub(super) fn new(raw: RawStream, context: &Arc<Context>) -> Self {
        Self { raw: Arc::new(raw), captured: Mutex::new(None), context: Arc::clone(context) }
    }

    /// Returns the driver's stream (`CUstream`, `cudaStream_t`), valid as long as this value.
    pub fn raw(&self) -> *mut c_void {
        self.raw.raw().cast()
    }

    /// Returns the device's primary context (`CUcontext`), valid as long as this value and usable
    /// also for streams of a partitioned device.
    pub fn raw_context(&self) -> *mut c_void {
        self.context.raw().cast()
    }

    /// Makes the device's primary context current in this thread, as library calls require.
    pub fn make_current(&self) -> Result<(), DeviceError> {
        self.context.bind()
    }

    /// Registers the stream as a user of `buffer`, which is then freed only after the stream's
    /// work. Fails if the buffer belongs to another device.
    pub fn check_memory(&self, buffer: &Buffer) -> Result<(), DeviceError> {
        memory::own(buffer, &self.context)?.used_by(&self.raw);
        Ok(())
    }

    /// Returns true if this is a stream of the device of `context`.
    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    fn captured(&self) -> MutexGuard<'_, Option<Captured>> {
        lock(&self.captured)
    }

    fn own_event(&self, event: &Arc<dyn Event>) -> Result<Arc<CudaEvent>, DeviceError> {
        let event: Arc<dyn Any + Send + Sync> = Arc::clone(event) as _;
        match event.downcast::<CudaEvent>() {
            Ok(event) if event.is_of(&self.context) => Ok(event),
            _ => Err(DeviceError::Foreign(Object::Event)),
        }
    }

    /// Copies between the two sides of staged memory.
    fn copy_staged(&self, staged: &Staged, direction: Direction) -> Result<(), DeviceError> {
        self.check_memory(staged.buffer())?;
        let host = staged.host_owner().downcast::<PinnedMemory>();
        let host = host.ok().filter(|host| host.is_of(&self.context));
        let host = host.ok_or(DeviceError::Foreign(Object::Buffer))?;
        // Fails if the host holds a conflicting reference, which could outlive the start of the
        // copy.
        host.accesses().begin(match direction {
            Direction::Upload => Access::Read,
            Direction::Download => Access::Write,
        })?;
        let (device_address, bytes) = (staged.buffer().address() as u64, staged.buffer().bytes());
        let mut captured = self.captured();
        self.context.bind()?;
        let (stream, start) = (self.raw.raw(), host.start().cast::<c_void>());
        match direction {
            Direction::Upload => {
                // SAFETY: `start` and `device_address` are valid for `bytes` bytes and are freed
                // only after the work of the streams that use them (`Users`). The contract of
                // `Staged` excludes conflicting accesses.
                let status =
                    unsafe { sys::cuMemcpyHtoDAsync_v2(device_address, start, bytes, stream) };
                self.context.check("copying to the device", status.result())?;
            }
            Direction::Download => {
                // SAFETY: as above.
                let status =
                    unsafe { sys::cuMemcpyDtoHAsync_v2(start, device_address, bytes, stream) };
                self.context.check("copying to the host", status.result())?;
            }
        }
        let copy = Copied { direction, bytes, host };
        match captured.as_mut() {
            Some(captured) => {
                captured.buffers.push(staged.buffer().clone());
                captured.copies.push(copy);
            }
            None => {
                copy.count(&self.context.counters);
                copy.host.users.add(&self.raw);
            }
        }
        Ok(())
    }
}

impl Stream for CudaStream {
    fn upload(&self, staged: &Staged) -> Result<(), DeviceError> {
        self.copy_staged(staged, Direction::Upload)
    }

    fn download(&self, staged: &Staged) -> Result<(), DeviceError> {
        self.copy_staged(staged, Direction::Download)
    }

    fn copy(&self, from: &Buffer, into: &Buffer) -> Result<(), DeviceError> {
        assert_eq!(from.bytes(), into.bytes(), "the lengths of a copy differ");
        self.check_memory(from)?;
        self.check_memory(into)?;
        let mut captured = self.captured();
        self.context.bind()?;
        let (source, target) = (from.address() as u64, into.address() as u64);
        // SAFETY: `source` and `target` are valid for `from.bytes()` bytes and are freed only after
        // the work of this stream, which `check_memory` registered as a user.
        let status =
            unsafe { result::memcpy_dtod_async(target, source, from.bytes(), self.raw.raw()) };
        self.context.check("copying on the device", status)?;
        if let Some(captured) = captured.as_mut() {
            captured.buffers.extend([from.clone(), into.clone()]);
        }
        Ok(())
    }

    fn record(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        let event = self.own_event(event)?;
        let mut captured = self.captured();
        self.context.bind()?;
        let of_stream = event.of(self.raw.event_context())?;
        // With this flag, an event in a capture is recorded at every launch of the graph. Without
        // it, the event would only order captures.
        let flags = match &*captured {
            Some(_) => sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL,
            None => sys::CUevent_record_flags::CU_EVENT_RECORD_DEFAULT,
        };
        // SAFETY: the event and the stream are alive and belong to one context; a captured event is
        // kept alive by its graph.
        let status = unsafe {
            sys::cuEventRecordWithFlags(of_stream.handle().raw(), self.raw.raw(), flags as u32)
        };
        self.context.check("recording an event", status.result())?;
        match captured.as_mut() {
            Some(captured) => captured.events.push((event, of_stream)),
            None => event.recorded(Position { reached: Arc::clone(&of_stream), timed: of_stream }),
        }
        Ok(())
    }

    fn wait(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        let event = self.own_event(event)?;
        let captured = self.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("a capturing stream cannot wait for an event"));
        }
        let Some(position) = event.position() else { return Ok(()) };
        self.context.bind()?;
        // SAFETY: the event and the stream are alive; the driver uses the current position of the
        // event.
        let status = unsafe {
            result::stream::wait_event(
                self.raw.raw(),
                position.reached.handle().raw(),
                sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
            )
        };
        self.context.check("waiting for an event", status)
    }

    /// Captures work of the calling thread, which must also end the capture. In the thread-local
    /// mode, a library call that a graph cannot contain (a synchronous allocation, copy or wait)
    /// invalidates the capture instead of being omitted, and other threads are not affected.
    fn begin_capture(&self) -> Result<(), DeviceError> {
        let mut captured = self.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("this stream is already capturing"));
        }
        self.context.bind()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: `self.raw` is alive and not the null stream.
        let status = unsafe { result::stream::begin_capture(self.raw.raw(), mode) };
        self.context.check("beginning a capture", status)?;
        *captured = Some(Captured::default());
        Ok(())
    }

    fn end_capture(&self) -> Result<Arc<dyn Graph>, DeviceError> {
        let mut slot = self.captured();
        let captured = slot.take().ok_or(DeviceError::Misuse("this stream is not capturing"))?;
        self.context.bind()?;
        // SAFETY: `self.raw` is alive and capturing.
        let graph = unsafe { result::stream::end_capture(self.raw.raw()) };
        let graph = self.context.check("capturing a graph", graph)?;
        let graph = (!graph.is_null()).then(|| GraphHandle::new(graph));
        Ok(Arc::new(CudaGraph::new(graph, captured, &self.raw, &self.context)?))
    }

    fn launch(&self, graph: &Arc<dyn Graph>) -> Result<(), DeviceError> {
        let graph: Arc<dyn Any + Send + Sync> = Arc::clone(graph) as _;
        let graph = graph.downcast::<CudaGraph>().ok().filter(|graph| graph.is_of(&self.context));
        let graph = graph.ok_or(DeviceError::Foreign(Object::Graph))?;
        let captured = self.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("a capturing stream cannot launch a graph"));
        }
        self.context.bind()?;
        self.context.counters.count(Counter::Launches);
        graph.launch(&self.raw)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.counters.count(Counter::HostWaits);
        if self.captured().is_some() {
            return Err(DeviceError::Misuse("a capturing stream cannot be synchronized"));
        }
        self.context.bind()?;
        self.context.check("work of a stream", self.raw.wait())
    }
}
