//! The interface of worlds, the counterpart of [`Driver`](super::Driver).

use super::{Command, LaneMap, LaneStrip, Observation, RoutePlan, WorldState};
use std::sync::Arc;
use std::time::Duration;

/// Simulation time between two ticks (20 Hz).
pub const TICK: Duration = Duration::from_millis(50);

/// Simulation time between two ticks, seconds.
pub const TICK_S: f64 = 0.05;

/// A world that simulates one route. It starts at frame 1, time 0.05 s.
pub trait World: Send {
    /// Returns the sensor readings of this tick. Repeated calls return the same readings.
    fn observe(&mut self) -> Observation;

    /// Applies `command` for one [`TICK`] and advances to the next frame.
    fn step(&mut self, command: &Command);

    /// Returns the true state at this tick; `collisions` are the contacts of the previous step.
    fn state(&self) -> &WorldState;

    /// Returns the number of ticks that passed without an answer; 0 in a world that waits.
    fn ticks_missed(&self) -> u64 {
        0
    }

    /// Returns the lane map of the world.
    fn lanes(&self) -> &dyn LaneMap;

    /// Returns lane strips around the route, for drawings; may be empty.
    fn lane_strips(&self) -> Vec<LaneStrip> {
        Vec::new()
    }

    /// Returns the dense route of the world.
    fn plan(&self) -> &Arc<RoutePlan>;
}
