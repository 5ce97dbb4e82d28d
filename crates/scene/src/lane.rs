//! Questions about lanes that criteria ask of a road, whoever holds the map.

use glam::{DVec2, DVec3};

/// The center of a lane, nearest to some place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LanePoint {
    /// Place on the lane's center line, meters.
    pub position: DVec3,
    /// Direction of travel, radians.
    pub heading_rad: f64,
    /// Lane width, meters.
    pub width_m: f64,
    /// OpenDRIVE road number.
    pub road_id: i32,
    /// OpenDRIVE lane number: negative runs with the road, positive against it.
    pub lane_id: i32,
    /// True inside a junction.
    pub is_junction: bool,
}

/// What a strip of road is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StripKind {
    /// Vehicles, in the direction of the strip's points.
    Driving,
    /// Parked vehicles.
    Parking,
    /// Bicycles.
    Bicycle,
    /// People on foot.
    Sidewalk,
}

/// A piece of lane as a drawing shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct LaneStrip {
    /// What it is for.
    pub kind: StripKind,
    /// Meters.
    pub width_m: f64,
    /// Its center line in the world, meters; two points or more.
    pub center_m: Vec<DVec2>,
}

/// A map that knows where lanes are.
pub trait LaneMap {
    /// The driving lane whose center line is nearest to `place` in the plane. Where roads are above
    /// each other, the height of `place` decides which one counts.
    fn driving_lane(&self, place: DVec3) -> LanePoint;

    /// The parking lane whose center line is nearest likewise, if the map has any.
    fn parking_lane(&self, place: DVec3) -> Option<LanePoint>;

    /// The point `distance_m` further along a driving lane, or along the first of its successors;
    /// `None` where it ends.
    ///
    /// Unless the map knows better, this is the driving lane under the point straight ahead, which
    /// holds for steps that are short beside the lane's width.
    fn ahead(&self, lane: &LanePoint, distance_m: f64) -> Option<LanePoint> {
        let step = DVec2::from_angle(lane.heading_rad) * distance_m;
        let found = self.driving_lane(lane.position + step.extend(0.0));
        let advanced = (found.position - lane.position).truncate().dot(step);
        (advanced > 0.5 * step.length_squared()).then_some(found)
    }
}
