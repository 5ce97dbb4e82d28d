//! The privileged driver: follows the route by the truth, behind whoever is ahead.
//!
//! Its controllers and its car following are those of the public rule-based expert
//! (`bench2drive.md` 7), so their constants are checked against samples of that one. It has no
//! forecast and does not overtake: the embedded world needs neither.

use super::embedded::footprint_distance_m;
use crate::scene::{
    ActorState, Command, Control, DriveError, Driver, EgoState, Observation, RoutePlan, TickReport,
    Truth, wrap_angle,
};
use arrayvec::ArrayVec;
use glam::DVec2;
use std::f64::consts::FRAC_PI_2;
use std::sync::Arc;

/// Share of the speed limit that it drives at.
const SHARE_OF_LIMIT: f64 = 0.72;

/// Points of the path per meter.
const POINTS_PER_M: usize = 10;

/// How far the path goes on beyond the route's end, meters.
const PATH_EXTENSION_M: usize = 50;

/// Points in which it looks for its place on the path, from the last one on.
const SEARCH_POINTS: usize = 40;

/// How far ahead it looks for vehicles, meters.
const LEAD_HORIZON_M: usize = 80;

/// A vehicle whose center is this close to the path is ahead in our lane, meters.
const LEAD_ASIDE_M: f64 = 2.5;

/// So is anything that reaches this close to the path, meters.
const BLOCKED_ASIDE_M: f64 = 1.3;

/// Lateral acceleration in bends, and how hard it brakes for them, m/s².
const BEND_LATERAL_MPS2: f64 = 2.5;
const BEND_BRAKING_MPS2: f64 = 2.5;

/// Drives by the truth.
#[derive(Debug, Default)]
pub struct Autopilot {
    path: Option<Path>,
    lateral: LateralController,
}

/// The route as the autopilot uses it.
#[derive(Debug)]
struct Path {
    plan: Arc<RoutePlan>,
    /// Ten points a meter, on beyond the end.
    points: Vec<DVec2>,
    /// The speed that bends allow at each point, m/s.
    bend_mps: Vec<f64>,
    /// Where we are.
    idx: usize,
}

impl Autopilot {
    /// An autopilot that has seen no route yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn command(&mut self, truth: &Truth) -> Command {
        let path = match self.path.take() {
            Some(path) if Arc::ptr_eq(&path.plan, &truth.plan) => self.path.insert(path),
            _ => {
                self.lateral = LateralController::default();
                self.path.insert(Path::new(&truth.plan))
            }
        };
        path.advance(truth.ego.pose.position);
        let target_mps = path.target_speed(truth);
        let (throttle, brake) = throttle_and_brake(target_mps, truth.ego.speed_mps, false);
        let ego = &truth.ego;
        let steer = self.lateral.steer(
            &path.points[path.idx..],
            ego.pose.position,
            ego.pose.yaw_rad,
            ego.speed_mps,
        );
        Command { steer, throttle, brake: f64::from(u8::from(brake)) }
    }
}

impl Driver for Autopilot {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let Some(truth) = &observation.truth else {
            return Err(DriveError {
                frame: observation.frame.0,
                source: "the autopilot needs the truth: ask for it in the sensor suite".into(),
            });
        };
        let report = TickReport { frame: observation.frame, ..TickReport::default() };
        Ok(Control { command: self.command(truth), report })
    }
}

impl Path {
    fn new(plan: &Arc<RoutePlan>) -> Self {
        let route: Vec<DVec2> = plan.points.iter().map(|point| point.position.truncate()).collect();
        let mut points = Vec::with_capacity((route.len() + PATH_EXTENSION_M) * POINTS_PER_M);
        for pair in route.windows(2) {
            let n = (pair[0].distance(pair[1]) * POINTS_PER_M as f64).round().max(1.0) as usize;
            points.extend((0..n).map(|step| pair[0].lerp(pair[1], step as f64 / n as f64)));
        }
        let end = route[route.len() - 1];
        let onward = (end - route[route.len() - 2]).normalize_or_zero() / POINTS_PER_M as f64;
        points.extend((0..PATH_EXTENSION_M * POINTS_PER_M).map(|step| end + onward * step as f64));
        let bend_mps = bend_speeds(&points);
        Self { plan: Arc::clone(plan), points, bend_mps, idx: 0 }
    }

    /// Finds the nearest of the next points.
    fn advance(&mut self, place: DVec2) {
        let end = (self.idx + SEARCH_POINTS).min(self.points.len() - 1);
        let distance = |idx: &usize| self.points[*idx].distance_squared(place);
        let nearest = (self.idx..end).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        self.idx = nearest.unwrap_or(self.idx);
    }

    fn target_speed(&self, truth: &Truth) -> f64 {
        let free_mps = (SHARE_OF_LIMIT * truth.speed_limit_mps).min(self.bend_mps[self.idx]);
        truth
            .actors
            .iter()
            .filter(|actor| self.is_ahead(&truth.ego, actor))
            .map(|actor| {
                let heading = actor.pose.yaw_rad - truth.ego.pose.yaw_rad;
                let lead = Lead {
                    gap_m: actor.pose.position.distance(truth.ego.pose.position),
                    length_m: 2.0 * actor.extent_m[0],
                    speed_mps: (actor.speed_mps * heading.cos()).max(0.0),
                    standstill_m: 4.0,
                    headway_s: 0.25,
                };
                idm_target_speed(free_mps, truth.ego.speed_mps, &lead)
            })
            .fold(free_mps, f64::min)
    }

