//! Outside-lanes criterion: driving outside the lanes or against traffic, as a
//! share of the distance driven.
//!
//! The route is not considered: any lane that may be driven in the ego
//! vehicle's direction is legal.

use super::progress::RouteLine;
use crate::scoring::python::{float_text, round};
use tandem_scene::{EgoState, LaneMap, LanePoint, wrap_angle};

/// Number of route points searched ahead of the current one.
const WINDOW: usize = 3;
/// Largest distance of the vehicle's origin beyond the edge of its lane, meters.
const TOLERANCE_M: f64 = 0.5;
/// Leaving a junction at this angle to the lane or more is driving against traffic, degrees.
const JUNCTION_EXIT_DEG: f64 = 120.0;
/// A change to a lane at a larger angle to the last one is a change of side, degrees.
const OPPOSITE_LANE_DEG: f64 = 150.0;

/// State of the criterion for one route.
pub(super) struct OutsideLanes {
    index: usize,
    last_lane: Option<LanePoint>,
    is_on_wrong_side: bool,
    may_use_oncoming_lane: bool,
    driven_m: f64,
    wrong_m: f64,
}

/// The one infraction that this criterion reports per route.
pub(super) struct Excursion {
    /// Percentage of the distance driven, unrounded.
    pub(super) percentage: f64,
    /// Message text of the benchmark.
    pub(super) message: String,
}

impl OutsideLanes {
    pub(super) fn new() -> Self {
        Self {
            index: 0,
            last_lane: None,
            is_on_wrong_side: false,
            may_use_oncoming_lane: false,
            driven_m: 0.0,
            wrong_m: 0.0,
        }
    }

    /// Stops counting the wrong side of the road. Driving outside the lanes still counts.
    pub(super) fn permit_oncoming_lane(&mut self) {
        self.may_use_oncoming_lane = true;
    }

    /// Counts the wrong side of the road again.
    pub(super) fn forbid_oncoming_lane(&mut self) {
        self.may_use_oncoming_lane = false;
    }

    /// Evaluates this tick. Returns the updated infraction if the distance driven outside the lanes
    /// grew or its share of the distance driven changed.
    pub(super) fn tick(
        &mut self,
        line: &RouteLine,
        ego: &EgoState,
        lanes: &dyn LaneMap,
    ) -> Option<Excursion> {
        let lane = lanes.driving_lane(ego.location());
        let is_outside = is_outside(ego, &lane, lanes);
        self.follow_side(lane, ego);
        let is_wrong = is_outside || (!self.may_use_oncoming_lane && self.is_on_wrong_side);

        let mut is_advanced = false;
        let ego = ego.location();
        let current = self.index;
        for index in line.passed(current, WINDOW, ego).filter(|&index| index > current) {
            let step_m = line.point(self.index).distance(line.point(index));
            self.driven_m += step_m;
            self.wrong_m += if is_wrong { step_m } else { 0.0 };
            self.index = index;
            is_advanced = true;
        }
        (is_advanced && self.wrong_m > 0.0).then(|| {
            let percentage = self.wrong_m / self.driven_m * 100.0;
            let meters = float_text(round(self.wrong_m, 3));
            let percent = float_text(round(percentage, 2));
            let message = format!(
                "Agent went outside its route lanes for about {meters} meters \
                 ({percent}% of the completed route)"
            );
            Excursion { percentage, message }
        })
    }

    /// Updates which side of the road the vehicle is on, from its lane and the last one.
    fn follow_side(&mut self, lane: LanePoint, ego: &EgoState) {
        let last = self.last_lane.replace(lane).unwrap_or(lane);
        if lane.is_junction {
            self.is_on_wrong_side = false;
        } else if (last.road_id, last.lane_id) != (lane.road_id, lane.lane_id) {
            if last.is_junction {
                let angle_deg = angle_between_deg(lane.heading_rad, ego.pose.yaw_rad);
                self.is_on_wrong_side = angle_deg >= JUNCTION_EXIT_DEG;
            } else if angle_between_deg(last.heading_rad, lane.heading_rad) > OPPOSITE_LANE_DEG {
                self.is_on_wrong_side = !self.is_on_wrong_side;
            }
        }
    }
}

/// True if the vehicle is beyond the edge of the nearer of its driving and parking lane by
/// more than [`TOLERANCE_M`].
fn is_outside(ego: &EgoState, driving: &LanePoint, lanes: &dyn LaneMap) -> bool {
    let location = ego.location();
    let driving_m = location.distance(driving.position);
    let (distance_m, width_m) = match lanes.parking_lane(location) {
        Some(parking) if location.distance(parking.position) <= driving_m => {
            (location.distance(parking.position), parking.width_m)
        }
        _ => (driving_m, driving.width_m),
    };
    distance_m > width_m / 2.0 + TOLERANCE_M
}

/// Absolute difference of two headings, 0 to 180 degrees.
fn angle_between_deg(left_rad: f64, right_rad: f64) -> f64 {
    wrap_angle(left_rad - right_rad).abs().to_degrees()
}
