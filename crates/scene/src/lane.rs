//! Lane queries that criteria need, independent of the map format.

use glam::{DVec2, DVec3};

/// Point on the center line of a lane, nearest to a given place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LanePoint {
    /// Position on the lane's center line, meters.
    pub position: DVec3,
    /// Direction of travel in the world frame, radians.
    pub heading_rad: f64,
    pub width_m: f64,
    /// Id of the road as in OpenDRIVE.
    pub road_id: i32,
    /// Lane id as in OpenDRIVE: negative along the road, positive against it.
    pub lane_id: i32,
    pub is_junction: bool,
}

/// Use of a strip of road, for drawings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StripKind {
    /// Vehicles, in the direction of the strip's points.
    Driving,
    Parking,
    Bicycle,
    Sidewalk,
}

/// Piece of a lane, for drawings.
#[derive(Clone, PartialEq, Debug)]
pub struct LaneStrip {
    pub kind: StripKind,
    pub width_m: f64,
    /// Center line in the world frame, meters; at least two points.
    pub center_m: Vec<DVec2>,
}

/// Map that answers lane queries of criteria.
pub trait LaneMap {
    /// Returns the driving lane whose center line is nearest to `place` in the plane. Where roads
    /// are above each other, the height of `place` selects one.
    fn driving_lane(&self, place: DVec3) -> LanePoint;

    /// Same as [`driving_lane`](Self::driving_lane) for parking lanes; `None` if the map has none.
    fn parking_lane(&self, place: DVec3) -> Option<LanePoint>;

    /// Returns the point `distance_m` further along a driving lane, or along its first successor;
    /// `None` where the lane ends. The default implementation returns the driving lane at the point
    /// straight ahead, which is valid for steps that are short compared with the lane's width.
    fn ahead(&self, lane: &LanePoint, distance_m: f64) -> Option<LanePoint> {
        let step = DVec2::from_angle(lane.heading_rad) * distance_m;
        let found = self.driving_lane(lane.position + step.extend(0.0));
        let advanced = (found.position - lane.position).truncate().dot(step);
        (advanced > 0.5 * step.length_squared()).then_some(found)
    }
}
