//! Durations on the host's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A stopwatch that is always running.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a stopwatch at the current instant.
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Sleeps until `elapsed` has passed since the start; returns at once if it already has.
    pub fn sleep_until(&self, elapsed: Duration) {
        std::thread::sleep(elapsed.saturating_sub(self.elapsed()));
    }
}

/// Sleeps until [`super::now_ns`] has passed `instant_ns`; returns at once if it already has.
pub fn sleep_until_ns(instant_ns: u64) {
    std::thread::sleep(Duration::from_nanos(instant_ns.saturating_sub(super::now_ns())));
}

/// Returns seconds since the Unix epoch, for file names and metadata; not for measurements.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn wall_time_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
