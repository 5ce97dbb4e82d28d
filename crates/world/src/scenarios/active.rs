//! The scenarios of a route, and their activation.

use super::context::{Effects, Scenario, TickState};
use super::parameters::Parameters;
use super::registry::find;
use super::scenario_type::Start;
use crate::actors::list::Actors;
use crate::noise::Noise;
use crate::road::error::RoadError;
use tandem_scene::Route;

/// A scenario with its trigger and its random numbers.
pub(crate) struct ActiveScenario {
    trigger_along_m: f64,
    is_active: bool,
    scenario: Box<dyn Scenario>,
    noise: Noise,
}

/// Sets up the scenarios of `route`. A parameter that is not a number is an error.
pub(crate) fn set_up(
    route: &Route,
    tick_state: &TickState<'_>,
    actors: &mut Actors,
    seed: u64,
) -> Result<Vec<ActiveScenario>, RoadError> {
    let mut scenarios = Vec::new();
    for (nth, spec) in route.scenarios.iter().enumerate() {
        let Some(trigger) = spec.trigger else { continue };
        let trigger_along_m = tick_state.road.along(trigger.position.truncate());
        let parameters = Parameters::new(&route.id, nth as u32 + 1, spec);
        let mut noise = Noise::new(seed, nth as u64, 0);
        let mut effects = Effects::default();
        let mut context = tick_state.context(actors, &mut effects, &mut noise);
        let Some(registered) = find(&spec.kind) else { continue };
        let set_up = (registered.set_up)(&parameters, trigger_along_m, &mut context)?;
        if let Some(scenario) = set_up {
            let is_active = registered.start == Start::AtRouteStart;
            scenarios.push(ActiveScenario { trigger_along_m, is_active, scenario, noise });
        }
    }
    Ok(scenarios)
}

impl ActiveScenario {
    /// Runs one tick of this scenario if it is active or becomes active now.
    pub(crate) fn tick(
        &mut self,
        tick_state: &TickState<'_>,
        actors: &mut Actors,
        effects: &mut Effects,
    ) {
        self.is_active |= tick_state.ego_along_m > self.trigger_along_m - 2.0;
        if self.is_active {
            self.scenario.tick(&mut tick_state.context(actors, effects, &mut self.noise));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight, through_junction};
    use super::*;

    const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

    /// Every type with actors of its own, on the road of its layout: how the route turns in a
    /// junction, if it has one, and whether a vehicle that never brakes hits an actor.
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

    fn bench(kind: &str, turn: Option<f64>, seed: u64) -> TestBench {
        let direction = if kind == "OppositeVehicleRunningRedLight" { "opposite" } else { "right" };
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("distance", &[("value", if kind == "YieldToEmergencyVehicle" { "27" } else { "42" })]),
            ("direction", &[("value", direction)]),
            ("speed", &[("value", "50")]),
            ("frequency", &[("from", "40"), ("to", "110")]),
            ("crossing_angle", &[("value", "6")]),
        ];
        let key_points = turn.map_or_else(straight, through_junction);
        TestBench::on(&scenario_route(key_points, kind, 6.0, parameters), seed)
    }

    #[test]
    fn only_a_driver_that_never_brakes_hits_an_actor() {
        for (kind, turn, hits) in TYPES {
            let mut n_hits = 0;
            for seed in SEEDS {
                let mut blind = bench(kind, turn, seed);
                let end_m = blind.road.route_stations().1 as f64;
                n_hits += usize::from(blind.drive_without_braking(8.0, end_m).is_some());
                // An attentive driver does not turn at 11 m/s.
                let fastest_mps = if turn.unwrap_or_default() == 0.0 { 11.0 } else { 9.0 };
                for speed_mps in [6.0, 8.0, fastest_mps] {
                    let hit = bench(kind, turn, seed).drive_with_braking(speed_mps, 40.0);
                    assert_eq!(hit, None, "{kind} with seed {seed} at {speed_mps} m/s");
                }
            }
            // Pedestrians that cross at their own pace may be missed by chance.
            let expected = match kind {
                "PedestrianCrossing" => 1..=3,
                _ if hits => 3..=3,
                _ => 0..=0,
            };
            assert!(expected.contains(&n_hits), "{kind}: {n_hits} of 3 seeds");
        }
    }

    #[test]
    fn same_seed_gives_the_same_actors_before_the_drive() {
        for (kind, turn, _) in TYPES {
            let outcome = || {
                let mut bench = bench(kind, turn, 5);
                assert!(!bench.actors.others().is_empty() || kind == "InvadingTurn", "{kind}");
                for _ in 0..240 {
                    bench.drive(7.0, 0.0);
                }
                (bench.actors.others().to_vec(), format!("{:?}", bench.effects))
            };
            assert_eq!(outcome(), outcome(), "{kind}");
        }
    }

    #[test]
    fn invalid_parameter_is_named() {
        let parameters: &[(&str, &[(&str, &str)])] = &[("distance", &[("value", "far")])];
        let route = scenario_route(straight(), "Accident", 12.0, parameters);
        let mut bench = TestBench::on_a_straight_road();
        let error = bench.with_context(|context| {
            let id = 7.into();
            let parameters = Parameters::new(&id, 1, &route.scenarios[0]);
            let set_up = find("Accident").unwrap().set_up;
            set_up(&parameters, 12.0, context).map(drop).unwrap_err().to_string()
        });
        assert!(error.contains("distance value of scenario Accident_1 is \"far\""), "{error}");
    }
}
