//! Measuring how long something took on the host.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A running stopwatch.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since it was started.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Sleeps until `elapsed` has passed since it was started; not at all if it has already.
    pub fn sleep_until(&self, elapsed: Duration) {
        std::thread::sleep(elapsed.saturating_sub(self.elapsed()));
    }
}

/// Sleeps until [`super::now_ns`] has passed `instant_ns`; not at all if it has already.
pub fn sleep_until_ns(instant_ns: u64) {
    std::thread::sleep(Duration::from_nanos(instant_ns.saturating_sub(super::now_ns())));
}

/// Seconds since the Unix epoch, for names and records; never for measuring.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn wall_time_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
