//! Drivers that are not models: the autopilot, and bad drivers that its scores are compared with.
//!
//! The autopilot is privileged: it reads the [`Truth`](tandem_scene::Truth) that a world gives only to
//! drivers that ask for it.

pub mod autopilot;
mod baselines;

pub use autopilot::Autopilot;
pub use baselines::{ConstantSpeed, Idle};
