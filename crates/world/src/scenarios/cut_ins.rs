//! Cars that pull out in front of the ego vehicle.

use super::context::{Arrival, Scenario, ScenarioContext, place_of};
use super::flow::touches_another;
use super::parameters::Parameters;
use super::run_state::LatchedTimer;
use super::scenario_type::{
    ScenarioType, Start, from_scenario_runner, from_tandem, if_possible, ready,
};
use crate::actors::blueprints::any_car;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Side};
use crate::road::track::TrackPlace;
use std::f64::consts::PI;
use tandem_scene::TICK_S;

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "ParkingCutIn",
        layout: |side| match side {
            Side::Left => Layout { parking: Some(Side::Left), opposite: 0, ..Layout::CLEARED },
            Side::Right => Layout::CLEARED,
        },
        set_up: |_, trigger_m, context| if_possible(CutIn::from_parking(trigger_m, context)),
        start: Start::AtTrigger,
        modeled: "hidden car that pulls out at up to 20 km/h and leaves after 30 m",
        not_modeled: "turn signals",
        constants: &[
            from_scenario_runner(
                "parking_cut_in.py",
                &[
                    ("_cut_in_distance", &[PARKED_M]),
                    ("_blocker_distance", &[HIDING_M]),
                    ("_reaction_time", &[FROM_PARKING.within_s]),
                    ("_min_trigger_dist", &[FROM_PARKING.within_m]),
                    ("_end_distance", &[PARKED_END_M]),
                ],
            ),
            from_tandem(&[
                ("acceleration", &[PARKED_MPS2]),
                ("speed in km/h", &[PARKED_KMH]),
                ("length of the lane change", &[CHANGE_M]),
                ("keeps its distance within", &[FOLLOWING_M]),
            ]),
        ],
    },
    ScenarioType {
        name: "StaticCutIn",
        layout: |side| match side {
            Side::Left => Layout { left: 1, traffic_ahead: false, ..Layout::BARE },
            Side::Right => Layout { right: 1, traffic_ahead: false, ..Layout::BARE },
        },
        set_up: |parameters, trigger_m, context| {
            ready(CutIn::from_queue(parameters, trigger_m, context)?)
        },
        start: Start::AtTrigger,
        modeled: "queue of five and a car between them that cuts in, all leave after 30 s",
        not_modeled: "duration of the lane change: it takes 10 m instead of 3 s",
        constants: &[
            from_scenario_runner(
                "cut_in_with_static_vehicle.py",
                &[
                    ("_reaction_time", &[FROM_QUEUE.within_s]),
                    ("_min_trigger_dist", &[FROM_QUEUE.within_m]),
                    ("_back_vehicles", &[BEHIND as f64]),
                    ("_front_vehicles", &[AHEAD as f64]),
                    ("_vehicle_gap", &[QUEUE_GAP_M]),
                    ("_speed", &[QUEUE_KMH]),
                    ("Idle", &[QUEUE_END_S]),
                ],
            ),
            from_tandem(&[
                ("acceleration", &[QUEUE_MPS2]),
                ("length of the lane change", &[CHANGE_M]),
                ("keeps its distance within", &[FOLLOWING_M]),
                ("default distance", &[DISTANCE_M]),
            ]),
        ],
    },
];

/// Distances of the parked car and of the car that hides it after the trigger, meters.
const PARKED_M: f64 = 35.0;
const HIDING_M: f64 = 28.0;

/// Arrival that starts the parked car, and distance after which it leaves, meters.
const FROM_PARKING: Arrival = Arrival { within_s: 2.35, within_m: 10.0 };
const PARKED_END_M: f64 = 30.0;

/// Acceleration and final speed of the parked car.
const PARKED_MPS2: f64 = 3.0;
const PARKED_KMH: f64 = 20.0;

/// Number of queued vehicles behind the one that cuts in, and ahead of it.
const BEHIND: usize = 2;
const AHEAD: usize = 3;

/// Distance from one queued vehicle to the next, meters.
const QUEUE_GAP_M: f64 = 11.0;

/// Arrival that starts the queued car, and time after which all leave, seconds.
const FROM_QUEUE: Arrival = Arrival { within_s: 2.7, within_m: 15.0 };
const QUEUE_END_S: f64 = 30.0;

/// Acceleration and final speed of the queued car.
const QUEUE_MPS2: f64 = 1.5;
const QUEUE_KMH: f64 = 60.0;

