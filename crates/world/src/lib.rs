//! Worlds to drive in: each produces observations, applies commands and exposes the ground truth
//! that the scoring criteria read.
//!
//! This crate depends on no model, no driver and no score.

mod actors;
mod noise;
mod real_time;
mod road;
mod scenarios;
mod sensors;
mod world;

pub use real_time::RealTime;
pub use road::error::RoadError;
pub use road::street_map::{MapError, StreetMap};
pub use scenarios::table::scenario_table;
pub use world::EmbeddedWorld;
