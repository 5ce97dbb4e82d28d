//! Figures around the scores compared with the output of the official tools: merging, abilities,
//! efficiency, smoothness, and the harness's handling of routes and files.

use super::evaluation_golden::official_files;
use glam::{DVec2, DVec3};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tandem::scene::{
    GeoReference, RoadOption, Route, RoutePlan, RoutePoint, TriggerPoint, WeatherKeyframe,
};
use tandem_evaluation::routes::{
    SubsetError, downsampled, geo_reference, is_on_route, read_routes, select_subset, weather_along,
};
use tandem_evaluation::scoring::{
    Abilities, Ability, AbilityError, EfficiencyError, FirstJunction, FoundRecord, MergeError,
    Merged, MotionLog, OFFICIAL_ROUTES, Rule, Series, SignRule, SmoothnessError, abilities,
    duplicates, is_result_file_name, records_of, resume_index, route_efficiency,
};

fn data(name: &str) -> Value {
    read(&Path::new(tandem_testkit::ROOT).join("tests/data/bench2drive").join(name))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text"))
}

fn point(value: &Value) -> DVec3 {
    DVec3::new(number(&value[0]), number(&value[1]), number(&value[2]))
}

#[track_caller]
fn check_close(what: &str, found: f64, expected: f64) {
    let tolerance = 1e-9 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

// ---- merging -----------------------------------------------------------------------------------

/// Reads and merges the files of a case; a value `ref:PATH` is a file below `golden`.
fn merge(case: &Value, golden: Option<&Path>) -> Result<Merged, MergeError> {
    let mut records = Vec::new();
    let files = case["files"].as_object().unwrap();
    for (name, content) in files.iter().filter(|(name, _)| is_result_file_name(name)) {
        let content = match (content.as_str().and_then(|c| c.strip_prefix("ref:")), golden) {
            (Some(path), Some(golden)) => std::fs::read_to_string(golden.join(path)).unwrap(),
            _ => content.get("raw_text").map_or(content.to_string(), |raw| text(raw).to_owned()),
        };
        records.extend(records_of(name, &content)?);
    }
    Ok(Merged::new(records, OFFICIAL_ROUTES))
}

fn check_merge(case: &Value, golden: Option<&Path>) {
    let name = text(&case["name"]);
    let expected = &case["expected"];
    let merged = match merge(case, golden) {
        Ok(merged) => merged,
        Err(error) => {
            let (exception, key) = match &error {
                MergeError::NotJson { .. } => ("JSONDecodeError", None),
                MergeError::Missing { key, .. } => ("KeyError", Some(*key)),
                MergeError::Range { .. } => panic!("{name}: {error}"),
            };
            assert_eq!(Some(exception), expected["error"].as_str(), "{name}: {error}");
            if let Some(key) = key {
                assert_eq!(expected["error_text"], format!("'{key}'"), "{name}");
            }
            return;
        }
    };
    assert_eq!(expected.get("error"), None, "{name} should fail");
    check_close(name, merged.driving_score, number(&expected["driving score"]));
    check_close(name, merged.success_rate, number(&expected["success rate"]));
    assert_eq!(merged.finished as u64, expected["eval num"].as_u64().unwrap(), "{name}");
    let order: Vec<_> = merged.records().iter().map(|record| &record.route_id).collect();
    assert_eq!(serde_json::json!(order), expected["record_order"], "{name}");
    let successful = merged.records().iter().filter(|record| record.is_success);
    let mut successful: Vec<_> = successful.map(|record| &record.route_id).collect();
    successful.sort();
    assert_eq!(serde_json::json!(successful), expected["successful_route_ids_sorted"], "{name}");
    assert_eq!(merged.finished != 220, expected["warning_printed"].as_bool().unwrap(), "{name}");
    let written = serde_json::to_value(&merged).unwrap();
    let keys: Vec<_> = written.as_object().unwrap().keys().collect();
    assert_eq!(serde_json::json!(keys), expected["top_level_keys"], "{name}");
    if let Some(merged) = expected.get("merged") {
        // Compared as text, so that key order and `100` vs. `100.0` count too.
        let records = |table: &Value| table["_checkpoint"].to_string();
        assert_eq!(records(&written), records(merged), "{name}");
    }
}

#[test]
fn the_17_merge_cases_match_the_official_table() {
    let golden = data("merge_cases.json");
    assert_eq!(list(&golden["cases"]).len(), 17);
    for case in list(&golden["cases"]) {
        check_merge(case, None);
    }
}

#[test]
fn all_19_merge_cases_match_the_official_table() {
    let Some(folder) = official_files("official merge cases") else { return };
    let folder = folder.join("golden");
    let golden = read(&folder.join("merge_cases.json"));
    assert_eq!(list(&golden["cases"]).len(), 19);
    for case in list(&golden["cases"]) {
        check_merge(case, Some(&folder));
    }
}

#[test]
fn duplicates_are_named_with_their_files() {
    let golden = data("merge_cases.json");
    let mut cases = list(&golden["cases"]).iter();
    let case = cases.find(|case| case["name"] == "duplicate_route_in_two_files").unwrap();
    let merged = merge(case, None).unwrap();
    let found = duplicates(merged.records());
    assert!(!found.is_empty());
    for (route_id, files) in found {
        let count = merged.records().iter().filter(|r| r.route_id == route_id).count();
        assert_eq!(files.len(), count, "{route_id}");
        assert!(count > 1);
    }
}

#[test]
fn scores_are_divided_by_the_given_count() {
    let golden = data("merge_cases.json");
    let mut cases = list(&golden["cases"]).iter();
    let case = cases.find(|case| case["name"] == "small_lexicographic_order").unwrap();
    let records = merge(case, None).unwrap().records().to_vec();
    let total: f64 = records.iter().map(|record| record.score_composed).sum();
    let corrected = Merged::new(records, 5);
    check_close("score", corrected.driving_score, total / 5.0);
    assert_eq!(corrected.divisor, 5);
}

// ---- abilities ---------------------------------------------------------------------------------

fn check_abilities(name: &str, found: Result<Abilities, AbilityError>, expected: &Value) {
    if expected.get("error").is_some() {
        assert!(matches!(found, Err(AbilityError::EmptyGroup { .. })), "{name}: {found:?}");
        return;
    }
    let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
    for (ability, ratio) in Ability::ALL.into_iter().zip(found.ratios) {
        check_close(name, ratio.unwrap(), number(&expected[ability.key()]));
    }
    check_close(name, found.mean.unwrap(), number(&expected["mean"]));
    let missing: Vec<_> = found.missing.iter().map(|(kind, id)| (kind, id.to_string())).collect();
    assert_eq!(serde_json::json!(missing), expected["crashed"], "{name}");
}

/// Copies of `records` in the form of a result file, changed by `change`.
fn rewritten(records: &[FoundRecord], change: impl Fn(&mut Value)) -> Vec<FoundRecord> {
    let records: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut value = serde_json::to_value(record).unwrap();
            value["index"] = 0.into();
            change(&mut value);
            value
        })
        .collect();
    let file = serde_json::json!({ "_checkpoint": { "records": records } });
    records_of("rewritten.json", &file.to_string()).unwrap()
}