/// Default distance of the last queued vehicle after the trigger, meters.
const DISTANCE_M: f64 = 42.0;

/// Length of a lane change, meters.
const CHANGE_M: f64 = 10.0;

/// A car that pulls out keeps its distance from actors ahead closer than this, meters.
const FOLLOWING_M: f64 = 20.0;

/// How a car pulls out: initial acceleration and final speed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    acceleration_mps2: f64,
    speed_mps: f64,
}

/// A stationary car that pulls out into the route's lane, and the cars around it.
#[derive(Debug)]
struct CutIn {
    car: Follower,
    start_m: f64,
    start_aside_m: f64,
    pace: Pace,
    bystanders: Vec<u32>,
    trigger: Arrival,
    start: LatchedTimer,
    end: End,
    is_over: bool,
}

/// Condition that ends the scenario.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The car leaves after it has driven this many meters.
    Driven(f64),
    /// All cars leave this many seconds after the start.
    After(f64),
}

impl CutIn {
    /// A car between parked ones; `None` if the road has no parking strip.
    fn from_parking(trigger_m: f64, context: &mut ScenarioContext<'_>) -> Option<Self> {
        let strip_m = context.road.parking_aside_m()?;
        let lane_m = context.road.route_aside_m(trigger_m);
        let hiding = any_car(context.noise);
        context.spawn_standing(&hiding, trigger_m + HIDING_M, strip_m);
        let car = spawn_adjacent_car(context, trigger_m + PARKED_M, lane_m, strip_m - lane_m);
        Some(Self {
            start_m: car.along_m(),
            car,
            start_aside_m: strip_m - lane_m,
            pace: Pace { acceleration_mps2: PARKED_MPS2, speed_mps: PARKED_KMH / 3.6 },
            bystanders: Vec::new(),
            trigger: FROM_PARKING,
            start: LatchedTimer::default(),
            end: End::Driven(PARKED_END_M),
            is_over: false,
        })
    }

    /// A car in a queue in the adjacent lane.
    fn from_queue(
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Self, RoadError> {
        let last_m = trigger_m + parameters.number("distance", DISTANCE_M)?;
        let lane_m = context.road.route_aside_m(trigger_m);
        let beside_m = if context.road.layout().right > 0 { LANE_WIDTH_M } else { -LANE_WIDTH_M };
        let place_m = |nth: usize| last_m + QUEUE_GAP_M * nth as f64;
        let mut bystanders = Vec::new();
        for nth in (0..=BEHIND + AHEAD).filter(|&nth| nth != BEHIND) {
            let blueprint = any_car(context.noise);
            bystanders.push(context.spawn_standing(&blueprint, place_m(nth), lane_m + beside_m));
        }
        let car = spawn_adjacent_car(context, place_m(BEHIND), lane_m, beside_m);
        Ok(Self {
            start_m: car.along_m(),
            car,
            start_aside_m: beside_m,
            pace: Pace { acceleration_mps2: QUEUE_MPS2, speed_mps: QUEUE_KMH / 3.6 },
            bystanders,
            trigger: FROM_QUEUE,
            start: LatchedTimer::default(),
            end: End::After(QUEUE_END_S),
            is_over: false,
        })
    }

    fn drive(&mut self, context: &mut ScenarioContext<'_>) {
        let driven_m = self.car.along_m() - self.start_m;
        let Pace { acceleration_mps2, speed_mps } = self.pace;
        let mut v = (self.car.speed_mps() + acceleration_mps2 * TICK_S).min(speed_mps);
        let ahead = self.car.ahead(context.actors).filter(|ahead| ahead.gap_m < FOLLOWING_M);
        if driven_m > CHANGE_M && ahead.is_some() {
            v = v.min(self.car.idm_speed(ahead, speed_mps));
        }
        if touches_another(context.actors, self.car.id()) {
            v = 0.0;
        }
        let part = ((driven_m + v * TICK_S) / CHANGE_M).clamp(0.0, 1.0);
        let aside_m = self.start_aside_m * (1.0 + (PI * part).cos()) / 2.0;
        self.car.advance_aside(context.actors, v, aside_m);
    }
}

/// Spawns a stationary car, `beside_m` to the right of the lane at `lane_m`.
fn spawn_adjacent_car(
    context: &mut ScenarioContext<'_>,
    along_m: f64,
    lane_m: f64,
    beside_m: f64,
) -> Follower {
    let track = context.road.lane_track(lane_m);
    let (pose, _) = context.road.pose_at(along_m, lane_m);
    let (start_m, _) = track.locate(pose.position);
    let blueprint = any_car(context.noise);
    let place = TrackPlace { along_m: start_m, aside_m: beside_m };
    Follower::spawn(context.actors, &blueprint, &track, place, 0.0)
}

impl Scenario for CutIn {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        if self.is_over {
            return;
        }
        let place = context.actors.get(self.car.id()).map(place_of);
        let is_near = place.is_some_and(|place| context.is_arriving(place, &self.trigger));
        let Some(elapsed_s) = self.start.seconds_since(context.time_s, is_near) else { return };
        if !self.car.has_arrived() {
            self.drive(context);
        }
        self.is_over = match self.end {
            End::Driven(way_m) => self.car.along_m() - self.start_m > way_m,
            End::After(seconds) => elapsed_s > seconds,
        };
        if self.is_over || self.car.has_arrived() {
            context.actors.remove(self.car.id());
        }
        if self.is_over {
            self.bystanders.iter().for_each(|&id| context.actors.remove(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};
    use super::*;

    fn bench(kind: &str, direction: &str) -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] =
            &[("distance", &[("value", "40")]), ("direction", &[("value", direction)])];
        TestBench::on(&scenario_route(straight(), kind, 12.0, parameters), 1)
    }

