//! Routes as in route files, and the dense plan that a world interpolates from them.

use super::RouteId;
use glam::{DVec2, DVec3};
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// Radius of the sphere of CARLA's projection, meters.
const EARTH_RADIUS_M: f64 = 6_378_137.0;

/// Maneuver at a route point, with the benchmark's numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i8)]
pub enum RoadOption {
    Void = -1,
    Left = 1,
    Right = 2,
    Straight = 3,
    LaneFollow = 4,
    ChangeLaneLeft = 5,
    ChangeLaneRight = 6,
}

impl RoadOption {
    /// Returns true for both lane changes.
    pub fn is_lane_change(self) -> bool {
        matches!(self, Self::ChangeLaneLeft | Self::ChangeLaneRight)
    }
}

/// Place where a scenario starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TriggerPoint {
    /// Position in the world frame, meters.
    pub position: DVec3,
    /// Heading in the world frame as in the route file, degrees.
    pub yaw_deg: f64,
}

/// One scenario of a route, as in the route file.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioSpec {
    /// Name of the instance, e.g. `ParkingCutIn_1`.
    pub name: String,
    /// Name of the type, e.g. `ParkingCutIn`.
    pub kind: String,
    /// Start, if the file has one.
    pub trigger: Option<TriggerPoint>,
    /// All other child elements: tag → attributes, as text.
    pub parameters: BTreeMap<String, BTreeMap<String, String>>,
}

/// Weather from a given part of the route on.
#[derive(Clone, PartialEq, Debug)]
pub struct WeatherKeyframe {
    /// Distance along the route, percent.
    pub route_percentage: f64,
    /// Field name → value, with defaults filled in; units are CARLA's (percent, degrees).
    pub fields: BTreeMap<String, f64>,
}

/// A route as read from its file.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    pub id: RouteId,
    pub town: String,
    /// Key points in the world frame, meters.
    pub key_points: Vec<DVec3>,
    /// Scenarios in the order of the file.
    pub scenarios: Vec<ScenarioSpec>,
    /// Weather, sorted by percentage; never empty.
    pub weather: Vec<WeatherKeyframe>,
}

/// Point of the dense route on a lane center.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RoutePoint {
    /// Position on the lane's center in the world frame, meters.
    pub position: DVec3,
    /// Direction of travel in the world frame, radians.
    pub heading_rad: f64,
    pub command: RoadOption,
    pub is_junction: bool,
}

/// Dense route, about one point per meter.
#[derive(Clone, PartialEq, Debug)]
pub struct RoutePlan {
    /// Points from start to end; at least two.
    pub points: Vec<RoutePoint>,
    /// Geographic position of the map's origin.
    pub reference: GeoReference,
}

impl RoutePlan {
    /// Returns place and angle (degrees) of the sharpest turn between steps of about a meter.
    pub fn sharpest_turn(&self) -> Option<(DVec3, f64)> {
        let places: Vec<DVec3> = self.points.iter().map(|point| point.position).collect();
        sharpest_turn(&places)
    }
}

/// Returns place and angle (degrees) of the sharpest turn of a line in the plane, between steps of
/// about a meter; `None` for lines of less than two steps.
pub fn sharpest_turn(line: &[DVec3]) -> Option<(DVec3, f64)> {
    const STEP_M: f64 = 0.9;
    let mut kept: Vec<DVec3> = Vec::with_capacity(line.len());
    for &place in line {
        if kept.last().is_none_or(|last| (*last - place).truncate().length() >= STEP_M) {
            kept.push(place);
        }
    }
    let turn = |three: &[DVec3]| {
        let [into, out] = [three[1] - three[0], three[2] - three[1]].map(DVec3::truncate);
        (three[1], into.angle_to(out).abs().to_degrees())
    };
    kept.windows(3).map(turn).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Geographic position of the map's origin.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GeoReference {
    pub latitude_deg: f64,
    pub longitude_deg: f64,
}

impl GeoReference {
    /// Returns latitude and longitude (degrees) of a place in the world frame (meters).
    pub fn geographic(&self, place: DVec2) -> (f64, f64) {
        let scale = (self.latitude_deg * PI / 180.0).cos();
        let east = scale * self.longitude_deg * PI * EARTH_RADIUS_M / 180.0 + place.x;
        let angle = (90.0 + self.latitude_deg) * PI / 360.0;
        let north = scale * EARTH_RADIUS_M * angle.tan().ln() - place.y;
        let longitude = 180.0 * east / (PI * EARTH_RADIUS_M * scale);
        let latitude = 360.0 * (north / (EARTH_RADIUS_M * scale)).exp().atan() / PI - 90.0;
        (latitude, longitude)
    }
}

impl Default for GeoReference {
    /// Returns CARLA's default for maps without a `geoReference`.
    fn default() -> Self {
        Self { latitude_deg: 42.0, longitude_deg: 2.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geographic_is_inverted_by_the_agents_formula() {
        let reference = GeoReference::default();
        let (latitude, longitude) = reference.geographic(DVec2::new(-497.6, 3672.9));
        let scale = (42.0 * PI / 180.0_f64).cos();
        let north =
            |degrees: f64| scale * EARTH_RADIUS_M * ((90.0 + degrees) * PI / 360.0).tan().ln();
        let x = scale * (longitude - 2.0) * PI * EARTH_RADIUS_M / 180.0;
        let y = north(42.0) - north(latitude);
        assert!((x + 497.6).abs() < 1e-6 && (y - 3672.9).abs() < 1e-6, "{x} {y}");
    }
}
