//! Control (trajectory to steer, throttle and brake) and localization (sensor readings to a pose).
//!
//! A [`Follower`] converts plans to commands. [`PathFollower`] implements it with two PID
//! controllers and a [`Recovery`] for stuck vehicles; [`Localizer`] estimates the pose with a
//! [`StateFilter`]. None of them depends on a model, reads a clock or allocates after construction.
//! Each is called once per tick.

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
pub use state_filter::{FilterError, StateFilter, StateFilterConfig, VehicleState, predict_motion};
