//! Routes: what a route file says, and the dense plan that a world makes of it.

use super::RouteId;
use glam::{DVec2, DVec3};
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// Radius of the sphere that CARLA projects on, meters.
const EARTH_RADIUS_M: f64 = 6_378_137.0;

/// The maneuver at a route point, with the benchmark's numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i8)]
pub enum RoadOption {
    /// No maneuver known.
    Void = -1,
    /// Turn left in a junction.
    Left = 1,
    /// Turn right in a junction.
    Right = 2,
    /// Go straight on in a junction.
    Straight = 3,
    /// Follow the lane.
    LaneFollow = 4,
    /// Change to the lane on the left.
    ChangeLaneLeft = 5,
    /// Change to the lane on the right.
    ChangeLaneRight = 6,
}

impl RoadOption {
    /// True for both lane changes.
    pub fn is_lane_change(self) -> bool {
        matches!(self, Self::ChangeLaneLeft | Self::ChangeLaneRight)
    }
}

/// Where a scenario starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TriggerPoint {
    /// World meters.
    pub position: DVec3,
    /// Degrees, as in the file.
    pub yaw_deg: f64,
}

/// One scenario of a route.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioSpec {
    /// Instance name, e.g. `ParkingCutIn_1`.
    pub name: String,
    /// Type, e.g. `ParkingCutIn`.
    pub kind: String,
    /// Where it starts, if the file says so.
    pub trigger: Option<TriggerPoint>,
    /// Every further child element: tag → attributes, as text.
    pub parameters: BTreeMap<String, BTreeMap<String, String>>,
}

/// Weather from some part of the route on.
#[derive(Clone, PartialEq, Debug)]
pub struct WeatherKeyframe {
    /// Part of the route, percent.
    pub route_percentage: f64,
    /// Field name → value, defaults filled in; units are CARLA's (percent, degrees).
    pub fields: BTreeMap<String, f64>,
}

/// One route as its file gives it.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// The file's id.
    pub id: RouteId,
    /// The file's town.
    pub town: String,
    /// Key points, world meters.
    pub key_points: Vec<DVec3>,
    /// Scenarios, in file order.
    pub scenarios: Vec<ScenarioSpec>,
    /// Weather, sorted by percentage; never empty.
    pub weather: Vec<WeatherKeyframe>,
}

/// A point of the dense route.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RoutePoint {
    /// On the lane's center, world meters.
    pub position: DVec3,
    /// Direction of travel, radians.
    pub heading_rad: f64,
    /// The maneuver here.
    pub command: RoadOption,
    /// True inside a junction.
    pub is_junction: bool,
}

/// The dense route, about one point a meter.
#[derive(Clone, PartialEq, Debug)]
pub struct RoutePlan {
    /// Points from start to end; at least two.
    pub points: Vec<RoutePoint>,
    /// Where the map's plane touches the globe.
    pub reference: GeoReference,
}

impl RoutePlan {
    /// Where the route turns most from one meter to the next, and by how much, degrees.
    pub fn sharpest_turn(&self) -> Option<(DVec3, f64)> {
        let places: Vec<DVec3> = self.points.iter().map(|point| point.position).collect();
        sharpest_turn(&places)
    }
}

/// The sharpest turn of a line in the plane between steps of about a meter, degrees, and where it
/// is; `None` for lines of less than two steps.
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

/// Latitude and longitude of the map's origin.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GeoReference {
    /// Degrees.
    pub latitude_deg: f64,
    /// Degrees.
    pub longitude_deg: f64,
}

impl GeoReference {
    /// Latitude and longitude of a place of the world (meters), degrees.
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
    /// CARLA's default for maps without a `geoReference`.
    fn default() -> Self {
        Self { latitude_deg: 42.0, longitude_deg: 2.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_through_the_formula_of_the_agents() {
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
