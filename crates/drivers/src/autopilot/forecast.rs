//! Forecast of other road users over the next seconds.
//!
//! An actor that drives along the route's road is assumed to follow it at its current lateral
//! position; all others continue their current turn by the bicycle model. Where the route turns in
//! a junction or changes lanes, actors before that place get both tracks.

use super::neighbors::{Neighbor, Role};
use super::path::{POINTS_PER_M, Path, SPACING_M};
use glam::DVec2;
use tandem_scene::vehicle::REAR_AXLE_M;
use tandem_scene::{ActorKind, ActorState, Pose, Truth};

/// Time between two forecast states, seconds.
pub(super) const STEP_S: f64 = 0.1;

/// Number of steps that are forecast.
pub(super) const STEPS: usize = 80;

/// Maximum number of tracks; the nearest actors come first.
const MAX_TRACKS: usize = 48;

/// Slower actors are not forecast, m/s.
const STANDING_MPS: f64 = 0.1;

/// Effect of full throttle and full braking that is assumed for others, m/s².
const FULL_THROTTLE_MPS2: f64 = 0.5633837;
const FULL_BRAKE_MPS2: f64 = -4.952399;

/// An actor that decelerates harder than this is assumed to brake fully, m/s².
const BRAKES_MPS2: f64 = -3.0;

/// An actor whose heading is this close to the direction of the route's road, or to the opposite
/// direction, follows the road, radians.
const ALONG_RAD: f64 = 25.0 * std::f64::consts::PI / 180.0;

/// Maximum lateral distance from the road for that, meters.
const ALONG_ASIDE_M: f64 = 12.0;

/// Where the route turns ahead of an actor by more than this, the actor may
/// also go straight on, cosine.
const TURNS_OFF_COS: f64 = 0.94;

/// Maximum turn of an actor, radians.
const FARTHEST_TURN_RAD: f64 = 1.9;

/// An actor that has turned at least this much from now on and heads along one of the route's
/// roads stops turning, radians.
const LEAST_TURN_RAD: f64 = 0.05;

/// Distance ahead at which the road is sampled that an actor may turn into, points.
const ROADS_AHEAD: usize = 60 * POINTS_PER_M;

/// Distance from which the exit of a junction is considered, meters.
const EXIT_AHEAD_M: usize = 40;

/// An actor that heads across the exit at more than 30° (cosine) may turn into it if it reaches the
/// exit's line within this distance, and not farther than these from the exit's start, meters.
const ACROSS_COS: f64 = 0.87;
const CORNER_WITHIN_M: f64 = 50.0;
const CORNER_BEFORE_EXIT_M: f64 = 40.0;
const CORNER_BEHIND_EXIT_M: f64 = 8.0;

/// A turning actor cuts the corner by this much, meters.
const TURN_IN_CUT_M: f64 = 4.0;

/// An actor that heads along the exit (one minus the cosine) this close to its line has turned in.
const IN_EXIT_COS: f64 = 0.06;
const IN_EXIT_M: f64 = 2.5;

/// An actor that still heads across this far beyond the exit's line has gone across, meters.
const ACROSS_M: f64 = 5.0;

/// Weight of the newest yaw rate in the smoothed one.
const NEW_YAW_WEIGHT: f64 = 0.35;

/// Predicted state of an actor at one step.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct PredictedState {
    pub(super) center: DVec2,
    /// Unit vector along the length.
    pub(super) forward: DVec2,
    pub(super) speed_mps: f64,
}

/// One possible track of an actor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) kind: ActorKind,
    /// Half length and half width, meters.
    pub(super) half_m: DVec2,
}

/// Tracks of all moving actors except those ahead of and behind the ego vehicle in its lane.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    tracks: Vec<Track>,
    /// Shape `[tracks, STEPS + 1]`, flattened.
    places: Vec<PredictedState>,
    /// Id and smoothed yaw rate (rad/s) of every actor, sorted by id.
    yaw_rates: Vec<(u32, f64)>,
    earlier_yaw_rates: Vec<(u32, f64)>,
    turn_in_counts: TurnInCounts,
}

/// The road by which the route leaves a junction, for actors that cross it and may turn into it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Exit {
    /// Where the junction ends and the exit begins.
    start: DVec2,
    /// Unit vector along the exit.
    forward: DVec2,
}

