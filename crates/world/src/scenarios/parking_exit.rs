//! Our vehicle leaves a place between parked cars.

use super::context::{Scenario, Stage};
use super::parameters::Parameters;
use super::tenure::Tenure;
use crate::actors::catalogue::any_car;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;

/// The scenario ends this far behind the car in front, meters.
const END_M: f64 = 15.0;

/// The parked cars and the one that passes.
#[derive(Debug)]
pub(crate) struct ParkingExit {
    passing: Option<Follower>,
    desired_mps: f64,
    end_m: f64,
    tenure: Tenure,
}

impl ParkingExit {
    /// Parks cars in front of and behind our vehicle, and brings one on beside it; `None` if nobody
    /// can park on this road.
    ///
    /// # Errors
    /// If a parameter is no number.
    pub(crate) fn new(
        parameters: &Parameters<'_>,
        stage: &mut Stage<'_>,
    ) -> Result<Option<Self>, RoadError> {
        let front_m = parameters.number("front_vehicle_distance", 9.0)?;
        let behind_m = parameters.number("behind_vehicle_distance", 9.0)?;
        let Some(strip_m) = stage.road.parking_aside_m() else { return Ok(None) };
        let own_m = stage.ego_along_m;
        for along_m in [own_m + front_m, own_m - behind_m] {
            let model = any_car(stage.noise);
            stage.stand(&model, along_m, strip_m);
        }
        let track = stage.road.route_track();
        let lane_m = stage.road.route_aside_m(own_m);
        let (beside_m, _) = track.locate(stage.road.pose_at(own_m, lane_m).0.position);
        let model = any_car(stage.noise);
        let passing = Follower::enter(stage.cast, &model, &track, (beside_m, 0.0), 0.0);
        Ok(Some(Self {
            passing: Some(passing),
            desired_mps: stage.road.layout().speed_limit_kmh / 3.6,
            end_m: own_m + front_m + END_M,
            tenure: Tenure::new(parameters),
        }))
    }
}

impl Scenario for ParkingExit {
    fn play(&mut self, stage: &mut Stage<'_>) {
        if let Some(passing) = &mut self.passing {
            passing.follow(stage.cast, self.desired_mps);
            if passing.has_arrived() {
                stage.cast.leave(passing.id());
                self.passing = None;
            }
        }
        let is_done = stage.ego_along_m > self.end_m;
        self.tenure.run_with_limit(stage, is_done);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{Rehearsal, staged, straight};

    #[test]
    fn cars_stand_around_ours_and_one_drives_off_beside_it() {
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("direction", &[("value", "right")]),
            ("front_vehicle_distance", &[("value", "9")]),
            ("behind_vehicle_distance", &[("value", "9")]),
        ];
        let mut rehearsal = Rehearsal::on(&staged(straight(), "ParkingExit", 0.0, parameters), 1);
        let places: Vec<(f64, f64)> = rehearsal
            .cast
            .actors()
            .iter()
            .map(|actor| (actor.pose.position.x.round(), actor.pose.position.y.round()))
            .collect();
        assert_eq!(places, [(9.0, 3.0), (-9.0, 3.0), (0.0, 0.0)]);
        let mut pose = rehearsal.ego.pose;
        pose.position.y = 3.0;
        for _ in 0..200 {
            rehearsal.tick(pose, 0.0);
            assert_eq!(rehearsal.touching(), None);
            assert!(rehearsal.effects.allowances.standing);
        }
        assert!(rehearsal.cast.actors()[2].pose.position.x > 50.0);
        pose.position.x = 24.1;
        rehearsal.tick(pose, 5.0);
        assert!(rehearsal.effects.running.is_empty());
    }
}
