//! Stop signs: a violation is leaving the sign's volume without having stood still in it.

use super::location_text;
use glam::{DVec2, DVec3};
use tandem_scene::{LaneMap, LanePoint, StopSign, WorldState};

/// Signs whose volume is farther from the ego's lane point than this are not for it, meters.
const NEAR_M: f64 = 4.0;
/// Distance between lane points ahead, meters.
const LANE_STEP_M: f64 = 0.5;
/// How many lane points ahead may lie in the volume.
const POINTS_AHEAD: usize = 8;
/// How much larger than drawn the volume is.
const VOLUME_SCALE: f64 = 1.2;
/// Driving backwards faster than this (m/s), or heading against the lane by more than this (cosine),
/// no sign is looked for.
const BACKWARDS: f64 = -0.17;
/// Slower than this is standing, m/s.
const STANDING_MPS: f64 = 0.1;

/// Stop-sign criterion.
#[derive(Default)]
pub(super) struct StopSigns {
    target: Option<StopSign>,
    has_stood: bool,
    last_failed: Option<u32>,
}

impl StopSigns {
    /// Judges this tick; gives a message if a sign was run.
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
        self.has_stood |= ego.speed_mps.abs() < STANDING_MPS;
        if is_affected(&sign, &ahead) {
            return None;
        }
        let is_run = !self.has_stood && self.last_failed != Some(sign.id);
        self.target = None;
        self.has_stood = false;
        is_run.then(|| {
            self.last_failed = Some(sign.id);
            let place = location_text(sign.position);
            format!("Agent ran a stop with id={} at {place}", sign.id)
        })
    }
}

/// The lane point under `place` and those ahead of it.
fn lane_points_ahead(lanes: &dyn LaneMap, place: DVec3) -> Vec<LanePoint> {
    let first = lanes.driving_lane(place);
    std::iter::successors(Some(first), |lane| lanes.ahead(lane, LANE_STEP_M))
        .take(1 + POINTS_AHEAD)
        .collect()
}

/// True if the sign is for a vehicle on these lane points. The volume's heading is ignored, as the
/// official criterion does.
fn is_affected(sign: &StopSign, ahead: &[LanePoint]) -> bool {
    let volume = &sign.trigger;
    let [half_x_m, half_y_m, _] = volume.extent_m;
    let half = DVec2::new(half_x_m, half_y_m) * VOLUME_SCALE;
    let is_inside =
        |lane: &LanePoint| (lane.position - volume.center).truncate().abs().cmplt(half).all();
    volume.center.distance(ahead[0].position) <= NEAR_M && ahead.iter().any(is_inside)
}
