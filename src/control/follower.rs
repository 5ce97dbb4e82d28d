//! Conversion of plans to commands.

use crate::scene::{Command, Detour, Plan, Pose};
use crate::timing::Timestamp;

/// Computes one command per tick from a plan and the pose of that tick.
/// Provided by the model family.
///
/// A follower must not allocate after its construction.
pub trait Follower {
    /// Starts a tick at which the model drives, before the model runs. `tick` counts from the start
    /// of the route, from 0. Returns changes to the route that the model receives.
    fn begin_tick(&mut self, tick: u64, world_from_ego: &Pose) -> Detour {
        let _ = (tick, world_from_ego);
        Detour::default()
    }

    /// Returns the command for the tick at `now`, whose estimated pose is `world_from_ego`.
    /// `plan` is [finite](crate::scene::Trajectory::is_finite) and was made at this tick or
    /// before it; [`Plan::at`] gives its trajectory in the ego frame of this tick. `speed_mps`
    /// is the speedometer reading.
    ///
    /// Called at most once per tick; not called at ticks without a plan or with a held command.
    fn command(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        world_from_ego: &Pose,
        speed_mps: f64,
    ) -> Command;
}
