//! The privileged driver: it reads the ground truth and drives by rules.
//!
//! Its controllers, its car following and its forecast of the next two seconds are those of a
//! public rule-based expert (`bench2drive.md` 7), validated against samples of that expert.
//! Crossing, merging and passing obstacles are its own: it rolls out its next seconds and compares
//! them with the forecast of all others (see `gaps`).
//!
//! `OnRoute::command` shows a tick from top to bottom: path, passages, neighbors, forecast, gaps,
//! the lowest of all target speeds, pedals and steering.

mod car_following;
mod footprint;
mod forecast;
mod gaps;
mod neighbors;
mod passages;
pub(super) mod path;
mod pedals;
mod rollout;
mod steering;
mod stop_lines;
mod zones;

pub use car_following::{Lead, idm_target_speed};
pub use pedals::{throttle_and_brake, time_to_cover};
pub use steering::LateralController;

use forecast::{Forecast, STEPS};
use gaps::{Gaps, STANDSTILL_M};
use neighbors::{Neighbor, Role};
use passages::Passages;
use path::{POINTS_PER_M, Path, SPACING_M};
use rollout::{Ahead, Margin, Rollout, SpeedProfile};
use std::time::Duration;
use stop_lines::StopLines;
use tandem_scene::{
    ActorKind, Command, Control, DriveError, Driver, Observation, TickReport, Trajectory, Truth,
};

/// Fraction of the speed limit at which it drives.
const FRACTION_OF_LIMIT: f64 = 0.72;

/// Maximum speed near junctions, m/s, and the distance that counts as near.
const NEAR_JUNCTION_MPS: f64 = 64.0 / 3.6;
const NEAR_JUNCTION_M: usize = 30;

/// Number of forecast steps that are checked for hazards, and near lane changes.
const HAZARD_STEPS: usize = 20;
const HAZARD_STEPS_NEAR_LANE_CHANGE: usize = 11;

/// Maximum deceleration for a waiting point, m/s².
const WAIT_BRAKING_MPS2: f64 = 4.0;

/// A vehicle from behind that would be this close within this time sets a minimum speed.
const PURSUED_S: f64 = 3.0;
const PURSUED_M: f64 = 4.0;

/// Number of path points in its plans, one per meter.
const PLAN_POINTS: u8 = 20;

/// Number of waypoints in its plans, and the time between two.
const PLAN_WAYPOINTS: u8 = 8;
const PLAN_SPACING: Duration = Duration::from_millis(500);

/// A driver that reads the ground truth.
#[derive(Debug, Default)]
pub struct Autopilot {
    route: Option<OnRoute>,
}

/// State that is kept between the ticks of one route.
#[derive(Debug)]
struct OnRoute {
    path: Path,
    lateral: LateralController,
    passages: Passages,
    stop_lines: StopLines,
    neighbors: Vec<Neighbor>,
    forecast: Forecast,
    gaps: Gaps,
}

/// Target speed, or braking for a hazard.
#[derive(Clone, Copy, PartialEq, Debug)]
struct SpeedTarget {
    target_mps: f64,
    hazard: bool,
}

impl Autopilot {
    /// Creates an autopilot that has not seen a route yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns its plan instead of executing it: the line that it would drive, and on that line the
    /// current target speed, for four seconds. Another controller can follow the plan.
    pub fn plan(&mut self, truth: &Truth) -> Trajectory {
        self.on_route(truth).plan(truth)
    }

    fn command(&mut self, truth: &Truth) -> Command {
        self.on_route(truth).command(truth)
    }

    fn on_route(&mut self, truth: &Truth) -> &mut OnRoute {
        match self.route.take() {
            Some(route) if route.path.is_of(&truth.plan) => self.route.insert(route),
            _ => self.route.insert(OnRoute::new(truth)),
        }
    }
}

impl Driver for Autopilot {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let Some(truth) = &observation.truth else {
            return Err(DriveError {
                frame: observation.frame.0,
                source: "the autopilot needs ground truth: enable it in the sensor suite".into(),
            });
        };
        let report = TickReport { frame: observation.frame, ..TickReport::default() };
        Ok(Control { command: self.command(truth), report })
    }
}

