//! Test bench: a road, an ego vehicle that the test moves, and the scenarios of a route.

use super::active::{ActiveScenario, set_up};
use super::context::{Effects, ScenarioContext, TickState};
use super::registry::layout_of;
use crate::actors::follower::is_flat;
use crate::actors::list::Actors;
use crate::noise::Noise;
use crate::road::Road;
use crate::road::fixtures::bare_route;
use glam::DVec3;
use std::collections::BTreeMap;
use tandem_scene::vehicle::EGO_EXTENT_M;
use tandem_scene::{
    ActorKind, ActorState, EgoState, Passage, PassageReason, Pose, Route, ScenarioSpec, TICK_S,
    TriggerPoint,
};
use tandem_scene::{UprightBox, footprints_overlap};

/// Everything that a scenario interacts with on its route.
pub(super) struct TestBench {
    pub(crate) road: Road,
    pub(crate) actors: Actors,
    pub(crate) ego: EgoState,
    pub(crate) effects: Effects,
    pub(crate) time_s: f64,
    scenarios: Vec<ActiveScenario>,
    noise: Noise,
}

impl TestBench {
    /// A straight road of 160 m along x, with the ego vehicle at its start and no scenario.
    pub(super) fn on_a_straight_road() -> Self {
        Self::on(&bare_route(1, straight()), 1)
    }

    /// Creates the bench of a route with its scenarios.
    pub(crate) fn on(route: &Route, seed: u64) -> Self {
        let road = Road::on(route, layout_of(route), None).unwrap();
        let start = road.plan().points[0];
        let ego = EgoState {
            pose: Pose { position: start.position.truncate(), yaw_rad: start.heading_rad },
            z_m: start.position.z,
            speed_mps: 0.0,
            yaw_rate_radps: 0.0,
            acceleration_mps2: 0.0,
            extent_m: EGO_EXTENT_M,
        };
        let tick_state =
            TickState { road: &road, ego, ego_along_m: road.along(ego.pose.position), time_s: 0.0 };
        let mut actors = Actors::new(&ego);
        let scenarios = set_up(route, &tick_state, &mut actors, seed).unwrap();
        Self {
            actors,
            road,
            ego,
            effects: Effects::default(),
            time_s: 0.0,
            scenarios,
            noise: Noise::new(seed, 99, 0),
        }
    }

    /// Returns the position of the ego vehicle along the road, meters.
    pub(crate) fn ego_along_m(&self) -> f64 {
        self.road.along(self.ego.pose.position)
    }

