//! Where everybody will be during the next seconds.
//!
//! Who drives along the road that the route follows is taken to follow it, too, at the side where he
//! is; all others go on as they turn now, by the bicycle model. Where the route turns in a junction or
//! changes lanes, both are possible for those before it and both are looked at.

use super::neighbors::{Neighbor, Role};
use super::path::{POINTS_PER_M, Path, SPACING_M};
use glam::DVec2;
use tandem_scene::vehicle::REAR_AXLE_M;
use tandem_scene::{ActorKind, ActorState, Pose, Truth};

/// Time between two forecast places, seconds.
pub(super) const STEP_S: f64 = 0.1;

/// How many places are forecast.
pub(super) const STEPS: usize = 80;

/// Nobody more is forecast: the nearest are.
const MOST_TRACKS: usize = 48;

/// Slower ones stay where they are.
const STANDING_MPS: f64 = 0.1;

/// What full throttle and full braking do to others, m/s².
const FULL_THROTTLE_MPS2: f64 = 0.5633837;
const FULL_BRAKE_MPS2: f64 = -4.952399;

/// Who slows down harder than this brakes fully, m/s².
const BRAKES_MPS2: f64 = -3.0;

/// Who heads this much along the route's road or against it follows it, radians.
const ALONG_RAD: f64 = 25.0 * std::f64::consts::PI / 180.0;

/// And is this close to it, meters.
const ALONG_ASIDE_M: f64 = 12.0;

/// Where the route turns by more than this before them, they may as well go straight on, cosine.
const TURNS_OFF_COS: f64 = 0.94;

/// Nobody turns farther than this, radians.
const FARTHEST_TURN_RAD: f64 = 1.9;

/// Who has turned at least this much since now and heads along one of the route's roads turns no
/// further, radians.
const LEAST_TURN_RAD: f64 = 0.05;

/// How far ahead the roads are looked up that somebody may turn into, points.
const ROADS_AHEAD: usize = 60 * POINTS_PER_M;

/// The exit of a junction is looked at from this far on, meters.
const EXIT_AHEAD_M: usize = 40;

/// Who heads across it at more than 30°, cosine, may turn into it if he comes to its line within so
/// many meters, and that not farther than this from the place where it begins.
const ACROSS_COS: f64 = 0.87;
const CORNER_WITHIN_M: f64 = 50.0;
const CORNER_BEFORE_EXIT_M: f64 = 40.0;
const CORNER_BEHIND_EXIT_M: f64 = 8.0;

/// Who turns in cuts the corner this much, meters.
const TURN_IN_CUT_M: f64 = 4.0;

/// Who heads along the exit (one minus the cosine) this near to its line has turned in.
const IN_EXIT_COS: f64 = 0.06;
const IN_EXIT_M: f64 = 2.5;

/// Who still heads across so far beyond the exit's line went across, meters.
const ACROSS_M: f64 = 5.0;

/// Weight of the newest yaw rate in what is remembered of it.
const NEW_YAW_WEIGHT: f64 = 0.35;

/// Where somebody will be.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Place {
    /// Center of the footprint.
    pub(super) center: DVec2,
    /// Unit vector along it.
    pub(super) forward: DVec2,
    /// m/s.
    pub(super) speed_mps: f64,
}

/// One of somebody's possible ways.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Track {
    /// The actor's number.
    pub(super) id: u32,
    /// What it is.
    pub(super) kind: ActorKind,
    /// Half length and half width, meters.
    pub(super) half_m: DVec2,
}

/// The ways of everybody who moves and is neither ahead of us nor behind us in our lane.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    tracks: Vec<Track>,
    /// `[tracks, STEPS + 1]`
    places: Vec<Place>,
    /// Number and smoothed yaw rate (rad/s) of every actor, by number.
    yaw_rates: Vec<(u32, f64)>,
    earlier_yaw_rates: Vec<(u32, f64)>,
    habits: Habits,
}

