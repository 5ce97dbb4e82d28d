//! Stationary obstacles in the route's lane: an accident, road works, a parked car.

use super::bypass::{self, BESIDE_FREE_LANE, Bypass, BypassLane};
use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, LatchedTimer, RunState};
use super::scenario_type::{
    Constants, ScenarioType, Start, from_pdm_lite, from_scenario_runner, from_tandem, ready,
};
use crate::actors::blueprints::{CONE, DEBRIS, POLICE, WARNING, any_car};
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Stretch};
use glam::DVec2;

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "Accident",
        layout: |_| BESIDE_FREE_LANE,
        set_up: |parameters, trigger_m, context| {
            ready(Obstacle::new(
                Kind::Accident,
                BypassLane::OwnLane,
                parameters,
                trigger_m,
                context,
            )?)
        },
        modeled: "board at the roadside, police car and two cars, traffic slowed 5 s after 50 m, \
                  end 50 m later",
        not_modeled: "flashing lights, traffic in the ego lane",
        constants: &[ACCIDENT, bypass::own_lane("route_obstacles.py"), TANDEM],
        ..TEMPLATE
    },
    ScenarioType {
        name: "AccidentTwoWays",
        set_up: |parameters, trigger_m, context| {
            ready(Obstacle::new(
                Kind::Accident,
                BypassLane::Oncoming,
                parameters,
                trigger_m,
                context,
            )?)
        },
        constants: &[ACCIDENT, bypass::ONCOMING_FLOW, bypass::TANDEM, TANDEM],
        ..TEMPLATE
    },
    ScenarioType {
        name: "ConstructionObstacle",
        layout: |_| BESIDE_FREE_LANE,
        set_up: |parameters, trigger_m, context| {
            let kind = Kind::Construction;
            ready(Obstacle::new(kind, BypassLane::OwnLane, parameters, trigger_m, context)?)
        },
        modeled: "board, dirt, cones along and across, traffic slowed 5 s after 30 m",
        not_modeled: "removal of traffic in the ego lane",
        constants: &[
            CONSTRUCTION,
            bypass::own_lane("construction_crash_vehicle.py"),
            CONSTRUCTION_TANDEM,
            TANDEM,
        ],
        ..TEMPLATE
    },
    ScenarioType {
        name: "ConstructionObstacleTwoWays",
        set_up: |parameters, trigger_m, context| {
            let kind = Kind::Construction;
            ready(Obstacle::new(kind, BypassLane::Oncoming, parameters, trigger_m, context)?)
        },
        constants: &[
            CONSTRUCTION,
            bypass::ONCOMING_FLOW,
            CONSTRUCTION_TANDEM,
            bypass::TANDEM,
            TANDEM,
        ],
        ..TEMPLATE
    },
    ScenarioType {
        name: "ParkedObstacle",
        layout: |_| BESIDE_FREE_LANE,
        set_up: |parameters, trigger_m, context| {
            ready(Obstacle::new(Kind::Parked, BypassLane::OwnLane, parameters, trigger_m, context)?)
        },
        modeled: "board at the roadside, one car, traffic slowed 5 s after 50 m, end 50 m later",
        not_modeled: "flashing lights, traffic in the ego lane",
        constants: &[PARKED, bypass::own_lane("route_obstacles.py"), TANDEM],
        ..TEMPLATE
    },
    ScenarioType {
        name: "ParkedObstacleTwoWays",
        set_up: |parameters, trigger_m, context| {
            ready(Obstacle::new(
                Kind::Parked,
                BypassLane::Oncoming,
                parameters,
                trigger_m,
                context,
            )?)
        },
        constants: &[
            PARKED,
            bypass::ONCOMING_FLOW,
            from_pdm_lite(&[("lateral factor", &[PARKED_LANES])]),
            bypass::TANDEM,
            TANDEM,
        ],
        ..TEMPLATE
    },
];

/// Values that the types on two-way roads share.
const TEMPLATE: ScenarioType = ScenarioType {
    name: "",
    layout: |_| Layout::JUNCTION,
    set_up: |_, _, _| Ok(None),
    start: Start::AtTrigger,
    modeled: "as above, with an oncoming flow and the oncoming lane allowed",
    not_modeled: "vehicles that queue behind the ego vehicle",
    constants: &[],
};

/// Distance past the obstacle at which the scenario ends, meters.
const END_M: f64 = 50.0;

/// Delay after which others react to the ego vehicle being near, seconds.
const REACTION_S: f64 = 5.0;

/// Distance from which the ego vehicle is near an accident or a parked vehicle,
/// and near road works, meters.
const NEAR_M: f64 = 50.0;
const NEAR_ROAD_WORKS_M: f64 = 30.0;

