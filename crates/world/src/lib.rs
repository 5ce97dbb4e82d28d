//! Worlds to drive in: they give observations, take commands, and know the truth that criteria judge.
//!
//! A world knows no model, no driver and no score.

pub mod embedded;
mod real_time;

pub use embedded::{EmbeddedWorld, MapError, RoadError, StreetMap};
pub use real_time::RealTime;
