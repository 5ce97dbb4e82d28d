//! Streams of a CUDA device.

#![expect(unsafe_code, reason = "hands work over to the driver")]

use super::context::Context;
use super::event::{CudaEvent, Place};
use super::event_context::EventContext;
use super::graph::{Captured, Copied, CudaGraph};
use super::handle::{GraphHandle, StreamHandle};
use super::memory::{self, PinnedMemory};
use crate::device::buffer::HostSide;
use crate::device::counters::Direction;
use crate::device::{Buffer, Counter, DeviceError, Event, Graph, Object, Staged, Stream};
use crate::sync::lock;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUstreamCaptureMode};
use std::any::Any;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// The driver's stream. What it was handed is done before it goes, so that memory that it reads or
/// writes never goes earlier than it is done with.
pub(super) struct RawStream {
    handle: StreamHandle,
    /// The context that the stream is of, a green one where it has multiprocessors of its own.
    /// Declared behind the stream, which goes first.
    home: Arc<EventContext>,
    context: Arc<Context>,
}

impl RawStream {
    pub(super) fn new(
        handle: StreamHandle,
        home: Arc<EventContext>,
        context: &Arc<Context>,
    ) -> Self {
        Self { handle, home, context: Arc::clone(context) }
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.handle.raw()
    }

    pub(super) fn handle(&self) -> &StreamHandle {
        &self.handle
    }

    /// The context that the stream is of.
    pub(super) fn home(&self) -> &Arc<EventContext> {
        &self.home
    }

    fn wait(&self) -> Result<(), result::DriverError> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.raw()) }
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // A lost device does nothing more: there is nothing to wait for, and nobody to tell.
        let _ = self.wait();
    }
}

/// The streams that something was handed to.
#[derive(Default)]
pub(super) struct Users(Mutex<Vec<Weak<RawStream>>>);

impl Users {
    /// Notes a stream; the second time costs a comparison.
    pub(super) fn note(&self, stream: &Arc<RawStream>) {
        let mut users = lock(&self.0);
        if !users.iter().any(|user| user.as_ptr() == Arc::as_ptr(stream)) {
            users.push(Arc::downgrade(stream));
        }
    }

    /// Waits for what they were handed so far. Those that are gone have done it.
    pub(super) fn wait(&self) {
        let users = lock(&self.0);
        for user in users.iter().filter_map(Weak::upgrade) {
            // A lost device has no work left that could touch what is waited for.
            let _ = user.wait();
        }
    }
}

/// A stream of a CUDA device.
///
/// A wrapper of a library hands its own work over through [`raw`](Self::raw), on a thread that made
/// the device's context [current](Self::make_current).
pub struct CudaStream {
    raw: Arc<RawStream>,
    /// What was handed over since a capture began; the lock also keeps a capture and the work of
    /// another thread apart.
    captured: Mutex<Option<Captured>>,
    context: Arc<Context>,
}

impl CudaStream {
    pub(super) fn new(raw: RawStream, context: &Arc<Context>) -> Self {
        Self { raw: Arc::new(raw), captured: Mutex::new(None), context: Arc::clone(context) }
    }

    /// The driver's stream (`CUstream`, `cudaStream_t`), valid as long as this value.
    pub fn raw(&self) -> *mut c_void {
        self.raw.raw().cast()
    }

    /// The device's primary context (`CUcontext`), valid as long as this value. It serves streams with
    /// multiprocessors of their own too.
    pub fn raw_context(&self) -> *mut c_void {
        self.context.raw().cast()
    }

