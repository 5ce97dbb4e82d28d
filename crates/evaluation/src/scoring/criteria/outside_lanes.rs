//! Driving beside the lanes or against traffic, as a share of the distance driven.
//!
//! Only the road layout matters: any legal lane will do, whether or not the route uses it.

use super::progress::RouteLine;
use crate::scoring::python::{float_text, round};
use tandem_scene::{EgoState, LaneMap, LanePoint, wrap_angle};

/// How many points ahead of the current one are looked at.
const WINDOW: usize = 3;
/// How far beyond the edge of a lane the vehicle's origin may be, meters.
const TOLERANCE_M: f64 = 0.5;
/// Leaving a junction at a larger angle to the lane is driving against traffic, degrees.
const JUNCTION_EXIT_DEG: f64 = 120.0;
/// A change to a lane at a larger angle to the last is a change of side, degrees.
const OPPOSITE_LANE_DEG: f64 = 150.0;

/// Outside-lanes criterion.
pub(super) struct OutsideLanes {
    index: usize,
    last_lane: Option<LanePoint>,
    is_on_wrong_side: bool,
    is_side_judged: bool,
    driven_m: f64,
    wrong_m: f64,
}

/// What the one infraction of a route says.
pub(super) struct Excursion {
    /// Of the distance driven, unrounded.
    pub(super) percentage: f64,
    /// The benchmark's words.
    pub(super) message: String,
}

impl OutsideLanes {
    pub(super) fn new() -> Self {
        Self {
            index: 0,
            last_lane: None,
            is_on_wrong_side: false,
            is_side_judged: true,
            driven_m: 0.0,
            wrong_m: 0.0,
        }
    }

    /// Switches the wrong-side part on or off; being beside the lanes always counts.
    pub(super) fn judge_side(&mut self, is_judged: bool) {
        self.is_side_judged = is_judged;
    }

    /// Judges this tick; gives the infraction as it stands now if the distance driven wrongly grew
    /// or the share of it changed.
    pub(super) fn tick(
        &mut self,
        line: &RouteLine,
        ego: &EgoState,
        lanes: &dyn LaneMap,
    ) -> Option<Excursion> {
        let lane = lanes.driving_lane(ego.location());
        let is_outside = is_outside(ego, &lane, lanes);
        self.follow_side(lane, ego);
        let is_wrong = is_outside || (self.is_side_judged && self.is_on_wrong_side);

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

    /// Follows from lane to lane on which side of the road the vehicle is.
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

/// True if the nearer of driving and parking lane is farther than its edge plus a tolerance.
fn is_outside(ego: &EgoState, driving: &LanePoint, lanes: &dyn LaneMap) -> bool {
    let place = ego.location();
    let driving_m = place.distance(driving.position);
    let (distance_m, width_m) = match lanes.parking_lane(place) {
        Some(parking) if place.distance(parking.position) <= driving_m => {
            (place.distance(parking.position), parking.width_m)
        }
        _ => (driving_m, driving.width_m),
    };
    distance_m > width_m / 2.0 + TOLERANCE_M
}

/// Between 0 and 180.
fn angle_between_deg(left_rad: f64, right_rad: f64) -> f64 {
    wrap_angle(left_rad - right_rad).abs().to_degrees()
}
