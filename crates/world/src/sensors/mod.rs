//! The ego vehicle's sensors, and what they see.

pub(crate) mod camera;
pub(crate) mod inertial;
pub(crate) mod lidar;
pub(crate) mod palette;
mod raster;
mod recycling;
pub(crate) mod scenery;
pub(crate) mod surroundings;