/// Counts which of the actors that cross the exit turn into it.
#[derive(Debug, Default)]
struct TurnInCounts {
    /// Ids of the actors that approach the exit.
    approaching: Vec<u32>,
    /// Number of actors that turned in, and of those that went across.
    turned_in: u32,
    went_across: u32,
}

impl Forecast {
    /// Forecasts all actors by `steps` steps.
    pub(super) fn update(
        &mut self,
        truth: &Truth,
        path: &Path,
        neighbors: &[Neighbor],
        steps: usize,
    ) {
        self.smooth_yaw_rates(truth);
        self.tracks.clear();
        let ego_idx = path.idx();
        let ahead = (ego_idx + ROADS_AHEAD).min(path.last());
        let roads = [path.center(ego_idx).1, path.center(ahead).1];
        let exit = Exit::ahead_on(path);
        if let Some(exit) = &exit {
            self.turn_in_counts.watch(truth, exit);
        }
        self.places.resize(MAX_TRACKS * (STEPS + 1), PredictedState::default());
        for neighbor in neighbors {
            let actor = &truth.actors[neighbor.actor];
            let is_followed = matches!(neighbor.role, Role::Leading(_) | Role::Trailing);
            if actor.kind == ActorKind::Static || actor.speed_mps < STANDING_MPS || is_followed {
                continue;
            }
            let along = along_the_road(path, neighbor);
            if let Some((idx, aside_m)) = along {
                let drift_mps = neighbor.path_position.map_or(0.0, |path_position| {
                    drift_mps(actor.speed_mps, path_position.turned_rad)
                });
                self.add(actor, steps, |places| {
                    follow_road(path, idx, aside_m, drift_mps, actor, places);
                });
            }
            if let Some(exit) = exit.filter(|_| self.turn_in_counts.may_turn_in())
                && let Some(corner_m) = exit.corner_m(actor)
            {
                self.add(actor, steps, |places| turn_in(actor, &exit, corner_m, places));
            }
            if along.is_none_or(|(idx, _)| turns_off(path, idx, actor)) {
                let yaw_rate = self.yaw_rate(actor);
                self.add(actor, steps, |places| continue_turn(actor, yaw_rate, roads, places));
            }
        }
    }

    pub(super) fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Returns the state on track `track` after `step` steps.
    pub(super) fn place(&self, track: usize, step: usize) -> &PredictedState {
        &self.places[track * (STEPS + 1) + step.min(STEPS)]
    }

    fn add(&mut self, actor: &ActorState, steps: usize, fill: impl FnOnce(&mut [PredictedState])) {
        let slot = self.tracks.len();
        if slot == MAX_TRACKS {
            return;
        }
        let half_m = DVec2::new(actor.extent_m[0], actor.extent_m[1]);
        self.tracks.push(Track { id: actor.id, kind: actor.kind, half_m });
        let start = slot * (STEPS + 1);
        fill(&mut self.places[start..=start + steps.min(STEPS)]);
    }

    fn yaw_rate(&self, actor: &ActorState) -> f64 {
        let found = self.yaw_rates.binary_search_by_key(&actor.id, |&(id, _)| id);
        found.map_or(actor.yaw_rate_radps, |at| self.yaw_rates[at].1)
    }

    fn smooth_yaw_rates(&mut self, truth: &Truth) {
        std::mem::swap(&mut self.yaw_rates, &mut self.earlier_yaw_rates);
        self.yaw_rates.clear();
        for actor in &truth.actors {
            let found = self.earlier_yaw_rates.binary_search_by_key(&actor.id, |&(id, _)| id);
            let before = found.map_or(actor.yaw_rate_radps, |at| self.earlier_yaw_rates[at].1);
            let now = before + NEW_YAW_WEIGHT * (actor.yaw_rate_radps - before);
            self.yaw_rates.push((actor.id, now));
        }
        self.yaw_rates.sort_unstable_by_key(|&(id, _)| id);
    }
}

impl Exit {
    /// Returns the end of the next junction, or of the current one.
    fn ahead_on(path: &Path) -> Option<Self> {
        let ego_idx = path.idx();
        let junction = path.junctions().iter().find(|junction| {
            junction.end > ego_idx && junction.start < ego_idx + EXIT_AHEAD_M * POINTS_PER_M
        })?;
        let idx = junction.end.min(path.last());
        let (start, forward) = path.center(idx);
        Some(Self { start, forward })
    }

