//! Lanes parallel to the line of the route.

use super::layout::{LANE_WIDTH_M, Layout, PARKING_WIDTH_M, Side};
use super::route_line::LinePoint;

/// A lane, parallel to the road's center line.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Lane {
    /// Center of the lane, meters to the right of the road's center line.
    pub(crate) aside_m: f64,
    pub(super) width_m: f64,
    /// OpenDRIVE lane id: negative with the route, positive against it.
    pub(super) lane_id: i32,
}

impl Lane {
    /// Returns true if traffic runs in the route's direction.
    pub(crate) fn with_route(&self) -> bool {
        self.lane_id < 0
    }
}

/// Returns all lanes that the route uses, those that `layout` adds, and the parking strip.
pub(super) fn lanes(line: &[LinePoint], layout: &Layout) -> (Vec<Lane>, Option<Lane>) {
    let in_lanes = |point: &LinePoint| (point.aside_m / LANE_WIDTH_M).round() as i32;
    let leftmost = line.iter().map(in_lanes).min().unwrap_or(0) - layout.left as i32;
    let rightmost = line.iter().map(in_lanes).max().unwrap_or(0) + layout.right as i32;
    let center = |lane: i32| f64::from(lane) * LANE_WIDTH_M;
    let lane = |lane: i32, lane_id| Lane { aside_m: center(lane), width_m: LANE_WIDTH_M, lane_id };
    let opposite = (1..=layout.opposite as i32).rev();
    let mut driving: Vec<Lane> = opposite.map(|nth| lane(leftmost - nth, nth)).collect();
    driving.extend((leftmost..=rightmost).map(|own| lane(own, leftmost - own - 1)));
    let beside = (LANE_WIDTH_M + PARKING_WIDTH_M) / 2.0;
    let parking = layout.parking.map(|side| Lane {
        aside_m: match side {
            Side::Left => driving[0].aside_m - beside,
            Side::Right => center(rightmost) + beside,
        },
        width_m: PARKING_WIDTH_M,
        lane_id: leftmost - rightmost - 2,
    });
    (driving, parking)
}

/// Left and right edge of a strip along the road, meters to the right of its center line.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Edges {
    pub(crate) left_m: f64,
    pub(crate) right_m: f64,
}

/// Returns the outer edges of the leftmost and the rightmost lane, including shoulders.
pub(super) fn edges(driving: &[Lane], parking: Option<&Lane>) -> Edges {
    const SHOULDER_M: f64 = 0.5;
    let all = || driving.iter().chain(parking);
    let left = all().map(|lane| lane.aside_m - lane.width_m / 2.0).fold(f64::INFINITY, f64::min);
    let right =
        all().map(|lane| lane.aside_m + lane.width_m / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let shoulder_m = if parking.is_some() { 0.0 } else { SHOULDER_M };
    Edges { left_m: left - shoulder_m, right_m: right + shoulder_m }
}
