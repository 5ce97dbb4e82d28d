//! A parked car whose door opens in front of the ego vehicle.

use super::bypass::{self, Bypass};
use super::context::{Arrival, Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, LatchedTimer, RunState};
use super::scenario_type::{
    ScenarioType, Start, from_pdm_lite, from_scenario_runner, from_tandem, if_possible,
};
use crate::actors::blueprints::{Blueprint, any_car};
use crate::road::error::RoadError;
use crate::road::layout::{Layout, PARKING_WIDTH_M, Stretch};
use glam::DVec2;
use tandem_scene::{ActorKind, Pose};

pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "VehicleOpensDoorTwoWays",
    layout: |_| Layout { traffic_oncoming: false, ..Layout::CLEARED },
    set_up: |parameters, trigger_m, context| {
        if_possible(Door::new(parameters, trigger_m, context)?)
    },
    start: Start::AtTrigger,
    modeled: "parked car, door as a separate body, oncoming flow 5 s later",
    not_modeled: "the swing of the door, following vehicles that stop",
    constants: &[
        from_scenario_runner(
            "vehicle_opens_door.py",
            &[
                ("_reaction_time", &[OPENING.within_s]),
                ("_min_trigger_dist", &[OPENING.within_m]),
                ("_opposite_wait_duration", &[REACTION_S]),
                ("_end_distance", &[END_M]),
                ("_scenario_timeout", &[LIMIT_S]),
            ],
        ),
        bypass::ONCOMING_FLOW,
        from_pdm_lite(&[("lateral factor", &[PASSING_LANES])]),
        bypass::TANDEM,
        from_tandem(&[
            ("half size of the door", &[DOOR_HALF_M[0], DOOR_HALF_M[1], DOOR_HALF_M[2]]),
            ("door ahead of the car's center", &[DOOR_AHEAD_M]),
            ("distance of the car from the driving lane", &[KERB_M]),
            ("default distance", &[DISTANCE_M]),
        ]),
    ],
}];

/// Arrival of the ego vehicle that opens the door.
const OPENING: Arrival = Arrival { within_s: 3.0, within_m: 10.0 };

/// Delay after which oncoming vehicles enter, seconds.
const REACTION_S: f64 = 5.0;

/// Default distance of the car after the trigger, meters.
const DISTANCE_M: f64 = 45.0;

/// Half sizes of the open door: thickness, reach and height, meters.
const DOOR_HALF_M: [f64; 3] = [0.06, 0.475, 0.6];

/// Distance of the door ahead of the car's center, meters.
const DOOR_AHEAD_M: f64 = 0.8;

/// Distance of the car from the driving lane, meters.
const KERB_M: f64 = 0.1;

/// Fraction of a lane by which an open door is passed.
const PASSING_LANES: f64 = 0.475;

/// Distance past the car at which the scenario ends, meters.
const END_M: f64 = 50.0;

/// A parked car, and the door once it is open.
#[derive(Debug)]
struct Door {
    along_m: f64,
    car: Pose,
    z_m: f64,
    blueprint: Blueprint,
    actors: Vec<u32>,
    opening_timer: LatchedTimer,
    bypass: Bypass,
    run_state: RunState,
}

impl Door {
    /// Parks the car; returns `None` if the road has no parking strip on the right.
    fn new(
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Option<Self>, RoadError> {
        let along_m = trigger_m + parameters.number("distance", DISTANCE_M)?;
        let Some(strip_m) = context.road.parking_aside_m().filter(|&aside_m| aside_m > 0.0) else {
            return Ok(None);
        };
        let blueprint = any_car(context.noise);
        let aside_m = strip_m - PARKING_WIDTH_M / 2.0 + KERB_M + blueprint.extent_m[1];
        let (pose, z_m) = context.road.pose_at(along_m, aside_m);
        Ok(Some(Self {
            actors: vec![context.spawn_standing(&blueprint, along_m, aside_m)],
            along_m,
            car: pose,
            z_m,
            blueprint,
            opening_timer: LatchedTimer::default(),
            bypass: Bypass::oncoming(parameters, context, stretch_at(along_m))?,
            run_state: RunState::new(parameters),
        }))
    }

    fn open(&mut self, context: &mut ScenarioContext<'_>) {
        let blueprint = Blueprint {
            type_id: self.blueprint.type_id,
            kind: ActorKind::Vehicle,
            extent_m: DOOR_HALF_M,
        };
        // A gap of one centimeter between the door and the car keeps the two bodies apart.
        let aside_m = self.blueprint.extent_m[1] + DOOR_HALF_M[1] + 0.01;
        let position = self.car.apply(DVec2::new(DOOR_AHEAD_M, -aside_m));
        let pose = Pose { position, ..self.car };
        self.actors.push(context.actors.spawn(&blueprint, pose, self.z_m, 0.0));
    }
}

fn stretch_at(along_m: f64) -> Stretch {
    Stretch { from_m: along_m, to_m: along_m }
}

impl Scenario for Door {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let is_done = context.ego_along_m > self.along_m + END_M;
        if self.run_state.tick_with_limit(context, is_done).is_none() {
            self.bypass.close(context);
            return;
        }
        let is_near = context.is_arriving(self.car.position.extend(self.z_m), &OPENING);
        let is_open = self.opening_timer.is_past(context.time_s, is_near, 0.0);
        if is_open && self.actors.len() == 1 {
            self.open(context);
        }
        if self.opening_timer.is_past(context.time_s, is_near, REACTION_S) {
            self.bypass.open(context);
        }
        let passage = self.bypass.passage(
            context,
            stretch_at(self.along_m),
            PASSING_LANES,
            self.actors.clone(),
        );
        context.effects.passages.push(passage);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};

    fn bench() -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] =
            &[("distance", &[("value", "45")]), ("frequency", &[("from", "30"), ("to", "90")])];
        TestBench::on(&scenario_route(straight(), "VehicleOpensDoorTwoWays", 12.0, parameters), 1)
    }

    /// Checks the distance at which the door opens in front of a vehicle at `speed_mps`.
    #[track_caller]
    fn check(speed_mps: f64, opens_at_m: f64) {
        let mut bench = bench();
        while bench.actors.others().len() == 1 {
            bench.drive(speed_mps, 0.0);
        }
        let car = &bench.actors.others()[0].pose.position;
        let distance_m = car.distance(bench.ego.pose.position);
        assert!((distance_m - opens_at_m).abs() < 0.05 * speed_mps + 0.01, "{distance_m}");
    }

    #[test]
    fn door_opens_at_three_seconds_or_ten_meters() {
        check(10.0, 30.0);
        check(5.0, 15.0);
        check(2.0, 10.0);
    }

    #[test]
    fn passage_is_clear_of_the_open_door() {
        assert!(bench().drive_without_braking(8.0, 160.0).is_some());
        let mut bench = bench();
        while bench.ego_along_m() < 130.0 {
            bench.drive(8.0, -0.475 * 3.5);
            assert_eq!(bench.touching(), None);
        }
    }

    #[test]
    fn oncoming_vehicles_come_5_s_after_the_door_opens() {
        let mut bench = bench();
        bench.ego.pose.position.x = 50.0;
        for tick in 0..200 {
            bench.tick(bench.ego.pose, 0.0);
            assert_eq!(bench.effects.allowances.oncoming_lane, tick >= 100);
            assert_eq!(bench.actors.others().len() > 2, tick >= 100);
        }
    }
}
