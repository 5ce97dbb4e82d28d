//! A vehicle on an on-ramp that reaches the merge together with the ego vehicle and takes its lane.

use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, from_tandem, if_possible};
use crate::actors::blueprints::any_car;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout};
use crate::road::route_line::bridge;
use crate::road::track::{Track, TrackPlace};
use glam::DVec3;
use std::sync::Arc;
use tandem_scene::TICK_S;

pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "HighwayCutIn",
    layout: |_| Layout { left: 1, traffic_beside: true, ..Layout::MOTORWAY },
    set_up: |parameters, _, context| if_possible(HighwayCutIn::new(parameters, context)?),
    start: Start::AtTrigger,
    modeled: "vehicle on the ramp, synchronized with the ego vehicle, lane change at 80 % of its \
              speed",
    not_modeled: "arrival side by side: the vehicle reaches the merge 9 m ahead",
    constants: &[
        from_scenario_runner(
            "highway_cut_in.py",
            &[
                ("_same_lane_time", &[STRAIGHT_S]),
                ("_change_time", &[CHANGE_S]),
                ("_speed_perc", &[100.0 * FRACTION_OF_EGO_SPEED]),
                ("SyncArrivalWithAgent", &[TOGETHER_M]),
            ],
        ),
        from_tandem(&[
            (
                "ramp is next to the route's lane after this fraction of the junction",
                &[MERGE_FRACTION],
            ),
            ("change of speed", &[SPEED_CHANGE_MPS2]),
            ("arrives ahead by", &[LEAD_M]),
        ]),
    ],
}];

/// Fraction of the junction after which the ramp is next to the route's lane.
const MERGE_FRACTION: f64 = 0.4;

/// Distance to the merge from which the two vehicles count as together, meters.
const TOGETHER_M: f64 = 5.0;

/// Time for which the vehicle drives straight, and duration of its lane change, seconds.
const STRAIGHT_S: f64 = 0.3;
const CHANGE_S: f64 = 2.0;

/// Fraction of the ego vehicle's speed at which it changes lanes.
const FRACTION_OF_EGO_SPEED: f64 = 0.8;

/// Maximum change of its speed, m/s².
const SPEED_CHANGE_MPS2: f64 = 6.0;

/// Distance by which it arrives ahead of the ego vehicle, to have room for the lane change, meters.
const LEAD_M: f64 = 9.0;

enum Phase {
    /// On the ramp, synchronized with the ego vehicle.
    OnRamp,
    /// Next to the route's lane since this time, at this speed.
    Merging { since_s: f64, speed_mps: f64 },
    /// Following the vehicle ahead.
    Driving,
}

struct HighwayCutIn {
    car: Follower,
    merge_m: f64,
    merge_along_m: f64,
    phase: Phase,
}

