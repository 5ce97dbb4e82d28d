//! Events of a CUDA device.

#![expect(unsafe_code, reason = "calls the driver")]

use super::context::Context;
use super::event_context::EventContext;
use super::handle::EventHandle;
use crate::device::{Counter, DeviceError, Event};
use crate::sync::lock;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::CUresult;
use std::sync::{Arc, Mutex};

/// An event of the driver and its context, which is dropped after it.
pub(super) struct DriverEvent {
    handle: EventHandle,
    context: Arc<EventContext>,
}

impl DriverEvent {
    pub(super) fn handle(&self) -> &EventHandle {
        &self.handle
    }
}

/// Last recorded position of an event.
#[derive(Clone)]
pub(super) struct Position {
    /// Complete once the position is reached.
    pub(super) reached: Arc<DriverEvent>,
    /// Has the time at which the position was reached. Differs from `reached` if a graph
    /// records the event: the driver does not guarantee that an event recorded by a node is
    /// pending once the launch returns.
    pub(super) timed: Arc<DriverEvent>,
}

/// A position in a CUDA stream.
pub(super) struct CudaEvent {
    /// One event for each context whose streams recorded it.
    handles: Mutex<Vec<Arc<DriverEvent>>>,
    /// `None` before the first record: the driver reports an event that was
    /// never recorded as complete.
    position: Mutex<Option<Position>>,
    context: Arc<Context>,
}

impl CudaEvent {
    /// Creates an event for streams of the primary context; for other contexts, events are
    /// created at their first record.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let (handles, position) = (Mutex::default(), Mutex::default());
        let event = Self { handles, position, context: Arc::clone(context) };
        event.of(context.events())?;
        Ok(event)
    }

    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// Returns the driver's event for streams of `context`.
    pub(super) fn of(&self, context: &Arc<EventContext>) -> Result<Arc<DriverEvent>, DeviceError> {
        let mut handles = lock(&self.handles);
        if let Some(found) = handles.iter().find(|event| Arc::ptr_eq(&event.context, context)) {
            return Ok(Arc::clone(found));
        }
        self.context.bind()?;
        let handle = self.context.check("creating an event", context.create_event())?;
        let event = Arc::new(DriverEvent { handle, context: Arc::clone(context) });
        handles.push(Arc::clone(&event));
        Ok(event)
    }

    /// Stores the position at which the event was recorded, on a stream or within a graph.
    pub(super) fn recorded(&self, at: Position) {
        *lock(&self.position) = Some(at);
    }

    /// Returns the last recorded position.
    pub(super) fn position(&self) -> Option<Position> {
        lock(&self.position).clone()
    }
}

impl Event for CudaEvent {
    fn is_complete(&self) -> Result<bool, DeviceError> {
        let Some(position) = self.position() else { return Ok(false) };
        self.context.bind()?;
        // SAFETY: `position` keeps the event alive.
        match unsafe { result::event::query(position.reached.handle.raw()) } {
            Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            status => self.context.check("work before an event", status).map(|()| true),
        }
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.counters.count(Counter::HostWaits);
        let position = self.position();
        let position =
            position.ok_or(DeviceError::Misuse("waited for an event that was never recorded"))?;
        self.context.bind()?;
        // SAFETY: `position` keeps the event alive.
        let status = unsafe { result::event::synchronize(position.reached.handle.raw()) };
        self.context.check("work before an event", status)
    }

    fn completed_ns(&self) -> Option<u64> {
        if !self.is_complete().unwrap_or(false) {
            return None;
        }
        let timed = self.position()?.timed;
        timed.context.time_of(&timed.handle).ok()
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        // The handles that are dropped next need a current context. The driver keeps pending events
        // until they are reached.
        let _ = self.context.bind();
    }
}
