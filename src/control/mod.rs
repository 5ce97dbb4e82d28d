//! From a trajectory to steer, throttle and brake, and from readings to a filtered pose.
//!
//! [`PathFollower`] holds the two PID controllers and a [`Recovery`], which gets a stuck vehicle
//! going again; [`StateFilter`] smooths the satellite position. None of them names a model, knows a clock or
//! allocates after construction: a tick is one call of each.

mod curve;
mod path_follower;
mod recovery;
mod state_filter;

pub use curve::PathCurve;
pub use path_follower::{
    LateralConfig, LongitudinalConfig, PathFollower, PathFollowerConfig, SpeedCap,
};
pub use recovery::{
    EscapeConfig, ForceMoveConfig, ParkingStartConfig, Recovery, RecoveryConfig, RecoveryTick,
};
pub use state_filter::{FilterError, StateFilter, StateFilterConfig, VehicleState, move_on};