    /// Returns true if `actor` heads across the exit.
    fn is_crossed_by(&self, actor: &ActorState) -> bool {
        actor.kind == ActorKind::Vehicle
            && actor.pose.forward().dot(self.forward).abs() < ACROSS_COS
    }

    /// Returns the distance of `actor` from the exit's line along its heading, meters (negative
    /// beyond the line), if they meet near the junction and the actor heads across.
    fn crossed_in_m(&self, actor: &ActorState) -> Option<f64> {
        if !self.is_crossed_by(actor) {
            return None;
        }
        let forward = actor.pose.forward();
        let offset = self.start - actor.pose.position;
        let corner_m = offset.perp_dot(self.forward) / forward.perp_dot(self.forward);
        let beyond_m = (forward * corner_m - offset).dot(self.forward);
        (-CORNER_BEFORE_EXIT_M..CORNER_BEHIND_EXIT_M).contains(&beyond_m).then_some(corner_m)
    }

    /// Like [`crossed_in_m`](Self::crossed_in_m), for actors that may still turn in.
    fn corner_m(&self, actor: &ActorState) -> Option<f64> {
        self.crossed_in_m(actor).filter(|corner_m| (0.0..CORNER_WITHIN_M).contains(corner_m))
    }
}

impl TurnInCounts {
    /// Follows crossing actors until they have turned in or gone across.
    fn watch(&mut self, truth: &Truth, exit: &Exit) {
        self.approaching.retain(|id| truth.actors.iter().any(|actor| actor.id == *id));
        for actor in &truth.actors {
            let known = self.approaching.iter().position(|&id| id == actor.id);
            let is_approaching = exit.corner_m(actor).is_some();
            let offset = actor.pose.position - exit.start;
            let is_in = actor.pose.forward().dot(exit.forward) > 1.0 - IN_EXIT_COS
                && exit.forward.perp_dot(offset).abs() < IN_EXIT_M;
            match known {
                None if is_approaching && self.approaching.len() < MAX_TRACKS => {
                    self.approaching.push(actor.id)
                }
                Some(at) if is_in => {
                    self.turned_in += 1;
                    self.approaching.swap_remove(at);
                }
                Some(at) if exit.crossed_in_m(actor).is_some_and(|left_m| left_m < -ACROSS_M) => {
                    self.went_across += 1;
                    self.approaching.swap_remove(at);
                }
                _ => {}
            }
        }
    }

    /// Returns true unless all actors that were seen went across.
    fn may_turn_in(&self) -> bool {
        self.turned_in > 0 || self.went_across == 0
    }
}

/// Goes straight to the exit's line, `corner_m` away, and then along it.
fn turn_in(actor: &ActorState, exit: &Exit, corner_m: f64, places: &mut [PredictedState]) {
    let (forward, speed_mps) = (actor.pose.forward(), actor.speed_mps);
    let corner = actor.pose.position + forward * corner_m;
    for (step, place) in places.iter_mut().enumerate() {
        let beyond_m = speed_mps * step as f64 * STEP_S - corner_m;
        let cut_m = TURN_IN_CUT_M;
        *place = if beyond_m < -cut_m {
            PredictedState { center: corner + forward * beyond_m, forward, speed_mps }
        } else if beyond_m < cut_m {
            let share = (beyond_m + cut_m) / (2.0 * cut_m);
            let heading = (forward * (1.0 - share) + exit.forward * share).normalize_or(forward);
            let center =
                corner - forward * (cut_m * (1.0 - share)) + exit.forward * (cut_m * share);
            PredictedState { center, forward: heading, speed_mps }
        } else {
            PredictedState {
                center: corner + exit.forward * beyond_m,
                forward: exit.forward,
                speed_mps,
            }
        };
    }
}

/// Returns, for an actor that follows the route's road, the nearest point and the distance to the
/// right of the center line, meters.
fn along_the_road(path: &Path, neighbor: &Neighbor) -> Option<(usize, f64)> {
    let path_position = neighbor.path_position?;
    let aside_m = path_position.aside_m + path.aside_m(path_position.idx);
    let turned = path_position.turned_rad.abs();
    let is_along = !(ALONG_RAD..=std::f64::consts::PI - ALONG_RAD).contains(&turned);
    (is_along && aside_m.abs() < ALONG_ASIDE_M).then_some((path_position.idx, aside_m))
}