    /// True if `actor` stands or drives on the path ahead of us.
    fn is_ahead(&self, ego: &EgoState, actor: &ActorState) -> bool {
        let place = actor.pose.position;
        if place.distance(ego.pose.position) > LEAD_HORIZON_M as f64 {
            return false;
        }
        let alike = |idx: usize| {
            let along = self.points[idx + 1] - self.points[idx];
            wrap_angle(along.to_angle() - actor.pose.yaw_rad).abs() < 35.0_f64.to_radians()
        };
        let front = self.idx + (ego.extent_m[0] * POINTS_PER_M as f64) as usize;
        (front..(self.idx + LEAD_HORIZON_M * POINTS_PER_M).min(self.points.len() - 1))
            .step_by(POINTS_PER_M)
            .any(|idx| {
                let point = self.points[idx];
                let aside_m = point.distance(place);
                (aside_m <= LEAD_ASIDE_M && alike(idx))
                    || (aside_m < BLOCKED_ASIDE_M + 6.0
                        && footprint_distance_m(&actor.pose, actor.extent_m, point)
                            < BLOCKED_ASIDE_M)
            })
    }
}

/// The speed at each point that lets the bends ahead be driven comfortably, m/s.
fn bend_speeds(points: &[DVec2]) -> Vec<f64> {
    let reach = 2 * POINTS_PER_M;
    let last = points.len() - 1;
    let mut speeds: Vec<f64> = (0..=last)
        .map(|idx| {
            let (a, b, c) =
                (points[idx.saturating_sub(reach)], points[idx], points[(idx + reach).min(last)]);
            let turned = (b - a).angle_to(c - b).abs();
            let length = a.distance(c) / 2.0;
            (BEND_LATERAL_MPS2 * length / turned.max(1e-6)).sqrt()
        })
        .collect();
    let step_m = 1.0 / POINTS_PER_M as f64;
    for idx in (0..last).rev() {
        let braking = speeds[idx + 1].powi(2) + 2.0 * BEND_BRAKING_MPS2 * step_m;
        speeds[idx] = speeds[idx].min(braking.sqrt());
    }
    speeds
}

/// Something to keep a distance from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lead {
    /// From our center to its center, meters.
    pub gap_m: f64,
    /// Taken off the gap, meters.
    pub length_m: f64,
    /// Its speed along our way, m/s.
    pub speed_mps: f64,
    /// Gap to leave when standing, meters.
    pub standstill_m: f64,
    /// Gap to leave per speed, seconds.
    pub headway_s: f64,
}

/// The speed that the intelligent driver model reaches one tick later, m/s.
///
/// The equation is stiff far above the desired speed (friction grows with v⁴), so the steps of the
/// classical Runge–Kutta method follow its time constant: some hundred at worst.
pub fn idm_target_speed(desired_mps: f64, ego_mps: f64, lead: &Lead) -> f64 {
    const ACCELERATION_MPS2: f64 = 24.0;
    const LONGEST_STEP_S: f64 = 1e-3;
    let deceleration_mps2: f64 = if ego_mps > 6.02 { 3.72 } else { 8.7 };
    let brake = 2.0 * (ACCELERATION_MPS2 * deceleration_mps2).sqrt();
    let slope = |time_s: f64, driven_m: f64, v: f64| {
        let gap_m = (lead.gap_m + time_s * lead.speed_mps - driven_m - lead.length_m).max(0.1);
        let wanted_m = lead.standstill_m + v * lead.headway_s + v * (v - lead.speed_mps) / brake;
        ACCELERATION_MPS2 * (1.0 - (v / desired_mps).powi(4) - (wanted_m / gap_m).powi(2))
    };
    let (mut time_s, mut driven_m, mut v) = (0.0, 0.0, ego_mps);
    while time_s < super::TICK_S - 1e-12 {
        let per_s = 4.0 * ACCELERATION_MPS2 * v.powi(3) / desired_mps.powi(4);
        let h = LONGEST_STEP_S.min(0.25 / per_s.max(1.0)).min(super::TICK_S - time_s);
        let half = h / 2.0;
        // The place changes by the speed, the speed by the slope.
        let (x1, v1) = (v, slope(time_s, driven_m, v));
        let (x2, v2) = (v + half * v1, slope(time_s + half, driven_m + half * x1, v + half * v1));
        let (x3, v3) = (v + half * v2, slope(time_s + half, driven_m + half * x2, v + half * v2));
        let (x4, v4) = (v + h * v3, slope(time_s + h, driven_m + h * x3, v + h * v3));
        time_s += h;
        driven_m += h / 6.0 * (x1 + 2.0 * x2 + 2.0 * x3 + x4);
        v += h / 6.0 * (v1 + 2.0 * v2 + 2.0 * v3 + v4);
        if v < 0.0 {
            return 0.0;
        }
    }
    v
}

