//! The ego vehicle's sensors, and the scenery that they see.

mod buffer_pool;
pub(crate) mod camera;
pub(crate) mod inertial;
pub(crate) mod lidar;
pub(crate) mod palette;
mod raster;
pub(crate) mod scenery;
pub(crate) mod visibility;