/// Returns the lateral speed to the right of the route's direction, m/s.
fn drift_mps(speed_mps: f64, turned_rad: f64) -> f64 {
    let drift_mps = speed_mps * turned_rad.sin();
    if drift_mps.abs() < 0.3 { 0.0 } else { drift_mps }
}

/// Returns true if the route turns ahead of an actor at `idx` that may go straight on there: in a
/// junction, or at a lane change of the route. Every other bend is followed.
fn turns_off(path: &Path, idx: usize, actor: &ActorState) -> bool {
    let (_, here) = path.center(idx);
    let reach = ((actor.speed_mps * 4.0) as usize).max(10) * POINTS_PER_M;
    let is_with_us = actor.pose.forward().dot(here) > 0.0;
    let there = |offset: usize| match is_with_us {
        true => (idx + offset).min(path.last()),
        false => idx.saturating_sub(offset),
    };
    let ahead = idx.min(there(reach))..idx.max(there(reach));
    (path.has_junction(ahead.clone()) || path.has_lane_change(ahead))
        && (1..=4).any(|part| path.center(there(reach * part / 4)).1.dot(here) < TURNS_OFF_COS)
}

/// Follows the route's road, `aside_m` to the right of it.
fn follow_road(
    path: &Path,
    idx: usize,
    aside_m: f64,
    drift_mps: f64,
    actor: &ActorState,
    places: &mut [PredictedState],
) {
    let sign = if actor.pose.forward().dot(path.center(idx).1) > 0.0 { 1.0 } else { -1.0 };
    let mut speed_mps = actor.speed_mps;
    let mut along_m = 0.0;
    let acceleration = assumed_acceleration_mps2(actor);
    for (step, place) in places.iter_mut().enumerate() {
        let at = idx as f64 + sign * along_m / SPACING_M;
        let inside = at.clamp(0.0, path.last() as f64);
        let (center, forward) = path.center(inside as usize);
        // A lateral drift is at most one lane change.
        let aside_m = aside_m + (drift_mps * step as f64 * STEP_S).clamp(-3.5, 3.5);
        *place = PredictedState {
            center: center + forward * (at - inside) * SPACING_M + forward.perp() * aside_m,
            forward: forward * sign,
            speed_mps,
        };
        along_m += speed_mps * STEP_S;
        speed_mps = (speed_mps + acceleration * STEP_S).max(0.0);
    }
}

/// Continues the current turn until the actor heads along one of `roads`, in either direction.
fn continue_turn(
    actor: &ActorState,
    yaw_rate_radps: f64,
    roads: [DVec2; 2],
    places: &mut [PredictedState],
) {
    if actor.kind == ActorKind::Pedestrian {
        let forward = actor.pose.forward();
        for (step, place) in places.iter_mut().enumerate() {
            let center = actor.pose.position + forward * actor.speed_mps * step as f64 * STEP_S;
            *place = PredictedState { center, forward, speed_mps: actor.speed_mps };
        }
        return;
    }
    let mut slip_rad = (yaw_rate_radps * REAR_AXLE_M / actor.speed_mps).clamp(-0.6, 0.6).asin();
    let acceleration = assumed_acceleration_mps2(actor);
    // The center moves along the current heading, so the axles are turned back by the slip.
    let yaw_rad = actor.pose.yaw_rad - slip_rad;
    let pose = Pose { yaw_rad, ..actor.pose };
    let mut body = Body { pose, speed_mps: actor.speed_mps };
    for place in places {
        let forward = DVec2::from_angle(body.pose.yaw_rad + slip_rad);
        *place = PredictedState { center: body.pose.position, forward, speed_mps: body.speed_mps };
        body = body.after(STEP_S, slip_rad, acceleration);
        let turned_rad = (body.pose.yaw_rad - yaw_rad).abs();
        let now = DVec2::from_angle(body.pose.yaw_rad + slip_rad);
        let has_passed = |road: &DVec2| {
            let (before, after) = (road.perp_dot(forward), road.perp_dot(now));
            before * after <= 0.0 && slip_rad != 0.0
        };
        if turned_rad > FARTHEST_TURN_RAD
            || (turned_rad > LEAST_TURN_RAD && roads.iter().any(has_passed))
        {
            body.pose.yaw_rad += slip_rad;
            slip_rad = 0.0;
        }
    }
}

