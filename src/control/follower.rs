//! What turns plans into commands.

use crate::scene::{Command, Detour, Plan, Pose};
use crate::timing::Timestamp;

/// Follows plans: one command per tick, from the pose of that tick. A model family brings its own.
///
/// A follower must not allocate after its construction.
pub trait Follower {
    /// Starts a tick at which the model drives, before the model runs. `tick` counts from the start of
    /// the route, from 0. Returns the changes to what the model receives of the route.
    fn begin_tick(&mut self, tick: u64, world_from_ego: &Pose) -> Detour {
        let _ = (tick, world_from_ego);
        Detour::default()
    }

    /// Returns the command for the tick at `now`, whose estimated pose is `world_from_ego`. `plan` is
    /// [finite](crate::scene::Trajectory::is_finite) and was made at this tick or before it;
    /// [`Plan::at`] gives its trajectory in the ego frame of this tick. `speed_mps` is the
    /// speedometer's.
    ///
    /// Called at most once per tick, and not at ticks without a plan or whose command is held.
    fn command(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        world_from_ego: &Pose,
        speed_mps: f64,
    ) -> Command;
}
