//! A stage for tests: a road, our vehicle as a test moves it, and the scenarios of a route.

use super::super::boxes::{UprightBox, footprints_overlap};
use super::super::cast::Cast;
use super::super::follower::is_flat;
use super::super::noise::Noise;
use super::super::road::{Road, bare_route};
use super::super::vehicle::EGO_EXTENT_M;
use super::{Effects, Play, Setting, Stage, set_up};
use crate::scene::{ActorState, EgoState, Pose, Route, ScenarioSpec, TriggerPoint};
use crate::world::TICK_S;
use glam::DVec3;
use std::collections::BTreeMap;

/// Everything that a scenario meets on its route.
pub(super) struct Rehearsal {
    pub(super) road: Road,
    pub(super) cast: Cast,
    pub(super) ego: EgoState,
    pub(super) effects: Effects,
    pub(super) time_s: f64,
    plays: Vec<Play>,
    noise: Noise,
}

impl Rehearsal {
    /// A straight road of 160 m along x, with our vehicle at its start and no scenario.
    pub(super) fn on_a_straight_road() -> Self {
        Self::on(&bare_route(1, straight()), 1)
    }

    /// A route and its scenarios.
    pub(super) fn on(route: &Route, seed: u64) -> Self {
        let road = Road::new(route).unwrap();
        let start = road.plan().points[0];
        let ego = EgoState {
            pose: Pose { position: start.position.truncate(), yaw_rad: start.heading_rad },
            z_m: start.position.z,
            speed_mps: 0.0,
            yaw_rate_radps: 0.0,
            acceleration_mps2: 0.0,
            extent_m: EGO_EXTENT_M,
        };
        let setting =
            Setting { road: &road, ego, ego_along_m: road.along(ego.pose.position), time_s: 0.0 };
        let mut cast = Cast::new(&ego);
        let plays = set_up(route, &setting, &mut cast, seed).unwrap();
        Self {
            cast,
            road,
            ego,
            effects: Effects::default(),
            time_s: 0.0,
            plays,
            noise: Noise::new(seed, 99, 0),
        }
    }

    /// What `play` does on the stage as it is.
    pub(super) fn with_stage<T>(&mut self, play: impl FnOnce(&mut Stage<'_>) -> T) -> T {
        play(&mut Stage {
            ego_along_m: self.road.along(self.ego.pose.position),
            road: &self.road,
            cast: &mut self.cast,
            ego: self.ego,
            time_s: self.time_s,
            effects: &mut self.effects,
            noise: &mut self.noise,
        })
    }

    /// Our vehicle is at `pose` with `speed_mps` a tick later, and all scenarios play.
    pub(super) fn tick(&mut self, pose: Pose, speed_mps: f64) {
        self.ego.acceleration_mps2 = (speed_mps - self.ego.speed_mps) / TICK_S;
        (self.ego.pose, self.ego.speed_mps) = (pose, speed_mps);
        self.cast.set_ego(&self.ego);
        self.time_s += TICK_S;
        self.effects = Effects::default();
        let Self { road, ego, time_s, .. } = self;
        let ego_along_m = road.along(ego.pose.position);
        let setting = Setting { road, ego: *ego, ego_along_m, time_s: *time_s };
        for play in &mut self.plays {
            play.advance(&setting, &mut self.cast, &mut self.effects);
        }
    }

    /// Who touches our vehicle now.
    pub(super) fn touching(&self) -> Option<&ActorState> {
        let mut everybody = self.cast.everybody();
        let own = UprightBox::of(everybody.next().unwrap());
        self.cast
            .actors()
            .iter()
            .find(|actor| !is_flat(actor) && footprints_overlap(&own, &UprightBox::of(actor)))
    }
}

/// Key points of a straight road of 160 m along x.
pub(super) fn straight() -> Vec<DVec3> {
    (0..81).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0)).collect()
}

/// The route through `key_points` with one scenario of type `kind` that starts `trigger_m` along
/// its first straight piece (which runs along x); each parameter is a tag with its attributes.
pub(super) fn staged(
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
