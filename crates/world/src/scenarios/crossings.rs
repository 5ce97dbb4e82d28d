//! Pedestrians and cyclists that cross the route.

use super::context::{Arrival, Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{LatchedTimer, RunState};
use super::scenario_type::{
    Constants, ScenarioType, Start, from_scenario_runner, from_tandem, if_possible, ready,
};
use crate::actors::blueprints::{BICYCLE, Blueprint, PEDESTRIAN, any_car, blocker};
use crate::actors::follower::Follower;
use crate::actors::list::{Actors, EGO};
use crate::noise::Interval;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout};
use crate::road::track::{Track, TrackPlace};
use glam::{DVec2, DVec3};
use std::sync::Arc;
use tandem_scene::{ActorKind, ActorState, TICK_S};
use tandem_scene::{UprightBox, footprints_overlap};

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "DynamicObjectCrossing",
        layout: |_| Layout { traffic_ahead: false, ..Layout::BARE },
        set_up: |parameters, trigger_m, context| {
            ready(Crossing::behind_prop(parameters, trigger_m, context)?)
        },
        start: Start::AtTrigger,
        modeled: "pedestrian behind a prop, on an oblique path",
        not_modeled: "walking into the side of a vehicle: they stop there, and for other traffic",
        constants: &[
            from_scenario_runner(
                "object_crash_vehicle.py",
                &[
                    ("_adversary_speed", &[WALKING_MPS]),
                    ("_reaction_time", &[BEHIND_PROP.within_s, LEAD_S, LEAD_DEG]),
                    ("_min_trigger_dist", &[BEHIND_PROP.within_m]),
                    ("walker_dist", &[BEHIND_PROP_M]),
                    ("move_distance", &[BOTH_LANES]),
                ],
            ),
            from_tandem(&[
                ("waits right of the lane's center", &[ROADSIDE_M]),
                ("prop off the lane", &[PROP_OFF_LANE_M]),
                ("stops for traffic within", &[CAUTION_S]),
                ("default distance", &[PROP_M]),
            ]),
        ],
    },
    ScenarioType {
        name: "ParkingCrossingPedestrian",
        layout: |_| Layout::CLEARED,
        set_up: |parameters, trigger_m, context| {
            if_possible(Crossing::behind_parked_car(parameters, trigger_m, context)?)
        },
        start: Start::AtTrigger,
        modeled: "pedestrian in front of a parked car, on an oblique path",
        not_modeled: "walking into the side of a vehicle: they stop there, and for other traffic",
        constants: &[
            from_scenario_runner(
                "object_crash_vehicle.py",
                &[
                    ("_adversary_speed", &[WALKING_MPS]),
                    ("_reaction_time", &[BEHIND_CAR.within_s, LEAD_S, LEAD_DEG]),
                    ("_min_trigger_dist", &[BEHIND_CAR.within_m]),
                    ("distance", &[BEHIND_CAR_PATH_M]),
                ],
            ),
            from_tandem(&[
                ("in front of the car", &[BEHIND_CAR_M]),
                ("stops for traffic within", &[CAUTION_S]),
                ("default distance", &[CAR_M]),
            ]),
        ],
    },
    ScenarioType {
        name: "PedestrianCrossing",
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, _, context| {
            if_possible(Crossing::before_junction(parameters, context))
        },
        start: Start::AtTrigger,
        modeled: "three pedestrians with different delays and speeds",
        not_modeled: "a painted crossing",
        constants: &[
            from_scenario_runner(
                "pedestrian_crossing.py",
                &[
                    ("_reaction_time", &[BEFORE_JUNCTION.within_s]),
                    ("_min_trigger_dist", &[BEFORE_JUNCTION.within_m]),
                    ("_walker_data x", &[WALKERS[0].back_m, WALKERS[1].back_m, WALKERS[2].back_m]),
                    ("_walker_data y", &[WALKERS[0].away_m, WALKERS[1].away_m, WALKERS[2].away_m]),
                    ("idle_time", &[DELAY_S.low, DELAY_S.high]),
                    ("speed", &[PACE_MPS.low, PACE_MPS.high]),
                    ("move_dist", &[BEYOND]),
                ],
            ),
            from_tandem(&[("stops for traffic within", &[CAUTION_S])]),
        ],
    },
    ScenarioType {
        name: "VehicleTurningRoute",
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, _, context| {
            if_possible(Crossing::of_cyclist_after_turn(parameters, context))
        },
        start: Start::AtTrigger,
        modeled: "cyclist 11 m after the turn",
        not_modeled: "",
        constants: &[
            from_scenario_runner(
                "object_crash_intersection.py",
                &[
                    ("_start_distance", &[CYCLIST_M]),
                    ("_adversary_speed", &[AFTER_TURN_MPS]),
                    ("_reaction_time", &[CYCLIST.within_s]),
                    ("_min_trigger_dist", &[CYCLIST.within_m]),
                ],
            ),
            AFTER_TURN_TANDEM,
        ],
    },
    ScenarioType {
        name: "VehicleTurningRoutePedestrian",
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, _, context| {
            if_possible(Crossing::of_pedestrian_after_turn(parameters, context))
        },
        start: Start::AtTrigger,
        modeled: "pedestrian 1 m after the turn; the scenario judges collisions itself",
        not_modeled: "",
        constants: &[
            from_scenario_runner(
                "object_crash_intersection.py",
                &[
                    ("_adversary_speed", &[AFTER_TURN_MPS]),
                    ("_reaction_time", &[ON_FOOT.within_s]),
                    ("_min_trigger_dist", &[ON_FOOT.within_m]),
                ],
            ),
            from_tandem(&[("after the turn", &[ON_FOOT_M])]),
            AFTER_TURN_TANDEM,
        ],
    },
];