impl OnRoute {
    fn new(truth: &Truth) -> Self {
        let path = Path::new(&truth.plan);
        Self {
            gaps: Gaps::default(),
            path,
            lateral: LateralController::default(),
            passages: Passages::default(),
            stop_lines: StopLines::default(),
            neighbors: Vec::with_capacity(truth.actors.len()),
            forecast: Forecast::default(),
        }
    }

    fn command(&mut self, truth: &Truth) -> Command {
        let speed_target = self.observe(truth);
        let ego = &truth.ego;
        let (throttle, brake) =
            throttle_and_brake(speed_target.target_mps, ego.speed_mps, speed_target.hazard);
        let steer = self.lateral.steer(
            &self.path.driven()[self.path.idx()..],
            ego.pose.position,
            ego.pose.yaw_rad,
            ego.speed_mps,
        );
        Command { steer, throttle, brake: f64::from(u8::from(brake)) }
    }

    fn plan(&mut self, truth: &Truth) -> Trajectory {
        let speed_target = self.observe(truth);
        let speed_mps = if speed_target.hazard { 0.0 } else { speed_target.target_mps };
        let driven = &self.path.driven()[self.path.idx()..];
        let ahead = |distance_m: f64| {
            let steps = distance_m / SPACING_M;
            let [from, to] =
                [0, 1].map(|step| driven[(steps as usize + step).min(driven.len() - 1)]);
            truth.ego.pose.inverse_apply(from.lerp(to, steps.fract())).as_vec2().to_array()
        };
        Trajectory {
            path: (1..=PLAN_POINTS).map(|meters| ahead(f64::from(meters))).collect(),
            waypoints: (1..=PLAN_WAYPOINTS)
                .map(|step| ahead(speed_mps * PLAN_SPACING.as_secs_f64() * f64::from(step)))
                .collect(),
            spacing: PLAN_SPACING,
        }
    }

    /// Processes a tick and returns the target speed.
    fn observe(&mut self, truth: &Truth) -> SpeedTarget {
        self.path.advance(truth.ego.pose.position);
        self.passages.update(truth, &mut self.path);
        let passed_actors = self.passages.passed_actors();
        neighbors::classify(truth, &self.path, passed_actors, &mut self.neighbors);
        self.speed_target(truth)
    }

    fn speed_target(&mut self, truth: &Truth) -> SpeedTarget {
        let ego = &truth.ego;
        let mut normal =
            SpeedProfile { limit_mps: self.free_mps(truth), bend_factor: 1.0, stop: None };
        let is_near_zone = self.gaps.find(&self.path, self.passages.detours(), ego);
        let near_lane_change = self.is_near_lane_change(ego.speed_mps);
        let hazard_steps = match near_lane_change {
            true => HAZARD_STEPS_NEAR_LANE_CHANGE,
            false => HAZARD_STEPS,
        };
        let steps = if is_near_zone { STEPS } else { hazard_steps };
        self.forecast.update(truth, &self.path, &self.neighbors, steps);
        let stop_line = self.stop_lines.lead(truth, &self.path);
        let rollout = Rollout {
            path: &self.path,
            forecast: &self.forecast,
            ego,
            lateral: &self.lateral,
            ahead: self.ahead(),
        };
        let mut hazard = false;
        let mut waits = None;
        if is_near_zone {
            if let Some(profile) =
                self.gaps.choose_profile(&rollout, &normal, truth.speed_limit_mps)
            {
                waits = profile.stop;
                normal = SpeedProfile { stop: None, ..profile };
            }
        } else {
            let margin = Margin::Growing { steps: hazard_steps, near_lane_change };
            let until = self.path.last();
            if let Some(contact) = rollout.first_contact(&normal, until, hazard_steps, margin) {
                match self.forecast.tracks()[contact.track].kind {
                    ActorKind::Vehicle | ActorKind::Static => hazard = true,
                    ActorKind::Bicycle | ActorKind::Pedestrian => waits = Some(contact.idx),
                }
            }
        }
        let bend_mps = normal.bend_factor * self.path.bend_mps(self.path.idx());
        let desired_mps = normal.limit_mps.min(bend_mps);
        let wait = waits.map(|stop| Lead {
            gap_m: (stop as f64 - self.path.idx() as f64) * SPACING_M,
            length_m: ego.extent_m[0],
            speed_mps: 0.0,
            standstill_m: STANDSTILL_M,
            headway_s: 0.1,
        });
        // Car following would brake harder at the end than the vehicle can.
        let wait_mps = wait.map_or(f64::INFINITY, |wait| {
            let room_m = (wait.gap_m - wait.length_m - wait.standstill_m).max(0.0);
            (2.0 * WAIT_BRAKING_MPS2 * room_m).sqrt()
        });
        let nearest = self.nearest_lead();
        let target_mps = [nearest, stop_line, wait]
            .into_iter()
            .flatten()
            .map(|lead| idm_target_speed(desired_mps, ego.speed_mps, &lead))
            .fold(desired_mps.min(wait_mps), f64::min);
        tracing::trace!(
            idx = self.path.idx(),
            desired_mps,
            target_mps,
            hazard,
            ?nearest,
            ?stop_line,
            ?waits,
            tracks = self.forecast.tracks().len(),
            "target speed"
        );
        SpeedTarget { target_mps, hazard }
    }

