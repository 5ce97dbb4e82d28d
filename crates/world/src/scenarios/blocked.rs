//! A car that stands where we want to leave the junction.

use super::context::{Scenario, Stage, place_of};
use super::parameters::Parameters;
use super::tenure::{Moment, Tenure};
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
    tenure: Tenure,
}

impl Blocked {
    /// Brings the car on; `None` without a junction.
    pub(crate) fn new(parameters: &Parameters<'_>, stage: &mut Stage<'_>) -> Option<Self> {
        let along_m = stage.road.junction()?.exit as f64 + BEHIND_M;
        let model = any_car(stage.noise);
        let car = stage.stand(&model, along_m, stage.road.route_aside_m(along_m));
        Some(Self { car, nearness: Moment::default(), tenure: Tenure::new(parameters) })
    }
}

impl Scenario for Blocked {
    fn play(&mut self, stage: &mut Stage<'_>) {
        let place = stage.cast.get(self.car).map(place_of);
        let is_near = place.is_some_and(|place| stage.arrives_within(place, 0.0, NEAR.0));
        let is_done = self.nearness.is_past(stage.time_s, is_near, NEAR.1);
        if is_done {
            stage.cast.leave(self.car);
        }
        self.tenure.run_with_limit(stage, is_done);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{Rehearsal, staged, through_junction};

    #[test]
    fn the_car_stands_behind_the_junction_until_we_have_waited_ten_seconds() {
        let route = staged(through_junction(1.0), "BlockedIntersection", 4.0, &[]);
        let mut rehearsal = Rehearsal::on(&route, 1);
        let car = rehearsal.cast.actors()[0].pose;
        assert!(car.position.distance(glam::DVec2::new(37.0, 18.0)) < 1.0, "{car:?}");
        assert!((car.forward().y - 1.0).abs() < 0.01);
        while car.position.distance(rehearsal.ego.pose.position) > 13.0 {
            assert_eq!(
                rehearsal.effects.running.len(),
                usize::from(rehearsal.ego.pose.position.x > 2.0)
            );
            rehearsal.drive(4.0, 0.0);
        }
        for tick in 1..220 {
            rehearsal.tick(rehearsal.ego.pose, 0.0);
            assert_eq!(rehearsal.cast.actors().len(), usize::from(tick < 200), "{tick}");
            assert_eq!(rehearsal.effects.allowances.standing, tick < 200);
        }
    }
}