const HALF_LANE_M: f64 = LANE_WIDTH_M / 2.0;

/// Distance of the vehicles right of the lane's center, in half lanes.
const ACCIDENT_ASIDE: f64 = 0.6;
const PARKED_ASIDE: f64 = 0.7;

/// Distances from the police car to the first crashed car, and from that to the second, meters.
const FIRST_CAR_M: f64 = 10.0;
const SECOND_CAR_M: f64 = 6.0;

/// Distance of the cones left of the lane's center, in half lanes.
const CONES_ASIDE: f64 = 0.85;

/// Distances of the board before the beginning of road works, and of the dirt after it, meters.
const BOARD_M: f64 = 5.0;
const DIRT_M: f64 = 2.0;

/// Number of cones along the lane and across it, and distance from one to the next, meters.
const CONES_ALONG: u32 = 4;
const ALONG_M: f64 = 2.0;
const CONES_ACROSS: u32 = 3;
const ACROSS_M: f64 = 1.0;

/// Stretch that is kept free at road works, meters before and after their beginning.
const KEPT_BEFORE_M: f64 = 7.5;
const KEPT_AFTER_M: f64 = 8.5;

/// Fraction of a lane by which a parked vehicle is passed on a two-way road.
const PARKED_LANES: f64 = 0.6;

/// Distance of the board from the road, meters.
const BOARD_OFF_ROAD_M: f64 = 0.3;

/// Default distance of the obstacle after the trigger, meters.
const DISTANCE_M: f64 = 42.0;