fn without_infractions(value: &mut Value) {
    for (_, list) in value["infractions"].as_object_mut().unwrap() {
        *list = Value::Array(Vec::new());
    }
}

#[test]
fn all_6_ability_cases_match_both_official_releases() {
    let Some(folder) = official_files("official abilities") else { return };
    let golden = read(&folder.join("golden/ability_cases.json"));
    for ability in Ability::ALL {
        let group = &golden["ability_groups"][ability.key()];
        assert_eq!(serde_json::json!(ability.scenario_types()), *group);
    }
    let routes = read_routes(&folder.join("routes/bench2drive220.xml")).unwrap();
    let junction = |route: &Route| FirstJunction::of_key_points(&route.key_points);
    let counts = golden["first_junction_count_total_found"].as_object().unwrap();
    for (id, expected) in counts {
        let route = routes.iter().find(|route| route.id.as_str() == *id).unwrap();
        let found = junction(route);
        let point = found.point.unwrap_or(found.points);
        assert_eq!(serde_json::json!([point, found.points, found.point.is_some()]), *expected);
    }

    let merge_cases = read(&folder.join("golden/merge_cases.json"));
    let merged = |name: &str| {
        let mut cases = list(&merge_cases["cases"]).iter();
        let case = cases.find(|case| case["name"] == name).unwrap();
        merge(case, Some(&folder.join("golden"))).unwrap().records().to_vec()
    };
    let all = merged("full_220");
    let mut compared = 0;
    for case in list(&golden["cases"]) {
        let name = text(&case["name"]);
        let records = match name {
            "full_220" | "partial_110" => merged(name),
            "all_successful" => rewritten(&all, |value| {
                without_infractions(value);
                value["status"] = "Completed".into();
                value["scores"]["score_route"] = 100.into();
            }),
            "all_failed_half_way_clean" => rewritten(&all, |value| {
                without_infractions(value);
                value["status"] = "Failed".into();
                value["scores"]["score_route"] = 50.0.into();
            }),
            "no_records" => Vec::new(),
            "duplicate_record_first_wins" => {
                let failed = rewritten(&all[..1], |value| value["status"] = "Failed".into());
                all.iter().cloned().chain(failed).collect()
            }
            other => panic!("unknown case {other}"),
        };
        for (signs, key) in
            [(SignRule::Release003, "expected_0_0_3"), (SignRule::Release004, "expected_0_0_4")]
        {
            let found = abilities(&routes, &records, &junction, signs, Rule::Official);
            check_abilities(name, found, &case[key]);
        }
        compared += 1;
    }
    assert_eq!(compared, 6);

    // The corrected rule counts missing routes.
    let half = merged("partial_110");
    let found = abilities(&routes, &half, &junction, SignRule::Release004, Rule::Corrected);
    let found = found.unwrap();
    assert_eq!(found.routes, [45, 80, 60, 10, 95]);
    let ratio = found.ratios[0].unwrap() * 45.0;
    check_close("successes of 45", ratio, ratio.round());
    assert_eq!(found.missing.len(), 110);
    let none = abilities(&routes, &[], &junction, SignRule::Release004, Rule::Corrected).unwrap();
    assert_eq!(none.mean, Some(0.0));
}