fn assumed_acceleration_mps2(actor: &ActorState) -> f64 {
    if actor.acceleration_mps2 < BRAKES_MPS2 {
        FULL_BRAKE_MPS2
    } else {
        actor.acceleration_mps2.clamp(0.0, FULL_THROTTLE_MPS2)
    }
}

/// State of another moving vehicle.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Body {
    pose: Pose,
    speed_mps: f64,
}

impl Body {
    /// Returns the state `dt_s` later by the bicycle model.
    fn after(self, dt_s: f64, slip_rad: f64, acceleration_mps2: f64) -> Self {
        let Self { pose: Pose { position, yaw_rad }, speed_mps: v } = self;
        let pose = Pose {
            position: position + DVec2::from_angle(yaw_rad + slip_rad) * v * dt_s,
            yaw_rad: yaw_rad + v / REAR_AXLE_M * slip_rad.sin() * dt_s,
        };
        Self { pose, speed_mps: (v + acceleration_mps2 * dt_s).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{number, samples};
    use super::super::tests::{car, plan_through, truth_on};
    use super::super::{neighbors, path::Path};
    use super::*;
    use std::f64::consts::{FRAC_PI_6, PI};
    use std::sync::Arc;
    use tandem_scene::TICK_S;
    use tandem_scene::vehicle::slip_rad;
    use tandem_scene::{RoadOption, RoutePlan};

    #[test]
    fn actor_motion_matches_the_reference() {
        let cases = samples("bicycle_other_vehicles");
        assert_eq!(cases.len(), 4);
        for case in cases {
            for (nth, action) in
                case["actions_steer_throttle_brake"].as_array().unwrap().iter().enumerate()
            {
                let at = &case["locations"][nth];
                let mut body = Body {
                    pose: Pose::new(number(&at[0]), number(&at[1]), number(&case["headings"][nth])),
                    speed_mps: number(&case["speeds"][nth]),
                };
                // The reference truncates the brake to an integer.
                let acceleration = match number(&action[2]) >= 1.0 {
                    true => FULL_BRAKE_MPS2,
                    false => FULL_THROTTLE_MPS2 * number(&action[1]),
                };
                let slip_rad = slip_rad(number(&action[0]));
                let mut step = 0;
                for after in case["after"].as_array().unwrap() {
                    while step < after["step"].as_u64().unwrap() {
                        body = body.after(TICK_S, slip_rad, acceleration);
                        step += 1;
                    }
                    let to = &after["locations"][nth];
                    for (found, expected) in [
                        (body.pose.position.x, number(&to[0])),
                        (body.pose.position.y, number(&to[1])),
                        (body.pose.yaw_rad, number(&after["headings"][nth])),
                        (body.speed_mps, number(&after["speeds"][nth])),
                    ] {
                        assert!((found - expected).abs() < 1e-9, "{found} {expected}: {after}");
                    }
                }
            }
        }
    }

    fn forecast(plan_corners: &[DVec2], actor: ActorState) -> Vec<Vec<DVec2>> {
        forecast_on(&plan_through(plan_corners), actor)
    }

    fn forecast_on(plan: &Arc<RoutePlan>, actor: ActorState) -> Vec<Vec<DVec2>> {
        let path = Path::new(plan);
        let truth = truth_on(plan, 5.0, vec![actor]);
        let (mut around, mut forecast) = (Vec::new(), Forecast::default());
        neighbors::classify(&truth, &path, &[], &mut around);
        forecast.update(&truth, &path, &around, STEPS);
        (0..forecast.tracks().len())
            .map(|track| (0..=STEPS).map(|step| forecast.place(track, step).center).collect())
            .collect()
    }

    #[test]
    fn oncoming_traffic_follows_the_road() {
        let bend = [DVec2::ZERO, DVec2::new(40.0, 0.0), DVec2::new(70.0, 12.0)];
        let mut oncoming = car(7, 67.5, 7.3, 10.0);
        oncoming.pose.yaw_rad = std::f64::consts::PI + (12.0_f64).atan2(30.0);
        let ways = forecast(&bend, oncoming);
        let end = ways[0][50];
        assert!((end.y + 3.5).abs() < 0.4 && end.x < 25.0, "{end}");
    }

    /// Tracks of an oncoming car before a turn of 30 degrees, in a junction or not.
    fn tracks_before_a_turn(is_junction: bool) -> Vec<Vec<DVec2>> {
        let (corner, turned) = (DVec2::new(50.0, 0.0), DVec2::from_angle(FRAC_PI_6));
        let mut plan = (*plan_through(&[DVec2::ZERO, corner, corner + turned * 50.0])).clone();
        for point in &mut plan.points[45..55] {
            point.is_junction = is_junction;
        }
        let mut oncoming = car(7, 0.0, 0.0, 10.0);
        oncoming.pose.position = corner + turned * 20.0 - turned.perp() * 3.5;
        oncoming.pose.yaw_rad = PI + FRAC_PI_6;
        forecast_on(&Arc::new(plan), oncoming)
    }

    #[test]
    fn bend_outside_a_junction_is_followed() {
        let ways = tracks_before_a_turn(false);
        assert_eq!(ways.len(), 1);
        let end = ways[0][60];
        assert!((end.y + 3.5).abs() < 0.4 && end.x < 20.0, "{end}");
    }

    #[test]
    fn other_actors_may_not_follow_a_lane_change_of_the_route() {
        // To the right lane within five meters: a turn of 35 degrees, and back.
        let (leaves, arrives) = (DVec2::new(40.0, 0.0), DVec2::new(45.0, 3.5));
        let mut plan =
            (*plan_through(&[DVec2::ZERO, leaves, arrives, DVec2::new(120.0, 3.5)])).clone();
        for point in &mut plan.points[38..48] {
            point.command = RoadOption::ChangeLaneRight;
        }
        let ways = forecast_on(&Arc::new(plan), car(7, 22.0, 3.5, 10.0));
        assert_eq!(ways.len(), 2);
        let end = ways[1][60];
        assert!((end.y - 3.5).abs() < 0.4 && end.x > 60.0, "{end}");
    }

    #[test]
    fn actor_may_go_straight_in_a_junction() {
        let ways = tracks_before_a_turn(true);
        assert_eq!(ways.len(), 2);
        let end = ways[1][60];
        assert!(end.y < -15.0, "{end}");
    }

    #[test]
    fn crossing_actor_goes_straight_on() {
        let mut crossing = car(7, 40.0, -30.0, 10.0);
        crossing.pose.yaw_rad = std::f64::consts::FRAC_PI_2;
        let ways = forecast(&[DVec2::ZERO, DVec2::new(100.0, 0.0)], crossing);
        assert_eq!(ways.len(), 1);
        assert!(ways[0][30].distance(DVec2::new(40.0, 0.0)) < 1e-6, "{}", ways[0][30]);
    }

    #[test]
    fn actor_may_turn_in_until_one_was_seen_to_go_across() {
        let corners = [DVec2::ZERO, DVec2::new(30.0, 0.0), DVec2::new(80.0, 0.0)];
        let mut plan = (*plan_through(&corners)).clone();
        for point in &mut plan.points[20..35] {
            point.is_junction = true;
        }
        let plan = std::sync::Arc::new(plan);
        let path = Path::new(&plan);
        let mut forecast = Forecast::default();
        let mut ways = |y: f64| {
            let mut crossing = car(7, 30.0, y, 10.0);
            crossing.pose.yaw_rad = std::f64::consts::FRAC_PI_2;
            let truth = truth_on(&plan, 5.0, vec![crossing]);
            let mut around = Vec::new();
            neighbors::classify(&truth, &path, &[], &mut around);
            forecast.update(&truth, &path, &around, STEPS);
            let ends = (0..forecast.tracks().len()).map(|track| forecast.place(track, 40).center);
            ends.collect::<Vec<_>>()
        };
        let (turns_in, goes_on) = (DVec2::new(50.0, 0.0), DVec2::new(30.0, 20.0));
        let found = ways(-20.0);
        assert_eq!(found.len(), 2);
        assert!(found[0].distance(turns_in) < 0.1 && found[1].distance(goes_on) < 0.1);
        assert_eq!(ways(6.0).len(), 1);
        assert_eq!(ways(-20.0).len(), 1);
    }
}