/// Distance to the right of the lane's center at which a pedestrian waits at the roadside, meters.
const ROADSIDE_M: f64 = LANE_WIDTH_M;

/// Pedestrians stop for traffic that would reach them within this time, seconds.
const CAUTION_S: f64 = 1.5;

/// Walking speed of types that do not sample it, m/s.
const WALKING_MPS: f64 = 2.0;

/// Pedestrians on an oblique path start earlier by this time, seconds, per this angle, degrees.
const LEAD_S: f64 = 0.1;
const LEAD_DEG: f64 = 5.0;

/// Behind a prop: the arrival that starts the pedestrian, the distance behind the prop and the
/// prop's distance from the lane, meters, and the length of the path as a multiple of the
/// distance to the lane's center.
const BEHIND_PROP: Arrival = Arrival { within_s: 2.1, within_m: 6.0 };
const BEHIND_PROP_M: f64 = 0.5;
const PROP_OFF_LANE_M: f64 = 0.4;
const BOTH_LANES: f64 = 2.0;

/// In front of a parked car: the arrival that starts the pedestrian, the distance from the car, and
/// the length of the path, meters.
const BEHIND_CAR: Arrival = Arrival { within_s: 2.15, within_m: 6.0 };
const BEHIND_CAR_M: f64 = 0.8;
const BEHIND_CAR_PATH_M: f64 = 8.0;

/// Default distances of the prop and the car after the trigger, meters.
const PROP_M: f64 = 42.0;
const CAR_M: f64 = 40.0;

/// Waiting place of a pedestrian before a junction, meters back along the road and away from it.
struct Waiting {
    back_m: f64,
    away_m: f64,
}

/// Before a junction: the arrival that starts the pedestrians, their waiting places, bounds of
/// their delays, seconds, and speeds, m/s, and the length of their path as a multiple of the
/// distance to the lane's center.
const BEFORE_JUNCTION: Arrival = Arrival { within_s: 3.5, within_m: 12.0 };
const WALKERS: [Waiting; 3] = [
    Waiting { back_m: 0.4, away_m: 1.5 },
    Waiting { back_m: 1.0, away_m: 2.5 },
    Waiting { back_m: 1.6, away_m: 0.5 },
];
const DELAY_S: Interval = Interval { low: 0.0, high: 1.5 };
const PACE_MPS: Interval = Interval { low: 1.3, high: 2.0 };
const BEYOND: f64 = 2.3;

