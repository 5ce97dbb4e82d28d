//! Slow cyclists at the side of the route's lane.

use super::bypass::{self, BESIDE_FREE_LANE, Bypass, BypassLane};
use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, LatchedTimer, RunState};
use super::scenario_type::{
    Constants, ScenarioType, Start, from_scenario_runner, from_tandem, ready,
};
use crate::actors::blueprints::BICYCLE;
use crate::actors::follower::Follower;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Stretch};
use crate::road::track::TrackPlace;

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "HazardAtSideLane",
        layout: |_| BESIDE_FREE_LANE,
        set_up: |parameters, trigger_m, context| {
            ready(Cyclists::new(BypassLane::OwnLane, parameters, trigger_m, context)?)
        },
        start: Start::AtTrigger,
        modeled: "two cyclists that ride and then stop, traffic slowed 5 s after 50 m",
        not_modeled: "swaying of the cyclists",
        constants: &[SHARED, bypass::own_lane("route_obstacles.py"), DEFAULTS],
    },
    ScenarioType {
        name: "HazardAtSideLaneTwoWays",
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, trigger_m, context| {
            ready(Cyclists::new(BypassLane::Oncoming, parameters, trigger_m, context)?)
        },
        start: Start::AtTrigger,
        modeled: "as above, with an oncoming flow, and the oncoming lane allowed to the end",
        not_modeled: "spacing of ordinary oncoming traffic: the flow replaces it",
        constants: &[
            SHARED,
            bypass::ONCOMING_FLOW,
            DEFAULTS,
            bypass::TANDEM,
            from_tandem(&[("fraction of a lane to pass in", &[PASSING_LANES])]),
        ],
    },
];

/// Distance from one cyclist to the next, meters.
const APART_M: f64 = 9.0;

/// Distance of the cyclists right of the lane's center, in half lanes and in meters.
const ASIDE: f64 = 0.55;
const ASIDE_M: f64 = ASIDE * LANE_WIDTH_M / 2.0;

/// Fraction of a lane by which they are passed on a two-way road.
const PASSING_LANES: f64 = 0.6;

/// Distance from which the ego vehicle is near, meters, and delay after
/// which others react, seconds.
const NEAR_M: f64 = 50.0;
const REACTION_S: f64 = 5.0;

/// The scenario ends once the ego vehicle has driven this far past them, meters.
const END_M: f64 = 50.0;

/// Defaults: distance of the first cyclist after the trigger and length of the
/// ride, meters, and speed, km/h.
const DISTANCE_M: f64 = 43.0;
const DRIVE_DISTANCE_M: f64 = 80.0;
const SPEED_KMH: f64 = 9.0;

