//! The contexts that events belong to.
//!
//! The driver records an event only on streams of the event's own context, and a stream of a green
//! context is of that context, not of the primary one. So each context has events of its own, and a
//! clock that relates them to the host.

#![expect(unsafe_code, reason = "calls the driver")]

use super::clock::{self, Clock};
use super::handle::{EventHandle, GreenHandle, StreamHandle};
use crate::sync::lock;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use std::sync::Mutex;

/// The primary context, or that of a green context.
pub(super) struct EventContext {
    /// The lock also keeps a green context from being current in two threads.
    clock: Mutex<Clock>,
    /// A stream of the context without other work.
    idle: StreamHandle,
    raw: sys::CUcontext,
    primary: sys::CUcontext,
    /// Declared last: it is destroyed after everything in it.
    _green: Option<GreenHandle>,
}

// SAFETY: the contexts are named by pointers that any thread may make current; a green one is current
// only under the lock.
unsafe impl Send for EventContext {}
// SAFETY: as above.
unsafe impl Sync for EventContext {}

impl EventContext {
    /// The primary context, which is current; `idle` is a stream of it.
    pub(super) fn primary(
        primary: sys::CUcontext,
        idle: StreamHandle,
    ) -> Result<Self, DriverError> {
        let clock = Mutex::new(Clock::start(&idle)?);
        Ok(Self { clock, idle, raw: primary, primary, _green: None })
    }

    /// A green context; `idle` is a stream of it. The primary context is current before and after.
    pub(super) fn green(
        green: GreenHandle,
        idle: StreamHandle,
        primary: sys::CUcontext,
    ) -> Result<Self, DriverError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the green context is alive.
        unsafe { sys::cuCtxFromGreenCtx(&raw mut raw, green.raw()) }.result()?;
        let clock = in_context(raw, primary, || Clock::start(&idle))?;
        Ok(Self { clock: Mutex::new(clock), idle, raw, primary, _green: Some(green) })
    }

    /// A new event of this context. The primary context is current before and after.
    pub(super) fn create_event(&self) -> Result<EventHandle, DriverError> {
        let _is_current_here_alone = lock(&self.clock);
        in_context(self.raw, self.primary, clock::event)
    }

    /// Host time at which an event of this context, known to be complete, was reached.
    pub(super) fn time_of(&self, event: &EventHandle) -> Result<u64, DriverError> {
        let mut clock = lock(&self.clock);
        clock.time_of(event, &self.idle)
    }

    /// A stream of the context without other work.
    pub(super) fn idle(&self) -> &StreamHandle {
        &self.idle
    }
}

/// Runs `work` with a context current, and makes the primary one current again.
fn in_context<T>(
    context: sys::CUcontext,
    primary: sys::CUcontext,
    work: impl FnOnce() -> Result<T, DriverError>,
) -> Result<T, DriverError> {
    if context == primary {
        return work();
    }
    // SAFETY: the context is alive, and the caller makes it current in this thread alone.
    unsafe { result::ctx::set_current(context) }?;
    let done = work();
    // SAFETY: the primary context is retained as long as any of its green contexts.
    unsafe { result::ctx::set_current(primary) }?;
    done
}