/// After a turn: the arrivals that start the crossings, their distances after the turn, meters, the
/// speed, m/s, and how far beyond the road the path ends, meters.
const CYCLIST: Arrival = Arrival { within_s: 1.8, within_m: 6.0 };
const CYCLIST_M: f64 = 11.0;
const ON_FOOT: Arrival = Arrival { within_s: 2.2, within_m: 6.0 };
const ON_FOOT_M: f64 = 1.0;
const AFTER_TURN_MPS: f64 = 1.8;
const OFF_ROAD_M: f64 = 1.5;

const AFTER_TURN_TANDEM: Constants = from_tandem(&[
    ("waits right of the lane's center", &[ROADSIDE_M]),
    ("path beyond the road", &[OFF_ROAD_M]),
    ("stops for traffic within", &[CAUTION_S]),
]);

/// Line of a crossing: from `from` through `through`, at the height `z_m`.
struct CrossingLine {
    from: DVec2,
    through: DVec2,
    z_m: f64,
}

/// Speed on a crossing, and length of its path.
struct Pace {
    speed_mps: f64,
    path_m: f64,
}

/// A pedestrian or cyclist that waits and then goes straight.
#[derive(Debug)]
struct Walker {
    follower: Follower,
    extent_m: [f64; 3],
    delay_s: f64,
    speed_mps: f64,
    path_m: f64,
}

impl Walker {
    /// Spawns `blueprint` at the beginning of `line`.
    fn spawn(actors: &mut Actors, blueprint: &Blueprint, line: &CrossingLine, pace: &Pace) -> Self {
        let CrossingLine { from, through, z_m } = *line;
        let Pace { speed_mps, path_m } = *pace;
        let direction = (through - from).normalize();
        let line = [from.extend(z_m), (from + direction * path_m.max(1.0)).extend(z_m)];
        let track = Arc::new(Track::new(&line));
        let follower = Follower::spawn(actors, blueprint, &track, TrackPlace::on_line(0.0), 0.0);
        Self { follower, extent_m: blueprint.extent_m, delay_s: 0.0, speed_mps, path_m }
    }

    /// Advances one tick unless a vehicle is in the way; returns true at the end of the path.
    ///
    /// Does not stop for the ego vehicle, which is the one that has to brake.
    fn advance(&mut self, actors: &mut Actors) -> bool {
        let next_m = self.follower.along_m() + self.speed_mps * TICK_S;
        let (pose, bottom_m) = self.follower.track().pose_at(next_m, 0.0);
        let body = UprightBox { pose, bottom_m, extent_m: self.extent_m };
        let is_stopped = actors.all().any(|other| {
            other.id != self.follower.id()
                && other.kind == ActorKind::Vehicle
                && footprints_overlap(&body, &swept_box(other))
        });
        self.follower.advance(actors, if is_stopped { 0.0 } else { self.speed_mps });
        self.follower.along_m() >= self.path_m
    }
}

/// Returns the box of `vehicle`, extended along its path of the next [`CAUTION_S`]
/// unless it is the ego vehicle.
fn swept_box(vehicle: &ActorState) -> UprightBox {
    let mut shape = UprightBox::of(vehicle);
    if vehicle.id != EGO {
        let reach_m = vehicle.speed_mps * CAUTION_S / 2.0;
        shape.pose.position += shape.pose.forward() * reach_m;
        shape.extent_m[0] += reach_m;
    }
    shape
}

/// Walkers that start when the ego vehicle is about to arrive at their crossing.
#[derive(Debug)]
struct Crossing {
    walkers: Vec<Walker>,
    place: DVec3,
    arrival: Arrival,
    start: LatchedTimer,
    judges_collisions: bool,
    run_state: RunState,
}

/// Crossing point in the route's lane, and the waiting place next to it.
struct Crosswalk {
    place: DVec3,
    wait: DVec2,
}

impl Crosswalk {
    /// Creates a crossing of the route's lane at `along_m`, from `aside_m` to its right; the path
    /// is turned toward the ego vehicle by `angle_deg`.
    fn new(context: &ScenarioContext<'_>, along_m: f64, aside_m: f64, angle_deg: f64) -> Self {
        let (pose, z_m) = context.road.pose_at(along_m, context.road.route_aside_m(along_m));
        let lean_m = aside_m.abs() * angle_deg.to_radians().tan();
        Self { place: pose.position.extend(z_m), wait: pose.apply(DVec2::new(lean_m, aside_m)) }
    }