// ---- efficiency and smoothness -----------------------------------------------------------------

fn efficiency_of(record: &Value, rule: Rule) -> Result<Option<f64>, EfficiencyError> {
    let messages = list(&record["infractions"]["min_speed_infractions"]);
    route_efficiency(messages, rule)
}

fn motion_of(case: &Value, record: &Value) -> Option<MotionLog> {
    let log = case["metric_info"].get(text(&record["save_name"]))?;
    Some(MotionLog::parse(&log.to_string()).unwrap())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn by_name(series: &Series) -> [(&'static str, &[f64]); 6] {
    [
        ("lon_acc", &series.longitudinal),
        ("lat_acc", &series.lateral),
        ("mag_jerk", &series.magnitude_jerk),
        ("lon_jerk", &series.longitudinal_jerk),
        ("yaw_acc", &series.yaw_acceleration),
        ("yaw_rate", &series.yaw_rate),
    ]
}

#[test]
fn efficiency_and_smoothness_of_32_routes_are_official() {
    let golden = data("efficiency_smoothness.json");
    let (records, expected) = (list(&golden["records"]), &golden["expected"]);
    assert_eq!(records.len(), 32);
    let mut efficiencies = Vec::new();
    let mut smoothnesses = Vec::new();
    let mut windows = 0;
    for (place, record) in records.iter().enumerate() {
        let name = text(&record["route_id"]);
        efficiencies.extend(efficiency_of(record, Rule::Official).unwrap());
        let log = motion_of(&golden, record).unwrap();
        let found: Vec<_> = log.windows(Rule::Official).unwrap();
        let verdicts: Vec<_> = found.iter().map(Series::verdicts).collect();
        windows += verdicts.len();
        assert_eq!(
            serde_json::json!(verdicts),
            expected["window_tests_per_route"][place],
            "{name}"
        );
        smoothnesses.push(log.smoothness(Rule::Official).unwrap());

        let intermediate = list(&golden["intermediate_windows"]).iter();
        for golden in intermediate.filter(|window| window["route_id"] == record["route_id"]) {
            for (series, values) in by_name(&found[0]) {
                let expected = numbers(&golden["series"][series]);
                assert_eq!(values.len(), expected.len(), "{name} {series}");
                for (found, expected) in values.iter().zip(expected) {
                    check_close(&format!("{name} {series}"), *found, expected);
                }
            }
        }
    }
    assert!(windows > 100, "{windows}");
    for (found, key) in
        [(&efficiencies, "efficiency_per_route"), (&smoothnesses, "comfort_per_route")]
    {
        let expected = numbers(&expected[key]);
        assert_eq!(found.len(), expected.len(), "{key}");
        for (found, expected) in found.iter().zip(expected) {
            check_close(key, *found, expected);
        }
    }
    check_close("efficiency", mean(&efficiencies), number(&expected["Driving Efficiency"]));
    check_close("smoothness", mean(&smoothnesses), number(&expected["Driving Smoothness"]));
}

#[test]
fn efficiency_and_smoothness_fail_where_the_official_tool_fails() {
    let golden = data("efficiency_smoothness.json");
    let cases = list(&golden["edge_cases"]);
    assert_eq!(cases.len(), 12);
    for case in cases {
        let name = text(&case["name"]);
        let record = &case["records"][0];
        let expected = &case["expected"];
        let motion = motion_of(case, record);
        let efficiency = efficiency_of(record, Rule::Official);
        if expected.get("error_in").is_some() {
            let exception = match (&motion, efficiency) {
                (None, _) => "FileNotFoundError",
                (_, Err(EfficiencyError::AllDropped)) => "ZeroDivisionError",
                (_, Err(EfficiencyError::NoPercentage { .. })) => "AttributeError",
                (_, Ok(value)) => panic!("{name} should fail, is {value:?}"),
            };
            assert_eq!(expected["error"], exception, "{name}");
            continue;
        }
        let found: Vec<f64> = efficiency.unwrap().into_iter().collect();
        assert_eq!(found, numbers(&expected["efficiency_per_route"]), "{name}");
        let comfort = &expected["comfort_per_route"][0];
        match motion.unwrap().smoothness(Rule::Official) {
            Ok(found) => check_close(name, found, number(comfort)),
            Err(SmoothnessError::TooFew { .. }) => {
                assert_eq!(comfort["error"], "ValueError", "{name}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

/// A log of `samples` samples that turns at a constant rate and is otherwise at rest.
fn turning_log(samples: usize, rate_deg_per_s: f64) -> String {
    let sample = serde_json::json!({
        "acceleration": [0.0, 0.0, 0.0], "angular_velocity": [0.0, 0.0, rate_deg_per_s],
        "forward_vector": [1.0, 0.0, 0.0], "right_vector": [0.0, 1.0, 0.0],
    });
    let steps: BTreeMap<String, Value> =
        (0..samples).map(|step| (format!("{step:04}"), sample.clone())).collect();
    serde_json::to_string(&steps).unwrap()
}

#[test]
fn corrected_rule_reads_yaw_rates_as_degrees_per_second() {
    let gentle = MotionLog::parse(&turning_log(20, 2.0)).unwrap();
    assert_eq!(gentle.smoothness(Rule::Official).unwrap(), 0.0);
    assert_eq!(gentle.smoothness(Rule::Corrected).unwrap(), 1.0);
    let wild = MotionLog::parse(&turning_log(20, 80.0)).unwrap();
    assert_eq!(wild.smoothness(Rule::Corrected).unwrap(), 0.0);
}

#[test]
fn other_files_are_not_read_as_motion_logs() {
    for text in ["", "[]", "{\"x\": {}}", "{\"1\": {\"acceleration\": [1, 2]}}"] {
        assert!(MotionLog::parse(text).is_err(), "{text:?}");
    }
}

// ---- routes and files of the harness ------------------------------------------------

#[test]
fn geographic_positions_match_the_official_ones() {
    let golden = data("misc_functions.json");
    let cases = list(&golden["location_to_gps"]);
    assert_eq!(cases.len(), 30);
    for case in cases {
        let reference = GeoReference {
            latitude_deg: number(&case["lat_ref"]),
            longitude_deg: number(&case["lon_ref"]),
        };
        let (latitude, longitude) = reference.geographic(point(&case["xyz"]).truncate());
        check_close("latitude", latitude, number(&case["gps"]["lat"]));
        check_close("longitude", longitude, number(&case["gps"]["lon"]));
    }
    let cases = list(&golden["geo_reference"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let found = geo_reference(text(&case["opendrive"])).unwrap();
        assert_eq!(vec![found.latitude_deg, found.longitude_deg], numbers(&case["lat_lon"]));
    }
    assert!(geo_reference("<a><geoReference>+lat_0=north</geoReference></a>").is_err());
}

fn plan_of(points: impl Iterator<Item = (DVec3, RoadOption)>) -> RoutePlan {
    let point = |(position, command)| RoutePoint {
        position,
        heading_rad: 0.0,
        command,
        is_junction: false,
    };
    RoutePlan { points: points.map(point).collect(), reference: GeoReference::default() }
}

fn road_option(value: &Value) -> RoadOption {
    match value.as_i64().unwrap() {
        -1 => RoadOption::Void,
        1 => RoadOption::Left,
        2 => RoadOption::Right,
        3 => RoadOption::Straight,
        4 => RoadOption::LaneFollow,
        5 => RoadOption::ChangeLaneLeft,
        6 => RoadOption::ChangeLaneRight,
        other => panic!("road option {other}"),
    }
}

#[test]
fn plans_are_downsampled_like_the_official_ones() {
    let golden = data("misc_functions.json");
    let cases = list(&golden["downsample_route"]);
    assert_eq!(cases.len(), 7);
    for case in cases {
        let options = list(&case["road_options"]).iter().map(road_option);
        let plan = plan_of(list(&case["points"]).iter().map(point).zip(options));
        let kept = downsampled(&plan, number(&case["factor"]));
        assert_eq!(serde_json::json!(kept), case["kept_indices"], "{}", case["name"]);
    }
}

#[test]
fn scenarios_with_a_trigger_on_the_route_are_kept() {
    let golden = data("misc_functions.json");
    let cases = list(&golden["is_scenario_at_route"]["cases"]);
    assert_eq!(cases.len(), 15);
    let plan =
        plan_of((0..50).map(|x| (DVec3::new(f64::from(x), 0.0, 0.0), RoadOption::LaneFollow)));
    for case in cases {
        let trigger = TriggerPoint {
            position: point(&case["trigger"]),
            yaw_deg: number(&case["trigger"][3]),
        };
        let expected = case["on_route"].as_bool().unwrap();
        assert_eq!(is_on_route(&plan, &trigger), expected, "{case}");
    }
}

#[test]
fn weather_is_interpolated_along_the_route() {
    let golden = data("misc_functions.json");
    let cases = list(&golden["weather_interpolation"]["cases"]);
    assert_eq!(cases.len(), 5);
    let points: Vec<_> = (0..11).map(|i| DVec3::new(0.5 * f64::from(i * i), 0.0, 0.0)).collect();
    for case in cases {
        let name = text(&case["name"]);
        let keyframe = |entry: &Value| WeatherKeyframe {
            route_percentage: number(&entry[0]),
            fields: serde_json::from_value(entry[1].clone()).unwrap(),
        };
        let keyframes: Vec<_> = list(&case["keypoints"]).iter().map(keyframe).collect();
        let corrected = weather_along(&keyframes, &points, Rule::Corrected).unwrap();
        assert_eq!(corrected.len(), 11, "{name}");
        let expected = &case["per_route_point"];
        let found = match weather_along(&keyframes, &points, Rule::Official) {
            Ok(found) => found,
            Err(error) => {
                assert_eq!(expected["error"], "AttributeError", "{name}: {error}");
                assert_eq!(corrected[0], keyframes[0].fields, "{name} before the first keyframe");
                assert_eq!(
                    corrected[10],
                    keyframes[keyframes.len() - 1].fields,
                    "{name} after the last keyframe"
                );
                continue;
            }
        };
        assert_eq!(found, corrected, "{name}");
        for (found, expected) in found.iter().zip(list(expected)) {
            for (field, expected) in expected.as_object().unwrap() {
                check_close(&format!("{name} {field}"), found[field], number(expected));
            }
        }
    }
}

fn route(id: &str) -> Route {
    Route {
        id: id.into(),
        town: "Town01".to_owned(),
        key_points: DVec2::AXES.map(|axis| axis.extend(0.0)).to_vec(),
        scenarios: Vec::new(),
        weather: Vec::new(),
    }
}

#[test]
fn route_subsets_match_the_official_ones() {
    let golden = data("misc_functions.json");
    let golden = &golden["routes_subset"];
    let ids = list(&golden["ids_in_file_order"]).iter();
    let routes: Vec<Route> = ids.map(|id| route(text(id))).collect();
    let cases = list(&golden["cases"]);
    assert_eq!(cases.len(), 10);
    for case in cases {
        let subset = text(&case["subset"]);
        match select_subset(routes.clone(), subset) {
            Ok(chosen) => {
                let names = chosen.iter().map(|route| format!("RouteScenario_{}", route.id));
                let names: Vec<_> = names.collect();
                assert_eq!(serde_json::json!(names), case["result"], "{subset:?}");
            }
            Err(error) => {
                let expected = text(&case["result"]["text"]);
                let kind = match &error {
                    SubsetError::Unknown { .. } => "Couldn't find the route",
                    SubsetError::Reversed { .. } => "Malformed route subset",
                    SubsetError::Repeated { .. } => "Found a repeated route",
                };
                assert!(expected.starts_with(kind), "{subset:?}: {error} | {expected}");
            }
        }
    }
}

#[test]
fn files_are_resumed_where_the_harness_resumes_them() {
    let golden = data("misc_functions.json");
    let golden = &golden["resume"];
    let ids: Vec<String> =
        list(&golden["route_ids_in_order"]).iter().map(|id| text(id).to_owned()).collect();
    let cases = list(&golden["cases"]);
    assert_eq!(cases.len(), 15);
    for case in cases {
        let checkpoint = match &case["checkpoint"] {
            Value::Null => String::new(),
            Value::String(raw) => raw.clone(),
            json => json.to_string(),
        };
        let found = resume_index(&checkpoint, &ids);
        assert_eq!(found.is_some(), case["resumed"].as_bool().unwrap(), "{}", case["name"]);
        let next = found.unwrap_or(0) as u64;
        assert_eq!(next, case["next_index"].as_u64().unwrap(), "{}", case["name"]);
    }
}