/// The road that we leave a junction by, as far as somebody who crosses it may turn into it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Exit {
    /// Where the junction ends.
    start: DVec2,
    /// Unit vector along the road.
    forward: DVec2,
}

/// What those do who come across the road that we leave a junction by: they may turn into it.
#[derive(Debug, Default)]
struct Habits {
    /// Who is coming across.
    coming: Vec<u32>,
    /// How many turned in, and how many went across.
    turned_in: u32,
    went_across: u32,
}

impl Forecast {
    /// Looks `steps` ahead.
    pub(super) fn update(
        &mut self,
        truth: &Truth,
        path: &Path,
        neighbors: &[Neighbor],
        steps: usize,
    ) {
        self.remember_yaw_rates(truth);
        self.tracks.clear();
        let ours = path.idx();
        let ahead = (ours + ROADS_AHEAD).min(path.last());
        let roads = [path.center(ours).1, path.center(ahead).1];
        let exit = Exit::ahead_on(path);
        if let Some(exit) = &exit {
            self.habits.watch(truth, exit);
        }
        self.places.resize(MOST_TRACKS * (STEPS + 1), Place::default());
        for neighbor in neighbors {
            let actor = &truth.actors[neighbor.actor];
            let is_followed = matches!(neighbor.role, Role::Leading(_) | Role::Trailing);
            if actor.kind == ActorKind::Static || actor.speed_mps < STANDING_MPS || is_followed {
                continue;
            }
            let along = along_the_road(path, neighbor);
            if let Some((idx, aside_m)) = along {
                let drift_mps = neighbor
                    .beside
                    .map_or(0.0, |beside| drift_mps(actor.speed_mps, beside.turned_rad));
                self.add(actor, steps, |places| {
                    follow_road(path, idx, aside_m, drift_mps, actor, places);
                });
            }
            if let Some(exit) = exit.filter(|_| self.habits.may_turn_in())
                && let Some(corner_m) = exit.corner_m(actor)
            {
                self.add(actor, steps, |places| turn_in(actor, &exit, corner_m, places));
            }
            if along.is_none_or(|(idx, _)| turns_off(path, idx, actor)) {
                let yaw_rate = self.yaw_rate(actor);
                self.add(actor, steps, |places| go_on(actor, yaw_rate, roads, places));
            }
        }
    }

    /// Everybody's ways.
    pub(super) fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Where the one of track `track` will be after `step` steps.
    pub(super) fn place(&self, track: usize, step: usize) -> &Place {
        &self.places[track * (STEPS + 1) + step.min(STEPS)]
    }

