//! Streams of vehicles that our vehicle has to cross or to join.

use super::context::{Scenario, ScenarioContext};
use super::flow::{Flow, LEAVE_M, Manner};
use super::light_schedule::{DELAY_S, LightSchedule, RED_THEN_GREEN};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, RunState};
use super::scenario_type::{
    Constants, ScenarioType, SetUp, Start, from_scenario_runner, if_possible, ours,
};
use crate::actors::blueprints::BICYCLE;
use crate::noise::Interval;
use crate::road::Road;
use crate::road::error::RoadError;
use crate::road::junction::{Arm, Junction};
use crate::road::layout::Layout;
use crate::road::route_line::bridge;
use crate::road::track::Track;
use glam::{DVec2, DVec3};
use std::sync::Arc;
use tandem_scene::{Pose, wrap_angle};

/// Registered types.
pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        constants: &[LEFT_TURN, OURS, TURN_OURS],
        ..across("NonSignalizedJunctionLeftTurn")
    },
    ScenarioType {
        layout: |_| Layout::LIGHTS,
        set_up: |parameters, _, context| {
            let lights = Lights::RedThenGreen;
            if_possible(JunctionFlow::new(Streams::Across, lights, parameters, context.road)?)
        },
        modeled: "the same; ours red for 5 s, then green",
        constants: &[LEFT_TURN, GREEN_DELAY_LEFT, OURS, TURN_OURS],
        ..across("SignalizedJunctionLeftTurn")
    },
    ScenarioType {
        constants: &[RIGHT_TURN, OURS, TURN_OURS],
        ..joining("NonSignalizedJunctionRightTurn", |parameters, _, context| {
            let (streams, lights) = (Streams::FromLeft, Lights::Ordinary);
            if_possible(JunctionFlow::new(streams, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        layout: |_| Layout::LIGHTS,
        modeled: "the same; ours red for 5 s, then green",
        constants: &[RIGHT_TURN, GREEN_DELAY_RIGHT, OURS, TURN_OURS],
        ..joining("SignalizedJunctionRightTurn", |parameters, _, context| {
            let (streams, lights) = (Streams::FromLeft, Lights::RedThenGreen);
            if_possible(JunctionFlow::new(streams, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        modeled: "filled flow that turns toward us into our way out",
        constants: &[ENTER_FLOW, OURS, TURN_OURS],
        ..joining("NonSignalizedJunctionLeftTurnEnterFlow", |parameters, _, context| {
            let (streams, lights) = (Streams::TurningIn, Lights::Ordinary);
            if_possible(JunctionFlow::new(streams, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        layout: |_| Layout::LIGHTS,
        modeled: "the same; ours red for 5 s, then green",
        constants: &[ENTER_FLOW, GREEN_DELAY_ENTER, OURS, TURN_OURS],
        ..joining("SignalizedJunctionLeftTurnEnterFlow", |parameters, _, context| {
            let (streams, lights) = (Streams::TurningIn, Lights::RedThenGreen);
            if_possible(JunctionFlow::new(streams, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        name: "CrossingBicycleFlow",
        layout: |_| Layout::LIGHTS,
        set_up: |parameters, _, context| {
            let (streams, lights) = (Streams::Bicycles, Lights::RedThenGreen);
            if_possible(JunctionFlow::new(streams, lights, parameters, context.road)?)
        },
        start: Start::AtTrigger,
        modeled: "cyclists at constant speed that ignore others; ours red for 5 s, then green",
        not_modeled: "",
        constants: &[
            from_scenario_runner(
                "cross_bicycle_flow.py",
                &[
                    ("_green_light_delay", &[DELAY_S]),
                    ("_flow_speed", &[FLOW_MPS]),
                    ("_sink_distance", &[LEAVE_M]),
                    ("_scenario_timeout", &[LIMIT_S]),
                ],
            ),
            OURS,
            WAY_OURS,
        ],
    },
    given_way("EnterActorFlow"),
    given_way("MergerIntoSlowTraffic"),
    given_way("MergerIntoSlowTrafficV2"),
    ScenarioType {
        modeled: "filled flow along the lane that we cross",
        not_modeled: "the lanes of the motorway beside it",
        ..given_way("HighwayExit")
    },
    ScenarioType {
        layout: |_| Layout::INTERURBAN,
        modeled: "filled flow along the lane that we cross",
        not_modeled: "the lanes beside it",
        ..given_way("InterurbanActorFlow")
    },
    ScenarioType {
        layout: |_| Layout::INTERURBAN,
        set_up: |parameters, _, context| {
            let (streams, lights) = (Streams::GivenAndOncoming, Lights::Ordinary);
            if_possible(JunctionFlow::new(streams, lights, parameters, context.road)?)
        },
        modeled: "flow across our way, and one that comes toward us behind it",
        not_modeled: "",
        ..given_way("InterurbanAdvancedActorFlow")
    },
];

const IGNORING: &str = "flow cars that ignore others: they brake for what is in their lane";

/// A type with an oncoming flow across our turn.
const fn across(name: &'static str) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, _, context| {
            let lights = Lights::Ordinary;
            if_possible(JunctionFlow::new(Streams::Across, lights, parameters, context.road)?)
        },
        start: Start::AtTrigger,
        modeled: "oncoming flow across our turn, sources and sinks by the flow's speed",
        not_modeled: IGNORING,
        constants: &[],
    }
}

/// A type with a flow that our turn joins.
const fn joining(name: &'static str, set_up: SetUp) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout::JUNCTION,
        set_up,
        start: Start::AtTrigger,
        modeled: "filled flow from the left into our way out",
        not_modeled: IGNORING,
        constants: &[],
    }
}

/// A type whose flow has its two ends in the route file.
const fn given_way(name: &'static str) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout::MOTORWAY,
        set_up: |parameters, _, context| {
            let lights = Lights::Ordinary;
            if_possible(JunctionFlow::new(Streams::Given, lights, parameters, context.road)?)
        },
        start: Start::AtTrigger,
        modeled: "filled flow into the lane that we join",
        not_modeled: "flows in further lanes",
        constants: &[ACTOR_FLOW, OURS, WAY_OURS],
    }
}

/// A flow that ends within this of the route's way out of a junction runs in it, meters.
const SAME_LANE_M: f64 = 2.6;

/// A flow whose ends are turned by less than this against each other only merges, radians.
const MERGE_RAD: f64 = 0.44;

/// How far a flow that was given by two places is drawn on beyond them, meters.
const BEFORE_M: f64 = 60.0;
const BEYOND_M: f64 = 90.0;

/// The scenario ends this far behind the junction, meters.
const END_M: f64 = 12.0;

/// What holds if the file does not say: speed, m/s, and gaps, meters.
const FLOW_MPS: f64 = 10.0;
const GAP_M: Interval = Interval { low: 15.0, high: 25.0 };

/// How far a flow is from the junction: its source before it and its sink behind it, in seconds at
/// the flow's speed.
struct Reach {
    source_s: f64,
    sink_s: f64,
}

const LEFT_TURN_REACH: Reach = Reach { source_s: 4.0, sink_s: 2.5 };
const RIGHT_TURN_REACH: Reach = Reach { source_s: 5.0, sink_s: 3.0 };
const ENTER_FLOW_REACH: Reach = Reach { source_s: 4.0, sink_s: 2.5 };

const LEFT_TURN: Constants = from_scenario_runner(
    "signalized_junction_left_turn.py",
    &[
        ("_source_dist", &[LEFT_TURN_REACH.source_s]),
        ("_sink_dist", &[LEFT_TURN_REACH.sink_s]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const RIGHT_TURN: Constants = from_scenario_runner(
    "signalized_junction_right_turn.py",
    &[
        ("_source_dist", &[RIGHT_TURN_REACH.source_s]),
        ("_sink_dist", &[RIGHT_TURN_REACH.sink_s]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const ENTER_FLOW: Constants = from_scenario_runner(
    "left_turn_enter_flow.py",
    &[
        ("_source_dist", &[ENTER_FLOW_REACH.source_s]),
        ("_sink_dist", &[ENTER_FLOW_REACH.sink_s]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const ACTOR_FLOW: Constants = from_scenario_runner(
    "actor_flow.py",
    &[
        ("_flow_speed", &[FLOW_MPS]),
        ("_sink_distance", &[LEAVE_M]),
        ("_scenario_timeout", &[LIMIT_S]),
    ],
);
const GREEN_DELAY_LEFT: Constants = green_delay("signalized_junction_left_turn.py");
const GREEN_DELAY_RIGHT: Constants = green_delay("signalized_junction_right_turn.py");
const GREEN_DELAY_ENTER: Constants = green_delay("left_turn_enter_flow.py");
const OURS: Constants = ours(&[
    ("end behind the junction", &[END_M]),
    ("default source_dist_interval", &[GAP_M.low, GAP_M.high]),
]);
const TURN_OURS: Constants = ours(&[("default flow_speed", &[FLOW_MPS])]);
const WAY_OURS: Constants = ours(&[
    ("way beyond the given ends", &[BEFORE_M, BEYOND_M]),
    ("is in our lane within", &[SAME_LANE_M]),
    ("merges within, radians", &[MERGE_RAD]),
]);

const fn green_delay(file: &'static str) -> Constants {
    from_scenario_runner(file, &[("_green_light_delay", &[DELAY_S])])
}

/// Where flows run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Streams {
    /// From the opposite road across our turn.
    Across,
    /// From the left into our way out.
    FromLeft,
    /// From the opposite road, turning into our way out.
    TurningIn,
    /// Between the two places in the route file.
    Given,
    /// The same, and one toward us behind the junction.
    GivenAndOncoming,
    /// Between the two places in the route file, on bicycles, empty at first.
    Bicycles,
}

/// What the lights of the junction do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lights {
    /// They go through their cycle, if there are any.
    Ordinary,
    /// They are red for us at first, then green.
    RedThenGreen,
}

/// Streams in our vehicle's way until it is through.
struct JunctionFlow {
    flows: Vec<Flow>,
    is_prefilled: bool,
    lights: Option<LightSchedule>,
    /// Over once our vehicle is this far down the road, meters.
    end_along_m: f64,
    run_state: RunState,
    has_begun: bool,
}

impl JunctionFlow {
    /// `None` if the route has no junction or no way for a flow.
    ///
    /// # Errors
    /// If a parameter is no number.
    fn new(
        streams: Streams,
        lights: Lights,
        parameters: &Parameters<'_>,
        road: &Road,
    ) -> Result<Option<Self>, RoadError> {
        let Some(junction) = road.junction() else { return Ok(None) };
        let speed_mps = parameters.number("flow_speed", FLOW_MPS)?;
        let gap_m = parameters.range("source_dist_interval", GAP_M)?;
        let way = |from, to, reach| through(junction, from, to, reach, speed_mps);
        let exit = junction.exit_arm();
        let ways = match streams {
            Streams::Across => [way(Arm::Ahead, Arm::Behind, &LEFT_TURN_REACH), None],
            Streams::FromLeft => [way(Arm::Left, exit, &RIGHT_TURN_REACH), None],
            Streams::TurningIn => [way(Arm::Ahead, exit, &ENTER_FLOW_REACH), None],
            Streams::Given | Streams::Bicycles => [given(parameters, road, junction)?, None],
            Streams::GivenAndOncoming => {
                let Some(track) = given(parameters, road, junction)? else { return Ok(None) };
                [oncoming_behind(road, junction), Some(track)]
            }
        };
        let flow = |way: Way| match streams {
            Streams::Bicycles => stream(way, speed_mps, gap_m, Manner::Constant).made_of(BICYCLE),
            _ => stream(way, speed_mps, gap_m, Manner::Idm),
        };
        Ok(Some(Self {
            flows: ways.into_iter().flatten().map(flow).collect(),
            is_prefilled: streams != Streams::Bicycles,
            lights: (lights == Lights::RedThenGreen).then(|| LightSchedule::new(RED_THEN_GREEN)),
            end_along_m: junction.exit as f64 + END_M,
            run_state: RunState::new(parameters),
            has_begun: false,
        }))
    }
}

impl Scenario for JunctionFlow {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        if !std::mem::replace(&mut self.has_begun, true) && self.is_prefilled {
            self.flows.iter_mut().for_each(|flow| flow.prefill(context));
        }
        if let Some(lights) = &mut self.lights {
            lights.tick(context);
        }
        let is_through = context.ego_along_m > self.end_along_m;
        if self.run_state.tick_with_limit(context, is_through).is_some() {
            self.flows.iter_mut().for_each(|flow| flow.tick(context));
        } else {
            self.flows.iter_mut().for_each(|flow| flow.drain(context));
        }
    }
}

/// A way and the part of it that a flow drives.
struct Way {
    track: Arc<Track>,
    source_m: f64,
    sink_m: f64,
}

fn stream(way: Way, speed_mps: f64, gap_m: Interval, manner: Manner) -> Flow {
    Flow::new(way.track, way.source_m, way.sink_m, speed_mps, gap_m, manner)
}

/// The way through the junction, as far before and behind it as a flow at `speed_mps` reaches.
fn through(junction: &Junction, from: Arm, to: Arm, reach: &Reach, speed_mps: f64) -> Option<Way> {
    let track = junction.through(from, to)?;
    let along = |arm: Arm| Some(track.locate(junction.mouth(arm)?.0.position).0);
    let (source_m, sink_m) =
        (along(from)? - reach.source_s * speed_mps, along(to)? + reach.sink_s * speed_mps);
    Some(Way { track: Arc::new(track), source_m, sink_m })
}

/// The lane that comes toward our vehicle behind the junction, as if its road came straight on.
fn oncoming_behind(road: &Road, junction: &Junction) -> Option<Way> {
    let opposite = road.driving_lanes().iter().rfind(|lane| !lane.with_route())?;
    let (exit, z_m) = road.pose_at(junction.exit as f64, opposite.aside_m);
    let at = |ahead_m: f64| (exit.position + exit.forward() * ahead_m).extend(z_m);
    let track = Arc::new(Track::new(&[at(BEYOND_M), at(-BEYOND_M)]));
    let sink_m = track.length_m();
    Some(Way { track, source_m: 0.0, sink_m })
}

/// The way that the file gives by its two ends. Its directions there are those of the road beside
/// it, or, where it comes from the side, the ones that let it turn into the route's way out.
fn given(
    parameters: &Parameters<'_>,
    road: &Road,
    junction: &Junction,
) -> Result<Option<Way>, RoadError> {
    let (start, end) = (parameters.place("start_actor_flow")?, parameters.place("end_actor_flow")?);
    let Some((start, end)) = start.zip(end) else { return Ok(None) };
    let (_, z_m) = road.pose_at(junction.exit as f64, 0.0);
    let exit = road.pose_at(junction.exit as f64, road.route_aside_m(junction.exit as f64)).0;
    let entry_rad = road.pose_at(junction.entry as f64, 0.0).0.yaw_rad;
    Ok(Some(way_between(start, end, &RoutePassage { entry_rad, exit, z_m })))
}

/// How the route passes the junction: its heading before it, its pose behind it, and its height.
struct RoutePassage {
    entry_rad: f64,
    exit: Pose,
    z_m: f64,
}

fn way_between(start: DVec2, end: DVec2, passage: &RoutePassage) -> Way {
    let RoutePassage { entry_rad, exit, z_m } = *passage;
    let chord = end - start;
    let beside = exit.inverse_apply(end);
    let joins_exit = beside.x > -5.0 && beside.y.abs() < SAME_LANE_M;
    let end = if joins_exit { exit.apply(DVec2::new(beside.x, 0.0)) } else { end };
    let into_rad = if joins_exit { exit.yaw_rad } else { chord.to_angle() };
    let turned_rad = wrap_angle(chord.to_angle() - into_rad);
    let from_rad = if !joins_exit || turned_rad.abs() < 0.1 {
        chord.to_angle()
    } else if wrap_angle(chord.to_angle() - entry_rad).abs() < MERGE_RAD
        && wrap_angle(into_rad - entry_rad).abs() < MERGE_RAD
    {
        entry_rad
    } else {
        // From the side: a quarter turn into the way out.
        into_rad + turned_rad.signum() * std::f64::consts::FRAC_PI_2
    };
    let (from, into) = (DVec2::from_angle(from_rad), DVec2::from_angle(into_rad));
    let mut line = vec![start - from * BEFORE_M];
    line.extend(bridge(start, from, end, into));
    line.push(end + into * BEYOND_M);
    let line: Vec<DVec3> = line.into_iter().map(|place| place.extend(z_m)).collect();
    let track = Arc::new(Track::new(&line));
    let (source_m, sink_m) = (track.locate(start).0, track.locate(end).0 + BEYOND_M / 2.0);
    Way { track, source_m, sink_m }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route};
    use super::*;
    use std::collections::BTreeSet;
    use tandem_scene::LightColor;

    /// 40 m east, a turn to the side that `sign` is on, 40 m on.
    fn turn(sign: f64) -> Vec<DVec3> {
        let east = (0..21).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0));
        let on = (0..21).map(|i| DVec3::new(55.0, sign * (15.0 + 2.0 * f64::from(i)), 0.0));
        east.chain(on).collect()
    }

    /// Drives the route blindly at `speed_mps`, and says who was run into.
    fn blind_drive(kind: &str, sign: f64, speed_mps: f64) -> (BTreeSet<u32>, TestBench) {
        let interval: &[(&str, &str)] = &[("from", "12"), ("to", "16")];
        let parameters =
            [("flow_speed", [("value", "9")].as_slice()), ("source_dist_interval", interval)];
        let mut bench = TestBench::on(&scenario_route(turn(sign), kind, 4.0, &parameters), 3);
        let track = bench.road.route_track();
        let start_m = bench.road.route_stations().0 as f64;
        let mut touched = BTreeSet::new();
        let mut along_m = start_m;
        while along_m < start_m + 110.0 {
            along_m += speed_mps * 0.05;
            bench.tick(track.pose_at(along_m, 0.0).0, speed_mps);
            touched.extend(bench.touching().map(|actor| actor.id));
        }
        (touched, bench)
    }

    #[test]
    fn who_turns_left_across_a_flow_without_looking_runs_into_it() {
        for kind in ["NonSignalizedJunctionLeftTurn", "SignalizedJunctionLeftTurn"] {
            let met = [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
                .into_iter()
                .filter(|&speed_mps| !blind_drive(kind, -1.0, speed_mps).0.is_empty());
            assert!(met.count() >= 3, "{kind}");
        }
    }

    #[test]
    fn a_flow_that_is_joined_keeps_its_distance_and_ends_behind_the_junction() {
        for (kind, sign) in
            [("NonSignalizedJunctionRightTurn", 1.0), ("SignalizedJunctionLeftTurnEnterFlow", -1.0)]
        {
            let (_, mut bench) = blind_drive(kind, sign, 9.0);
            let vehicles = bench.actors.others().len();
            assert!(vehicles > 2, "{kind}");
            let ego = bench.ego;
            for _ in 0..1500 {
                let pose =
                    Pose { position: ego.pose.position + ego.pose.forward() * 60.0, ..ego.pose };
                bench.tick(pose, 9.0);
            }
            assert_eq!(bench.actors.others().len(), 0, "{kind}: all have left, nobody new");
        }
    }

    #[test]
    fn lights_are_red_for_us_first_and_waiting_is_allowed_while_the_flow_runs() {
        let parameters = [("flow_speed", [("value", "9")].as_slice())];
        let route = scenario_route(turn(-1.0), "SignalizedJunctionLeftTurn", 4.0, &parameters);
        let mut bench = TestBench::on(&route, 3);
        let pose = Pose::new(6.0, 0.0, 0.0);
        for tick in 0..5000 {
            bench.tick(pose, 0.0);
            // Sums of twentieths are not exact, so the boundaries themselves are left out.
            if matches!(tick, 100 | 4800) {
                continue;
            }
            let order = bench.effects.lights.unwrap();
            let expected = if tick < 100 { LightColor::Red } else { LightColor::Green };
            assert_eq!(order.ego, expected, "{tick}");
            assert!(bench.effects.allowances.standing, "{tick}");
            let running = bench.effects.running.last().unwrap();
            assert_eq!(running.is_timed_out, tick > 4800, "{tick}");
        }
    }

    #[test]
    fn a_flow_given_from_the_side_turns_into_the_way_out() {
        let exit = Pose::new(32.0, 0.0, 0.0);
        let way = way_between(
            DVec2::new(17.0, 20.0),
            DVec2::new(43.0, 0.5),
            &RoutePassage { entry_rad: 0.0, exit, z_m: 1.0 },
        );
        let (first, z_m) = way.track.pose_at(way.source_m, 0.0);
        assert!(first.position.distance(DVec2::new(17.0, 20.0)) < 0.5 && z_m == 1.0);
        assert!((first.yaw_rad + std::f64::consts::FRAC_PI_2).abs() < 0.1, "{first:?}");
        let (last, _) = way.track.pose_at(way.sink_m, 0.0);
        assert!(last.yaw_rad.abs() < 1e-6 && last.position.y.abs() < 0.01, "{last:?}");
    }

    #[test]
    fn a_parameter_that_is_no_number_is_named() {
        let parameters = [("flow_speed", [("value", "fast")].as_slice())];
        let route = scenario_route(turn(-1.0), "EnterActorFlow", 4.0, &parameters);
        let road = Road::new(&route).unwrap();
        let parameters = Parameters::new(&route.id, 1, &route.scenarios[0]);
        let error =
            JunctionFlow::new(Streams::Given, Lights::Ordinary, &parameters, &road).err().unwrap();
        assert!(error.to_string().contains("flow_speed value"), "{error}");
    }
}