const ACCIDENT: Constants = from_scenario_runner(
    "route_obstacles.py",
    &[
        ("_first_distance", &[FIRST_CAR_M]),
        ("_second_distance", &[SECOND_CAR_M]),
        ("_trigger_distance", &[NEAR_M]),
        ("_end_distance", &[END_M]),
        ("_wait_duration", &[REACTION_S]),
        ("_offset", &[ACCIDENT_ASIDE]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const PARKED: Constants = from_scenario_runner(
    "route_obstacles.py",
    &[
        ("_trigger_distance", &[NEAR_M]),
        ("_end_distance", &[END_M]),
        ("_wait_duration", &[REACTION_S]),
        ("_offset", &[PARKED_ASIDE]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const CONSTRUCTION: Constants = from_scenario_runner(
    "construction_crash_vehicle.py",
    &[
        ("_trigger_distance", &[NEAR_ROAD_WORKS_M]),
        ("_opposite_wait_duration", &[REACTION_S]),
        ("_end_distance", &[END_M]),
        ("_initial_offset", &[CONES_ASIDE, BOARD_M, DIRT_M]),
        ("lengths", &[CONES_ALONG as f64, CONES_ACROSS as f64]),
        ("offsets", &[ALONG_M, ACROSS_M]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const CONSTRUCTION_TANDEM: Constants =
    from_tandem(&[("kept free before and after", &[KEPT_BEFORE_M, KEPT_AFTER_M])]);
const TANDEM: Constants = from_tandem(&[
    ("board off the road", &[BOARD_OFF_ROAD_M]),
    ("default distance", &[DISTANCE_M]),
]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Accident,
    Construction,
    Parked,
}

/// Place and distance at which the ego vehicle counts as near.
#[derive(Debug)]
struct Near {
    place: DVec2,
    within_m: f64,
}

/// An obstacle that does not move.
#[derive(Debug)]
struct Obstacle {
    actors: Vec<u32>,
    stretch: Stretch,
    lanes: f64,
    near: Near,
    near_timer: LatchedTimer,
    bypass: Bypass,
    run_state: RunState,
}

impl Obstacle {
    /// Spawns the obstacle. On a two-way road it is passed in the oncoming lane, otherwise in the
    /// lane on the left in the route's direction.
    fn new(
        kind: Kind,
        bypass_lane: BypassLane,
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Self, RoadError> {
        let at_m = trigger_m + parameters.number("distance", DISTANCE_M)?;
        let lane_m = context.road.route_aside_m(trigger_m);
        context.spawn_standing(
            &WARNING,
            trigger_m,
            context.road.edges().right_m + WARNING.extent_m[1] + BOARD_OFF_ROAD_M,
        );
        let near = |along_m: f64, within_m| Near {
            place: context.road.pose_at(along_m, lane_m).0.position,
            within_m,
        };
        let (from_m, to_m, lanes, near) = match kind {
            Kind::Accident => {
                let last_m = at_m + (FIRST_CAR_M + SECOND_CAR_M);
                (at_m, last_m, 1.0, near(at_m + FIRST_CAR_M, NEAR_M))
            }
            Kind::Construction => {
                (at_m - KEPT_BEFORE_M, at_m + KEPT_AFTER_M, 1.0, near(at_m, NEAR_ROAD_WORKS_M))
            }
            Kind::Parked => (at_m, at_m, PARKED_LANES, near(at_m, NEAR_M)),
        };
        let stretch = Stretch { from_m, to_m };
        let actors = match kind {
            Kind::Accident => accident(context, at_m, lane_m + ACCIDENT_ASIDE * HALF_LANE_M),
            Kind::Construction => road_works(context, at_m, lane_m),
            Kind::Parked => {
                let blueprint = any_car(context.noise);
                vec![context.spawn_standing(&blueprint, at_m, lane_m + PARKED_ASIDE * HALF_LANE_M)]
            }
        };
        let bypass = Bypass::new(bypass_lane, parameters, context, stretch)?;
        let (near_timer, run_state) = (LatchedTimer::default(), RunState::new(parameters));
        Ok(Self { actors, stretch, lanes, near, near_timer, bypass, run_state })
    }
}

/// Spawns a police car, and two crashed cars farther along the road.
fn accident(context: &mut ScenarioContext<'_>, at_m: f64, aside_m: f64) -> Vec<u32> {
    let crashed = [any_car(context.noise), any_car(context.noise)];
    vec![
        context.spawn_standing(&POLICE, at_m, aside_m),
        context.spawn_standing(&crashed[0], at_m + FIRST_CAR_M, aside_m),
        context.spawn_standing(&crashed[1], at_m + (FIRST_CAR_M + SECOND_CAR_M), aside_m),
    ]
}

/// Spawns a board, dirt, and cones along and across the lane.
fn road_works(context: &mut ScenarioContext<'_>, at_m: f64, lane_m: f64) -> Vec<u32> {
    let corner_m = lane_m - CONES_ASIDE * HALF_LANE_M;
    let mut actors = vec![
        context.spawn_standing(&WARNING, at_m - BOARD_M, lane_m),
        context.spawn_standing(&DEBRIS, at_m + DIRT_M, lane_m),
    ];
    for nth in 0..CONES_ALONG {
        actors.push(context.spawn_standing(&CONE, at_m + ALONG_M * f64::from(nth), corner_m));
    }
    for nth in 1..=CONES_ACROSS {
        actors.push(context.spawn_standing(&CONE, at_m, corner_m + ACROSS_M * f64::from(nth)));
    }
    actors
}

impl Scenario for Obstacle {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let is_done = context.ego_along_m > self.stretch.to_m + END_M;
        if self.run_state.tick_with_limit(context, is_done).is_none() {
            self.bypass.close(context);
            return;
        }
        let is_near = context.ego.pose.position.distance(self.near.place) < self.near.within_m;
        if self.near_timer.is_past(context.time_s, is_near, REACTION_S) {
            self.bypass.open(context);
        }
        let passage = self.bypass.passage(context, self.stretch, self.lanes, self.actors.clone());
        context.effects.passages.push(passage);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};
    use super::*;
    use tandem_scene::UprightBox;
    use tandem_scene::{ActorKind, PassageReason};

    const TRIGGER_M: f64 = 12.0;

    fn bench(kind: &str) -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("distance", &[("value", "40")]),
            ("speed", &[("value", "54")]),
            ("frequency", &[("from", "40"), ("to", "100")]),
        ];
        TestBench::on(&scenario_route(straight(), kind, TRIGGER_M, parameters), 1)
    }

    /// Checks where a scenario's obstacle is, meters after the trigger and to the right of the
    /// lane's center, and which part of the plan it blocks.
    #[track_caller]
    fn check(kind: &str, places: &[(f64, f64)], hindered: (usize, usize), aside_m: f64) {
        let mut bench = bench(kind);
        bench.ego.pose.position.x = 20.0;
        bench.tick(bench.ego.pose, 0.0);
        let passage = bench.effects.passages[0].clone();
        assert_eq!((passage.plan_range.start, passage.plan_range.end - 1), hindered);
        assert_eq!(passage.aside_m, aside_m);
        let found: Vec<DVec2> = passage
            .actors
            .iter()
            .map(|&id| bench.actors.get(id).unwrap().pose.position - DVec2::new(TRIGGER_M, 0.0))
            .collect();
        assert_eq!(found.len(), places.len());
        for (found, &(along_m, aside_m)) in found.iter().zip(places) {
            assert!(found.distance(DVec2::new(along_m, aside_m)) < 0.01, "{found} {along_m}");
        }
        // No actor, including the board at the roadside, reaches into the lane on the left.
        for shape in bench.actors.others().iter().map(UprightBox::of) {
            assert!(shape.pose.position.y - shape.extent_m[1] > -HALF_LANE_M);
            assert!(shape.distance_m(DVec2::new(shape.pose.position.x, aside_m)) > 1.0);
        }
    }

    #[test]
    fn obstacles_leave_the_adjacent_lane_free() {
        let crash = [(40.0, 1.05), (50.0, 1.05), (56.0, 1.05)];
        check("Accident", &crash, (52, 68), -3.5);
        check("AccidentTwoWays", &crash, (52, 68), -3.5);
        check("ParkedObstacle", &[(40.0, 1.225)], (52, 52), -3.5);
        let works = [
            (35.0, 0.0),
            (42.0, 0.0),
            (40.0, -1.4875),
            (42.0, -1.4875),
            (44.0, -1.4875),
            (46.0, -1.4875),
            (40.0, -0.4875),
            (40.0, 0.5125),
            (40.0, 1.5125),
        ];
        check("ConstructionObstacle", &works, (45, 61), -3.5);
    }

    #[test]
    fn parked_car_on_a_two_way_road_is_passed_within_a_lane() {
        let mut bench = bench("ParkedObstacleTwoWays");
        bench.drive(10.0, 0.0);
        while bench.effects.passages.is_empty() {
            bench.drive(10.0, 0.0);
        }
        let passage = bench.effects.passages[0].clone();
        assert_eq!(passage.reason, PassageReason::ObstacleBesideOncomingLane);
        assert!((passage.aside_m + 2.1).abs() < 1e-9);
        while bench.ego_along_m() < 200.0 {
            bench.drive(10.0, passage.aside_m);
            let oncoming = |id: u32| bench.actors.get(id).unwrap().pose.forward().x < -0.9;
            assert!(bench.touching().is_none_or(|other| oncoming(other.id)));
        }
    }

    #[test]
    fn others_react_from_5_s_after_near_until_50_m_past() {
        let mut bench = bench("Accident");
        let (mut near_s, mut limited) = (None, (f64::INFINITY, 0.0_f64));
        while bench.ego_along_m() < 200.0 {
            bench.drive(5.0, 0.0);
            let x = bench.ego.pose.position.x;
            if x > TRIGGER_M && near_s.is_none() {
                near_s = Some(bench.time_s);
            }
            let is_running = (TRIGGER_M - 1.9..TRIGGER_M + 106.0).contains(&x);
            if (x - TRIGGER_M + 2.0).abs() > 0.2 && (x - TRIGGER_M - 106.0).abs() > 0.2 {
                assert_eq!(bench.effects.allowances.standing, is_running, "{x}");
            }
            assert!(!bench.effects.allowances.oncoming_lane);
            if let Some(limit_mps) = bench.effects.traffic.limit_mps {
                assert!((limit_mps - 15.0).abs() < 1e-9);
                limited = (limited.0.min(bench.time_s), x);
            }
        }
        assert!((limited.0 - near_s.unwrap() - 5.0).abs() < 0.06, "{limited:?}");
        assert!((limited.1 - (TRIGGER_M + 106.0)).abs() < 0.3, "{limited:?}");
    }

    #[test]
    fn oncoming_lane_is_allowed_on_a_two_way_road() {
        let mut bench = bench("ConstructionObstacleTwoWays");
        bench.ego.pose.position.x = 30.0;
        let stood_s = |seconds: f64| (seconds * 20.0) as usize;
        for tick in 0..stood_s(30.0) {
            bench.tick(bench.ego.pose, 0.0);
            let oncoming: Vec<_> = bench
                .actors
                .others()
                .iter()
                .filter(|actor| actor.kind == ActorKind::Vehicle)
                .collect();
            assert_eq!(bench.effects.allowances.oncoming_lane, tick >= 100);
            assert_eq!(oncoming.is_empty(), tick < 100);
            for car in oncoming {
                assert!((car.pose.position.y + 3.5).abs() < 0.01 && car.pose.forward().x < -0.99);
            }
        }
        let cars = bench.actors.others().iter();
        assert!(cars.filter(|actor| actor.kind == ActorKind::Vehicle).count() >= 2);
        assert_eq!(bench.touching(), None);
    }

    #[test]
    fn scenario_times_out_after_four_minutes() {
        let mut bench = bench("ParkedObstacle");
        bench.ego.pose.position.x = 30.0;
        for tick in 0..4810 {
            bench.tick(bench.ego.pose, 0.0);
            let is_timed_out = bench.effects.running[0].is_timed_out;
            assert!(tick == 4800 || is_timed_out == (tick > 4800), "{tick}");
        }
    }
}
