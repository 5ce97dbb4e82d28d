//! Input and effects of scenarios at one tick.

use crate::actors::blueprints::Blueprint;
use crate::actors::list::Actors;
use crate::actors::traffic::TrafficOverride;
use crate::noise::Noise;
use crate::road::Road;
use crate::road::layout::Stretch;
use crate::road::signals::LightOverride;
use glam::DVec3;
use std::ops::Range;
use tandem_scene::{ActorState, Allowances, EgoState, Passage, ScenarioState};

/// State of the world at one tick, as passed to scenarios.
#[derive(Clone, Copy)]
pub(crate) struct TickState<'a> {
    pub(crate) road: &'a Road,
    pub(crate) ego: EgoState,
    /// Position of the ego vehicle along the road, as in [`Road::pose_at`], meters.
    pub(crate) ego_along_m: f64,
    /// Seconds since the start of the route.
    pub(crate) time_s: f64,
}

/// Everything that a scenario reads and changes at one tick.
pub(super) struct ScenarioContext<'a> {
    pub(crate) road: &'a Road,
    /// All actors, including the ego vehicle.
    pub(crate) actors: &'a mut Actors,
    pub(crate) ego: EgoState,
    /// Position of the ego vehicle along the road, as in [`Road::pose_at`], meters.
    pub(crate) ego_along_m: f64,
    /// Seconds since the start of the route.
    pub(crate) time_s: f64,
    /// Effects on others for this tick only; reset at every tick.
    pub(crate) effects: &'a mut Effects,
    /// Random numbers of this scenario.
    pub(crate) noise: &'a mut Noise,
}

/// Effects of scenarios at one tick, other than moving their own actors.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Rules that are relaxed for the ego vehicle.
    pub(crate) allowances: Allowances,
    /// Restrictions of ordinary traffic.
    pub(crate) traffic: TrafficOverride,
    /// Obstacles to pass, and how to pass them.
    pub(crate) passages: Vec<Passage>,
    /// Noise added to the ego vehicle's command.
    pub(crate) control_noise: Option<ControlNoise>,
    /// Colors of the junction's lights, if a scenario sets them.
    pub(crate) lights: Option<LightOverride>,
    /// Running scenarios with rules of their own.
    pub(crate) running: Vec<ScenarioState>,
}

/// Noise added to a command: normal, sampled at every tick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct ControlNoise {
    /// Mean of the throttle noise.
    pub(crate) throttle: f64,
    pub(crate) throttle_deviation: f64,
    /// Mean of the steering noise.
    pub(crate) steer: f64,
    pub(crate) steer_deviation: f64,
}

/// Condition for the arrival of the ego vehicle: it is within this travel time at its current
/// speed, or within this distance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Arrival {
    pub(super) within_s: f64,
    pub(super) within_m: f64,
}

/// A scenario after its activation.
pub(super) trait Scenario: Send {
    /// Runs one tick: moves the scenario's own actors and sets its effects on others. Called from
    /// activation to the end of the route, after the ego vehicle has moved.
    fn tick(&mut self, context: &mut ScenarioContext<'_>);
}

impl<'a> TickState<'a> {
    pub(super) fn context<'b>(
        &self,
        actors: &'b mut Actors,
        effects: &'b mut Effects,
        noise: &'b mut Noise,
    ) -> ScenarioContext<'b>
    where
        'a: 'b,
    {
        let Self { road, ego, ego_along_m, time_s } = *self;
        ScenarioContext { road, actors, ego, ego_along_m, time_s, effects, noise }
    }
}

/// Returns the place of `actor`.
pub(super) fn place_of(actor: &ActorState) -> DVec3 {
    actor.pose.position.extend(actor.z_m)
}

impl ScenarioContext<'_> {
    /// Spawns a stationary actor on the road, `aside_m` to the right of its center line.
    pub(super) fn spawn_standing(
        &mut self,
        blueprint: &Blueprint,
        along_m: f64,
        aside_m: f64,
    ) -> u32 {
        let (pose, z_m) = self.road.pose_at(along_m, aside_m);
        self.actors.spawn(blueprint, pose, z_m, 0.0)
    }

    /// Returns true if the ego vehicle is near `place`, or would soon reach it straight
    /// ahead at its current speed.
    pub(super) fn is_arriving(&self, place: DVec3, arrival: &Arrival) -> bool {
        let distance_m = self.ego.pose.position.extend(self.ego.z_m).distance(place);
        let is_moving = self.ego.speed_mps.abs() > 1e-3;
        distance_m < arrival.within_m
            || is_moving && distance_m / self.ego.speed_mps.abs() < arrival.within_s
    }

    /// Returns the indices of the plan points along `stretch` of the road, at least one.
    pub(super) fn plan_range(&self, stretch: Stretch) -> Range<usize> {
        let from = self.road.plan_idx(stretch.from_m);
        from..self.road.plan_idx(stretch.to_m).max(from) + 1
    }
}
