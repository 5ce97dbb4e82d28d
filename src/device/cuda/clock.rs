//! The device's clock, related to the host's.
//!
//! The device tells how long after another event an event was reached, in single precision: the
//! further apart the two are, the coarser. Times therefore count from an *anchor*, an event whose
//! host time is known to a few microseconds, and the anchor is renewed about once a second, which
//! also keeps the two clocks' drift (tens of microseconds per second at worst) out of them. Renewing
//! waits for nothing: it takes two readings, of which the first sets out the new anchor and the
//! second, if it has been reached by then, counts from it.
//!
//! So the differences of two times are the device's own where both count from one anchor, and off by
//! a few microseconds, the uncertainty of an anchor, where one was renewed between them. Where nobody
//! reads a time for long, the first two readings carry the drift of that while.

#![expect(unsafe_code, reason = "calls the driver")]

use super::handle::{EventHandle, StreamHandle};
use crate::timing::now_ns;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// Anchors tried at the start; the one that took the host least is kept.
const TRIES: usize = 8;

/// Distance from which the anchor is renewed, milliseconds. Single precision is then good to 0.1 µs,
/// and the device's own resolution is 0.5 µs.
const RENEW_AFTER_MS: f32 = 1000.0;

/// A new anchor is not believed if setting it out took the host longer than this: something came in
/// between, and its time is not known.
const INTERRUPTED_NS: u64 = 50_000;

/// Relates events to the host's clock.
pub(super) struct Clock {
    anchor: EventHandle,
    /// Host time of the anchor.
    at_ns: u64,
    /// The next anchor, and its host time once it was set out.
    next: EventHandle,
    next_at_ns: Option<u64>,
    /// From handing an anchor over to its being reached, as measured at the start.
    lag_ns: u64,
}

impl Clock {
    /// Reads both clocks at once, nearly: the context is current and `setup` is idle.
    pub(super) fn start(setup: &StreamHandle) -> Result<Self, DriverError> {
        let mut clock =
            Self { anchor: event()?, at_ns: 0, next: event()?, next_at_ns: None, lag_ns: u64::MAX };
        for _ in 0..TRIES {
            let before = now_ns();
            record(&clock.next, setup)?;
            // SAFETY: the event is ours and was just recorded.
            unsafe { result::event::synchronize(clock.next.raw()) }?;
            let half_ns = (now_ns() - before) / 2;
            if half_ns < clock.lag_ns {
                std::mem::swap(&mut clock.anchor, &mut clock.next);
                (clock.at_ns, clock.lag_ns) = (before + half_ns, half_ns);
            }
        }
        Ok(clock)
    }

    /// Host time at which an event, known to be complete, was reached. The context is current.
    pub(super) fn time_of(
        &mut self,
        event: &EventHandle,
        setup: &StreamHandle,
    ) -> Result<u64, DriverError> {
        let mut after_ms = elapsed_ms(&self.anchor, event)?;
        if after_ms > RENEW_AFTER_MS && self.renew(setup)? {
            after_ms = elapsed_ms(&self.anchor, event)?;
        }
        Ok(self.at_ns.saturating_add_signed((f64::from(after_ms) * 1e6) as i64))
    }

    /// Sets out a new anchor, or takes the one that was; true if the anchor is another now.
    fn renew(&mut self, setup: &StreamHandle) -> Result<bool, DriverError> {
        match self.next_at_ns {
            None => {
                let before = now_ns();
                record(&self.next, setup)?;
                if now_ns() - before < INTERRUPTED_NS {
                    self.next_at_ns = Some(before + self.lag_ns);
                }
                Ok(false)
            }
            // SAFETY: the event is ours.
            Some(at_ns) => match unsafe { result::event::query(self.next.raw()) } {
                Ok(()) => {
                    std::mem::swap(&mut self.anchor, &mut self.next);
                    (self.at_ns, self.next_at_ns) = (at_ns, None);
                    Ok(true)
                }
                Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

/// An event that times. Waiting for one spins: a tick that waits wants to go on at once.
pub(super) fn event() -> Result<EventHandle, DriverError> {
    result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map(EventHandle::new)
}

pub(super) fn record(event: &EventHandle, stream: &StreamHandle) -> Result<(), DriverError> {
    // SAFETY: both are alive, and of one device.
    unsafe { result::event::record(event.raw(), stream.raw()) }
}

/// From one event to another, negative if the second was reached first.
fn elapsed_ms(from: &EventHandle, to: &EventHandle) -> Result<f32, DriverError> {
    // SAFETY: both are alive and were recorded.
    unsafe { result::event::elapsed(from.raw(), to.raw()) }
}
