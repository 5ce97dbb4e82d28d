//! Route logs: contents, rounding in the file, and refused files.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tandem::model::automot::stages;
use tandem::scene::{
    ActorKind, ActorState, Command, Control, DeadlineVerdict, EgoState, GeoReference, LightColor,
    Pose, PrefixInfo, RoutePlan, ScenarioState, SensorSuite, TrafficLight, Trajectory,
    TriggerVolume, World, WorldState,
};
use tandem::timing::Span;
use tandem_drivers::Autopilot;
use tandem_evaluation::campaign::log::{FORMAT, LogRecorder, RouteLog, TICKS_PER_SCENE};
use tandem_evaluation::campaign::run_route;
use tandem_evaluation::routes::read_routes;
use tandem_evaluation::scoring::TICK_CAP;
use tandem_world::EmbeddedWorld;

fn driven() -> RouteLog {
    let file = Path::new(tandem_testkit::ROOT).join("routes/demo.xml");
    let route = read_routes(&file).unwrap().remove(0);
    let suite = SensorSuite { truth: true, ..SensorSuite::default() };
    let mut world = EmbeddedWorld::new(&route, suite, 7).unwrap();
    let cancel = AtomicBool::new(false);
    run_route(&mut world, &mut Autopilot::new(), TICK_CAP, &cancel, &mut |_, _| {}).log
}

fn text(log: &RouteLog) -> String {
    serde_json::to_string(log).unwrap()
}

fn state() -> WorldState {
    let file = Path::new(tandem_testkit::ROOT).join("routes/demo.xml");
    let route = read_routes(&file).unwrap().remove(0);
    let world = EmbeddedWorld::new(&route, SensorSuite::default(), 7).unwrap();
    let ego = EgoState { pose: Pose::new(0.0, 0.0, 0.0), ..world.state().ego };
    WorldState { ego, actors: Vec::new(), ..world.state().clone() }
}

fn plan() -> RoutePlan {
    RoutePlan { points: Vec::new(), reference: GeoReference::default() }
}

fn actor(id: u32, x: f64) -> ActorState {
    ActorState {
        id,
        kind: ActorKind::Vehicle,
        type_id: "vehicle.test",
        pose: Pose::new(x, 2.0, 0.5),
        z_m: 0.0,
        speed_mps: 1.0,
        acceleration_mps2: 0.0,
        yaw_rate_radps: 0.0,
        extent_m: [2.3, 0.9, 0.8],
    }
}

/// Logs one tick per state.
fn logged(states: &[WorldState], control: &Control) -> RouteLog {
    let plan = plan();
    let mut recorder = LogRecorder::new(&plan, &[]);
    for state in states {
        recorder.tick(state, Command::default(), control);
    }
    recorder.finish(&[])
}

#[test]
fn log_file_only_rounds_positions_and_angles() {
    let log = driven();
    let json = text(&log);
    let read: RouteLog = serde_json::from_str(&json).unwrap();
    assert_eq!(read.ticks.len(), log.ticks.len());
    assert!(log.ticks.len() > 200 && !log.actors.is_empty() && !log.strips.is_empty());
    for (ours, theirs) in log.ticks.iter().zip(&read.ticks) {
        assert!((ours.x_m - theirs.x_m).abs() <= 0.005_001);
        assert!((ours.yaw_rad - theirs.yaw_rad).abs() <= 0.000_501);
        assert!((ours.speed_mps - theirs.speed_mps).abs() <= 0.005_001);
        assert!((ours.time_s - theirs.time_s).abs() < 1e-9);
    }
    for (ours, theirs) in log.actors.iter().zip(&read.actors) {
        assert_eq!((ours.id, ours.kind, &ours.type_id), (theirs.id, theirs.kind, &theirs.type_id));
        for (ours, theirs) in ours.runs.iter().zip(&theirs.runs) {
            assert_eq!(ours.first_scene, theirs.first_scene);
            assert_eq!(ours.poses.len(), theirs.poses.len());
            for (ours, theirs) in ours.poses.iter().zip(&theirs.poses) {
                assert!((0..3).all(|axis| (ours[axis] - theirs[axis]).abs() <= 0.005_001));
            }
        }
    }
    // Rounded values do not change again.
    assert_eq!(text(&read), json);
    let per_tick = json.len() / log.ticks.len();
    assert!(per_tick < 250, "{per_tick} bytes per tick");
}

#[test]
fn stage_times_are_kept_to_100_ns() {
    let mut control = Control::default();
    let took = |stage, took_ns| Span { stage, start_ns: 0, took_ns };
    control.report.spans.push(took(stages::BEV, 4_123_449));
    control.report.prefix = Some(PrefixInfo { version: 3, age: Duration::from_micros(150_000) });
    control.report.deadline = DeadlineVerdict::Missed { by: Duration::from_nanos(1_250) };
    let state = state();
    let plan = plan();
    let mut recorder = LogRecorder::new(&plan, &[]);
    recorder.tick(&state, Command::default(), &Control::default());
    recorder.tick(&state, Command::default(), &control);
    let log = recorder.finish(&[]);
    let read: RouteLog = serde_json::from_str(&text(&log)).unwrap();
    assert_eq!(read.ticks[0].stages.took(stages::BEV), None);
    assert_eq!(read.ticks[0].prefix, None);
    assert_eq!(read.ticks[1].stages.took(stages::BEV), Some(Duration::from_nanos(4_123_400)));
    assert_eq!(read.ticks[1].prefix, control.report.prefix);
    let late = DeadlineVerdict::Missed { by: Duration::from_nanos(1_300) };
    assert_eq!(read.ticks[1].deadline, late);
}