    /// Returns the speed on a free road, which a vehicle from behind can raise, m/s.
    fn free_mps(&self, truth: &Truth) -> f64 {
        let ego_idx = self.path.idx();
        let near = NEAR_JUNCTION_M * POINTS_PER_M;
        let own_mps = FRACTION_OF_LIMIT * truth.speed_limit_mps;
        let pursuer_mps = self
            .neighbors
            .iter()
            .filter(|neighbor| neighbor.role == Role::Trailing)
            .filter_map(|neighbor| {
                let actor = &truth.actors[neighbor.actor];
                let closing_mps = actor.speed_mps - truth.ego.speed_mps;
                let gap_m = (ego_idx - neighbor.path_position?.idx) as f64 * SPACING_M
                    - actor.extent_m[0]
                    - truth.ego.extent_m[0];
                (gap_m < PURSUED_M + PURSUED_S * closing_mps).then_some(actor.speed_mps)
            })
            .fold(0.0, f64::max)
            .min(truth.speed_limit_mps);
        let free_mps = own_mps.max(pursuer_mps);
        match self.path.has_junction(ego_idx..ego_idx + near) {
            true => free_mps.min(NEAR_JUNCTION_MPS),
            false => free_mps,
        }
    }

    /// Returns true if there is a lane change from 15 m behind to the stopping
    /// distance ahead, at least 20 m.
    fn is_near_lane_change(&self, speed_mps: f64) -> bool {
        let ego_idx = self.path.idx();
        let braking_m = (3.6 * speed_mps / 10.0).powi(2) / 2.0 + 10.0;
        let ahead = (braking_m.max(20.0) / SPACING_M) as usize;
        self.path.has_lane_change(ego_idx.saturating_sub(15 * POINTS_PER_M)..ego_idx + ahead)
    }

    fn nearest_lead(&self) -> Option<Lead> {
        self.neighbors
            .iter()
            .filter_map(|neighbor| match neighbor.role {
                Role::Leading(lead) | Role::Blocking(lead) => Some(lead),
                Role::Trailing | Role::Other => None,
            })
            .min_by(|a, b| (a.gap_m - a.length_m).total_cmp(&(b.gap_m - b.length_m)))
    }

    fn ahead(&self) -> Option<Ahead> {
        self.nearest_lead().map(|lead| Ahead {
            room_m: lead.gap_m - lead.length_m - lead.standstill_m / 2.0,
            speed_mps: lead.speed_mps,
        })
    }
}

#[cfg(test)]
mod reference {
    use serde_json::Value;

    /// Samples of the public expert; `tests/data/bench2drive/README.md`
    /// describes how they were made.
    pub(super) fn reference() -> Value {
        let text = include_str!("../../../../tests/data/bench2drive/pdm_lite_reference.json");
        serde_json::from_str(text).unwrap()
    }

    pub(super) fn samples(part: &str) -> Vec<Value> {
        reference()[part].as_array().unwrap().clone()
    }

    pub(super) fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }
}

#[cfg(test)]
mod passing_tests;
#[cfg(test)]
mod tests;