    /// Makes the device's primary context the current one of this thread, which libraries' calls go
    /// to.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn make_current(&self) -> Result<(), DeviceError> {
        self.context.bind()
    }

    /// Refuses memory of another device; memory of this one is freed only after the stream's work.
    ///
    /// # Errors
    /// If `buffer` is none of this stream's device.
    pub fn check_memory(&self, buffer: &Buffer) -> Result<(), DeviceError> {
        memory::own(buffer, &self.context)?.used_by(&self.raw);
        Ok(())
    }

    /// True if this is a stream of the device that `context` belongs to.
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
        // A reference of the host that is alive now would be alive during the copy, too.
        host.accesses().begin(direction == Direction::Download)?;
        let (device_address, bytes) = (staged.buffer().address() as u64, staged.buffer().bytes());
        let mut captured = self.captured();
        self.context.bind()?;
        let (stream, start) = (self.raw.raw(), host.start().cast::<c_void>());
        match direction {
            Direction::Upload => {
                // SAFETY: `start` and `device_address` are valid for `bytes` bytes. Neither is freed
                // before the work of every stream that was noted for it (`Users`). That nobody touches
                // them meanwhile is the contract of `Staged`.
                let answer =
                    unsafe { sys::cuMemcpyHtoDAsync_v2(device_address, start, bytes, stream) };
                self.context.check("copying to the device", answer.result())?;
            }
            Direction::Download => {
                // SAFETY: as above.
                let answer =
                    unsafe { sys::cuMemcpyDtoHAsync_v2(start, device_address, bytes, stream) };
                self.context.check("copying to the host", answer.result())?;
            }
        }
        let copy = Copied { direction, bytes, host };
        match captured.as_mut() {
            Some(captured) => {
                captured.buffers.push(staged.buffer().clone());
                captured.copies.push(copy);
            }
            None => {
                copy.count(&self.context.traffic);
                copy.host.users.note(&self.raw);
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
        assert_eq!(from.bytes(), into.bytes(), "a copy of another length");
        self.check_memory(from)?;
        self.check_memory(into)?;
        let mut captured = self.captured();
        self.context.bind()?;
        let (source, target) = (from.address() as u64, into.address() as u64);
        // SAFETY: both are valid for `from.bytes()` bytes, and are freed only after the work of this
        // stream, which was noted for them.
        let answer =
            unsafe { result::memcpy_dtod_async(target, source, from.bytes(), self.raw.raw()) };
        self.context.check("copying on the device", answer)?;
        if let Some(captured) = captured.as_mut() {
            captured.buffers.extend([from.clone(), into.clone()]);
        }
        Ok(())
    }

    fn record(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        let event = self.own_event(event)?;
        let mut captured = self.captured();
        self.context.bind()?;
        let of_stream = event.of(self.raw.home())?;
        // Within a capture an event would only tie captures together; so flagged, every launch of the
        // graph reaches it.
        let flags = match &*captured {
            Some(_) => sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL,
            None => sys::CUevent_record_flags::CU_EVENT_RECORD_DEFAULT,
        };
        // SAFETY: both are alive and of one context; a captured event is kept by its graph.
        let answer = unsafe {
            sys::cuEventRecordWithFlags(of_stream.handle().raw(), self.raw.raw(), flags as u32)
        };
        self.context.check("recording an event", answer.result())?;
        match captured.as_mut() {
            Some(captured) => captured.events.push((event, of_stream)),
            None => event.recorded(Place { reached: Arc::clone(&of_stream), timed: of_stream }),
        }
        Ok(())
    }

    fn wait(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        let event = self.own_event(event)?;
        let captured = self.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("a capturing stream cannot wait for another"));
        }
        let Some(place) = event.place() else { return Ok(()) };
        self.context.bind()?;
        // SAFETY: both are alive; the driver notes the place that the event marks now.
        let answer = unsafe {
            result::stream::wait_event(
                self.raw.raw(),
                place.reached.handle().raw(),
                sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
            )
        };
        self.context.check("waiting for an event", answer)
    }

    /// Work is captured from the thread that calls this, which also ends the capture. A library's call
    /// that no launch would do again (allocating, copying and waiting) makes the capture fail rather
    /// than be missing from it: that is the driver's mode for one thread, which leaves other threads
    /// alone.
    fn begin_capture(&self) -> Result<(), DeviceError> {
        let mut captured = self.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("this stream is capturing already"));
        }
        self.context.bind()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and not the null stream.
        let answer = unsafe { result::stream::begin_capture(self.raw.raw(), mode) };
        self.context.check("beginning a capture", answer)?;
        *captured = Some(Captured::default());
        Ok(())
    }

    fn end_capture(&self) -> Result<Arc<dyn Graph>, DeviceError> {
        let mut slot = self.captured();
        let captured = slot.take().ok_or(DeviceError::Misuse("this stream is not capturing"))?;
        self.context.bind()?;
        // SAFETY: the stream is alive and capturing.
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
        self.context.traffic.count(Counter::Launches);
        graph.launch(&self.raw)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.traffic.count(Counter::HostWaits);
        if self.captured().is_some() {
            return Err(DeviceError::Misuse("a capturing stream has nothing to wait for"));
        }
        self.context.bind()?;
        self.context.check("work of a stream", self.raw.wait())
    }
}