#[test]
fn near_actors_are_logged_at_every_second_tick() {
    let near = WorldState { actors: vec![actor(5, 10.0), actor(6, 200.0)], ..state() };
    let alone = state();
    let states = [&near, &near, &near, &alone, &alone, &alone, &near].map(Clone::clone);
    let log = logged(&states, &Control::default());
    assert_eq!(log.scenes(), 4);
    assert_eq!(log.actors.len(), 1, "the distant actor is logged");
    let runs: Vec<_> =
        log.actors[0].runs.iter().map(|run| (run.first_scene, run.poses.len())).collect();
    assert_eq!(runs, [(0, 2), (3, 1)]);
    assert_eq!(TICKS_PER_SCENE, 2);
    let read: RouteLog = serde_json::from_str(&text(&log)).unwrap();
    assert_eq!(read, log);
}

#[test]
fn reused_id_of_another_kind_is_another_actor() {
    let first = WorldState { actors: vec![actor(5, 10.0)], ..state() };
    let other = ActorState { kind: ActorKind::Pedestrian, ..actor(5, 10.0) };
    let second = WorldState { actors: vec![other], ..state() };
    let log = logged(&[first.clone(), first, second], &Control::default());
    assert_eq!(log.actors.len(), 2);
}

#[test]
fn lights_scenarios_and_waypoints_are_logged() {
    let light = |color| TrafficLight {
        id: 9,
        position: glam::DVec3::new(1.0, 2.0, 3.0),
        color,
        trigger: TriggerVolume {
            center: glam::DVec3::new(4.0, 5.0, 0.0),
            yaw_rad: 0.25,
            extent_m: [1.0, 3.5, 1.0],
        },
    };
    let scenario = ScenarioState {
        id: 2,
        is_timed_out: false,
        emergency_vehicle: None,
        judges_collisions: false,
    };
    let with =
        |color, scenarios| WorldState { traffic_lights: vec![light(color)], scenarios, ..state() };
    let states = [
        with(LightColor::Red, vec![]),
        with(LightColor::Red, vec![scenario]),
        with(LightColor::Green, vec![scenario]),
    ];
    let mut control = Control::default();
    control.report.trajectory = Some(Trajectory {
        waypoints: [[1.0, 0.0], [2.0, 0.25]].into_iter().collect(),
        spacing: Duration::from_millis(250),
        ..Trajectory::default()
    });
    let log = logged(&states, &control);
    assert_eq!(log.lights[0].shows, [(1, LightColor::Red), (3, LightColor::Green)]);
    assert_eq!((log.scenarios[0].first_tick, log.scenarios[0].last_tick), (2, 3));
    assert_eq!(log.waypoints.len(), 2);
    let read: RouteLog = serde_json::from_str(&text(&log)).unwrap();
    assert_eq!(read.lights, log.lights);
    assert_eq!(read.scenarios, log.scenarios);
    assert_eq!(read.waypoints, log.waypoints);
}

/// Error message of reading a log in which `from` was replaced by `to`.
fn refusal(from: &str, to: &str) -> String {
    let near = WorldState { actors: vec![actor(5, 10.0)], ..state() };
    let mut control = Control::default();
    control.report.spans.push(Span { stage: stages::BEV, start_ns: 0, took_ns: 500 });
    let json = text(&logged(&[near.clone(), near], &control));
    assert!(json.contains(from), "{json}");
    let changed = json.replacen(from, to, 1);
    serde_json::from_str::<RouteLog>(&changed).unwrap_err().to_string()
}

#[test]
fn other_formats_and_inconsistent_columns_are_refused() {
    let format = format!("\"format\":{FORMAT}");
    let newer = refusal(&format, "\"format\":77");
    assert!(newer.contains("this log has format 77, this tandem reads format 2"), "{newer}");
    let old = refusal(&format, "\"tandem\":1");
    assert!(old.contains("before format 2; drive the route again"), "{old}");
    let long = refusal("\"steer\":[]", "\"steer\":[1,2,3]");
    assert!(long.contains("column steer has 3 differences for 2 entries"), "{long}");
    let beyond = refusal("\"runs\":[[0,2]]", "\"runs\":[[1,2]]");
    assert!(beyond.contains("column bev goes beyond its 2 entries"), "{beyond}");
    let few = refusal("\"values\":[5,5]", "\"values\":[5]");
    assert!(few.contains("column bev has fewer values"), "{few}");
    let huge = refusal("\"ticks\":2", "\"ticks\":99999999999");
    assert!(huge.contains("column time has"), "{huge}");
    let kind = refusal("\"kind\":\"vehicle\"", "\"kind\":\"whale\"");
    assert!(kind.contains("unknown name \"whale\""), "{kind}");
    let over = refusal("\"time\":[", "\"time\":[9223372036854775807,");
    assert!(over.contains("column time"), "{over}");
}
