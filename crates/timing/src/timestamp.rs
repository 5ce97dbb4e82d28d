//! Instants in the loop's own time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Time since the start of the loop or route, on the clock of the world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// Start of the loop or route.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Returns the instant `elapsed` after the start.
    pub fn after(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Returns the time since `earlier`; zero if `earlier` is later than this instant.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns seconds since the start.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}
