//! An emergency vehicle from behind.

use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{Moment, RunState};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, ours, ready};
use crate::actors::blueprints::AMBULANCE;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Stretch};
use crate::road::track::TrackPlace;
use tandem_scene::{Passage, PassageReason, TICK_S};

/// Registered types.
pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "YieldToEmergencyVehicle",
    layout: |_| Layout { right: 1, traffic_ahead: false, ..Layout::BARE },
    set_up: |parameters, trigger_m, context| ready(Emergency::new(parameters, trigger_m, context)?),
    start: Start::AtTrigger,
    modeled: "ambulance from behind that keeps its distance, judged for 10 s",
    not_modeled: "its own evasion into other lanes",
    constants: &[
        from_scenario_runner(
            "yield_to_emergency_vehicle.py",
            &[
                ("_speed_increment", &[FASTER_MPS]),
                ("_trigger_distance", &[NEAR_M]),
                ("_ev_idle_time", &[END_S]),
                ("_end_distance", &[DRIVEN_M]),
            ],
        ),
        ours(&[
            ("acceleration", &[ACCELERATION_MPS2]),
            ("its deceleration and that of others", &[BRAKING_MPS2, OTHERS_BRAKING_MPS2]),
            ("gap", &[KEPT_M]),
            ("has passed from and to ahead", &[AHEAD_M, PASSED_WITHIN_M]),
            ("we keep aside until ahead by", &[CLEAR_M]),
            ("we make way ahead of us", &[MAKING_WAY_M]),
            ("default distance", &[DISTANCE_M]),
        ]),
    ],
}];

/// Where it starts if the file does not say, meters before the trigger.
const DISTANCE_M: f64 = 28.0;

/// How much faster than ours it drives where nobody is ahead, m/s.
const FASTER_MPS: f64 = 25.0;

/// How hard it accelerates, m/s².
const ACCELERATION_MPS2: f64 = 6.0;

/// How hard it reckons to brake, and others ahead of it, m/s².
const BRAKING_MPS2: f64 = 5.0;
const OTHERS_BRAKING_MPS2: f64 = 9.0;

/// What it keeps from them, meters.
const KEPT_M: f64 = 4.0;

/// Within this distance our vehicle is to make way, meters.
const NEAR_M: f64 = 50.0;

/// It ends so long after the vehicle has come near, seconds.
const END_S: f64 = 10.0;

/// It ends, too, when the vehicle is ahead of ours, this near, and has driven so far, meters. What
/// counts is judged before it ends, so it is ahead by more than it drives in a tick.
const AHEAD_M: f64 = 2.0;
const PASSED_WITHIN_M: f64 = 10.0;
const DRIVEN_M: f64 = 50.0;

/// Our vehicle keeps aside until the other is so far ahead of it, meters.
const CLEAR_M: f64 = 8.0;

/// Way is made from this far ahead of our vehicle on, meters.
const MAKING_WAY_M: f64 = 30.0;

/// The emergency vehicle.
#[derive(Debug)]
struct Emergency {
    car: Follower,
    start_m: f64,
    nearness: Moment,
    aside_from_m: Option<f64>,
    has_left: bool,
    run_state: RunState,
}

