//! Red-light criterion: the tail of the vehicle crossing the stop line of
//! a red light is a violation.

use super::location_text;
use glam::DVec2;
use std::collections::BTreeMap;
use tandem_scene::{EgoState, LaneMap, LanePoint, LightColor, TrafficLight, WorldState};

/// Largest distance of the trigger volume of a light that is evaluated, meters.
const NEAR_M: f64 = 15.0;
/// Part of the trigger volume's length that is searched for lanes.
const SEARCHED_SHARE: f64 = 0.9;
/// Spacing of the points at which lanes are searched for, meters.
const SEARCH_STEP_M: f64 = 1.0;
/// Step along a lane towards its junction, meters.
const LANE_STEP_M: f64 = 0.5;
/// Largest distance of a stop line from its trigger volume, meters. The official criterion has no
/// such limit and would not terminate on a ring road without junctions.
const LANE_SEARCH_M: f64 = 500.0;
/// Half the length of a stop line, in lane widths.
const LINE_SHARE: f64 = 0.6;
/// Position of the tail's near end, in half lengths of the vehicle behind its center.
const TAIL_SHARE: f64 = 0.8;
/// Distance of the tail's far end behind the vehicle's box, meters.
const TAIL_REACH_M: f64 = 1.0;

/// State of the criterion for one route.
#[derive(Default)]
pub(super) struct RedLights {
    /// By light id: the last point before the junction, for every lane that the light controls.
    stop_points: BTreeMap<u32, Vec<LanePoint>>,
    last_violated: Option<u32>,
}

impl RedLights {
    /// Evaluates this tick. Calls `report` for each light that was run.
    pub(super) fn tick(
        &mut self,
        state: &WorldState,
        lanes: &dyn LaneMap,
        mut report: impl FnMut(String),
    ) {
        for light in &state.traffic_lights {
            let points =
                self.stop_points.entry(light.id).or_insert_with(|| stop_points(light, lanes));
            let is_near = light.trigger.center.distance(state.ego.location()) <= NEAR_M;
            if self.last_violated == Some(light.id) || !is_near || light.color != LightColor::Red {
                continue;
            }
            if is_crossed(points, &state.ego, lanes) {
                let location = location_text(light.position);
                report(format!("Agent ran a red light {} at {location}", light.id));
                self.last_violated = Some(light.id);
            }
        }
    }
}

/// Returns the points where vehicles have to stop for `light`, one per lane in its trigger volume.
fn stop_points(light: &TrafficLight, lanes: &dyn LaneMap) -> Vec<LanePoint> {
    let volume = &light.trigger;
    let half_m = SEARCHED_SHARE * volume.extent_m[0];
    let samples = (2.0 * half_m / SEARCH_STEP_M).ceil() as usize;
    let axis = DVec2::from_angle(volume.yaw_rad);
    let mut starts: Vec<LanePoint> = Vec::new();
    for sample in 0..samples {
        let offset_m = sample as f64 * SEARCH_STEP_M - half_m;
        let lane = lanes.driving_lane(volume.center + (axis * offset_m).extend(0.0));
        let is_new = starts.last().is_none_or(|last| !is_same_lane(last, &lane));
        if is_new {
            starts.push(lane);
        }
    }
    starts.into_iter().map(|start| last_before_junction(start, lanes)).collect()
}

fn last_before_junction(start: LanePoint, lanes: &dyn LaneMap) -> LanePoint {
    let mut lane = start;
    for _ in 0..(LANE_SEARCH_M / LANE_STEP_M) as usize {
        if lane.is_junction {
            break;
        }
        match lanes.ahead(&lane, LANE_STEP_M) {
            Some(next) if !next.is_junction => lane = next,
            _ => break,
        }
    }
    lane
}

fn is_same_lane(left: &LanePoint, right: &LanePoint) -> bool {
    (left.road_id, left.lane_id) == (right.road_id, right.lane_id)
}

/// True if the vehicle's tail crosses the stop line of one of `points`.
fn is_crossed(points: &[LanePoint], ego: &EgoState, lanes: &dyn LaneMap) -> bool {
    let forward = ego.pose.forward();
    let half_length_m = ego.extent_m[0];
    let near = ego.pose.position - forward * (TAIL_SHARE * half_length_m);
    let far = ego.pose.position - forward * (half_length_m + TAIL_REACH_M);
    let tail_lane = lanes.driving_lane(far.extend(ego.z_m));
    points.iter().any(|point| {
        let along = DVec2::from_angle(point.heading_rad);
        let side = along.perp() * (LINE_SHARE * point.width_m);
        let center = point.position.truncate();
        is_same_lane(&tail_lane, point)
            && forward.dot(along) > 0.0
            && do_segments_meet([near, far], [center - side, center + side])
    })
}

/// True if two segments have a common point, ends included.
fn do_segments_meet(left: [DVec2; 2], right: [DVec2; 2]) -> bool {
    let turn = |from: DVec2, to: DVec2, point: DVec2| (to - from).perp_dot(point - from);
    let is_within = |from: DVec2, to: DVec2, point: DVec2| {
        point.cmpge(from.min(to)).all() && point.cmple(from.max(to)).all()
    };
    let [a, b] = left;
    let [c, d] = right;
    let turns = [turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)];
    let is_split = |one: f64, other: f64| (one > 0.0 && other < 0.0) || (one < 0.0 && other > 0.0);
    (is_split(turns[0], turns[1]) && is_split(turns[2], turns[3]))
        || (turns[0] == 0.0 && is_within(a, b, c))
        || (turns[1] == 0.0 && is_within(a, b, d))
        || (turns[2] == 0.0 && is_within(c, d, a))
        || (turns[3] == 0.0 && is_within(c, d, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_meet_where_they_cross_touch_or_overlap() {
        let segment = |x0, y0, x1, y1| [DVec2::new(x0, y0), DVec2::new(x1, y1)];
        let base = segment(0.0, 0.0, 4.0, 0.0);
        for (other, meets) in [
            (segment(1.0, -1.0, 1.0, 1.0), true),
            (segment(4.0, 0.0, 5.0, 1.0), true),
            (segment(2.0, 0.0, 2.0, 3.0), true),
            (segment(3.0, 0.0, 9.0, 0.0), true),
            (segment(5.0, 0.0, 9.0, 0.0), false),
            (segment(1.0, 0.1, 1.0, 1.0), false),
            (segment(5.0, -1.0, 5.0, 1.0), false),
        ] {
            assert_eq!(do_segments_meet(base, other), meets, "{other:?}");
            assert_eq!(do_segments_meet(other, base), meets, "{other:?}");
        }
    }
}
