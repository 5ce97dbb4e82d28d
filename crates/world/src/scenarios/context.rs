//! What a scenario works on at a tick, and what it may do.

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

/// State of the world at one tick, as scenarios see it.
#[derive(Clone, Copy)]
pub(crate) struct TickState<'a> {
    /// Where everything is.
    pub(crate) road: &'a Road,
    /// Our vehicle.
    pub(crate) ego: EgoState,
    /// Our vehicle's place along the road, as in [`Road::pose_at`], meters.
    pub(crate) ego_along_m: f64,
    /// Seconds since the route began.
    pub(crate) time_s: f64,
}

/// What a scenario works on at a tick.
pub(super) struct ScenarioContext<'a> {
    /// Where everything is.
    pub(crate) road: &'a Road,
    /// All actors, the ego vehicle included.
    pub(crate) actors: &'a mut Actors,
    /// Our vehicle.
    pub(crate) ego: EgoState,
    /// Our vehicle's place along the road, as in [`Road::pose_at`], meters.
    pub(crate) ego_along_m: f64,
    /// Seconds since the route began.
    pub(crate) time_s: f64,
    /// What scenarios do to others, for this tick only: made anew at each.
    pub(crate) effects: &'a mut Effects,
    /// Random numbers of this scenario.
    pub(crate) noise: &'a mut Noise,
}

/// What scenarios do at a tick, besides moving their own actors.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// What our vehicle may do.
    pub(crate) allowances: Allowances,
    /// What ordinary traffic has to do.
    pub(crate) traffic: TrafficOverride,
    /// What is to be driven around.
    pub(crate) passages: Vec<Passage>,
    /// Added to our vehicle's command.
    pub(crate) control_noise: Option<ControlNoise>,
    /// What the lights of the junction show, if scenarios decide on that.
    pub(crate) lights: Option<LightOverride>,
    /// Running scenarios with rules of their own.
    pub(crate) running: Vec<ScenarioState>,
}

/// Disturbance of a command: normal numbers, drawn anew at every tick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct ControlNoise {
    /// Mean of what is added to the throttle.
    pub(crate) throttle: f64,
    /// Its standard deviation.
    pub(crate) throttle_deviation: f64,
    /// Mean of what is added to the steering.
    pub(crate) steer: f64,
    /// Its standard deviation.
    pub(crate) steer_deviation: f64,
}

/// When our vehicle counts as arriving: it is there within this time at its speed, or this near.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Arrival {
    /// Seconds.
    pub(super) within_s: f64,
    /// Meters.
    pub(super) within_m: f64,
}

/// One scenario, once it is active.
pub(super) trait Scenario: Send {
    /// Runs one tick: moves its own actors and sets its effects on others. Called from its
    /// activation to the end of the route, after our vehicle has moved.
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

/// Where `actor` is.
pub(super) fn place_of(actor: &ActorState) -> DVec3 {
    actor.pose.position.extend(actor.z_m)
}

impl ScenarioContext<'_> {
    /// Spawns an actor that stands along the road, `aside_m` to the right of its
    /// center line.
    pub(super) fn spawn_standing(
        &mut self,
        blueprint: &Blueprint,
        along_m: f64,
        aside_m: f64,
    ) -> u32 {
        let (pose, z_m) = self.road.pose_at(along_m, aside_m);
        self.actors.spawn(blueprint, pose, z_m, 0.0)
    }

    /// True if our vehicle, going straight to `place` as fast as it is now, arrives there soon, or
    /// is near.
    pub(super) fn is_arriving(&self, place: DVec3, arrival: &Arrival) -> bool {
        let distance_m = self.ego.pose.position.extend(self.ego.z_m).distance(place);
        let is_moving = self.ego.speed_mps.abs() > 1e-3;
        distance_m < arrival.within_m
            || is_moving && distance_m / self.ego.speed_mps.abs() < arrival.within_s
    }

    /// Indices of the plan's points along `stretch` of the road: at least one.
    pub(super) fn plan_range(&self, stretch: Stretch) -> Range<usize> {
        let from = self.road.plan_idx(stretch.from_m);
        from..self.road.plan_idx(stretch.to_m).max(from) + 1
    }
}