const SHARED: Constants = from_scenario_runner(
    "route_obstacles.py",
    &[
        ("_obstacle_distance", &[APART_M]),
        ("_trigger_distance", &[NEAR_M]),
        ("_end_distance", &[END_M]),
        ("_offset", &[ASIDE]),
        ("_wait_duration", &[REACTION_S]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const DEFAULTS: Constants = from_tandem(&[
    ("default distance", &[DISTANCE_M]),
    ("default bicycle_drive_distance", &[DRIVE_DISTANCE_M]),
    ("default bicycle_speed in km/h", &[SPEED_KMH]),
]);

/// Two cyclists, and the lane to pass them.
#[derive(Debug)]
struct Cyclists {
    /// Rear cyclist, then front cyclist.
    riders: [Follower; 2],
    speed_mps: f64,
    stop_after_m: f64,
    start_m: f64,
    near_timer: LatchedTimer,
    passed_at_m: Option<f64>,
    bypass: Bypass,
    run_state: RunState,
}

impl Cyclists {
    /// Spawns the cyclists. A parameter that is not a number is an error.
    fn new(
        bypass_lane: BypassLane,
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Self, RoadError> {
        let start_m = trigger_m + parameters.number("distance", DISTANCE_M)?;
        let stop_after_m = parameters.number("bicycle_drive_distance", DRIVE_DISTANCE_M)?;
        let stretch = Stretch { from_m: start_m, to_m: start_m + APART_M + stop_after_m };
        let bypass = Bypass::new(bypass_lane, parameters, context, stretch)?;
        let track = context.road.lane_track(context.road.route_aside_m(trigger_m));
        let mut rider = |along_m: f64| {
            let (pose, _) = context.road.pose_at(along_m, context.road.route_aside_m(trigger_m));
            let along_m = track.locate(pose.position).0;
            let place = TrackPlace { along_m, aside_m: ASIDE_M };
            Follower::spawn(context.actors, &BICYCLE, &track, place, 0.0)
        };
        Ok(Self {
            riders: [rider(start_m), rider(start_m + APART_M)],
            speed_mps: parameters.number("bicycle_speed", SPEED_KMH)? / 3.6,
            stop_after_m,
            start_m,
            near_timer: LatchedTimer::default(),
            passed_at_m: None,
            bypass,
            run_state: RunState::new(parameters),
        })
    }

    /// Returns the stretch of road from the rear cyclist to the front one.
    fn stretch(&self, context: &ScenarioContext<'_>) -> Stretch {
        let along = |rider: &Follower| {
            let (pose, _) = rider.track().pose_at(rider.along_m(), rider.aside_m());
            context.road.along(pose.position)
        };
        Stretch { from_m: along(&self.riders[0]), to_m: along(&self.riders[1]) }
    }
}

impl Scenario for Cyclists {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let rear_m = self.stretch(context).from_m;
        let v = if rear_m < self.start_m + self.stop_after_m { self.speed_mps } else { 0.0 };
        for rider in &mut self.riders {
            rider.advance(context.actors, v);
        }
        let stretch = self.stretch(context);
        if self.passed_at_m.is_none() && context.ego_along_m > stretch.to_m {
            self.passed_at_m = Some(context.ego_along_m);
        }
        let is_done = self.passed_at_m.is_some_and(|at_m| context.ego_along_m > at_m + END_M);
        let is_near = stretch.from_m - context.ego_along_m < NEAR_M;
        let is_calm = self.near_timer.is_past(context.time_s, is_near, REACTION_S);
        let is_running = self.run_state.tick_with_limit(context, is_done).is_some();
        match self.bypass {
            // The oncoming flow and the allowance are active all the time.
            Bypass::Oncoming(_) => self.bypass.open(context),
            Bypass::Own { .. } if is_running && is_calm => self.bypass.open(context),
            Bypass::Own { .. } => {}
        }
        if is_running {
            let actors = self.riders.iter().map(Follower::id).collect();
            let passage = self.bypass.passage(context, stretch, PASSING_LANES, actors);
            context.effects.passages.push(passage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};
    use super::*;
    use tandem_scene::ActorState;

    fn bench(kind: &str) -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] = &[
            ("distance", &[("value", "40")]),
            ("bicycle_speed", &[("value", "9")]),
            ("bicycle_drive_distance", &[("value", "50")]),
            ("frequency", &[("value", "80")]),
            ("speed", &[("value", "36")]),
        ];
        TestBench::on(&scenario_route(straight(), kind, 10.0, parameters), 1)
    }

    fn riders(bench: &TestBench) -> Vec<&ActorState> {
        let all = bench.actors.others().iter();
        all.filter(|actor| actor.kind == BICYCLE.kind).collect()
    }

    #[test]
    fn cyclists_ride_at_the_right_edge_and_the_passage_follows() {
        let mut bench = bench("HazardAtSideLane");
        bench.ego.pose.position.x = 10.0;
        for tick in 0..600 {
            bench.tick(bench.ego.pose, 0.0);
            let riders = riders(&bench);
            let expected_m = 50.0 + (2.5 * 0.05 * f64::from(tick + 1)).min(50.0);
            let x = riders[0].pose.position.x;
            assert!((x - expected_m).abs() < 0.2, "{x} {expected_m}");
            assert!((riders[1].pose.position.x - x - 9.0).abs() < 0.01);
            assert!((riders[0].pose.position.y - 0.9625).abs() < 1e-6);
            let passage = &bench.effects.passages[0];
            assert!((passage.plan_range.start as f64 - x).abs() < 1.0);
            assert!((passage.plan_range.end as f64 - 1.0 - x - 9.0).abs() < 1.0);
            assert_eq!(passage.aside_m, -3.5);
            let limit_mps = (tick >= 100).then_some(10.0);
            assert_eq!(bench.effects.traffic.limit_mps, limit_mps);
        }
    }

    #[test]
    fn oncoming_lane_stays_allowed_after_the_scenario() {
        let mut bench = bench("HazardAtSideLaneTwoWays");
        let mut passed_m = None;
        while bench.ego.pose.position.x < 220.0 {
            bench.drive(12.0, -2.1);
            let x = bench.ego.pose.position.x;
            if x > riders(&bench)[1].pose.position.x {
                passed_m = passed_m.or(Some(x));
            }
            let is_running = x > 8.0 && passed_m.is_none_or(|at_m| x <= at_m + END_M);
            assert_eq!(bench.effects.running.len(), usize::from(is_running));
            assert_eq!(bench.effects.allowances.oncoming_lane, x > 8.0);
        }
        let others = bench.actors.others().len() - riders(&bench).len();
        assert!(others >= 1, "{others}");
    }
}
