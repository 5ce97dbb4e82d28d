//! Stop-sign criterion: leaving a sign's trigger volume without having
//! stopped in it is a violation.

use super::location_text;
use glam::{DVec2, DVec3};
use tandem_scene::{LaneMap, LanePoint, StopSign, WorldState};

/// Largest distance of the volume of a sign that applies from the ego's lane point, meters.
const NEAR_M: f64 = 4.0;
/// Spacing of the lane points ahead, meters.
const LANE_STEP_M: f64 = 0.5;
/// Number of lane points ahead that are tested against the volume.
const POINTS_AHEAD: usize = 8;
/// Factor by which the trigger volume is enlarged.
const VOLUME_SCALE: f64 = 1.2;
/// Below this speed (m/s) or this cosine of the heading to the lane, no sign is searched for: the
/// vehicle drives backwards or against the lane.
const BACKWARDS: f64 = -0.17;
/// Speed below which the vehicle counts as stopped, m/s.
const STANDING_MPS: f64 = 0.1;

/// State of the criterion for one route.
#[derive(Default)]
pub(super) struct StopSigns {
    target: Option<StopSign>,
    has_stopped: bool,
    last_failed: Option<u32>,
}

impl StopSigns {
    /// Evaluates this tick. Returns a message if a stop sign was run.
    pub(super) fn tick(&mut self, state: &WorldState, lanes: &dyn LaneMap) -> Option<String> {
        if self.target.is_none() && state.stop_signs.is_empty() {
            return None;
        }
        let ego = &state.ego;
        let ahead = lane_points_ahead(lanes, ego.location());
        let Some(sign) = self.target else {
            let along_lane = DVec2::from_angle(ahead[0].heading_rad).dot(ego.pose.forward());
            if ego.speed_mps >= BACKWARDS && along_lane >= BACKWARDS {
                let mut signs = state.stop_signs.iter();
                self.target = signs.find(|sign| is_affected(sign, &ahead)).copied();
            }
            return None;
        };
        self.has_stopped |= ego.speed_mps.abs() < STANDING_MPS;
        if is_affected(&sign, &ahead) {
            return None;
        }
        let is_run = !self.has_stopped && self.last_failed != Some(sign.id);
        self.target = None;
        self.has_stopped = false;
        is_run.then(|| {
            self.last_failed = Some(sign.id);
            let location = location_text(sign.position);
            format!("Agent ran a stop with id={} at {location}", sign.id)
        })
    }
}

/// Returns the lane point at `location` and those ahead of it.
fn lane_points_ahead(lanes: &dyn LaneMap, location: DVec3) -> Vec<LanePoint> {
    let first = lanes.driving_lane(location);
    std::iter::successors(Some(first), |lane| lanes.ahead(lane, LANE_STEP_M))
        .take(1 + POINTS_AHEAD)
        .collect()
}

/// True if the sign applies to a vehicle on these lane points. The volume's heading is ignored, as
/// in the official criterion.
fn is_affected(sign: &StopSign, ahead: &[LanePoint]) -> bool {
    let volume = &sign.trigger;
    let [half_x_m, half_y_m, _] = volume.extent_m;
    let half = DVec2::new(half_x_m, half_y_m) * VOLUME_SCALE;
    let is_inside =
        |lane: &LanePoint| (lane.position - volume.center).truncate().abs().cmplt(half).all();
    volume.center.distance(ahead[0].position) <= NEAR_M && ahead.iter().any(is_inside)
}
