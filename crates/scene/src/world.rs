//! The interface of worlds, the counterpart of [`Driver`](super::Driver).

use super::{Command, LaneMap, LaneStrip, Observation, RoutePlan, WorldState};
use std::sync::Arc;
use std::time::Duration;

/// Simulation time between two ticks (20 Hz).
pub const TICK: Duration = Duration::from_millis(50);

/// [`TICK`] in seconds.
pub const TICK_S: f64 = 0.05;

/// A world at one tick of one route. It starts at frame 1, time 0.05 s.
pub trait World: Send {
    /// The sensor readings at this tick. Repeated calls return the same readings.
    fn observe(&mut self) -> Observation;

    /// Applies `command` for one [`TICK`] and moves on to the next frame.
    fn step(&mut self, command: &Command);

    /// The true state at this tick; `collisions` are the contacts of the step before it.
    fn state(&self) -> &WorldState;

    /// Ticks that went by without an answer so far; none in a world that waits.
    fn ticks_missed(&self) -> u64 {
        0
    }

    /// Where lanes are.
    fn lanes(&self) -> &dyn LaneMap;

    /// Lane strips around the route, for drawings; empty if the world has none.
    fn lane_strips(&self) -> Vec<LaneStrip> {
        Vec::new()
    }

    /// The dense route.
    fn plan(&self) -> &Arc<RoutePlan>;
}