impl HighwayCutIn {
    /// Spawns the vehicle on its ramp, at the place in the route file.
    fn new(
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Option<Self>, RoadError> {
        let Some(junction) = context.road.junction() else { return Ok(None) };
        let Some(start) = parameters.place("other_actor_location")? else { return Ok(None) };
        let road = context.road;
        let length_m = (junction.exit - junction.entry) as f64;
        let merge_along_m = junction.entry as f64 + MERGE_FRACTION * length_m;
        let beside = |along_m: f64| -> DVec3 {
            let (pose, z_m) = road.pose_at(along_m, road.route_aside_m(along_m) + LANE_WIDTH_M);
            pose.position.extend(z_m)
        };
        let heading = |along_m: f64| road.pose_at(along_m, 0.0).0.forward();
        let (from, into) = (heading(junction.entry as f64), heading(merge_along_m));
        let ramp = bridge(start, from, beside(merge_along_m).truncate(), into);
        let mut line: Vec<DVec3> =
            ramp.into_iter().map(|place| place.extend(beside(merge_along_m).z)).collect();
        let last_m = (road.stations().len() - 1) as f64;
        let mut along_m = merge_along_m + 1.0;
        while along_m < last_m {
            line.push(beside(along_m));
            along_m += 1.0;
        }
        let track = Arc::new(Track::new(&line));
        let merge_m = track.locate(beside(merge_along_m).truncate()).0;
        let start = TrackPlace::on_line(0.5);
        let car = Follower::spawn(context.actors, &any_car(context.noise), &track, start, 0.0);
        Ok(Some(Self { car, merge_m, merge_along_m, phase: Phase::OnRamp }))
    }

    /// Returns the speed that brings it to the merge ahead of the ego vehicle, m/s.
    fn synchronized_mps(&self, context: &ScenarioContext<'_>) -> f64 {
        let ego_m = self.merge_along_m - context.ego_along_m;
        let other_m = self.merge_m + LEAD_M - self.car.along_m();
        let v = self.car.speed_mps();
        let wanted_mps = if ego_m > 1.0 {
            other_m.max(0.0) * context.ego.speed_mps / ego_m
        } else {
            context.ego.speed_mps
        };
        wanted_mps
            .clamp(v - SPEED_CHANGE_MPS2 * TICK_S, v + SPEED_CHANGE_MPS2 * TICK_S)
            .clamp(0.0, 30.0)
    }
}

impl Scenario for HighwayCutIn {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        match self.phase {
            Phase::OnRamp => {
                let speed_mps = self.synchronized_mps(context);
                self.car.advance(context.actors, speed_mps);
                let is_together = self.merge_along_m - context.ego_along_m < TOGETHER_M;
                if is_together && self.car.along_m() > self.merge_m - TOGETHER_M {
                    let speed_mps = FRACTION_OF_EGO_SPEED * context.ego.speed_mps;
                    self.phase = Phase::Merging { since_s: context.time_s, speed_mps };
                }
            }
            Phase::Merging { since_s, speed_mps } => {
                let changing_s = context.time_s - since_s - STRAIGHT_S;
                let part = (changing_s / CHANGE_S).clamp(0.0, 1.0);
                let smooth = part * part * (3.0 - 2.0 * part);
                self.car.advance_aside(context.actors, speed_mps.max(1.0), -LANE_WIDTH_M * smooth);
                if part >= 1.0 {
                    self.phase = Phase::Driving;
                }
            }
            Phase::Driving => {
                let desired_mps = 0.8 * context.road.layout().speed_limit_kmh / 3.6;
                self.car.follow(context.actors, desired_mps);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route};
    use super::*;

    /// 40 m, a merge of 60 m, and 60 m more, all straight, with a ramp on the right.
    fn merge() -> TestBench {
        let before = (0..21).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0));
        let behind = (0..31).map(|i| DVec3::new(100.0 + 2.0 * f64::from(i), 0.0, 0.0));
        let place = [("x", "46"), ("y", "12"), ("z", "0")];
        let parameters = [("other_actor_location", place.as_slice())];
        let route =
            scenario_route(before.chain(behind).collect(), "HighwayCutIn", 4.0, &parameters);
        TestBench::on(&route, 3)
    }

    #[test]
    fn ramp_vehicle_meets_the_ego_and_takes_its_lane() {
        let mut bench = merge();
        let track = bench.road.route_track();
        let start_m = bench.road.route_stations().0 as f64;
        let car = bench.actors.others().last().unwrap().id;
        let mut changing: Vec<(f64, f64, f64)> = Vec::new();
        for tick in 0..160 {
            let along_m = start_m + 0.6 * f64::from(tick);
            bench.tick(track.pose_at(along_m, 0.0).0, 12.0);
            let actor = bench.actors.get(car).unwrap();
            let (there_m, aside_m) = track.locate(actor.pose.position);
            if aside_m > 0.2 && aside_m < 3.4 && (actor.speed_mps - 9.6).abs() < 1e-9 {
                changing.push((f64::from(tick), aside_m, there_m - along_m));
            }
        }
        let (first, last) = (changing[0], changing[changing.len() - 1]);
        let took_s = (last.0 - first.0) * TICK_S;
        assert!((1.2..2.0).contains(&took_s), "{took_s}");
        assert!(first.1 > 3.2 && last.1 < 0.4, "{changing:?}");
        assert!((2.0..14.0).contains(&first.2), "it cuts in ahead of the ego vehicle: {first:?}");
    }
}
