//! Worlds to drive in: they give observations, take commands, and know the truth that criteria judge.
//!
//! A world knows no model and no score. The autopilot lives here because it is privileged: it reads
//! the truth that a world gives only to those who ask for it; so do the bad drivers that its scores
//! are held against.

pub mod autopilot;
mod baselines;
pub mod embedded;
mod real_time;
mod recording;
pub mod xml_text;

pub use autopilot::Autopilot;
pub use baselines::{ConstantSpeed, Idle};
pub use embedded::{EmbeddedWorld, MapError, RoadError, StreetMap};
pub use real_time::RealTime;
pub(crate) use recording::refusal as mcap_refusal;
pub use recording::{
    LARGEST_MESSAGE, Loss, Recording, RecordingError, RecordingReader, RecordingWriter, Recovery,
    recover,
};

use crate::scene::{Command, LaneMap, LaneStrip, Observation, RoutePlan, WorldState};
use std::sync::Arc;
use std::time::Duration;

/// Simulation time between two ticks (20 Hz).
pub const TICK: Duration = Duration::from_millis(50);

/// [`TICK`] in seconds.
pub const TICK_S: f64 = 0.05;

/// A world at one tick of one route. It starts at frame 1, time 0.05 s.
pub trait World: Send {
    /// What the sensors read at this tick. Asking twice gives the same readings.
    fn observe(&mut self) -> Observation;

    /// Applies `command` for one [`TICK`] and moves on to the next frame.
    fn step(&mut self, command: &Command);

    /// What is true at this tick; `collisions` are the contacts of the step that led here.
    fn state(&self) -> &WorldState;

    /// Ticks that went by without an answer so far; none in a world that waits.
    fn ticks_missed(&self) -> u64 {
        0
    }

    /// Where lanes are.
    fn lanes(&self) -> &dyn LaneMap;

    /// What a drawing shows of the roads around the route; nothing, unless the world knows better.
    fn lane_strips(&self) -> Vec<LaneStrip> {
        Vec::new()
    }

    /// The dense route.
    fn plan(&self) -> &Arc<RoutePlan>;
}
