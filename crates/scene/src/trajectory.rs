//! What an action expert answers.

use arrayvec::ArrayVec;
use std::time::Duration;

/// Where the ego vehicle means to go, in the ego frame of the tick it was made for, meters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trajectory {
    /// The path to follow, regardless of time (steers).
    pub path: ArrayVec<[f32; 2], 32>,
    /// Timed positions, one every [`spacing`](Self::spacing), the first one spacing ahead (set the speed).
    pub waypoints: ArrayVec<[f32; 2], 16>,
    /// Time between waypoints.
    pub spacing: Duration,
}

impl Trajectory {
    /// False as soon as one coordinate is NaN or infinite: such a trajectory must not be followed.
    pub fn is_finite(&self) -> bool {
        self.path.iter().chain(&self.waypoints).flatten().all(|value| value.is_finite())
    }
}
