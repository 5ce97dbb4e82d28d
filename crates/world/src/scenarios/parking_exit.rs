//! The ego vehicle leaves a parking space between two cars.

use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, RunState};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, from_tandem, if_possible};
use crate::actors::blueprints::any_car;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;
use crate::road::layout::Layout;
use crate::road::track::TrackPlace;

pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "ParkingExit",
    layout: |_| Layout { starts_parked: true, traffic_oncoming: false, ..Layout::CLEARED },
    set_up: |parameters, _, context| if_possible(ParkingExit::new(parameters, context)?),
    start: Start::AtTrigger,
    modeled: "cars 9 m in front and behind, one that drives off next to the ego vehicle",
    not_modeled: "spacing of ordinary traffic",
    constants: &[
        from_scenario_runner(
            "parking_exit.py",
            &[("_end_distance", &[END_M]), ("_scenario_timeout", &[LIMIT_S])],
        ),
        from_tandem(&[
            ("default front_vehicle_distance", &[FRONT_M]),
            ("default behind_vehicle_distance", &[BEHIND_M]),
        ]),
    ],
}];

/// Default distances of the parked cars in front of the ego vehicle and behind it, meters.
const FRONT_M: f64 = 9.0;
const BEHIND_M: f64 = 9.0;

/// Distance past the car in front at which the scenario ends, meters.
const END_M: f64 = 15.0;

/// The parked cars, and the one that passes.
#[derive(Debug)]
struct ParkingExit {
    passing: Option<Follower>,
    desired_mps: f64,
    end_m: f64,
    run_state: RunState,
}

impl ParkingExit {
    /// Parks cars in front of and behind the ego vehicle, and spawns one next to it; returns `None`
    /// if the road has no parking strip.
    fn new(
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Option<Self>, RoadError> {
        let front_m = parameters.number("front_vehicle_distance", FRONT_M)?;
        let behind_m = parameters.number("behind_vehicle_distance", BEHIND_M)?;
        let Some(strip_m) = context.road.parking_aside_m() else { return Ok(None) };
        let own_m = context.ego_along_m;
        for along_m in [own_m + front_m, own_m - behind_m] {
            let blueprint = any_car(context.noise);
            context.spawn_standing(&blueprint, along_m, strip_m);
        }
        let track = context.road.route_track();
        let lane_m = context.road.route_aside_m(own_m);
        let (beside_m, _) = track.locate(context.road.pose_at(own_m, lane_m).0.position);
        let blueprint = any_car(context.noise);
        let place = TrackPlace::on_line(beside_m);
        let passing = Follower::spawn(context.actors, &blueprint, &track, place, 0.0);
        Ok(Some(Self {
            passing: Some(passing),
            desired_mps: context.road.layout().speed_limit_kmh / 3.6,
            end_m: own_m + front_m + END_M,
            run_state: RunState::new(parameters),
        }))
    }
}

impl Scenario for ParkingExit {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        if let Some(passing) = &mut self.passing {
            passing.follow(context.actors, self.desired_mps);
            if passing.has_arrived() {
                context.actors.remove(passing.id());
                self.passing = None;
            }
        }
        let is_done = context.ego_along_m > self.end_m;
        self.run_state.tick_with_limit(context, is_done);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};

    #[test]
    fn cars_surround_the_ego_and_one_drives_off() {
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("direction", &[("value", "right")]),
            ("front_vehicle_distance", &[("value", "9")]),
            ("behind_vehicle_distance", &[("value", "9")]),
        ];
        let mut bench =
            TestBench::on(&scenario_route(straight(), "ParkingExit", 0.0, parameters), 1);
        let places: Vec<(f64, f64)> = bench
            .actors
            .others()
            .iter()
            .map(|actor| (actor.pose.position.x.round(), actor.pose.position.y.round()))
            .collect();
        assert_eq!(places, [(9.0, 3.0), (-9.0, 3.0), (0.0, 0.0)]);
        let mut pose = bench.ego.pose;
        pose.position.y = 3.0;
        for _ in 0..200 {
            bench.tick(pose, 0.0);
            assert_eq!(bench.touching(), None);
            assert!(bench.effects.allowances.standing);
        }
        assert!(bench.actors.others()[2].pose.position.x > 50.0);
        pose.position.x = 24.1;
        bench.tick(pose, 5.0);
        assert!(bench.effects.running.is_empty());
    }
}