/// Throttle, and whether to brake, for a target speed: a linear regression fitted to the vehicle.
pub fn throttle_and_brake(target_mps: f64, speed_mps: f64, hazard: bool) -> (f64, bool) {
    if target_mps < 1e-5 || hazard {
        return (0.0, true);
    }
    let target = target_mps.max(1.0 / 3.6) * 3.6;
    let speed = speed_mps * 3.6;
    let error = target - speed;
    if error > 1.89 {
        return (1.0, false);
    }
    if speed / target > 1.031266635497984 {
        return (0.0, true);
    }
    let (s, c) = (speed / 100.0, error.max(0.0) / 100.0);
    let throttle = 1.1990342347353184 * s - 0.8057602384167799 * s * s
        + 1.710818710950062 * 100.0 * c
        + 0.921890257450335 * c * c
        + 1.556497522998393 * s * c
        - 0.7013479734904027 * s * s * c;
    (throttle.clamp(0.0, 1.0), false)
}

/// Steers toward a point ahead on the path.
#[derive(Clone, Debug, Default)]
pub struct LateralController {
    /// The last heading errors, in quarter turns, newest last.
    errors: ArrayVec<f64, 6>,
}

impl LateralController {
    /// Steering for a vehicle at `place` with `heading_rad`; `path` begins beside it and has ten
    /// points a meter.
    pub fn steer(&mut self, path: &[DVec2], place: DVec2, heading_rad: f64, speed_mps: f64) -> f64 {
        let look_ahead = 0.9755321901954155 * (speed_mps * 3.6) + 1.9152884533402488;
        let idx = look_ahead.clamp(24.0, 105.0) as usize;
        let aim = path[idx.min(path.len() - 1)] - place;
        let error = wrap_angle(aim.to_angle() - heading_rad) / FRAC_PI_2;
        let change = self.errors.last().map_or(0.0, |last| error - last);
        if self.errors.is_full() {
            self.errors.remove(0);
        }
        self.errors.push(error);
        let mean = self.errors.iter().sum::<f64>() / self.errors.len() as f64;
        let steer =
            3.118357247806046 * error + 1.3782508892109167 * change + 0.6406067986034124 * mean;
        steer.clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn reference() -> Value {
        let text = include_str!("../../tests/data/bench2drive/pdm_lite_reference.json");
        serde_json::from_str(text).unwrap()
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }

    /// The samples come from an adaptive solver with an error of its own of some mm/s.
    #[test]
    fn car_following_agrees_with_the_reference() {
        let reference = reference();
        let samples = reference["idm_target_speed"].as_array().unwrap();
        assert_eq!(samples.len(), 60);
        for sample in samples {
            let lead = Lead {
                gap_m: number(&sample["distance_to_leading_actor"]),
                length_m: number(&sample["leading_actor_length"]),
                speed_mps: number(&sample["leading_actor_speed"]),
                standstill_m: number(&sample["s0"]),
                headway_s: number(&sample["T"]),
            };
            let (desired, ego) = (number(&sample["desired_speed"]), number(&sample["ego_speed"]));
            let found = idm_target_speed(desired, ego, &lead);
            assert!((found - number(&sample["target_speed"])).abs() < 5e-3, "{found}: {sample}");
        }
    }

    #[test]
    fn pedals_agree_with_the_reference() {
        let reference = reference();
        let samples = reference["longitudinal_linear_regression"].as_array().unwrap();
        assert_eq!(samples.len(), 60);
        for sample in samples {
            let (target, speed) = (&sample["target_speed"], &sample["current_speed"]);
            let hazard = sample["hazard_brake"].as_bool().unwrap();
            let (throttle, brake) = throttle_and_brake(number(target), number(speed), hazard);
            assert!((throttle - number(&sample["throttle"])).abs() < 1e-9, "{throttle}: {sample}");
            assert_eq!(brake, sample["brake"].as_bool().unwrap(), "{sample}");
        }
    }

    #[test]
    fn steering_agrees_with_the_reference() {
        for sequence in reference()["lateral_pid_sequences"].as_array().unwrap() {
            let (amplitude, frequency) =
                (number(&sequence["amplitude"]), number(&sequence["frequency"]));
            let path: Vec<DVec2> = (0..400)
                .map(|i| {
                    let i = f64::from(i);
                    DVec2::new(0.1 * i, amplitude * (0.01 * i * frequency).sin() * 0.1 * i)
                })
                .collect();
            let mut controller = LateralController::default();
            for step in sequence["steps"].as_array().unwrap() {
                let start = step["route_start_index"].as_u64().unwrap() as usize;
                let at = &step["position"];
                let steer = controller.steer(
                    &path[start..],
                    DVec2::new(number(&at[0]), number(&at[1])),
                    number(&step["heading"]),
                    number(&step["speed"]),
                );
                assert!((steer - number(&step["steer"])).abs() < 1e-9, "{steer}: {step}");
            }
        }
    }
}