    fn walker(
        &self,
        context: &mut ScenarioContext<'_>,
        blueprint: &Blueprint,
        pace: &Pace,
    ) -> Walker {
        let line =
            CrossingLine { from: self.wait, through: self.place.truncate(), z_m: self.place.z };
        Walker::spawn(context.actors, blueprint, &line, pace)
    }
}

impl Crossing {
    fn of(
        walkers: Vec<Walker>,
        place: DVec3,
        arrival: Arrival,
        parameters: &Parameters<'_>,
    ) -> Self {
        Self {
            walkers,
            place,
            arrival,
            start: LatchedTimer::default(),
            judges_collisions: false,
            run_state: RunState::new(parameters),
        }
    }

    /// A pedestrian behind a prop at the roadside.
    fn behind_prop(
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Self, RoadError> {
        let along_m = trigger_m + parameters.number("distance", PROP_M)?;
        let angle_deg = parameters.number("crossing_angle", 0.0)?;
        let prop = blocker(parameters.text("blocker_model").unwrap_or_default());
        let edge_m = context.road.route_aside_m(along_m) + LANE_WIDTH_M / 2.0 + PROP_OFF_LANE_M;
        context.spawn_standing(
            &prop,
            along_m - prop.extent_m[0] - BEHIND_PROP_M,
            edge_m + prop.extent_m[1],
        );
        let crosswalk = Crosswalk::new(context, along_m, ROADSIDE_M, angle_deg);
        let pace = Pace { speed_mps: WALKING_MPS, path_m: BOTH_LANES * ROADSIDE_M };
        let walker = crosswalk.walker(context, &PEDESTRIAN, &pace);
        let arrival = shifted_arrival(BEHIND_PROP, angle_deg);
        Ok(Self::of(vec![walker], crosswalk.place, arrival, parameters))
    }

    /// A pedestrian in front of a parked car; `None` if the road has no parking strip.
    fn behind_parked_car(
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Option<Self>, RoadError> {
        let car_m = trigger_m + parameters.number("distance", CAR_M)?;
        let angle_deg = parameters.number("crossing_angle", 0.0)?;
        let Some(strip_m) = context.road.parking_aside_m() else { return Ok(None) };
        let blueprint = any_car(context.noise);
        context.spawn_standing(&blueprint, car_m, strip_m);
        let along_m = car_m + blueprint.extent_m[0] + BEHIND_CAR_M;
        let aside_m = strip_m - context.road.route_aside_m(along_m);
        let crosswalk = Crosswalk::new(context, along_m, aside_m, angle_deg);
        let pace = Pace { speed_mps: WALKING_MPS, path_m: BEHIND_CAR_PATH_M };
        let walker = crosswalk.walker(context, &PEDESTRIAN, &pace);
        let arrival = shifted_arrival(BEHIND_CAR, angle_deg);
        Ok(Some(Self::of(vec![walker], crosswalk.place, arrival, parameters)))
    }

    /// Three pedestrians just before the junction; `None` without one.
    fn before_junction(
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Option<Self> {
        let entry_m = context.road.junction()?.entry as f64;
        let place = Crosswalk::new(context, entry_m, ROADSIDE_M, 0.0).place;
        let kerb_m = context.road.edges().right_m - context.road.route_aside_m(entry_m);
        let mut walkers = Vec::new();
        for Waiting { back_m, away_m } in WALKERS {
            let aside_m = kerb_m + away_m;
            let crosswalk = Crosswalk::new(context, entry_m - back_m, aside_m, 0.0);
            let speed_mps = context.noise.within(PACE_MPS);
            let pace = Pace { speed_mps, path_m: BEYOND * aside_m };
            let walker = crosswalk.walker(context, &PEDESTRIAN, &pace);
            let delay_s = context.noise.within(DELAY_S);
            walkers.push(Walker { delay_s, ..walker });
        }
        Some(Self::of(walkers, place, BEFORE_JUNCTION, parameters))
    }

    /// A cyclist on the road that the route turns into; `None` without a junction.
    fn of_cyclist_after_turn(
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Option<Self> {
        let along_m = context.road.junction()?.exit as f64 + CYCLIST_M;
        Some(Self::after_turn(along_m, &BICYCLE, CYCLIST, parameters, context))
    }

    /// A pedestrian just after the turn, whose scenario judges collisions itself;
    /// `None` without a junction.
    fn of_pedestrian_after_turn(
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Option<Self> {
        let along_m = context.road.junction()?.exit as f64 + ON_FOOT_M;
        let crossing = Self::after_turn(along_m, &PEDESTRIAN, ON_FOOT, parameters, context);
        Some(Self { judges_collisions: true, ..crossing })
    }

    fn after_turn(
        along_m: f64,
        blueprint: &Blueprint,
        arrival: Arrival,
        parameters: &Parameters<'_>,
        context: &mut ScenarioContext<'_>,
    ) -> Self {
        let crosswalk = Crosswalk::new(context, along_m, ROADSIDE_M, 0.0);
        let left_m = context.road.route_aside_m(along_m) - context.road.edges().left_m;
        let path_m = ROADSIDE_M + left_m + OFF_ROAD_M;
        let walker =
            crosswalk.walker(context, blueprint, &Pace { speed_mps: AFTER_TURN_MPS, path_m });
        Self::of(vec![walker], crosswalk.place, arrival, parameters)
    }
}

/// Shifts the arrival for pedestrians on an oblique path: it is longer, so they start earlier.
fn shifted_arrival(arrival: Arrival, angle_deg: f64) -> Arrival {
    let lead_s = LEAD_S * (angle_deg / LEAD_DEG).floor();
    Arrival { within_s: arrival.within_s + lead_s, ..arrival }
}

impl Scenario for Crossing {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let is_near = context.is_arriving(self.place, &self.arrival);
        if let Some(elapsed_s) = self.start.seconds_since(context.time_s, is_near) {
            self.walkers.retain_mut(|walker| {
                let has_left = elapsed_s >= walker.delay_s && walker.advance(context.actors);
                if has_left {
                    context.actors.remove(walker.follower.id());
                }
                !has_left
            });
        }
        let is_running = self.run_state.tick(context, self.walkers.is_empty()).is_some();
        if is_running && self.judges_collisions {
            self.run_state.judge_collisions(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight, through_junction};
    use super::*;
    use tandem_scene::UprightBox;

    fn bench(kind: &str, angle: &str) -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("distance", &[("value", "40")]),
            ("crossing_angle", &[("value", angle)]),
            ("blocker_model", &[("value", "static.prop.container")]),
        ];
        let is_turn = kind.starts_with("VehicleTurning") || kind == "PedestrianCrossing";
        let key_points = if is_turn { through_junction(1.0) } else { straight() };
        TestBench::on(&scenario_route(key_points, kind, 6.0, parameters), 1)
    }

    fn pedestrians(bench: &TestBench) -> Vec<ActorState> {
        let is_person =
            |actor: &&ActorState| matches!(actor.kind, ActorKind::Pedestrian | ActorKind::Bicycle);
        bench.actors.others().iter().filter(is_person).cloned().collect()
    }

    /// Place of the crossing: on the straight road, or meters after the junction.
    #[derive(Clone, Copy)]
    enum At {
        X(f64),
        Exit(f64),
    }

    /// Checks the time to arrival, or else the distance, at which a pedestrian starts.
    #[track_caller]
    fn check(kind: &str, angle: &str, at: At, seconds: f64, meters: f64) {
        for speed_mps in [1.0, 5.0, 9.0] {
            let mut bench = bench(kind, angle);
            while pedestrians(&bench).iter().all(|person| person.speed_mps == 0.0) {
                bench.drive(speed_mps, 0.0);
            }
            let place = match at {
                At::X(x) => DVec2::new(x, 0.0),
                At::Exit(m) => {
                    let exit = bench.road.junction().unwrap().exit;
                    bench.road.pose_at(exit as f64 + m, 0.0).0.position
                }
            };
            let found_m = bench.ego.pose.position.distance(place);
            let expected_m = (seconds * speed_mps).max(meters);
            assert!(
                (found_m - expected_m).abs() < 0.5 + 0.05 * speed_mps,
                "{found_m} {expected_m}"
            );
        }
    }

    #[test]
    fn pedestrians_start_when_the_ego_is_about_to_arrive() {
        check("DynamicObjectCrossing", "0", At::X(46.0), 2.1, 6.0);
        check("DynamicObjectCrossing", "11", At::X(46.0), 2.3, 6.0);
        check("ParkingCrossingPedestrian", "7", At::X(49.1), 2.25, 6.0);
        check("VehicleTurningRoute", "0", At::Exit(11.0), 1.8, 6.0);
        check("VehicleTurningRoutePedestrian", "0", At::Exit(1.0), 2.2, 6.0);
    }

    #[test]
    fn pedestrians_wait_off_the_lane_until_the_start() {
        for kind in [
            "DynamicObjectCrossing",
            "ParkingCrossingPedestrian",
            "PedestrianCrossing",
            "VehicleTurningRoute",
            "VehicleTurningRoutePedestrian",
        ] {
            let mut bench = bench(kind, "12");
            let before = bench.actors.others().to_vec();
            for shape in before.iter().map(UprightBox::of) {
                for point in &bench.road.plan().points {
                    assert!(shape.distance_m(point.position.truncate()) > 1.75, "{kind}");
                }
            }
            while bench.ego.pose.position.x < 8.0 {
                bench.drive(2.0, 0.0);
            }
            assert_eq!(bench.actors.others(), before, "{kind}");
        }
    }

    #[test]
    fn three_pedestrians_cross_before_the_junction() {
        let mut bench = bench("PedestrianCrossing", "0");
        let waiting = pedestrians(&bench);
        assert_eq!(waiting.len(), 3);
        bench.ego.pose.position.x = 14.0;
        let mut speeds = vec![0.0_f64; 3];
        for _ in 0..240 {
            bench.tick(bench.ego.pose, 0.0);
            for person in pedestrians(&bench) {
                let nth = waiting.iter().position(|other| other.id == person.id).unwrap();
                speeds[nth] = speeds[nth].max(person.speed_mps);
                assert!((20.0..24.5).contains(&person.pose.position.x));
            }
        }
        assert!(speeds.iter().all(|speed_mps| (1.3..2.0).contains(speed_mps)), "{speeds:?}");
        assert!(pedestrians(&bench).is_empty());
    }

    #[test]
    fn only_the_pedestrian_after_the_turn_judges_collisions() {
        for (kind, judges) in
            [("VehicleTurningRoutePedestrian", true), ("VehicleTurningRoute", false)]
        {
            let mut bench = bench(kind, "0");
            while pedestrians(&bench).len() == 1 {
                bench.drive(4.0, 0.0);
                let is_active = bench.ego.pose.position.x > 4.2 && !pedestrians(&bench).is_empty();
                if (bench.ego.pose.position.x - 4.0).abs() > 0.3 {
                    let judging = bench.effects.running.iter().filter(|s| s.judges_collisions);
                    assert_eq!(judging.count() == 1, judges && is_active, "{kind}");
                }
            }
        }
    }

    #[test]
    fn pedestrian_stops_at_the_side_of_a_vehicle() {
        let mut bench = bench("DynamicObjectCrossing", "0");
        bench.ego.pose.position.x = 46.0;
        for _ in 0..200 {
            bench.tick(bench.ego.pose, 0.0);
            assert_eq!(bench.touching(), None);
        }
        assert!(pedestrians(&bench)[0].pose.position.y < 1.5);
    }

    #[test]
    fn pedestrian_waits_for_traffic_in_mid_road() {
        let mut bench = bench("DynamicObjectCrossing", "0");
        bench.ego.pose.position.x = 41.0;
        let track = bench.road.oncoming_track().unwrap();
        let place = TrackPlace::on_line(track.locate(DVec2::new(46.0, -3.5)).0 - 25.0);
        let blueprint = crate::actors::blueprints::POLICE;
        let mut car = Follower::spawn(&mut bench.actors, &blueprint, &track, place, 8.0);
        let mut waited = false;
        for _ in 0..160 {
            car.advance(&mut bench.actors, 8.0);
            bench.tick(bench.ego.pose, 0.0);
            assert!(!super::super::flow::touches_another(&bench.actors, car.id()));
            waited |= pedestrians(&bench).iter().any(|p| p.speed_mps == 0.0);
        }
        assert!(waited && pedestrians(&bench).is_empty());
    }
}
