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

/// An event of the driver, with the context that it belongs to, which goes after it.
pub(super) struct DriverEvent {
    handle: EventHandle,
    home: Arc<EventContext>,
}

impl DriverEvent {
    pub(super) fn handle(&self) -> &EventHandle {
        &self.handle
    }
}

/// Where an event was recorded last.
#[derive(Clone)]
pub(super) struct Place {
    /// Complete once the place is reached.
    pub(super) reached: Arc<DriverEvent>,
    /// Holds the time at which it was. It is the same, unless a graph records the event: the driver
    /// does not say that an event which a node records is pending as soon as the launch returns.
    pub(super) timed: Arc<DriverEvent>,
}

/// A place in a CUDA stream.
pub(super) struct CudaEvent {
    /// One for each context whose streams recorded it.
    handles: Mutex<Vec<Arc<DriverEvent>>>,
    /// `None` before the first record: the driver takes an event that was never recorded for
    /// complete.
    place: Mutex<Option<Place>>,
    context: Arc<Context>,
}

impl CudaEvent {
    /// An event that the primary context's streams can record at once; those of other contexts create
    /// theirs at their first record.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let (handles, place) = (Mutex::default(), Mutex::default());
        let event = Self { handles, place, context: Arc::clone(context) };
        event.of(context.events())?;
        Ok(event)
    }

    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// The driver's event for streams of a context.
    pub(super) fn of(&self, home: &Arc<EventContext>) -> Result<Arc<DriverEvent>, DeviceError> {
        let mut handles = lock(&self.handles);
        if let Some(found) = handles.iter().find(|event| Arc::ptr_eq(&event.home, home)) {
            return Ok(Arc::clone(found));
        }
        self.context.bind()?;
        let handle = self.context.check("making an event", home.create_event())?;
        let event = Arc::new(DriverEvent { handle, home: Arc::clone(home) });
        handles.push(Arc::clone(&event));
        Ok(event)
    }

    /// It was recorded, by itself or within a graph.
    pub(super) fn recorded(&self, at: Place) {
        *lock(&self.place) = Some(at);
    }

    /// Where it was recorded last.
    pub(super) fn place(&self) -> Option<Place> {
        lock(&self.place).clone()
    }
}

impl Event for CudaEvent {
    fn is_complete(&self) -> Result<bool, DeviceError> {
        let Some(place) = self.place() else { return Ok(false) };
        self.context.bind()?;
        // SAFETY: `place` keeps the event alive.
        match unsafe { result::event::query(place.reached.handle.raw()) } {
            Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            answer => self.context.check("work before an event", answer).map(|()| true),
        }
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.traffic.count(Counter::HostWaits);
        let place = self.place();
        let place =
            place.ok_or(DeviceError::Misuse("waited for an event that no stream was given"))?;
        self.context.bind()?;
        // SAFETY: `place` keeps the event alive.
        let answer = unsafe { result::event::synchronize(place.reached.handle.raw()) };
        self.context.check("work before an event", answer)
    }

    fn completed_ns(&self) -> Option<u64> {
        if !self.is_complete().unwrap_or(false) {
            return None;
        }
        let timed = self.place()?.timed;
        timed.home.time_of(&timed.handle).ok()
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        // For the handles, which are destroyed next; the driver keeps them until work has passed them.
        let _ = self.context.bind();
    }
}