    /// Drives at `speed_mps` until an actor moves, and returns the distance to it.
    fn moves_at_m(bench: &mut TestBench, speed_mps: f64) -> f64 {
        loop {
            bench.drive(speed_mps, 0.0);
            if let Some(car) = bench.actors.others().iter().find(|a| a.speed_mps > 0.0) {
                return car.pose.position.distance(bench.ego.pose.position);
            }
        }
    }

    #[test]
    fn cars_pull_out_when_the_ego_is_about_to_arrive() {
        for (kind, speed_mps, expected_m) in [
            ("ParkingCutIn", 8.0, 2.35 * 8.0),
            ("ParkingCutIn", 2.0, 10.0),
            ("StaticCutIn", 10.0, 27.0),
            ("StaticCutIn", 4.0, 15.0),
        ] {
            let found_m = moves_at_m(&mut bench(kind, "right"), speed_mps);
            assert!((found_m - expected_m).abs() < 0.05 * speed_mps + 0.1, "{kind} {found_m}");
        }
    }

    #[test]
    fn parked_car_enters_the_ego_lane_and_leaves_after_30_m() {
        for (direction, side) in [("right", 1.0), ("left", -1.0)] {
            let mut bench = bench("ParkingCutIn", direction);
            let places = bench.actors.others().iter().map(|actor| actor.pose.position);
            let places: Vec<(f64, f64)> = places.map(|place| (place.x, place.y)).collect();
            assert_eq!(places[0], (40.0, 3.0 * side));
            assert!((places[1].0 - 47.0).abs() < 1e-9 && (places[1].1 - 3.0 * side).abs() < 1e-9);
            moves_at_m(&mut bench, 5.0);
            while bench.actors.others().len() == 2 {
                bench.tick(bench.ego.pose, 0.0);
                let car = &bench.actors.others().last().unwrap();
                assert!(car.speed_mps <= 20.0 / 3.6 + 1e-9);
                let driven_m = car.pose.position.x - 47.0;
                if bench.actors.others().len() == 2 && driven_m > CHANGE_M {
                    assert!(car.pose.position.y.abs() < 0.05 && driven_m < 30.5);
                }
            }
        }
    }

    #[test]
    fn queue_leaves_30_s_after_the_cut_in() {
        let mut bench = bench("StaticCutIn", "right");
        let mut places: Vec<f64> =
            bench.actors.others().iter().map(|actor| actor.pose.position.x.round()).collect();
        places.sort_by(f64::total_cmp);
        assert_eq!(places, [52.0, 63.0, 74.0, 85.0, 96.0, 107.0]);
        moves_at_m(&mut bench, 8.0);
        for tick in 1..=601 {
            bench.tick(bench.ego.pose, 0.0);
            let there = bench.actors.others().len();
            assert!(there >= 5 || tick >= 600, "{there} after {tick}");
        }
        assert!(bench.actors.others().is_empty());
    }
}
