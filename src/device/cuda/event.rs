//! Events of a CUDA device.

#![expect(unsafe_code, reason = "calls the driver")]

use super::clock;
use super::context::Context;
use super::handle::EventHandle;
use crate::device::{DeviceError, Event};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::CUresult;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A place in a CUDA stream.
pub(super) struct CudaEvent {
    handle: EventHandle,
    /// The driver takes an event that was never recorded for one that was reached.
    is_recorded: AtomicBool,
    context: Arc<Context>,
}

impl CudaEvent {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.bind()?;
        let handle = context.check("making an event", clock::event())?;
        Ok(Self { handle, is_recorded: AtomicBool::new(false), context: Arc::clone(context) })
    }

    pub(super) fn handle(&self) -> &EventHandle {
        &self.handle
    }

    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// It was handed over, by itself or within a graph.
    pub(super) fn recorded(&self) {
        self.is_recorded.store(true, Ordering::Release);
    }

    fn is_recorded(&self) -> bool {
        self.is_recorded.load(Ordering::Acquire)
    }
}

impl Event for CudaEvent {
    fn is_complete(&self) -> Result<bool, DeviceError> {
        if !self.is_recorded() {
            return Ok(false);
        }
        self.context.bind()?;
        // SAFETY: the event lives as long as `self`.
        match unsafe { result::event::query(self.handle.raw()) } {
            Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            answer => self.context.check("work before an event", answer).map(|()| true),
        }
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.traffic.waited();
        if !self.is_recorded() {
            return Err(DeviceError::Misuse("waited for an event that no stream was given"));
        }
        self.context.bind()?;
        // SAFETY: the event lives as long as `self`.
        let answer = unsafe { result::event::synchronize(self.handle.raw()) };
        self.context.check("work before an event", answer)
    }

    fn completed_ns(&self) -> Option<u64> {
        if !self.is_complete().unwrap_or(false) {
            return None;
        }
        let mut clock = self.context.clock.lock().expect("no holder of this lock panics");
        clock.time_of(&self.handle, self.context.setup()).ok()
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        // For the handle, which is destroyed next; the driver keeps it until work has passed it.
        let _ = self.context.bind();
    }
}
