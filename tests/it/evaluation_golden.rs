//! Scoring compared with the output of the official tools: `tests/data/bench2drive/` and, if a copy
//! of the official files is available, all 450 routes and the checkpoints of the 220 routes.

use glam::{DVec2, DVec3};
use serde_json::Value;
use std::f64::consts::PI;
use std::path::{Path, PathBuf};
use tandem::scene::{
    Allowances, Collision, EgoState, GeoReference, LaneMap, LanePoint, LightColor, Pose,
    RoadOption, RoutePlan, RoutePoint, ScenarioState, StopSign, TrafficLight, TriggerVolume,
    WorldState,
};
use tandem_evaluation::routes::{read_routes, weather_id};
use tandem_evaluation::scoring::{
    Checkpoint, Ending, Failure, Infraction, InfractionKind, MergedTable, Number, Record,
    RouteIdentity, RouteJudge, RouteResult, TickVerdict, polyline_length_m, rescore, score,
};

fn data(name: &str) -> Value {
    let folder = Path::new(tandem_testkit::ROOT).join("tests/data/bench2drive");
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// Folder of the official files, which may not be redistributed: `$TANDEM_BENCH2DRIVE`, or
/// `../shared/bench2drive`. Returns `None`, with a message, if it does not exist.
pub(super) fn official_files(test: &str) -> Option<PathBuf> {
    let default = Path::new(tandem_testkit::ROOT).join("../shared/bench2drive");
    #[expect(clippy::disallowed_methods, reason = "path of files that cannot be redistributed")]
    let folder = std::env::var("TANDEM_BENCH2DRIVE").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "SKIPPED {test}: no official Bench2Drive files; set TANDEM_BENCH2DRIVE to a folder \
         with routes/ and golden/"
    );
    None
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn point(value: &Value) -> DVec3 {
    DVec3::new(number(&value[0]), number(&value[1]), number(&value[2]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}

// ---- routes ------------------------------------------------------------------------------------

#[track_caller]
fn check_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

#[test]
fn all_450_official_routes_match_the_official_parser() {
    let Some(folder) = official_files("official routes") else { return };
    let golden = std::fs::read_to_string(folder.join("golden/routes_parsed.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let mut compared = 0;
    for (file, expected) in golden.as_object().unwrap() {
        let routes = read_routes(&folder.join("routes").join(file)).unwrap();
        let expected = expected.as_array().unwrap();
        assert_eq!(routes.len(), expected.len(), "{file}");
        for (route, expected) in routes.iter().zip(expected) {
            let name = format!("RouteScenario_{}", route.id);
            assert_eq!(name, text(&expected["name"]));
            assert_eq!(route.town, text(&expected["town"]), "{name}");
            assert_eq!(route.key_points.len() as u64, expected["keypoints"].as_u64().unwrap());
            assert_eq!(route.key_points[0], point(&expected["first"]), "{name}");
            assert_eq!(*route.key_points.last().unwrap(), point(&expected["last"]), "{name}");
            let sum: DVec3 = route.key_points.iter().sum();
            let expected_sum = point(&expected["sum_xyz"]);
            // Golden sums are rounded to 4 digits, lengths to 6.
            assert!(sum.distance(expected_sum) < 1e-3, "{name}: {sum} vs. {expected_sum}");
            let length = polyline_length_m(route.key_points.iter().copied());
            check_close(&name, length, number(&expected["polyline_length"]), 1e-6);

            assert_eq!(route.scenarios.len(), 1, "{name}");
            let scenario = &route.scenarios[0];
            assert_eq!(scenario.name, text(&expected["scenario_name"]), "{name}");
            assert_eq!(scenario.kind, text(&expected["scenario_type"]), "{name}");
            let trigger = scenario.trigger.unwrap();
            assert_eq!(trigger.position, point(&expected["trigger"]), "{name}");
            assert_eq!(trigger.yaw_deg, number(&expected["trigger"][3]), "{name}");
            let parameters = serde_json::to_value(&scenario.parameters).unwrap();
            assert_eq!(parameters, expected["parameters"], "{name}");

            let entries = expected["weather_entries"].as_u64().unwrap();
            assert_eq!(route.weather.len() as u64, entries, "{name}");
            let percentages: Vec<_> = route.weather.iter().map(|w| w.route_percentage).collect();
            let golden = expected["weather_percentages"].as_array().unwrap().iter();
            assert_eq!(percentages, golden.map(number).collect::<Vec<_>>(), "{name}");
            let fields = &route.weather[0].fields;
            let pair = &expected["cloudiness_sun_altitude"];
            assert_eq!(fields["cloudiness"], number(&pair[0]), "{name}");
            assert_eq!(fields["sun_altitude_angle"], number(&pair[1]), "{name}");
            assert_eq!(weather_id(route), expected["weather_id"].as_str(), "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 450);
}

// ---- statistics --------------------------------------------------------------------------------

/// Infraction of an event of the golden files. `None` for types that the official code ignores, and
/// for the completion, which is read separately.
fn infraction(event: &Value) -> Option<Infraction> {
    let kind = match text(&event["type"]) {
        "COLLISION_PEDESTRIAN" => InfractionKind::CollisionPedestrian,
        "COLLISION_VEHICLE" => InfractionKind::CollisionVehicle,
        "COLLISION_STATIC" => InfractionKind::CollisionLayout,
        "TRAFFIC_LIGHT_INFRACTION" => InfractionKind::RedLight,
        "STOP_INFRACTION" => InfractionKind::StopSign,
        "OUTSIDE_ROUTE_LANES_INFRACTION" => {
            InfractionKind::OutsideRouteLanes { percentage: number(&event["dict"]["percentage"]) }
        }
        "MIN_SPEED_INFRACTION" => InfractionKind::MinSpeed,
        "YIELD_TO_EMERGENCY_VEHICLE" => InfractionKind::YieldEmergencyVehicle,
        "SCENARIO_TIMEOUT" => InfractionKind::ScenarioTimeout,
        "ROUTE_DEVIATION" => InfractionKind::RouteDeviation,
        "VEHICLE_BLOCKED" => InfractionKind::VehicleBlocked,
        _ => return None,
    };
    Some(Infraction { kind, message: text(&event["message"]).to_owned(), tick: None })
}

fn result_of(case: &Value, route_length_m: Option<f64>) -> RouteResult {
    let events = case["events"].as_array().unwrap();
    let completion = events.iter().rfind(|event| event["type"] == "ROUTE_COMPLETION");
    let failure = text(&case["failure_message"]);
    RouteResult {
        route_length_m,
        completion: completion.map(|event| {
            serde_json::from_value::<Number>(event["dict"]["route_completed"].clone()).unwrap()
        }),
        infractions: events.iter().filter_map(infraction).collect(),
        timed_out: case["route_timeout"].as_bool().unwrap(),
        failure: (!failure.is_empty())
            .then(|| Failure::ALL.into_iter().find(|known| known.to_string() == failure).unwrap()),
        duration_game_s: number(&case["duration_game"]),
        duration_system_s: number(&case["duration_system"]),
    }
}

#[test]
fn all_38_statistics_cases_match_the_official_record() {
    let cases = data("statistics_unit_cases.json");
    let cases = cases["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 38);
    for case in cases {
        let points = case["route_points"].as_array().unwrap();
        let length = case["scenario_present"]
            .as_bool()
            .unwrap()
            .then(|| polyline_length_m(points.iter().map(point)));
        let identity = RouteIdentity {
            route_id: text(&case["route_id"]).to_owned(),
            scenario_name: text(&case["scenario_name"]).to_owned(),
            weather_id: case["weather_id"].as_str().map(str::to_owned),
            town_name: text(&case["town_name"]).to_owned(),
            save_name: text(&case["save_name"]).to_owned(),
        };
        let mut record = Record::blank(0, &identity);
        for _ in 0..case["compute_times"].as_u64().unwrap_or(1) {
            let before = record.infractions.route_timeout.clone();
            record = record.with(rescore(&result_of(case, length), &before));
        }
        check_record(text(&case["name"]), &record, &case["expected_record"]);
    }
}

/// Compares records as text, so that key order and `100` vs. `100.0` count.
#[track_caller]
fn check_record(name: &str, record: &Record, expected: &Value) {
    let found = serde_json::to_string_pretty(record).unwrap();
    let expected = serde_json::to_string_pretty(expected).unwrap();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn official_checkpoints_are_reproduced_byte_for_byte() {
    let Some(folder) = official_files("official checkpoints") else { return };
    let folder = folder.join("golden");
    let inputs = std::fs::read_to_string(folder.join("checkpoints_220_inputs.json")).unwrap();
    let inputs: Value = serde_json::from_str(&inputs).unwrap();
    let routes = read_routes(&folder.join("../routes/bench2drive220.xml")).unwrap();
    let mut all = Vec::new();
    for (shard, routes) in routes.chunks(55).enumerate() {
        let path = folder.join(format!("checkpoints_220/eval_b2d220_{shard}.json"));
        let official = std::fs::read_to_string(path).unwrap();
        let read: Checkpoint = serde_json::from_str(&official).unwrap();
        let of_shard = inputs.as_array().unwrap().iter().filter(|case| case["shard"] == shard);
        let records: Vec<_> = of_shard
            .zip(routes)
            .zip(&read.body.records)
            .enumerate()
            .map(|(index, ((case, route), official))| {
                assert_eq!(text(&case["route_id"]), route.id.as_str());
                let mut identity = RouteIdentity::new(route, 0, weather_id(route), 0);
                // Save names differ only in the time of day at their end.
                let (ours, _) = identity.save_name.split_at(identity.save_name.len() - 14);
                assert!(official.save_name.starts_with(ours), "{ours} | {}", official.save_name);
                identity.save_name = official.save_name.clone();
                // The key points were used as dense route.
                let length = polyline_length_m(route.key_points.iter().copied());
                let length = case["scenario_present"].as_bool().unwrap().then_some(length);
                Record::blank(index, &identity).with(score(&result_of(case, length)))
            })
            .collect();
        all.extend(records.iter().cloned());
        let ours = Checkpoint::finished(records, read.body.progress[1], read.sensors.clone());
        let written = tempfile::tempdir().unwrap();
        let path = written.path().join("ours.json");
        tandem_evaluation::scoring::write_json(&path, &ours).unwrap();
        let ours = std::fs::read_to_string(path).unwrap();
        assert!(ours == official, "shard {shard} differs:\n{}", first_difference(&ours, &official));
    }

    let merged = std::fs::read_to_string(folder.join("merge_cases.json")).unwrap();
    let merged: Value = serde_json::from_str(&merged).unwrap();
    let expected = &merged["cases"][0]["expected"];
    let ours = MergedTable::new(all, 220, 1);
    check_close("driving score", ours.driving_score, number(&expected["driving score"]), 1e-9);
    check_close("success rate", ours.success_rate, number(&expected["success rate"]), 1e-12);
    assert_eq!(ours.finished as u64, expected["eval num"].as_u64().unwrap());
    let order: Vec<_> = ours.records().map(|record| record.route_id.as_str()).collect();
    assert_eq!(serde_json::json!(order), expected["record_order"]);
}

fn first_difference(ours: &str, official: &str) -> String {
    let lines = ours.lines().zip(official.lines()).enumerate();
    lines
        .filter(|(_, (ours, official))| ours != official)
        .take(5)
        .map(|(line, (ours, official))| format!("{}: {ours} | {official}\n", line + 1))
        .collect()
}

// ---- criteria ----------------------------------------------------------------------------------

/// Road described in `tests/data/bench2drive/README.md`.
struct ToyRoad;

impl LaneMap for ToyRoad {
    fn driving_lane(&self, place: DVec3) -> LanePoint {
        let lanes = [(-1, 1.75, 0.0), (-2, 5.25, 0.0), (1, -1.75, PI)];
        let offset = |y: f64| (place.y - y).abs();
        let mut nearest = lanes[0];
        for lane in lanes {
            if offset(lane.1) < offset(nearest.1) {
                nearest = lane;
            }
        }
        let (lane_id, y, heading_rad) = nearest;
        let x = place.x.clamp(-50.0, 400.0);
        let is_junction = (100.0..130.0).contains(&x);
        let road_id = if is_junction { 10 } else { 1 + i32::from(x >= 130.0) };
        let position = DVec3::new(x, y, 0.0);
        LanePoint { position, heading_rad, width_m: 3.5, road_id, lane_id, is_junction }
    }

    fn parking_lane(&self, place: DVec3) -> Option<LanePoint> {
        let position = DVec3::new(place.x.clamp(200.0, 260.0), 8.25, 0.0);
        let mut lane = self.driving_lane(place);
        (lane.position, lane.width_m, lane.lane_id) = (position, 2.5, -3);
        Some(lane)
    }
}

fn toy_plan(route: &Value) -> RoutePlan {
    let (from, to) = (route["x_from"].as_i64().unwrap(), route["x_to"].as_i64().unwrap());
    let y = number(&route["y"]);
    let points = (from..=to)
        .map(|x| RoutePoint {
            position: DVec3::new(x as f64, y, 0.0),
            heading_rad: 0.0,
            command: RoadOption::LaneFollow,
            is_junction: false,
        })
        .collect();
    RoutePlan { points, reference: GeoReference::default() }
}

/// States of the ego vehicle at the ticks of a case.
fn toy_drive(case: &Value) -> Vec<EgoState> {
    let mut place = point(&case["start"]).truncate();
    let mut drive = Vec::new();
    for segment in case["segments"].as_array().unwrap() {
        if let Some(jump) = segment.get("jump_to") {
            place = DVec2::new(number(&jump[0]), number(&jump[1]));
        }
        let part = |key: &str| segment.get(key).map_or(0.0, number);
        let velocity = DVec2::new(part("vx"), part("vy"));
        let pose = |position| Pose { position, yaw_rad: part("yaw").to_radians() };
        let is_backwards = velocity.dot(pose(place).forward()) < 0.0;
        let speed_mps = velocity.length() * if is_backwards { -1.0 } else { 1.0 };
        let from = place;
        for tick in 1..=segment["ticks"].as_u64().unwrap() {
            place = from + velocity * 0.05 * tick as f64;
            drive.push(EgoState {
                pose: pose(place),
                z_m: 0.0,
                speed_mps,
                yaw_rate_radps: 0.0,
                acceleration_mps2: 0.0,
                extent_m: [2.45, 1.06, 0.75],
            });
        }
    }
    drive
}

#[test]
fn all_38_criteria_traces_match_the_official_tool() {
    let golden = data("criteria_traces.json");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 38);
    for case in cases {
        check_trace(text(&case["name"]), case);
    }
}

/// Position and trigger volume of a light or sign of a case.
fn toy_post(post: &Value) -> (DVec3, TriggerVolume) {
    let place = DVec2::new(number(&post["pose"][0]), number(&post["pose"][1]));
    let pose = Pose { position: place, yaw_rad: number(&post["pose"][2]).to_radians() };
    let offset = point(&post["trigger_location"]);
    let trigger = TriggerVolume {
        center: pose.apply(offset.truncate()).extend(offset.z),
        yaw_rad: pose.yaw_rad,
        extent_m: point(&post["trigger_extent"]).to_array(),
    };
    (place.extend(0.0), trigger)
}

fn toy_light(light: &Value, color: LightColor) -> TrafficLight {
    let (position, trigger) = toy_post(light);
    TrafficLight { id: 501, position, color, trigger }
}

fn toy_sign(sign: &Value) -> StopSign {
    let (position, trigger) = toy_post(sign);
    StopSign { id: 601, position, trigger }
}

fn check_trace(name: &str, case: &Value) {
    let expected = &case["expected"];
    let plan = toy_plan(&case["route"]);
    let mut judge = RouteJudge::new(&plan).with_tick_cap(u64::MAX);
    let speeds: Vec<f64> = match case.get("background_speeds") {
        Some(speeds) => speeds.as_array().unwrap().iter().map(number).collect(),
        None => Vec::new(),
    };
    let at_tick = |list: &str, tick: u64| {
        let entries = case.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        entries.into_iter().filter(move |entry| entry[0] == tick)
    };
    let mut samples = Vec::new();
    let mut verdict = TickVerdict::Continue;
    let mut last_tick = 0;
    // Summed tick by tick like the harness's clock: the limit of the blocked criterion falls on a
    // tick whose time a product rounds differently.
    let mut time_s = 0.0;
    let mut allowances = Allowances::default();
    let mut color = LightColor::Off;
    let mut is_timed_out = false;
    for (tick, ego) in (1..).zip(toy_drive(case)) {
        time_s += 0.05;
        for write in at_tick("blackboard", tick) {
            let is_on = write[2].as_bool().unwrap();
            match text(&write[1]) {
                "AC_SwitchActorBlockedTest" => allowances.standing = !is_on,
                "AC_SwitchWrongDirectionTest" => allowances.oncoming_lane = !is_on,
                "ScenarioTimeout_X_1" => is_timed_out = is_on,
                other => panic!("{name}: blackboard write {other}"),
            }
        }
        if let Some(light) = case.get("traffic_light") {
            let schedule = light["schedule"].as_array().unwrap();
            for entry in schedule.iter().filter(|entry| entry[0] == tick) {
                color = match text(&entry[1]) {
                    "Red" => LightColor::Red,
                    "Yellow" => LightColor::Yellow,
                    "Green" => LightColor::Green,
                    other => panic!("{name}: light {other}"),
                };
            }
        }
        let emergency_vehicle = case.get("emergency_vehicle").map(|vehicle| {
            let start = point(&vehicle["start"]);
            Pose::new(start.x + number(&vehicle["vx"]) * 0.05 * tick as f64, start.y, 0.0)
        });
        let has_rules = emergency_vehicle.is_some() || case.get("scenario_timeout_test").is_some();
        let scenario =
            ScenarioState { id: 1, is_timed_out, emergency_vehicle, judges_collisions: false };
        let collisions = at_tick("collisions", tick).map(|entry| Collision {
            type_id: String::leak(text(&entry[1]).to_owned()),
            other_id: entry[2].as_u64().unwrap() as u32,
        });
        let state = WorldState {
            time_s,
            ego,
            actors: Vec::new(),
            collisions: collisions.collect(),
            background_speeds_mps: speeds.clone(),
            speed_limit_kmh: case.get("speed_limit_kmh").map_or(50.0, number),
            traffic_lights: case
                .get("traffic_light")
                .map(|l| toy_light(l, color))
                .into_iter()
                .collect(),
            stop_signs: case.get("stop_sign").map(toy_sign).into_iter().collect(),
            scenarios: has_rules.then_some(scenario).into_iter().collect(),
            allowances,
        };
        verdict = judge.tick(&state, &ToyRoad);
        last_tick = tick;
        if verdict != TickVerdict::Continue {
            break;
        }
        if tick % 50 == 0 {
            samples.push((tick, judge.completion().value(), judge.time_limit_s()));
        }
    }
    assert_eq!(last_tick, expected["end_tick"].as_u64().unwrap(), "{name}: end tick");
    let status = match verdict {
        TickVerdict::Continue => "RUNNING",
        TickVerdict::Ended(Ending::Completed | Ending::TimedOut) => "SUCCESS",
        TickVerdict::Ended(_) => "FAILURE",
    };
    assert_eq!(status, text(&expected["tree_status_at_end"]), "{name}: tree status");

    let golden_samples = expected["completion_and_timeout_samples"].as_array().unwrap();
    assert_eq!(samples.len(), golden_samples.len(), "{name}: number of samples");
    for ((tick, completion, limit_s), golden) in samples.into_iter().zip(golden_samples) {
        assert_eq!(tick, golden[0].as_u64().unwrap(), "{name}");
        assert_eq!(completion, number(&golden[1]), "{name}: completion at tick {tick}");
        check_close(&format!("{name}: limit at {tick}"), limit_s, number(&golden[2]), 1e-3);
    }

    let judgment = judge.close();
    check_events(name, &judgment.infractions, &expected["new_event_log"]);
    let record = &expected["record"];
    let identity = RouteIdentity {
        route_id: text(&record["route_id"]).to_owned(),
        scenario_name: text(&record["scenario_name"]).to_owned(),
        weather_id: record["weather_id"].as_str().map(str::to_owned),
        town_name: text(&record["town_name"]).to_owned(),
        save_name: text(&record["save_name"]).to_owned(),
    };
    let result = RouteResult {
        route_length_m: Some(judgment.route_length_m),
        completion: judgment.completion,
        infractions: judgment.infractions,
        timed_out: judgment.timed_out,
        failure: None,
        duration_game_s: last_tick as f64 * 0.05,
        duration_system_s: 1.0,
    };
    let found = Record::blank(0, &identity).with(score(&result));
    check_record(name, &found, record);
}

/// Compares type and tick of every event, without the completion, which is not an infraction.
fn check_events(name: &str, infractions: &[Infraction], golden: &Value) {
    let type_name = |kind| match kind {
        InfractionKind::CollisionPedestrian => "COLLISION_PEDESTRIAN",
        InfractionKind::CollisionVehicle => "COLLISION_VEHICLE",
        InfractionKind::CollisionLayout => "COLLISION_STATIC",
        InfractionKind::RedLight => "TRAFFIC_LIGHT_INFRACTION",
        InfractionKind::StopSign => "STOP_INFRACTION",
        InfractionKind::OutsideRouteLanes { .. } => "OUTSIDE_ROUTE_LANES_INFRACTION",
        InfractionKind::YieldEmergencyVehicle => "YIELD_TO_EMERGENCY_VEHICLE",
        InfractionKind::ScenarioTimeout => "SCENARIO_TIMEOUT",
        InfractionKind::MinSpeed => "MIN_SPEED_INFRACTION",
        InfractionKind::RouteDeviation => "ROUTE_DEVIATION",
        InfractionKind::VehicleBlocked => "VEHICLE_BLOCKED",
    };
    let mut found: Vec<_> = infractions
        .iter()
        .map(|infraction| (infraction.tick.unwrap_or(u64::MAX), type_name(infraction.kind)))
        .collect();
    let golden = golden.as_array().unwrap().iter();
    let mut golden: Vec<_> = golden
        .map(|event| (event["tick"].as_u64().unwrap_or(u64::MAX), text(&event["type"])))
        .filter(|(_, kind)| *kind != "ROUTE_COMPLETION")
        .collect();
    found.sort_unstable();
    golden.sort_unstable();
    assert_eq!(found, golden, "{name}: events");
}

#[test]
fn tick_after_the_cap_is_not_judged() {
    let golden = data("criteria_traces.json");
    let case = &golden["cases"][0];
    let plan = toy_plan(&case["route"]);
    let mut judge = RouteJudge::new(&plan).with_tick_cap(10);
    for (tick, ego) in (1..).zip(toy_drive(case)) {
        let state = WorldState {
            time_s: tick as f64 * 0.05,
            ego,
            actors: Vec::new(),
            collisions: Vec::new(),
            background_speeds_mps: Vec::new(),
            speed_limit_kmh: 50.0,
            traffic_lights: Vec::new(),
            stop_signs: Vec::new(),
            scenarios: Vec::new(),
            allowances: Allowances::default(),
        };
        let verdict = judge.tick(&state, &ToyRoad);
        if tick == 11 {
            assert_eq!(verdict, TickVerdict::Ended(Ending::TickCap));
            break;
        }
        assert_eq!(verdict, TickVerdict::Continue);
    }
    assert!(!judge.close().timed_out);
}
