//! Conversion of event times to the host clock.
//!
//! The driver reports the time between two events in single precision, so the resolution decreases
//! with the distance. Times are therefore measured from an *anchor*, an event whose host time is
//! known to a few microseconds. The anchor is renewed about once a second, which also bounds the
//! drift between the two clocks (tens of microseconds per second at worst). Renewal does not wait:
//! one reading records the next anchor, and a later reading starts to use it once it is complete.
//!
//! The difference of two times is exact to the device's clock if both use one anchor, and off by
//! the uncertainty of an anchor, a few microseconds, if the anchor was renewed in between. After a
//! long time without readings, the first two readings include the drift of that time.

#![expect(unsafe_code, reason = "calls the driver")]

use super::handle::{EventHandle, StreamHandle};
use crate::timing::now_ns;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// Number of anchors recorded at the start, of which the one with the shortest round trip is kept.
const TRIES: usize = 8;

/// Age at which the anchor is renewed, milliseconds. Single precision then resolves 0.1 µs;
/// the device resolves 0.5 µs.
const RENEW_AFTER_MS: f32 = 1000.0;

/// A new anchor is discarded if recording it took the host longer than this, because the host was
/// interrupted and the anchor's time is uncertain.
const INTERRUPTED_NS: u64 = 50_000;

/// Converts event times to host times.
pub(super) struct Clock {
    anchor: EventHandle,
    /// Host time of the anchor.
    at_ns: u64,
    /// The next anchor, and its host time once it was recorded.
    next: EventHandle,
    next_at_ns: Option<u64>,
    /// Time from recording an anchor until it is reached, measured at the start.
    lag_ns: u64,
}

impl Clock {
    /// Reads both clocks at nearly the same time. The context must be current and `setup` idle.
    pub(super) fn start(setup: &StreamHandle) -> Result<Self, DriverError> {
        let mut clock =
            Self { anchor: event()?, at_ns: 0, next: event()?, next_at_ns: None, lag_ns: u64::MAX };
        for _ in 0..TRIES {
            let before = now_ns();
            record(&clock.next, setup)?;
            // SAFETY: `clock.next` is alive and was just recorded.
            unsafe { result::event::synchronize(clock.next.raw()) }?;
            let half_ns = (now_ns() - before) / 2;
            if half_ns < clock.lag_ns {
                std::mem::swap(&mut clock.anchor, &mut clock.next);
                (clock.at_ns, clock.lag_ns) = (before + half_ns, half_ns);
            }
        }
        Ok(clock)
    }

    /// Returns the host time at which a complete event was reached. The context must be current.
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

    /// Records the next anchor, or switches to it if it is complete; returns true if it switched.
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
            // SAFETY: `self.next` is alive.
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

/// Creates an event with timing. Waiting for it spins, which minimizes the
/// latency of a waiting tick.
pub(super) fn event() -> Result<EventHandle, DriverError> {
    result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map(EventHandle::new)
}

pub(super) fn record(event: &EventHandle, stream: &StreamHandle) -> Result<(), DriverError> {
    // SAFETY: `event` and `stream` are alive and belong to one device.
    unsafe { result::event::record(event.raw(), stream.raw()) }
}

/// Returns the time between two events, negative if the second was reached first.
fn elapsed_ms(from: &EventHandle, to: &EventHandle) -> Result<f32, DriverError> {
    // SAFETY: `from` and `to` are alive and were recorded.
    unsafe { result::event::elapsed(from.raw(), to.raw()) }
}
