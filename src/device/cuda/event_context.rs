//! Contexts of events.
//!
//! The driver records an event only on streams of the event's context, and a stream of a green
//! context belongs to that context, not to the primary one. Each context therefore has its own
//! events and its own clock.

#![expect(unsafe_code, reason = "calls the driver")]

use super::clock::{self, Clock};
use super::handle::{EventHandle, GreenHandle, StreamHandle};
use crate::sync::lock;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use std::sync::Mutex;

/// The primary context, or the context of a green context.
pub(super) struct EventContext {
    /// The lock also prevents a green context from being current in two threads.
    clock: Mutex<Clock>,
    /// A stream of the context without other work.
    idle: StreamHandle,
    raw: sys::CUcontext,
    primary: sys::CUcontext,
    /// Declared last, so that it is destroyed after everything above.
    _green: Option<GreenHandle>,
}

// SAFETY: `raw` and `primary` are contexts that any thread may make current; a green context is
// made current only under the lock.
unsafe impl Send for EventContext {}
// SAFETY: as above.
unsafe impl Sync for EventContext {}

impl EventContext {
    /// Wraps the primary context, which must be current; `idle` is one of its streams.
    pub(super) fn primary(
        primary: sys::CUcontext,
        idle: StreamHandle,
    ) -> Result<Self, DriverError> {
        let clock = Mutex::new(Clock::start(&idle)?);
        Ok(Self { clock, idle, raw: primary, primary, _green: None })
    }

    /// Wraps a green context; `idle` is one of its streams. The primary context must be current
    /// and is current afterwards.
    pub(super) fn green(
        green: GreenHandle,
        idle: StreamHandle,
        primary: sys::CUcontext,
    ) -> Result<Self, DriverError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `green` is alive and `raw` is writable.
        unsafe { sys::cuCtxFromGreenCtx(&raw mut raw, green.raw()) }.result()?;
        let clock = in_context(raw, primary, || Clock::start(&idle))?;
        Ok(Self { clock: Mutex::new(clock), idle, raw, primary, _green: Some(green) })
    }

    /// Creates an event of this context. The primary context must be current
    /// and is current afterwards.
    pub(super) fn create_event(&self) -> Result<EventHandle, DriverError> {
        let _current_in_one_thread = lock(&self.clock);
        in_context(self.raw, self.primary, clock::event)
    }

    /// Returns the host time at which a complete event of this context was reached.
    pub(super) fn time_of(&self, event: &EventHandle) -> Result<u64, DriverError> {
        let mut clock = lock(&self.clock);
        clock.time_of(event, &self.idle)
    }

    /// Returns the stream without other work.
    pub(super) fn idle(&self) -> &StreamHandle {
        &self.idle
    }
}

/// Runs `work` with `context` current, then makes the primary context current again.
fn in_context<T>(
    context: sys::CUcontext,
    primary: sys::CUcontext,
    work: impl FnOnce() -> Result<T, DriverError>,
) -> Result<T, DriverError> {
    if context == primary {
        return work();
    }
    // SAFETY: `context` is alive, and the caller ensures that it is current in no other thread.
    unsafe { result::ctx::set_current(context) }?;
    let done = work();
    // SAFETY: `primary` is retained while any of its green contexts exists.
    unsafe { result::ctx::set_current(primary) }?;
    done
}
