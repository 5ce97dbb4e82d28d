//! Flows of vehicles that the ego vehicle has to cross or to join.

use super::context::{Scenario, ScenarioContext};
use super::flow::{Flow, LEAVE_M, SpeedControl};
use super::light_schedule::{DELAY_S, LightSchedule, RED_THEN_GREEN};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, RunState};
use super::scenario_type::{
    Constants, ScenarioType, SetUp, Start, from_scenario_runner, from_tandem, if_possible,
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

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        constants: &[LEFT_TURN, TANDEM, TURN_TANDEM],
        ..across("NonSignalizedJunctionLeftTurn")
    },
    ScenarioType {
        layout: |_| Layout::LIGHTS,
        set_up: |parameters, _, context| {
            let lights = Lights::RedThenGreen;
            if_possible(JunctionFlow::new(FlowPath::Across, lights, parameters, context.road)?)
        },
        modeled: "as above; red for the ego vehicle for 5 s, then green",
        constants: &[LEFT_TURN, GREEN_DELAY_LEFT, TANDEM, TURN_TANDEM],
        ..across("SignalizedJunctionLeftTurn")
    },
    ScenarioType {
        constants: &[RIGHT_TURN, TANDEM, TURN_TANDEM],
        ..joining("NonSignalizedJunctionRightTurn", |parameters, _, context| {
            let (flow_path, lights) = (FlowPath::FromLeft, Lights::Ordinary);
            if_possible(JunctionFlow::new(flow_path, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        layout: |_| Layout::LIGHTS,
        modeled: "as above; red for the ego vehicle for 5 s, then green",
        constants: &[RIGHT_TURN, GREEN_DELAY_RIGHT, TANDEM, TURN_TANDEM],
        ..joining("SignalizedJunctionRightTurn", |parameters, _, context| {
            let (flow_path, lights) = (FlowPath::FromLeft, Lights::RedThenGreen);
            if_possible(JunctionFlow::new(flow_path, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        modeled: "filled flow from the opposite road that turns into the exit road",
        constants: &[ENTER_FLOW, TANDEM, TURN_TANDEM],
        ..joining("NonSignalizedJunctionLeftTurnEnterFlow", |parameters, _, context| {
            let (flow_path, lights) = (FlowPath::TurningIn, Lights::Ordinary);
            if_possible(JunctionFlow::new(flow_path, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        layout: |_| Layout::LIGHTS,
        modeled: "as above; red for the ego vehicle for 5 s, then green",
        constants: &[ENTER_FLOW, GREEN_DELAY_ENTER, TANDEM, TURN_TANDEM],
        ..joining("SignalizedJunctionLeftTurnEnterFlow", |parameters, _, context| {
            let (flow_path, lights) = (FlowPath::TurningIn, Lights::RedThenGreen);
            if_possible(JunctionFlow::new(flow_path, lights, parameters, context.road)?)
        })
    },
    ScenarioType {
        name: "CrossingBicycleFlow",
        layout: |_| Layout::LIGHTS,
        set_up: |parameters, _, context| {
            let (flow_path, lights) = (FlowPath::Bicycles, Lights::RedThenGreen);
            if_possible(JunctionFlow::new(flow_path, lights, parameters, context.road)?)
        },
        start: Start::AtTrigger,
        modeled: "cyclists at constant speed that ignore others; red for the ego vehicle for 5 s, \
                  then green",
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
            TANDEM,
            GIVEN_TANDEM,
        ],
    },
    with_given_ends("EnterActorFlow"),
    with_given_ends("MergerIntoSlowTraffic"),
    with_given_ends("MergerIntoSlowTrafficV2"),
    ScenarioType {
        modeled: "filled flow along the lane that the route crosses",
        not_modeled: "the adjacent lanes of the motorway",
        ..with_given_ends("HighwayExit")
    },
    ScenarioType {
        layout: |_| Layout::INTERURBAN,
        modeled: "filled flow along the lane that the route crosses",
        not_modeled: "the adjacent lanes",
        ..with_given_ends("InterurbanActorFlow")
    },
    ScenarioType {
        layout: |_| Layout::INTERURBAN,
        set_up: |parameters, _, context| {
            let (flow_path, lights) = (FlowPath::GivenAndOncoming, Lights::Ordinary);
            if_possible(JunctionFlow::new(flow_path, lights, parameters, context.road)?)
        },
        modeled: "flow across the route, and an oncoming flow after the junction",
        not_modeled: "",
        ..with_given_ends("InterurbanAdvancedActorFlow")
    },
];

const IGNORING: &str = "flow vehicles that ignore others: they brake for actors in their lane";

/// A type with an oncoming flow across the route's turn.
const fn across(name: &'static str) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, _, context| {
            let lights = Lights::Ordinary;
            if_possible(JunctionFlow::new(FlowPath::Across, lights, parameters, context.road)?)
        },
        start: Start::AtTrigger,
        modeled: "oncoming flow across the route's turn, sources and sinks by the flow's speed",
        not_modeled: IGNORING,
        constants: &[],
    }
}

/// A type with a flow that the route's turn joins.
const fn joining(name: &'static str, set_up: SetUp) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout::JUNCTION,
        set_up,
        start: Start::AtTrigger,
        modeled: "filled flow from the left into the exit road",
        not_modeled: IGNORING,
        constants: &[],
    }
}

/// A type whose flow has both ends in the route file.
const fn with_given_ends(name: &'static str) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout::MOTORWAY,
        set_up: |parameters, _, context| {
            let lights = Lights::Ordinary;
            if_possible(JunctionFlow::new(FlowPath::Given, lights, parameters, context.road)?)
        },
        start: Start::AtTrigger,
        modeled: "filled flow into the lane that the route joins",
        not_modeled: "flows in further lanes",
        constants: &[ACTOR_FLOW, TANDEM, GIVEN_TANDEM],
    }
}

/// A flow that ends within this distance of the route's exit lane runs in that lane, meters.
const SAME_LANE_M: f64 = 2.6;

/// A flow whose end headings differ by less than this only merges, radians.
const MERGE_RAD: f64 = 0.44;

/// How far a flow between two given places extends before and beyond them, meters.
const BEFORE_M: f64 = 60.0;
const BEYOND_M: f64 = 90.0;

/// Distance past the junction at which the scenario ends, meters.
const END_M: f64 = 12.0;

/// Default speed, m/s, and gaps, meters.
const FLOW_MPS: f64 = 10.0;
const GAP_M: Interval = Interval { low: 15.0, high: 25.0 };

/// Distances of a flow's source before the junction and of its sink after it, in
/// seconds at the flow's speed.
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
const TANDEM: Constants = from_tandem(&[
    ("end after the junction", &[END_M]),
    ("default source_dist_interval", &[GAP_M.low, GAP_M.high]),
]);
const TURN_TANDEM: Constants = from_tandem(&[("default flow_speed", &[FLOW_MPS])]);
const GIVEN_TANDEM: Constants = from_tandem(&[
    ("track beyond the given ends", &[BEFORE_M, BEYOND_M]),
    ("is in the exit lane within", &[SAME_LANE_M]),
    ("merges within, radians", &[MERGE_RAD]),
]);

const fn green_delay(file: &'static str) -> Constants {
    from_scenario_runner(file, &[("_green_light_delay", &[DELAY_S])])
}

/// Paths of the flows through the junction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FlowPath {
    /// From the opposite road across the route's turn.
    Across,
    /// From the left into the exit road.
    FromLeft,
    /// From the opposite road, turning into the exit road.
    TurningIn,
    /// Between the two places in the route file.
    Given,
    /// Like `Given`, and an oncoming flow after the junction.
    GivenAndOncoming,
    /// Like `Given`, with bicycles, empty at first.
    Bicycles,
}

/// Control of the junction's lights by the scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lights {
    /// The ordinary cycle, if there are lights.
    Ordinary,
    /// Red for the ego vehicle at first, then green.
    RedThenGreen,
}

/// Flows in the ego vehicle's path until it has passed the junction.
struct JunctionFlow {
    flows: Vec<Flow>,
    starts_filled: bool,
    lights: Option<LightSchedule>,
    /// The scenario ends when the ego vehicle is this far along the road, meters.
    end_along_m: f64,
    run_state: RunState,
    has_begun: bool,
}

impl JunctionFlow {
    /// Creates the flows; returns `None` if the route has no junction or a flow has no track.
    fn new(
        flow_path: FlowPath,
        lights: Lights,
        parameters: &Parameters<'_>,
        road: &Road,
    ) -> Result<Option<Self>, RoadError> {
        let Some(junction) = road.junction() else { return Ok(None) };
        let speed_mps = parameters.number("flow_speed", FLOW_MPS)?;
        let gap_m = parameters.range("source_dist_interval", GAP_M)?;
        let flow_track = |from, to, reach| through(junction, from, to, reach, speed_mps);
        let exit = junction.exit_arm();
        let flow_tracks = match flow_path {
            FlowPath::Across => [flow_track(Arm::Ahead, Arm::Behind, &LEFT_TURN_REACH), None],
            FlowPath::FromLeft => [flow_track(Arm::Left, exit, &RIGHT_TURN_REACH), None],
            FlowPath::TurningIn => [flow_track(Arm::Ahead, exit, &ENTER_FLOW_REACH), None],
            FlowPath::Given | FlowPath::Bicycles => {
                [given_track(parameters, road, junction)?, None]
            }
            FlowPath::GivenAndOncoming => {
                let Some(track) = given_track(parameters, road, junction)? else { return Ok(None) };
                [oncoming_after(road, junction), Some(track)]
            }
        };
        let flow = |flow_track: FlowTrack| match flow_path {
            FlowPath::Bicycles => flow_along(flow_track, speed_mps, gap_m, SpeedControl::Constant)
                .with_blueprint(BICYCLE),
            _ => flow_along(flow_track, speed_mps, gap_m, SpeedControl::Idm),
        };
        Ok(Some(Self {
            flows: flow_tracks.into_iter().flatten().map(flow).collect(),
            starts_filled: flow_path != FlowPath::Bicycles,
            lights: (lights == Lights::RedThenGreen).then(|| LightSchedule::new(RED_THEN_GREEN)),
            end_along_m: junction.exit as f64 + END_M,
            run_state: RunState::new(parameters),
            has_begun: false,
        }))
    }
}

impl Scenario for JunctionFlow {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        if !std::mem::replace(&mut self.has_begun, true) && self.starts_filled {
            self.flows.iter_mut().for_each(|flow| flow.fill(context));
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

/// A track, and the part of it that a flow uses.
struct FlowTrack {
    track: Arc<Track>,
    source_m: f64,
    sink_m: f64,
}

fn flow_along(
    flow_track: FlowTrack,
    speed_mps: f64,
    gap_m: Interval,
    speed_control: SpeedControl,
) -> Flow {
    Flow::new(
        flow_track.track,
        flow_track.source_m,
        flow_track.sink_m,
        speed_mps,
        gap_m,
        speed_control,
    )
}

/// Returns the track through the junction, with the reach of a flow at
/// `speed_mps` before and after it.
fn through(
    junction: &Junction,
    from: Arm,
    to: Arm,
    reach: &Reach,
    speed_mps: f64,
) -> Option<FlowTrack> {
    let track = junction.through(from, to)?;
    let along = |arm: Arm| Some(track.locate(junction.mouth(arm)?.0.position).0);
    let (source_m, sink_m) =
        (along(from)? - reach.source_s * speed_mps, along(to)? + reach.sink_s * speed_mps);
    Some(FlowTrack { track: Arc::new(track), source_m, sink_m })
}

/// Returns the oncoming lane after the junction, as if its road continued straight.
fn oncoming_after(road: &Road, junction: &Junction) -> Option<FlowTrack> {
    let opposite = road.driving_lanes().iter().rfind(|lane| !lane.with_route())?;
    let (exit, z_m) = road.pose_at(junction.exit as f64, opposite.aside_m);
    let at = |ahead_m: f64| (exit.position + exit.forward() * ahead_m).extend(z_m);
    let track = Arc::new(Track::new(&[at(BEYOND_M), at(-BEYOND_M)]));
    let sink_m = track.length_m();
    Some(FlowTrack { track, source_m: 0.0, sink_m })
}

/// Returns the track that the file gives by its two ends. Its headings there are those of the road
/// next to it or, if it comes from the side, those that let it turn into the route's exit.
fn given_track(
    parameters: &Parameters<'_>,
    road: &Road,
    junction: &Junction,
) -> Result<Option<FlowTrack>, RoadError> {
    let (start, end) = (parameters.place("start_actor_flow")?, parameters.place("end_actor_flow")?);
    let Some((start, end)) = start.zip(end) else { return Ok(None) };
    let (_, z_m) = road.pose_at(junction.exit as f64, 0.0);
    let exit = road.pose_at(junction.exit as f64, road.route_aside_m(junction.exit as f64)).0;
    let entry_rad = road.pose_at(junction.entry as f64, 0.0).0.yaw_rad;
    Ok(Some(track_between(start, end, &RoutePassage { entry_rad, exit, z_m })))
}

/// The route at the junction: its heading before it, its pose after it, and its height.
struct RoutePassage {
    entry_rad: f64,
    exit: Pose,
    z_m: f64,
}

fn track_between(start: DVec2, end: DVec2, passage: &RoutePassage) -> FlowTrack {
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
        // From the side: a quarter turn into the exit.
        into_rad + turned_rad.signum() * std::f64::consts::FRAC_PI_2
    };
    let (from, into) = (DVec2::from_angle(from_rad), DVec2::from_angle(into_rad));
    let mut line = vec![start - from * BEFORE_M];
    line.extend(bridge(start, from, end, into));
    line.push(end + into * BEYOND_M);
    let line: Vec<DVec3> = line.into_iter().map(|place| place.extend(z_m)).collect();
    let track = Arc::new(Track::new(&line));
    let (source_m, sink_m) = (track.locate(start).0, track.locate(end).0 + BEYOND_M / 2.0);
    FlowTrack { track, source_m, sink_m }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route};
    use super::*;
    use std::collections::BTreeSet;
    use tandem_scene::LightColor;

    /// Key points of 40 m east, a turn to the side given by `sign`, and 40 m more.
    fn turn(sign: f64) -> Vec<DVec3> {
        let east = (0..21).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0));
        let on = (0..21).map(|i| DVec3::new(55.0, sign * (15.0 + 2.0 * f64::from(i)), 0.0));
        east.chain(on).collect()
    }

    /// Drives the route without braking at `speed_mps`, and returns the ids
    /// of the actors that were hit.
    fn drive_without_braking(kind: &str, sign: f64, speed_mps: f64) -> (BTreeSet<u32>, TestBench) {
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
    fn left_turn_without_braking_hits_the_flow() {
        for kind in ["NonSignalizedJunctionLeftTurn", "SignalizedJunctionLeftTurn"] {
            let met = [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
                .into_iter()
                .filter(|&speed_mps| !drive_without_braking(kind, -1.0, speed_mps).0.is_empty());
            assert!(met.count() >= 3, "{kind}");
        }
    }

    #[test]
    fn joined_flow_keeps_its_distance_and_ends() {
        for (kind, sign) in
            [("NonSignalizedJunctionRightTurn", 1.0), ("SignalizedJunctionLeftTurnEnterFlow", -1.0)]
        {
            let (_, mut bench) = drive_without_braking(kind, sign, 9.0);
            let vehicles = bench.actors.others().len();
            assert!(vehicles > 2, "{kind}");
            let ego = bench.ego;
            for _ in 0..1500 {
                let pose =
                    Pose { position: ego.pose.position + ego.pose.forward() * 60.0, ..ego.pose };
                bench.tick(pose, 9.0);
            }
            assert_eq!(
                bench.actors.others().len(),
                0,
                "{kind}: all vehicles left and none entered"
            );
        }
    }

    #[test]
    fn lights_start_red_and_waiting_is_allowed() {
        let parameters = [("flow_speed", [("value", "9")].as_slice())];
        let route = scenario_route(turn(-1.0), "SignalizedJunctionLeftTurn", 4.0, &parameters);
        let mut bench = TestBench::on(&route, 3);
        let pose = Pose::new(6.0, 0.0, 0.0);
        for tick in 0..5000 {
            bench.tick(pose, 0.0);
            // Sums of twentieths are not exact, so the boundaries themselves are skipped.
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
    fn flow_from_the_side_turns_into_the_exit() {
        let exit = Pose::new(32.0, 0.0, 0.0);
        let flow_track = track_between(
            DVec2::new(17.0, 20.0),
            DVec2::new(43.0, 0.5),
            &RoutePassage { entry_rad: 0.0, exit, z_m: 1.0 },
        );
        let (first, z_m) = flow_track.track.pose_at(flow_track.source_m, 0.0);
        assert!(first.position.distance(DVec2::new(17.0, 20.0)) < 0.5 && z_m == 1.0);
        assert!((first.yaw_rad + std::f64::consts::FRAC_PI_2).abs() < 0.1, "{first:?}");
        let (last, _) = flow_track.track.pose_at(flow_track.sink_m, 0.0);
        assert!(last.yaw_rad.abs() < 1e-6 && last.position.y.abs() < 0.01, "{last:?}");
    }

    #[test]
    fn invalid_parameter_is_named() {
        let parameters = [("flow_speed", [("value", "fast")].as_slice())];
        let route = scenario_route(turn(-1.0), "EnterActorFlow", 4.0, &parameters);
        let road = Road::new(&route).unwrap();
        let parameters = Parameters::new(&route.id, 1, &route.scenarios[0]);
        let error =
            JunctionFlow::new(FlowPath::Given, Lights::Ordinary, &parameters, &road).err().unwrap();
        assert!(error.to_string().contains("flow_speed value"), "{error}");
    }
}
