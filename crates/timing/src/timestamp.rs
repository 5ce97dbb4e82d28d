//! Instants of the loop's own time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Time since the loop (or the route) began; which clock it counts on is the holder's choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The beginning.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// `elapsed` after the beginning.
    pub fn after(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Time since `earlier`, zero if it is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds since the beginning.
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
    /// Saturates at zero.
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}
