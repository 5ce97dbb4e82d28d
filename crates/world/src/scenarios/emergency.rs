//! An emergency vehicle that approaches from behind.

use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{LatchedTimer, RunState};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, from_tandem, ready};
use crate::actors::blueprints::AMBULANCE;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Stretch};
use crate::road::track::TrackPlace;
use tandem_scene::{Passage, PassageReason, TICK_S};

pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "YieldToEmergencyVehicle",
    layout: |_| Layout { right: 1, traffic_ahead: false, ..Layout::BARE },
    set_up: |parameters, trigger_m, context| ready(Emergency::new(parameters, trigger_m, context)?),
    start: Start::AtTrigger,
    modeled: "ambulance that approaches from behind and keeps its distance, judged for 10 s",
    not_modeled: "evasion of the ambulance into other lanes",
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
        from_tandem(&[
            ("acceleration", &[ACCELERATION_MPS2]),
            ("deceleration of the ambulance and of others", &[BRAKING_MPS2, OTHERS_BRAKING_MPS2]),
            ("gap", &[KEPT_M]),
            ("has passed when ahead by, from and to", &[AHEAD_M, PASSED_WITHIN_M]),
            ("ego vehicle stays aside until ahead by", &[CLEAR_M]),
            ("giving way begins ahead by", &[MAKING_WAY_M]),
            ("default distance", &[DISTANCE_M]),
        ]),
    ],
}];

/// Default start of the vehicle before the trigger, meters.
const DISTANCE_M: f64 = 28.0;

/// Speed above the ego vehicle's on a free road, m/s.
const FASTER_MPS: f64 = 25.0;

const ACCELERATION_MPS2: f64 = 6.0;

/// Deceleration that it assumes for itself, and for vehicles ahead, m/s².
const BRAKING_MPS2: f64 = 5.0;
const OTHERS_BRAKING_MPS2: f64 = 9.0;

/// Gap that it keeps to vehicles ahead, meters.
const KEPT_M: f64 = 4.0;

/// Distance within which the ego vehicle has to give way, meters.
const NEAR_M: f64 = 50.0;

/// Time after which the scenario ends once the vehicle is near, seconds.
const END_S: f64 = 10.0;

/// The scenario also ends when the vehicle is ahead of the ego vehicle, at most this far, and has
/// driven this far, meters. The criterion is judged before the end, so the vehicle must be ahead by
/// more than it drives in a tick.
const AHEAD_M: f64 = 2.0;
const PASSED_WITHIN_M: f64 = 10.0;
const DRIVEN_M: f64 = 50.0;

/// The ego vehicle stays aside until the other is this far ahead, meters.
const CLEAR_M: f64 = 8.0;

/// Distance ahead of the ego vehicle at which it starts to give way, meters.
const MAKING_WAY_M: f64 = 30.0;

#[derive(Debug)]
struct Emergency {
    car: Follower,
    start_m: f64,
    near_timer: LatchedTimer,
    aside_from_m: Option<f64>,
    has_left: bool,
    run_state: RunState,
}

impl Emergency {
    /// Spawns the vehicle behind the ego vehicle.
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
            near_timer: LatchedTimer::default(),
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
            self.has_left || has_passed || self.near_timer.is_past(context.time_s, is_near, END_S);
        let is_running = self.run_state.tick(context, is_done).is_some();
        if is_running {
            self.run_state.judge_giving_way(context, pose);
        }
        // Judged or not, the ego vehicle must not return into a vehicle that is just passing.
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
    fn blocked_ambulance_stays_behind_and_is_judged_for_10_s() {
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
    fn ambulance_passes_and_the_scenario_ends() {
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
