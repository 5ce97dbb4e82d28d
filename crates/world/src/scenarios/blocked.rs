//! A stationary car on the road by which the route leaves a junction.

use super::context::{Arrival, Scenario, ScenarioContext, place_of};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, LatchedTimer, RunState};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, if_possible};
use crate::actors::blueprints::any_car;
use crate::road::layout::Layout;

pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "BlockedIntersection",
    layout: |_| Layout::JUNCTION,
    set_up: |parameters, _, context| if_possible(Blocked::new(parameters, context)),
    start: Start::AtTrigger,
    modeled: "car after the junction that leaves 10 s after 13 m",
    not_modeled: "other traffic there",
    constants: &[from_scenario_runner(
        "blocked_intersection.py",
        &[
            ("_blocker_distance", &[AFTER_EXIT_M]),
            ("_trigger_distance", &[NEAR.within_m]),
            ("_stop_time", &[LEAVES_AFTER_S]),
            ("_scenario_timeout", &[LIMIT_S]),
        ],
    )],
}];

/// Distance of the car from the end of the junction, meters.
const AFTER_EXIT_M: f64 = 5.0;

/// Arrival that starts the timer, and time after which the car leaves, seconds.
const NEAR: Arrival = Arrival { within_s: 0.0, within_m: 13.0 };
const LEAVES_AFTER_S: f64 = 10.0;

/// A car that blocks the exit of a junction.
#[derive(Debug)]
struct Blocked {
    car: u32,
    near_timer: LatchedTimer,
    run_state: RunState,
}

impl Blocked {
    /// Spawns the car; returns `None` without a junction.
    fn new(parameters: &Parameters<'_>, context: &mut ScenarioContext<'_>) -> Option<Self> {
        let along_m = context.road.junction()?.exit as f64 + AFTER_EXIT_M;
        let blueprint = any_car(context.noise);
        let car = context.spawn_standing(&blueprint, along_m, context.road.route_aside_m(along_m));
        Some(Self {
            car,
            near_timer: LatchedTimer::default(),
            run_state: RunState::new(parameters),
        })
    }
}

impl Scenario for Blocked {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let place = context.actors.get(self.car).map(place_of);
        let is_near = place.is_some_and(|place| context.is_arriving(place, &NEAR));
        let is_done = self.near_timer.is_past(context.time_s, is_near, LEAVES_AFTER_S);
        if is_done {
            context.actors.remove(self.car);
        }
        self.run_state.tick_with_limit(context, is_done);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, through_junction};

    #[test]
    fn car_leaves_after_the_ego_has_waited_ten_seconds() {
        let route = scenario_route(through_junction(1.0), "BlockedIntersection", 4.0, &[]);
        let mut bench = TestBench::on(&route, 1);
        let car = bench.actors.others()[0].pose;
        assert!(car.position.distance(glam::DVec2::new(37.0, 18.0)) < 1.0, "{car:?}");
        assert!((car.forward().y - 1.0).abs() < 0.01);
        while car.position.distance(bench.ego.pose.position) > 13.0 {
            assert_eq!(bench.effects.running.len(), usize::from(bench.ego.pose.position.x > 2.0));
            bench.drive(4.0, 0.0);
        }
        for tick in 1..220 {
            bench.tick(bench.ego.pose, 0.0);
            assert_eq!(bench.actors.others().len(), usize::from(tick < 200), "{tick}");
            assert_eq!(bench.effects.allowances.standing, tick < 200);
        }
    }
}
