//! Drivers that are not models: the autopilot, and baseline drivers to compare scores with.
//!
//! The autopilot is privileged: it reads the ground truth ([`Truth`](tandem_scene::Truth)), which a
//! world provides only on request.

pub mod autopilot;
mod baselines;

pub use autopilot::Autopilot;
pub use baselines::{ConstantSpeed, Idle};
