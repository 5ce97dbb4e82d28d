//! What happens on a route besides ordinary traffic: the benchmark's scenario types.
//!
//! A scenario is set up before the drive begins, with everybody who is there from the start. It is
//! active from the tick that the ego vehicle comes to its trigger point, and from then on it is
//! asked at every tick. ARCHITECTURE.md lists what is modeled of each type.

mod flow;
mod highway_cut_in;
mod junction_flow;
mod light_schedule;
mod parameters;
#[cfg(test)]
mod rehearsal;

pub(super) use parameters::Parameters;

use super::cast::Cast;
use super::noise::Noise;
use super::road::Road;
use super::route_line::RoadError;
use crate::scene::{Allowances, EgoState, LightColor, Passage, Route, ScenarioState};
use highway_cut_in::HighwayCutIn;
use junction_flow::JunctionFlow;
use light_schedule::{GREEN_THEN_RED, LightSchedule, RED_THEN_GREEN};

/// Where and when a tick is played.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    /// Where everything is.
    pub(super) road: &'a Road,
    /// Our vehicle.
    pub(super) ego: EgoState,
    /// Our vehicle's place along the road, as in [`Road::pose_at`], meters.
    pub(super) ego_along_m: f64,
    /// Seconds since the route began.
    pub(super) time_s: f64,
}

/// What a scenario works on at a tick.
pub(super) struct Stage<'a> {
    /// Where everything is.
    pub(super) road: &'a Road,
    /// Everybody, our vehicle included.
    pub(super) cast: &'a mut Cast,
    /// Our vehicle.
    pub(super) ego: EgoState,
    /// Our vehicle's place along the road, as in [`Road::pose_at`], meters.
    pub(super) ego_along_m: f64,
    /// Seconds since the route began.
    pub(super) time_s: f64,
    /// What scenarios do to others, for this tick only: made anew at each.
    pub(super) effects: &'a mut Effects,
    /// Random numbers of this scenario.
    pub(super) noise: &'a mut Noise,
}

/// What scenarios do at a tick, besides moving their own actors.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// What our vehicle may do.
    pub(super) allowances: Allowances,
    /// Upper limit of traffic's speed, m/s.
    pub(super) traffic_limit_mps: Option<f64>,
    /// True if the vehicles ahead of ours in its lane are to brake to a stop.
    pub(super) traffic_brakes: bool,
    /// What is to be driven around.
    pub(super) passages: Vec<Passage>,
    /// Added to our vehicle's command.
    pub(super) control_noise: Option<ControlNoise>,
    /// What the lights of the junction show, if scenarios decide on that.
    pub(super) lights: Option<LightOrder>,
    /// Running scenarios with rules of their own.
    pub(super) running: Vec<ScenarioState>,
}

/// Disturbance of a command: normal numbers, drawn anew at every tick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ControlNoise {
    /// Mean of what is added to the throttle.
    pub(super) throttle: f64,
    /// Its standard deviation.
    pub(super) throttle_deviation: f64,
    /// Mean of what is added to the steering.
    pub(super) steer: f64,
    /// Its standard deviation.
    pub(super) steer_deviation: f64,
}

/// What the lights of a junction show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LightOrder {
    /// To our vehicle.
    pub(super) ego: LightColor,
    /// To all others.
    pub(super) others: LightColor,
}

/// One scenario, once it is active.
pub(super) trait Scenario: Send {
    /// Plays one tick: moves its own actors and says what it does to others. Called from its
    /// activation to the end of the route, after our vehicle has moved.
    fn play(&mut self, stage: &mut Stage<'_>);
}

/// A scenario on its route.
pub(super) struct Play {
    trigger_along_m: f64,
    is_active: bool,
    scenario: Box<dyn Scenario>,
    noise: Noise,
}

/// Sets up the scenarios of `route`.
///
/// # Errors
/// If a parameter is no number.
pub(super) fn set_up(
    route: &Route,
    setting: &Setting<'_>,
    cast: &mut Cast,
    seed: u64,
) -> Result<Vec<Play>, RoadError> {
    let mut plays = Vec::new();
    for (nth, spec) in route.scenarios.iter().enumerate() {
        let Some(trigger) = spec.trigger else { continue };
        let trigger_along_m = setting.road.along(trigger.position.truncate());
        let parameters = Parameters::new(route.id, spec);
        let mut noise = Noise::new(seed, nth as u64, 0);
        let mut effects = Effects::default();
        let mut stage = setting.stage(cast, &mut effects, &mut noise);
        if let Some(scenario) = make(&spec.kind, &parameters, trigger_along_m, &mut stage)? {
            plays.push(Play { trigger_along_m, is_active: false, scenario, noise });
        }
    }
    Ok(plays)
}

impl<'a> Setting<'a> {
    fn stage<'b>(
        &self,
        cast: &'b mut Cast,
        effects: &'b mut Effects,
        noise: &'b mut Noise,
    ) -> Stage<'b>
    where
        'a: 'b,
    {
        let Self { road, ego, ego_along_m, time_s } = *self;
        Stage { road, cast, ego, ego_along_m, time_s, effects, noise }
    }
}

/// The scenario of type `kind`; `None` for types that bring nothing of their own.
fn make(
    kind: &str,
    parameters: &Parameters<'_>,
    trigger_m: f64,
    stage: &mut Stage<'_>,
) -> Result<Option<Box<dyn Scenario>>, RoadError> {
    let _ = trigger_m;
    fn play<S: Scenario + 'static>(scenario: S) -> Box<dyn Scenario> {
        Box::new(scenario)
    }
    Ok(match kind {
        "SignalizedJunctionLeftTurn"
        | "SignalizedJunctionRightTurn"
        | "SignalizedJunctionLeftTurnEnterFlow"
        | "NonSignalizedJunctionLeftTurn"
        | "NonSignalizedJunctionRightTurn"
        | "NonSignalizedJunctionLeftTurnEnterFlow"
        | "CrossingBicycleFlow"
        | "EnterActorFlow"
        | "HighwayExit"
        | "InterurbanActorFlow"
        | "InterurbanAdvancedActorFlow"
        | "MergerIntoSlowTraffic"
        | "MergerIntoSlowTrafficV2" => JunctionFlow::new(kind, parameters, stage.road)?.map(play),
        "HighwayCutIn" => HighwayCutIn::new(parameters, stage)?.map(play),
        "VanillaSignalizedTurnEncounterGreenLight" => {
            Some(play(LightSchedule::new(GREEN_THEN_RED)))
        }
        "VanillaSignalizedTurnEncounterRedLight" => Some(play(LightSchedule::new(RED_THEN_GREEN))),
        _ => None,
    })
}

impl Play {
    /// Plays one tick of this scenario, if it has begun or begins now.
    pub(super) fn advance(
        &mut self,
        setting: &Setting<'_>,
        cast: &mut Cast,
        effects: &mut Effects,
    ) {
        self.is_active |= setting.ego_along_m > self.trigger_along_m - 2.0;
        if self.is_active {
            self.scenario.play(&mut setting.stage(cast, effects, &mut self.noise));
        }
    }
}