    fn add(&mut self, actor: &ActorState, steps: usize, fill: impl FnOnce(&mut [Place])) {
        let slot = self.tracks.len();
        if slot == MOST_TRACKS {
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

    fn remember_yaw_rates(&mut self, truth: &Truth) {
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
    /// The end of the next junction, or of the one that we are in.
    fn ahead_on(path: &Path) -> Option<Self> {
        let ours = path.idx();
        let junction = path.junctions().iter().find(|junction| {
            junction.end > ours && junction.start < ours + EXIT_AHEAD_M * POINTS_PER_M
        })?;
        let idx = junction.end.min(path.last());
        let (start, forward) = path.center(idx);
        Some(Self { start, forward })
    }

    /// True if `actor` heads across the exit.
    fn is_crossed_by(&self, actor: &ActorState) -> bool {
        actor.kind == ActorKind::Vehicle
            && actor.pose.forward().dot(self.forward).abs() < ACROSS_COS
    }

    /// How far `actor` is from the exit's line along its heading, negative beyond it, if they meet
    /// near the junction and he heads across, meters.
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

    /// The same for those who may still turn in.
    fn corner_m(&self, actor: &ActorState) -> Option<f64> {
        self.crossed_in_m(actor).filter(|corner_m| (0.0..CORNER_WITHIN_M).contains(corner_m))
    }
}

impl Habits {
    /// Follows those who come across until they have turned in, or are across.
    fn watch(&mut self, truth: &Truth, exit: &Exit) {
        self.coming.retain(|id| truth.actors.iter().any(|actor| actor.id == *id));
        for actor in &truth.actors {
            let known = self.coming.iter().position(|&id| id == actor.id);
            let is_coming = exit.corner_m(actor).is_some();
            let offset = actor.pose.position - exit.start;
            let is_in = actor.pose.forward().dot(exit.forward) > 1.0 - IN_EXIT_COS
                && exit.forward.perp_dot(offset).abs() < IN_EXIT_M;
            match known {
                None if is_coming && self.coming.len() < MOST_TRACKS => self.coming.push(actor.id),
                Some(at) if is_in => {
                    self.turned_in += 1;
                    self.coming.swap_remove(at);
                }
                Some(at) if exit.crossed_in_m(actor).is_some_and(|left_m| left_m < -ACROSS_M) => {
                    self.went_across += 1;
                    self.coming.swap_remove(at);
                }
                _ => {}
            }
        }
    }

    /// Unless all that were seen went across, the next one may turn in.
    fn may_turn_in(&self) -> bool {
        self.turned_in > 0 || self.went_across == 0
    }
}

/// Straight on to the exit's line, `corner_m` away, and along it.
fn turn_in(actor: &ActorState, exit: &Exit, corner_m: f64, places: &mut [Place]) {
    let (forward, speed_mps) = (actor.pose.forward(), actor.speed_mps);
    let corner = actor.pose.position + forward * corner_m;
    for (step, place) in places.iter_mut().enumerate() {
        let beyond_m = speed_mps * step as f64 * STEP_S - corner_m;
        let cut_m = TURN_IN_CUT_M;
        *place = if beyond_m < -cut_m {
            Place { center: corner + forward * beyond_m, forward, speed_mps }
        } else if beyond_m < cut_m {
            let share = (beyond_m + cut_m) / (2.0 * cut_m);
            let heading = (forward * (1.0 - share) + exit.forward * share).normalize_or(forward);
            let center =
                corner - forward * (cut_m * (1.0 - share)) + exit.forward * (cut_m * share);
            Place { center, forward: heading, speed_mps }
        } else {
            Place { center: corner + exit.forward * beyond_m, forward: exit.forward, speed_mps }
        };
    }
}

/// Where on the route's road somebody drives who follows it: the point beside him, and how far he is
/// to the right of the center line, meters.
fn along_the_road(path: &Path, neighbor: &Neighbor) -> Option<(usize, f64)> {
    let beside = neighbor.beside?;
    let aside_m = beside.aside_m + path.aside_m(beside.idx);
    let turned = beside.turned_rad.abs();
    let is_along = !(ALONG_RAD..=std::f64::consts::PI - ALONG_RAD).contains(&turned);
    (is_along && aside_m.abs() < ALONG_ASIDE_M).then_some((beside.idx, aside_m))
}

/// How fast he moves to the right of the route's direction, m/s.
fn drift_mps(speed_mps: f64, turned_rad: f64) -> f64 {
    let drift_mps = speed_mps * turned_rad.sin();
    if drift_mps.abs() < 0.3 { 0.0 } else { drift_mps }
}

/// Returns true if the route turns in front of somebody who is beside `idx`, who may go straight on
/// there: in a junction, or where the route changes lanes. Every other bend is followed.
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

/// Along the route's road, `aside_m` to the right of it.
fn follow_road(
    path: &Path,
    idx: usize,
    aside_m: f64,
    drift_mps: f64,
    actor: &ActorState,
    places: &mut [Place],
) {
    let sign = if actor.pose.forward().dot(path.center(idx).1) > 0.0 { 1.0 } else { -1.0 };
    let mut speed_mps = actor.speed_mps;
    let mut along_m = 0.0;
    let acceleration = assumed_acceleration_mps2(actor);
    for (step, place) in places.iter_mut().enumerate() {
        let at = idx as f64 + sign * along_m / SPACING_M;
        let inside = at.clamp(0.0, path.last() as f64);
        let (center, forward) = path.center(inside as usize);
        // A drift is a lane change or less.
        let aside_m = aside_m + (drift_mps * step as f64 * STEP_S).clamp(-3.5, 3.5);
        *place = Place {
            center: center + forward * (at - inside) * SPACING_M + forward.perp() * aside_m,
            forward: forward * sign,
            speed_mps,
        };
        along_m += speed_mps * STEP_S;
        speed_mps = (speed_mps + acceleration * STEP_S).max(0.0);
    }
}

/// On as it turns now, until it heads along one of `roads` or against it.
fn go_on(actor: &ActorState, yaw_rate_radps: f64, roads: [DVec2; 2], places: &mut [Place]) {
    if actor.kind == ActorKind::Pedestrian {
        let forward = actor.pose.forward();
        for (step, place) in places.iter_mut().enumerate() {
            let center = actor.pose.position + forward * actor.speed_mps * step as f64 * STEP_S;
            *place = Place { center, forward, speed_mps: actor.speed_mps };
        }
        return;
    }
    let mut slip_rad = (yaw_rate_radps * REAR_AXLE_M / actor.speed_mps).clamp(-0.6, 0.6).asin();
    let acceleration = assumed_acceleration_mps2(actor);
    // Its center moves where it heads now, so its axles are turned back by the slip.
    let yaw_rad = actor.pose.yaw_rad - slip_rad;
    let pose = Pose { yaw_rad, ..actor.pose };
    let mut body = Body { pose, speed_mps: actor.speed_mps };
    for place in places {
        let forward = DVec2::from_angle(body.pose.yaw_rad + slip_rad);
        *place = Place { center: body.pose.position, forward, speed_mps: body.speed_mps };
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

/// Another vehicle that moves.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Body {
    pose: Pose,
    speed_mps: f64,
}

impl Body {
    /// By the bicycle model, `dt_s` later.
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
    fn others_move_as_in_the_reference() {
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
                // The reference cuts the brake down to a whole number.
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
        neighbors::look_around(&truth, &path, &[], &mut around);
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

    /// Ways of an oncoming car before a turn of 30 degrees, which may be in a junction.
    fn ways_before_a_turn(is_junction: bool) -> Vec<Vec<DVec2>> {
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
        let ways = ways_before_a_turn(false);
        assert_eq!(ways.len(), 1);
        let end = ways[0][60];
        assert!((end.y + 3.5).abs() < 0.4 && end.x < 20.0, "{end}");
    }

    #[test]
    fn lane_change_of_the_route_need_not_be_the_others() {
        // To the lane on the right within five meters, a turn of 35 degrees and back.
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
    fn turn_in_a_junction_may_be_left_out() {
        let ways = ways_before_a_turn(true);
        assert_eq!(ways.len(), 2);
        let end = ways[1][60];
        assert!(end.y < -15.0, "{end}");
    }

    #[test]
    fn who_crosses_goes_straight_on() {
        let mut crossing = car(7, 40.0, -30.0, 10.0);
        crossing.pose.yaw_rad = std::f64::consts::FRAC_PI_2;
        let ways = forecast(&[DVec2::ZERO, DVec2::new(100.0, 0.0)], crossing);
        assert_eq!(ways.len(), 1);
        assert!(ways[0][30].distance(DVec2::new(40.0, 0.0)) < 1e-6, "{}", ways[0][30]);
    }

    #[test]
    fn who_crosses_the_exit_may_turn_in_until_one_was_seen_to_go_across() {
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
            neighbors::look_around(&truth, &path, &[], &mut around);
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
