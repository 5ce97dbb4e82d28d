//! Output of an action expert.

use arrayvec::ArrayVec;
use std::time::Duration;

/// Planned trajectory in the ego frame of the tick for which it was planned, meters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trajectory {
    /// Path without times; determines steering.
    pub path: ArrayVec<[f32; 2], 32>,
    /// Timed positions, the first one [`spacing`](Self::spacing) ahead; determine the speed.
    pub waypoints: ArrayVec<[f32; 2], 16>,
    /// Time between two waypoints.
    pub spacing: Duration,
}

impl Trajectory {
    /// Returns false if any coordinate is NaN or infinite; such a trajectory must not be followed.
    pub fn is_finite(&self) -> bool {
        self.path.iter().chain(&self.waypoints).flatten().all(|value| value.is_finite())
    }
}