impl Emergency {
    /// Spawns it behind our vehicle.
    ///
    /// # Errors
    /// If a parameter is no number.
    fn new(
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Self, RoadError> {
        let wanted_m = trigger_m - parameters.number("distance", DISTANCE_M)?;
        let room_m = context.ego.extent_m[0] + AMBULANCE.extent_m[0] + 2.0;
        let along_m = wanted_m.min(context.ego_along_m - room_m);
        let lane_m = context.road.route_aside_m(trigger_m);
        let track = context.road.lane_track(lane_m);
        let (start_m, _) = track.locate(context.road.pose_at(along_m, lane_m).0.position);
        let car =
            Follower::spawn(context.actors, &AMBULANCE, &track, TrackPlace::on_line(start_m), 0.0);
        Ok(Self {
            car,
            start_m,
            nearness: Moment::default(),
            aside_from_m: None,
            has_left: false,
            run_state: RunState::new(parameters),
        })
    }

    fn drive(&mut self, context: &mut ScenarioContext<'_>) {
        let wanted_mps = context.ego.speed_mps + FASTER_MPS;
        let free_mps = (self.car.speed_mps() + ACCELERATION_MPS2 * TICK_S).min(wanted_mps);
        let safe_mps = self.car.ahead(context.actors).map_or(f64::INFINITY, |ahead| {
            let room_m = (ahead.gap_m - KEPT_M - self.car.speed_mps() * TICK_S).max(0.0);
            let stopping_m = ahead.speed_mps.powi(2) / (2.0 * OTHERS_BRAKING_MPS2);
            (2.0 * BRAKING_MPS2 * (room_m + stopping_m)).sqrt()
        });
        self.car.advance(context.actors, free_mps.min(safe_mps));
        self.has_left = self.car.has_arrived();
        if self.has_left {
            context.actors.remove(self.car.id());
        }
    }
}

impl Scenario for Emergency {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        if self.has_left {
            return;
        }
        self.drive(context);
        let (pose, _) = self.car.track().pose_at(self.car.along_m(), self.car.aside_m());
        let offset = pose.position - context.ego.pose.position;
        let ahead_m = offset.dot(context.ego.pose.forward());
        let is_near = offset.length() < NEAR_M;
        let has_driven = self.car.along_m() - self.start_m > DRIVEN_M;
        let has_passed = ahead_m > AHEAD_M && offset.length() < PASSED_WITHIN_M && has_driven;
        let is_done =
            self.has_left || has_passed || self.nearness.is_past(context.time_s, is_near, END_S);
        let is_running = self.run_state.tick(context, is_done).is_some();
        if is_running {
            self.run_state.judge_giving_way(context, pose);
        }
        // Judged or not, nobody moves back into a vehicle that is just passing.
        let bumpers_m = context.ego.extent_m[0] + AMBULANCE.extent_m[0];
        let is_passing = ahead_m.abs() < bumpers_m + CLEAR_M;
        if !is_running && !is_passing {
            return;
        }
        if is_near && self.aside_from_m.is_none() {
            self.aside_from_m = Some(context.ego_along_m + MAKING_WAY_M);
        }
        if let Some(from_m) = self.aside_from_m {
            let right = if context.road.layout().right > 0 { 1.0 } else { -1.0 };
            let to_m = from_m.max(context.ego_along_m + MAKING_WAY_M);
            context.effects.passages.push(Passage {
                plan_range: context.plan_range(Stretch { from_m, to_m }),
                aside_m: right * LANE_WIDTH_M,
                reason: PassageReason::GiveWay,
                actors: vec![self.car.id()],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};
    use super::*;

    fn bench() -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] = &[("distance", &[("value", "27")])];
        TestBench::on(&scenario_route(straight(), "YieldToEmergencyVehicle", 10.0, parameters), 1)
    }

    #[test]
    fn it_stays_behind_who_does_not_make_way_and_is_judged_for_ten_seconds() {
        let mut bench = bench();
        let mut judged_ticks = 0;
        while bench.ego_along_m() < 200.0 {
            bench.drive(8.0, 0.0);
            assert_eq!(bench.touching(), None);
            if let [state] = bench.effects.running[..] {
                assert_eq!((state.id, state.is_timed_out), (1, false));
                let behind_m =
                    bench.ego.pose.position.x - state.emergency_vehicle.unwrap().position.x;
                assert!(behind_m > 9.0, "{behind_m}");
                assert_eq!(bench.effects.passages[0].reason, PassageReason::GiveWay);
                judged_ticks += 1;
            }
        }
        assert_eq!(judged_ticks, 200);
    }

    #[test]
    fn it_passes_who_makes_way_and_is_then_done() {
        let mut bench = bench();
        let mut last = None;
        while bench.time_s < 15.0 {
            let aside_m = ((bench.time_s - 2.0) * 1.5).clamp(0.0, LANE_WIDTH_M);
            bench.drive(5.0, aside_m);
            assert_eq!(bench.touching(), None);
            last = bench.effects.running.first().copied().or(last);
        }
        let ahead_m = last.unwrap().emergency_vehicle.unwrap().position.x;
        assert!(bench.effects.running.is_empty() && bench.effects.passages.is_empty());
        assert!(ahead_m > bench.ego.pose.position.x - 50.0);
        let car = &bench.actors.others()[0];
        assert!(car.pose.position.x > bench.ego.pose.position.x + 20.0, "{car:?}");
    }
}