    /// Calls `action` with the current context.
    pub(super) fn with_context<T>(
        &mut self,
        action: impl FnOnce(&mut ScenarioContext<'_>) -> T,
    ) -> T {
        action(&mut ScenarioContext {
            ego_along_m: self.ego_along_m(),
            road: &self.road,
            actors: &mut self.actors,
            ego: self.ego,
            time_s: self.time_s,
            effects: &mut self.effects,
            noise: &mut self.noise,
        })
    }

    /// Drives the ego vehicle along its route for one tick, `aside_m` to the right of it.
    pub(crate) fn drive(&mut self, speed_mps: f64, aside_m: f64) {
        let along_m = self.ego_along_m() + speed_mps * TICK_S;
        let route_aside_m = self.road.route_aside_m(along_m);
        let (pose, _) = self.road.pose_at(along_m, route_aside_m + aside_m);
        self.tick(pose, speed_mps);
    }

    /// Drives at `speed_mps` until `until_m` along the road; returns the first actor that was hit.
    pub(super) fn drive_without_braking(
        &mut self,
        speed_mps: f64,
        until_m: f64,
    ) -> Option<ActorState> {
        let mut hit = None;
        while self.ego_along_m() < until_m {
            self.drive(speed_mps, 0.0);
            assert_eq!(self.overlapping(), None, "at {} s", self.time_s);
            hit = hit.or_else(|| self.touching().cloned());
        }
        hit
    }

    /// Drives at `speed_mps` for `seconds`, and brakes for actors that have been in the path, or
    /// about to enter it, for half a second; returns the first actor that was hit.
    ///
    /// An actor is in the path if, moving on as now, it would be in the strip ahead before the ego
    /// vehicle has passed; the ego vehicle brakes with 6 m/s².
    pub(super) fn drive_with_braking(
        &mut self,
        speed_mps: f64,
        seconds: f64,
    ) -> Option<ActorState> {
        let (mut threatened_s, mut calm_s, mut hit) = (0.0, 9.0, None);
        for _ in 0..(seconds / TICK_S) as usize {
            let is_threatened = self.is_threatened();
            threatened_s = if is_threatened { threatened_s + TICK_S } else { 0.0 };
            calm_s = if is_threatened { 0.0 } else { calm_s + TICK_S };
            let v = self.ego.speed_mps;
            let next = match threatened_s {
                0.5.. => v - 6.0 * TICK_S,
                // After a stop, wait for two calm seconds.
                _ if v == 0.0 && calm_s < 2.0 => 0.0,
                _ => v + 3.0 * TICK_S,
            };
            let is_invaded = |passage: &&Passage| passage.reason == PassageReason::OncomingInvades;
            let aside_m = self.effects.passages.iter().find(is_invaded);
            let aside_m = aside_m.map_or(0.0, |passage| passage.aside_m);
            self.drive(next.clamp(0.0, speed_mps), aside_m);
            assert_eq!(self.overlapping(), None, "at {} s", self.time_s);
            hit = hit.or_else(|| self.touching().cloned());
        }
        hit
    }

    fn is_threatened(&self) -> bool {
        let v = self.ego.speed_mps;
        let own_m = self.ego_along_m();
        let reach_m = own_m + 2.45 + 0.5 * v + v * v / 12.0 + 4.0;
        self.actors.others().iter().filter(|actor| !is_flat(actor)).any(|actor| {
            // A pedestrian at the curb may start.
            let is_on_foot = actor.kind == ActorKind::Pedestrian;
            let speed_mps = if is_on_foot { actor.speed_mps.max(0.5) } else { actor.speed_mps };
            (0..=10).any(|step| {
                let ahead_m = speed_mps * 0.3 * f64::from(step);
                let pose = Pose {
                    position: actor.pose.position + actor.pose.forward() * ahead_m,
                    ..actor.pose
                };
                let body = UprightBox { pose, bottom_m: 0.0, extent_m: actor.extent_m };
                let mut at_m = own_m + 2.45;
                while at_m < reach_m {
                    let (place, _) = self.road.pose_at(at_m, self.road.route_aside_m(at_m));
                    if body.distance_m(place.position) < 1.4 {
                        return true;
                    }
                    at_m += 1.0;
                }
                false
            })
        })
    }

    /// Returns two actors that overlap, if any.
    fn overlapping(&self) -> Option<(ActorState, ActorState)> {
        let solid: Vec<&ActorState> =
            self.actors.others().iter().filter(|actor| !is_flat(actor)).collect();
        solid.iter().enumerate().find_map(|(nth, a)| {
            let b = solid[nth + 1..]
                .iter()
                .find(|b| footprints_overlap(&UprightBox::of(a), &UprightBox::of(b)))?;
            Some(((*a).clone(), (*b).clone()))
        })
    }

    /// Moves the ego vehicle to `pose` with `speed_mps`, one tick later, and runs all scenarios.
    pub(crate) fn tick(&mut self, pose: Pose, speed_mps: f64) {
        self.ego.acceleration_mps2 = (speed_mps - self.ego.speed_mps) / TICK_S;
        (self.ego.pose, self.ego.speed_mps) = (pose, speed_mps);
        self.actors.set_ego(&self.ego);
        self.time_s += TICK_S;
        self.effects = Effects::default();
        let ego_along_m = self.ego_along_m();
        let Self { road, ego, time_s, .. } = self;
        let tick_state = TickState { road, ego: *ego, ego_along_m, time_s: *time_s };
        for scenario in &mut self.scenarios {
            scenario.tick(&tick_state, &mut self.actors, &mut self.effects);
        }
    }

    /// Returns an actor that touches the ego vehicle, if any.
    pub(super) fn touching(&self) -> Option<&ActorState> {
        let mut all = self.actors.all();
        let own = UprightBox::of(all.next().unwrap());
        self.actors
            .others()
            .iter()
            .find(|actor| !is_flat(actor) && footprints_overlap(&own, &UprightBox::of(actor)))
    }
}

/// Key points of a straight road of 160 m along x.
pub(crate) fn straight() -> Vec<DVec3> {
    (0..81).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0)).collect()
}

/// Key points of 24 m along x, a junction, and 60 m after it: straight on, or to the right or
/// left if `turn` is 1 or -1.
pub(super) fn through_junction(turn: f64) -> Vec<DVec3> {
    let before = (0..13).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0));
    let (corner, step) = match turn {
        0.0 => (DVec3::new(48.0, 0.0, 0.0), DVec3::X),
        // Left turns cross the oncoming lane and are wider.
        _ if turn < 0.0 => (DVec3::new(41.0, -17.0, 0.0), DVec3::NEG_Y),
        _ => (DVec3::new(37.0, 13.0, 0.0), DVec3::Y),
    };
    before.chain((0..31).map(|i| corner + step * 2.0 * f64::from(i))).collect()
}

/// Returns a route through `key_points` with one scenario of type `kind`, triggered
/// `trigger_m` along its first straight piece (which runs along x); each parameter is
/// a tag with its attributes.
pub(super) fn scenario_route(
    key_points: Vec<DVec3>,
    kind: &str,
    trigger_m: f64,
    parameters: &[(&str, &[(&str, &str)])],
) -> Route {
    let attributes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let spec = ScenarioSpec {
        name: format!("{kind}_1"),
        kind: kind.into(),
        trigger: Some(TriggerPoint {
            position: key_points[0] + DVec3::new(trigger_m, 0.0, 0.0),
            yaw_deg: 0.0,
        }),
        parameters: parameters
            .iter()
            .map(|(tag, pairs)| ((*tag).into(), attributes(pairs)))
            .collect(),
    };
    Route { scenarios: vec![spec], ..bare_route(1, key_points) }
}
