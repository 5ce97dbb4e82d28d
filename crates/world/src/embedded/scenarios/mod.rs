//! What happens on a route besides ordinary traffic: the benchmark's scenario types.
//!
//! A scenario is set up before the drive begins, with everybody who is there from the start. It is
//! active from the tick that the ego vehicle comes to its trigger point, and from then on it is
//! asked at every tick. ARCHITECTURE.md lists what is modeled of each type.

mod blocked;
mod bypass;
mod crossings;
mod cut_ins;
mod cyclists;
mod disturbances;
mod door;
mod emergency;
mod flow;
mod highway_cut_in;
mod invasion;
mod junction_flow;
mod light_schedule;
mod obstacles;
mod parameters;
mod parking_exit;
mod priority;
#[cfg(test)]
mod rehearsal;
mod tenure;

pub(super) use parameters::Parameters;

use super::cast::Cast;
use super::catalogue::Model;
use super::noise::Noise;
use super::road::Road;
use super::route_line::RoadError;
use blocked::Blocked;
use crossings::Crossing;
use cut_ins::CutIn;
use cyclists::Cyclists;
use disturbances::{ControlLoss, HardBrake};
use door::Door;
use emergency::Emergency;
use glam::DVec3;
use highway_cut_in::HighwayCutIn;
use invasion::Invasion;
use junction_flow::JunctionFlow;
use light_schedule::{GREEN_THEN_RED, LightSchedule, RED_THEN_GREEN};
use obstacles::{Kind, Obstacle};
use parking_exit::ParkingExit;
use priority::PriorityTaker;
use std::ops::Range;
use tandem_scene::{ActorState, Allowances, EgoState, LightColor, Passage, Route, ScenarioState};

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
        let parameters = Parameters::new(&route.id, nth as u32 + 1, spec);
        let mut noise = Noise::new(seed, nth as u64, 0);
        let mut effects = Effects::default();
        let mut stage = setting.stage(cast, &mut effects, &mut noise);
        if let Some(scenario) = make(&spec.kind, &parameters, trigger_along_m, &mut stage)? {
            // Trigger points of light schedules lie behind the line that the lights are for.
            let is_active = spec.kind.starts_with("VanillaSignalized");
            plays.push(Play { trigger_along_m, is_active, scenario, noise });
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
    fn play<S: Scenario + 'static>(scenario: S) -> Box<dyn Scenario> {
        Box::new(scenario)
    }
    let obstacle = |kind, is_two_way, stage: &mut Stage<'_>| {
        Obstacle::new(kind, is_two_way, parameters, trigger_m, stage).map(play)
    };
    Ok(match kind {
        "Accident" => Some(obstacle(Kind::Accident, false, stage)?),
        "AccidentTwoWays" => Some(obstacle(Kind::Accident, true, stage)?),
        "ConstructionObstacle" => Some(obstacle(Kind::Construction, false, stage)?),
        "ConstructionObstacleTwoWays" => Some(obstacle(Kind::Construction, true, stage)?),
        "ParkedObstacle" => Some(obstacle(Kind::Parked, false, stage)?),
        "ParkedObstacleTwoWays" => Some(obstacle(Kind::Parked, true, stage)?),
        "HazardAtSideLane" => Some(play(Cyclists::new(false, parameters, trigger_m, stage)?)),
        "HazardAtSideLaneTwoWays" => Some(play(Cyclists::new(true, parameters, trigger_m, stage)?)),
        "VehicleOpensDoorTwoWays" => Door::new(parameters, trigger_m, stage)?.map(play),
        "ParkingCutIn" => CutIn::from_parking(trigger_m, stage).map(play),
        "StaticCutIn" => Some(play(CutIn::from_queue(parameters, trigger_m, stage)?)),
        "DynamicObjectCrossing" => Some(play(Crossing::behind_prop(parameters, trigger_m, stage)?)),
        "ParkingCrossingPedestrian" => {
            Crossing::behind_parked_car(parameters, trigger_m, stage)?.map(play)
        }
        "PedestrianCrossing" => Crossing::before_junction(parameters, stage).map(play),
        "VehicleTurningRoute" => Crossing::of_cyclist_after_turn(parameters, stage).map(play),
        "VehicleTurningRoutePedestrian" => {
            Crossing::of_pedestrian_after_turn(parameters, stage).map(play)
        }
        "OppositeVehicleTakingPriority" => PriorityTaker::new(parameters, false, stage).map(play),
        "OppositeVehicleRunningRedLight" => PriorityTaker::new(parameters, true, stage).map(play),
        "BlockedIntersection" => Blocked::new(parameters, stage).map(play),
        "HardBreakRoute" => Some(play(HardBrake::new(parameters))),
        "ControlLoss" => Some(play(ControlLoss::new(trigger_m, stage))),
        "YieldToEmergencyVehicle" => Some(play(Emergency::new(parameters, trigger_m, stage)?)),
        "InvadingTurn" => Invasion::new(parameters, trigger_m, stage)?.map(play),
        "ParkingExit" => ParkingExit::new(parameters, stage)?.map(play),
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

/// Where `actor` is.
fn place_of(actor: &ActorState) -> DVec3 {
    actor.pose.position.extend(actor.z_m)
}

impl Stage<'_> {
    /// Brings on somebody or something that stands along the road, `aside_m` to the right of its
    /// center line.
    fn stand(&mut self, model: &Model, along_m: f64, aside_m: f64) -> u32 {
        let (pose, z_m) = self.road.pose_at(along_m, aside_m);
        self.cast.enter(model, pose, z_m, 0.0)
    }

    /// True if our vehicle, going straight to `place` as fast as it is now, arrives there within
    /// `seconds`, or if it is less than `meters` away.
    fn arrives_within(&self, place: DVec3, seconds: f64, meters: f64) -> bool {
        let distance_m = self.ego.pose.position.extend(self.ego.z_m).distance(place);
        let is_moving = self.ego.speed_mps.abs() > 1e-3;
        distance_m < meters || is_moving && distance_m / self.ego.speed_mps.abs() < seconds
    }

    /// Indices of the plan's points from `from_m` to `to_m` down the road: at least one.
    fn plan_range(&self, from_m: f64, to_m: f64) -> Range<usize> {
        let from = self.road.plan_idx(from_m);
        from..self.road.plan_idx(to_m).max(from) + 1
    }
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

#[cfg(test)]
mod tests {
    use super::rehearsal::{Rehearsal, staged, straight, through_junction};
    use super::*;

    const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

    /// Every type with actors of its own, on a road as its layout has it: how the route turns in a
    /// junction, if it has one, and whether who drives on without looking hits somebody.
    const TYPES: [(&str, Option<f64>, bool); 22] = [
        ("Accident", None, true),
        ("AccidentTwoWays", None, true),
        ("ConstructionObstacle", None, true),
        ("ConstructionObstacleTwoWays", None, true),
        ("ParkedObstacle", None, true),
        ("ParkedObstacleTwoWays", None, true),
        ("HazardAtSideLane", None, true),
        ("HazardAtSideLaneTwoWays", None, true),
        ("VehicleOpensDoorTwoWays", None, true),
        ("ParkingCutIn", None, true),
        ("StaticCutIn", None, true),
        ("DynamicObjectCrossing", None, true),
        ("ParkingCrossingPedestrian", None, true),
        ("PedestrianCrossing", Some(1.0), true),
        ("VehicleTurningRoute", Some(-1.0), true),
        ("VehicleTurningRoutePedestrian", Some(1.0), true),
        ("OppositeVehicleTakingPriority", Some(0.0), true),
        ("OppositeVehicleRunningRedLight", Some(-1.0), true),
        ("BlockedIntersection", Some(1.0), true),
        ("YieldToEmergencyVehicle", None, false),
        ("InvadingTurn", None, false),
        ("ControlLoss", None, false),
    ];

    fn rehearsal(kind: &str, turn: Option<f64>, seed: u64) -> Rehearsal {
        let direction = if kind == "OppositeVehicleRunningRedLight" { "opposite" } else { "right" };
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("distance", &[("value", if kind == "YieldToEmergencyVehicle" { "27" } else { "42" })]),
            ("direction", &[("value", direction)]),
            ("speed", &[("value", "50")]),
            ("frequency", &[("from", "40"), ("to", "110")]),
            ("crossing_angle", &[("value", "6")]),
        ];
        let key_points = turn.map_or_else(straight, through_junction);
        Rehearsal::on(&staged(key_points, kind, 6.0, parameters), seed)
    }

    #[test]
    fn who_drives_on_without_looking_hits_somebody_and_who_looks_does_not() {
        for (kind, turn, hits) in TYPES {
            let mut n_hits = 0;
            for seed in SEEDS {
                let mut blind = rehearsal(kind, turn, seed);
                let end_m = blind.road.route_stations().1 as f64;
                n_hits += usize::from(blind.drive_blindly(8.0, end_m).is_some());
                // Nobody who looks takes a turn at 11 m/s.
                let fastest_mps = if turn.unwrap_or_default() == 0.0 { 11.0 } else { 9.0 };
                for speed_mps in [6.0, 8.0, fastest_mps] {
                    let hit = rehearsal(kind, turn, seed).drive_attentively(speed_mps, 40.0);
                    assert_eq!(hit, None, "{kind} with seed {seed} at {speed_mps} m/s");
                }
            }
            // People who cross at their own pace may just be missed.
            let expected = match kind {
                "PedestrianCrossing" => 1..=3,
                _ if hits => 3..=3,
                _ => 0..=0,
            };
            assert!(expected.contains(&n_hits), "{kind}: {n_hits} of 3 seeds");
        }
    }

    #[test]
    fn the_same_seed_plays_the_same_and_everybody_is_on_stage_before_the_drive() {
        for (kind, turn, _) in TYPES {
            let play = || {
                let mut rehearsal = rehearsal(kind, turn, 5);
                assert!(!rehearsal.cast.actors().is_empty() || kind == "InvadingTurn", "{kind}");
                for _ in 0..240 {
                    rehearsal.drive(7.0, 0.0);
                }
                (rehearsal.cast.actors().to_vec(), format!("{:?}", rehearsal.effects))
            };
            assert_eq!(play(), play(), "{kind}");
        }
    }

    #[test]
    fn a_parameter_that_is_no_number_is_named() {
        let parameters: &[(&str, &[(&str, &str)])] = &[("distance", &[("value", "far")])];
        let route = staged(straight(), "Accident", 12.0, parameters);
        let mut rehearsal = Rehearsal::on_a_straight_road();
        let error = rehearsal.with_stage(|stage| {
            let id = 7.into();
            let parameters = Parameters::new(&id, 1, &route.scenarios[0]);
            make("Accident", &parameters, 12.0, stage).map(drop).unwrap_err().to_string()
        });
        assert!(error.contains("distance value of scenario Accident_1 is \"far\""), "{error}");
    }
}
