//! Conversion of GNSS and compass readings to the world frame.
//!
//! The world plane is a Mercator projection that is true to scale at the map's reference latitude;
//! y points south, as everywhere in this crate.

use crate::scene::{GeoReference, Gnss, wrap_angle};
use glam::DVec3;
use std::f64::consts::{FRAC_PI_2, PI};

/// Earth radius of the projection, meters.
const EARTH_RADIUS_M: f64 = 6_378_137.0;

/// Returns the position of a GNSS reading in the world frame, meters.
///
/// `z` is the altitude as read. 1e-5 degrees are about a meter, so 64-bit
/// floats resolve some nanometers.
pub fn world_from_gnss(reading: &Gnss, reference: &GeoReference) -> DVec3 {
    let scale = (reference.latitude_deg * PI / 180.0).cos();
    let east = |longitude_deg: f64| scale * longitude_deg * PI * EARTH_RADIUS_M / 180.0;
    let north = |latitude_deg: f64| {
        scale * EARTH_RADIUS_M * ((90.0 + latitude_deg) * PI / 360.0).tan().ln()
    };
    DVec3::new(
        east(reading.longitude_deg) - east(reference.longitude_deg),
        north(reference.latitude_deg) - north(reading.latitude_deg),
        reading.altitude_m,
    )
}

/// Returns the yaw in (−π, π] for a compass reading of `compass_rad` (0 = north = −y). A reading
/// before the first fix is NaN and counts as zero.
pub fn yaw_from_compass(compass_rad: f64) -> f64 {
    let compass_rad = if compass_rad.is_nan() { 0.0 } else { compass_rad };
    wrap_angle(compass_rad - FRAC_PI_2)
}
