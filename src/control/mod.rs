//! From a trajectory to steer, throttle and brake, and from readings to a filtered pose.
//!
//! A [`Follower`] turns plans into commands. [`PathFollower`] is one, with two PID controllers and a
//! [`Recovery`], which gets a stuck vehicle going again; [`Localizer`] turns readings into a pose by
//! way of a [`StateFilter`]. None of them names a model, reads a clock or allocates after
//! construction: a tick is one call of each.

mod curve;
mod follower;
pub mod gnss;
mod localizer;
mod path_follower;
mod recovery;
mod state_filter;

pub use curve::PathCurve;
pub use follower::Follower;
pub use localizer::Localizer;
pub use path_follower::{
    LateralConfig, LongitudinalConfig, PathFollower, PathFollowerConfig, SpeedCap,
};
pub use recovery::{EscapeConfig, ForceMoveConfig, ParkingStartConfig, Recovery, RecoveryConfig};
pub use state_filter::{FilterError, StateFilter, StateFilterConfig, VehicleState, move_on};
