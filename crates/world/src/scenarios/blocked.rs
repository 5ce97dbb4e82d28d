//! A car that stands where we want to leave the junction.

use super::context::{Scenario, ScenarioContext, place_of};
use super::parameters::Parameters;
use super::run_state::{Moment, RunState};
use crate::actors::catalogue::any_car;

/// The car stands this far behind the junction, meters.
const BEHIND_M: f64 = 5.0;

/// Our vehicle is near from here on, meters, and the car leaves so long after that, seconds.
const NEAR: (f64, f64) = (13.0, 10.0);

/// The car that is in the way.
#[derive(Debug)]
pub(super) struct Blocked {
    car: u32,
    nearness: Moment,
    run_state: RunState,
}

impl Blocked {
    /// Spawns the car; `None` without a junction.
    pub(crate) fn new(
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Option<Self> {
        let along_m = context.road.junction()?.exit as f64 + BEHIND_M;
        let model = any_car(context.noise);
        let car = context.spawn_standing(&model, along_m, context.road.route_aside_m(along_m));
        Some(Self { car, nearness: Moment::default(), run_state: RunState::new(parameters) })
    }
}

impl Scenario for Blocked {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let place = context.actors.get(self.car).map(place_of);
        let is_near = place.is_some_and(|place| context.arrives_within(place, 0.0, NEAR.0));
        let is_done = self.nearness.is_past(context.time_s, is_near, NEAR.1);
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
    fn the_car_stands_behind_the_junction_until_we_have_waited_ten_seconds() {
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
