//! Result files and route files in all common forms.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tandem_evaluation::results::ResultFolder;

fn case(name: &str) -> PathBuf {
    Path::new(tandem_testkit::ROOT).join("tests/data/cases/evaluation").join(name)
}

/// Runs `tandem` in `folder` without the environment variable for a route set.
fn tandem(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("TANDEM_BENCH2DRIVE")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{error}");
    output
}

/// Runs a command that must end with `code`; returns its standard output.
#[track_caller]
fn printed(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = tandem(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that a command fails with one line that contains all `parts`.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = tandem(folder, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

/// A folder with `set.xml`, which has as many routes
/// as Bench2Drive, including the two of the cases.
fn place_with_220_routes() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut routes = vec![(1711, "ParkingCutIn"), (1773, "ParkedObstacle")];
    routes.extend((1..=218).map(|id| (id, "Accident")));
    let text: String = routes
        .iter()
        .map(|(id, kind)| {
            format!(
                "<route id=\"{id}\" town=\"Town12\"><waypoints><position x=\"0\" y=\"0\" z=\"0\"/>\
                 <position x=\"40\" y=\"0\" z=\"0\"/></waypoints><scenarios>\
                 <scenario name=\"{kind}_1\" type=\"{kind}\"/></scenarios></route>"
            )
        })
        .collect();
    fs::write(place.path().join("set.xml"), format!("<routes>{text}</routes>")).unwrap();
    place
}

fn score<'a>(results: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["score", results.to_str().unwrap(), "--routes", "set.xml"];
    arguments.extend(more);
    arguments
}

#[test]
fn merged_and_nested_results_have_official_scores() {
    let place = place_with_220_routes();
    for (results, expected) in [
        ("merged_only", "2 / 220 routes finished, driving score 0.91, success rate 0.9 %"),
        ("merged_only/merged.json", "2 / 220 routes finished, driving score 0.91,"),
        ("merged_without_index", "2 / 220 routes finished, driving score 0.91,"),
        ("merged_without_index/agent.json", "2 / 220 routes finished, driving score 0.91,"),
        ("per_route", "2 / 220 routes finished, driving score 0.91,"),
        ("per_route/1773", "1 / 220 routes finished, driving score 0.45,"),
        ("nan", "1 / 220 routes finished, driving score 0.45, success rate 0.5 %"),
    ] {
        let results = case("results").join(results);
        let text = printed(place.path(), &score(&results, &[]), 1);
        assert!(text.starts_with(expected), "{results:?}: {text}");
    }
}

#[test]
fn records_are_read_without_their_envelope() {
    let place = place_with_220_routes();
    let text = fs::read_to_string(case("results/merged_only/merged.json")).unwrap();
    let table: Value = serde_json::from_str(&text).unwrap();
    let records = &table["_checkpoint"]["records"];
    for bare in [records.clone(), json!({ "records": records })] {
        let file = place.path().join("bare.json");
        fs::write(&file, bare.to_string()).unwrap();
        let text = printed(place.path(), &score(&file, &[]), 1);
        assert!(text.starts_with("2 / 220 routes finished, driving score 0.91,"), "{text}");
    }
}

#[test]
fn nested_result_files_are_found_among_other_files() {
    let place = place_with_220_routes();
    let below = place.path().join("runs/a/b/c");
    fs::create_dir_all(&below).unwrap();
    let endpoint = fs::read(case("results/per_route/1711/endpoint.json")).unwrap();
    fs::write(below.join("endpoint.json"), endpoint).unwrap();
    fs::write(below.join("metric_info.json"), "{").unwrap();
    fs::write(below.join("settings.json"), "{\"lr\": 1}").unwrap();
    fs::write(below.join("merged.json"), "{").unwrap();
    let runs = place.path().join("runs");
    let text = printed(place.path(), &score(&runs, &[]), 1);
    assert!(text.starts_with("1 / 220 routes finished, driving score 0.45,"), "{text}");

    fs::write(runs.join("a/run.json"), "{}").unwrap();
    refused(place.path(), &score(&runs, &[]), &["several campaigns", "runs/a"]);
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(place.path(), &score(&empty, &[]), &["no result files", "empty"]);
}

#[test]
fn merged_file_is_scored_and_names_missing_routes() {
    let place = place_with_220_routes();
    let folders = ["1711", "1773"].map(|name| case("results/per_route").join(name));
    let [first, second] = folders.each_ref().map(|folder| folder.to_str().unwrap());
    for (inputs, out) in [
        (vec![first, second], "table.json"),
        (vec![first, second], "folder"),
        (vec![folders[0].parent().unwrap().to_str().unwrap()], "nested"),
    ] {
        let mut arguments = vec!["merge"];
        arguments.extend(inputs);
        arguments.extend(["--out", out, "--routes", "set.xml"]);
        let text = printed(place.path(), &arguments, 1);
        assert!(text.contains("2 / 220 drives finished (routes of set.xml)"), "{text}");
        assert!(text.contains("218 drives have no record: RouteScenario_1_rep0,"), "{text}");
        let text = printed(place.path(), &score(Path::new(out), &[]), 1);
        assert!(text.starts_with("2 / 220 routes finished, driving score 0.91,"), "{text}");
    }
    let text = printed(place.path(), &["merge", first, "--out", "unknown.json"], 1);
    assert!(text.contains("--routes FILE names what is missing"), "{text}");

    let other = "<routes><route id=\"5\" town=\"T\"><waypoints><position x=\"0\" y=\"0\" z=\"0\"/>\
                 <position x=\"9\" y=\"0\" z=\"0\"/></waypoints></route></routes>";
    fs::write(place.path().join("other.xml"), other).unwrap();
    let arguments = ["merge", first, "--out", "no.json", "--routes", "other.xml"];
    refused(place.path(), &arguments, &["RouteScenario_1711_rep0", "other.xml"]);
}

#[test]
fn numbers_instead_of_messages_are_an_efficiency_error() {
    let place = place_with_220_routes();
    let results = case("results/speed_messages_are_numbers");
    let text = printed(place.path(), &score(&results, &[]), 1);
    let expected = "efficiency: n/a: RouteScenario_1711_rep0: the minimum-speed message 55.2 \
                    contains no percentage";
    assert!(text.contains(expected), "{text}");
}

/// Numbers at or below the keys of this name.
fn numbers_called(name: &str, value: &Value) -> Vec<f64> {
    let below = |value: &Value| numbers_called(name, value);
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value.as_f64() {
                Some(number) if key == name => vec![number],
                _ => below(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(below).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn repetitions_have_no_driving_score_above_100() {
    let place = place_with_220_routes();
    let text = fs::read_to_string(case("results/three_repetitions/eval_0.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let record = &file["_checkpoint"]["records"][0];
    let routes = [1711, 1773].into_iter().chain(1..=218);
    let records: Vec<Value> = routes
        .flat_map(|id| (0..3).map(move |repetition| (id, repetition)))
        .map(|(id, repetition)| {
            let mut record = record.clone();
            record["route_id"] = json!(format!("RouteScenario_{id}_rep{repetition}"));
            record.as_object_mut().unwrap().remove("scenario_name");
            record
        })
        .collect();
    let all = json!({ "_checkpoint": { "records": records }, "entry_status": "Finished" });
    fs::write(place.path().join("all.json"), all.to_string()).unwrap();
    let text = printed(place.path(), &score(Path::new("all.json"), &[]), 0);
    let expected = "660 / 660 drives (220 routes, 3 times each) finished, driving score 100.00, \
                    success rate 100.0 % (means over repetitions)\n\
                    repetition 0: 220 / 220 routes finished, driving score 100.00";
    assert!(text.starts_with(expected), "{text}");
    let json = printed(place.path(), &score(Path::new("all.json"), &["--json"]), 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    let scores = numbers_called("driving_score", &json);
    assert_eq!(scores, [100.0; 4]);
    assert!(json["official_tool"]["score_sum_over_220"].as_f64().unwrap() > 299.0);

    let text = printed(place.path(), &["merge", "all.json", "--out", "table.json"], 0);
    assert!(text.starts_with("660 / 660 drives finished"), "{text}");
    let table = fs::read_to_string(place.path().join("table.json")).unwrap();
    let table: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(numbers_called("driving score", &table), [100.0]);

    // The two drives of each repetition are averaged over 220 routes.
    let results = case("results/three_repetitions");
    let text = printed(place.path(), &score(&results, &[]), 1);
    assert!(text.starts_with("6 / 660 drives (220 routes, 3 times each) finished"), "{text}");
    assert!(text.contains("driving score 0.91, success rate 0.9 % (means"), "{text}");
}

/// The first case of one route with other scores.
fn edited(scores: &Value) -> String {
    let text = fs::read_to_string(case("results/per_route/1711/endpoint.json")).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let record = &mut file["_checkpoint"]["records"][0];
    for (key, value) in scores.as_object().unwrap() {
        record["scores"][key] = value.clone();
    }
    file.to_string()
}

#[test]
fn impossible_scores_are_refused_with_file_and_route() {
    let place = place_with_220_routes();
    let file = place.path().join("edited.json");
    for (scores, value) in [
        (json!({ "score_composed": 250 }), "250"),
        (json!({ "score_composed": -3 }), "-3"),
        (json!({ "score_composed": 1e308 }), "1e+308"),
        (json!({ "score_composed": null }), "null or NaN"),
        (json!({ "score_route": 100.5 }), "100.5"),
        (json!({ "score_penalty": 1.5 }), "1.5"),
        (json!({ "score_penalty": "1" }), "\"1\""),
    ] {
        fs::write(&file, edited(&scores)).unwrap();
        let key = scores.as_object().unwrap().keys().next().unwrap().clone();
        let parts = ["edited.json", "RouteScenario_1711_rep0", &key, value, "from 0 to"];
        refused(place.path(), &score(&file, &[]), &parts);
        refused(place.path(), &["merge", "edited.json", "--out", "x.json"], &parts);
        assert!(!place.path().join("x.json").exists());
    }
}

#[test]
fn score_that_is_not_its_product_fails_the_check() {
    let place = place_with_220_routes();
    let file = place.path().join("edited.json");
    fs::write(&file, edited(&json!({ "score_composed": 66.88 }))).unwrap();
    let text =
        printed(place.path(), &score(&file, &["--subset", "1711", "--rule", "corrected"]), 1);
    for part in ["driving score 66.88", "RouteScenario_1711_rep0", "edited.json", "66.88", "is 100"]
    {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let text = printed(place.path(), &["merge", "edited.json", "--out", "x.json"], 1);
    assert!(text.contains("product of its factors: RouteScenario_1711_rep0"), "{text}");
    // Rounded like the official harness.
    let rounded =
        json!({ "score_route": 33.333333, "score_penalty": 0.216, "score_composed": 7.2 });
    fs::write(&file, edited(&rounded)).unwrap();
    printed(place.path(), &score(&file, &["--subset", "1711", "--rule", "corrected"]), 0);
}

proptest! {
    /// A damaged case gives records with scores in their range, or one error that names the file.
    #[test]
    fn damaged_result_files_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        values in prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        const VALUES: [&str; 6] = ["NaN", "-1e308", "null", "[]", "\"\"", "{}"];
        let place = tempfile::tempdir().unwrap();
        let mut text = fs::read_to_string(case("results/per_route/1711/endpoint.json")).unwrap();
        for (at, value) in values {
            let colons: Vec<usize> = text.match_indices(": ").map(|(place, _)| place + 2).collect();
            let from = *at.get(&colons);
            let to = from + text[from..].find([',', '\n']).unwrap();
            text.replace_range(from..to, VALUES[value]);
        }
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let file = place.path().join("damaged.json");
        fs::write(&file, bytes).unwrap();
        match ResultFolder::read(&file) {
            Ok(results) => for record in results.records {
                prop_assert!((0.0..=100.0).contains(&record.score_composed));
            },
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.contains("damaged.json") && !error.contains('\n'), "{error}");
                prop_assert!(error.len() < 500, "{error}");
            }
        }
    }
}

// ---- route files -------------------------------------------------------------------------------

fn eval(routes: &Path, out: &str, more: &[&str], folder: &Path) -> String {
    let mut arguments = vec!["eval", "--routes", routes.to_str().unwrap(), "--out", out];
    arguments.extend(["--driver", "autopilot", "--jobs", "1"]);
    arguments.extend(more);
    printed(folder, &arguments, 0)
}

fn result(folder: &Path, name: &str) -> Value {
    let text = fs::read_to_string(folder.join("routes").join(name)).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["_checkpoint"]["records"][0].clone()
}

#[test]
fn unsupported_scenarios_are_left_out_and_reported() {
    let place = tempfile::tempdir().unwrap();
    let routes = case("routes/lb2_priority_at_junction.xml");
    let text = eval(&routes, "out", &[], place.path());
    assert!(text.contains("2 / 2 routes finished"), "{text}");
    let note = "driven without scenarios of types that are not among the 44 of Bench2Drive: \
                1 PriorityAtJunction";
    assert!(text.contains(&format!("RouteScenario_1_rep0: {note}")), "{text}");
    let out = place.path().join("out");
    let record = result(&out, "RouteScenario_1_rep0.json");
    assert_eq!(record["notes"], json!([note]));
    assert_eq!(record["scenario_name"], "PriorityAtJunction_1");
    assert_eq!(result(&out, "RouteScenario_2_rep0.json").get("notes"), None);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains(&format!(">1: {note}<")));
    let arguments = ["score", "out", "--routes", routes.to_str().unwrap(), "--rule", "corrected"];
    let text = printed(place.path(), &arguments, 0);
    assert!(text.contains(&format!("RouteScenario_1_rep0: {note}")), "{text}");

    let text = eval(&routes, "only", &["--only", "2"], place.path());
    assert!(text.contains("1 / 1 routes finished") && !text.contains("driven without"), "{text}");
}

#[test]
fn files_of_leaderboard_1_are_driven() {
    let place = tempfile::tempdir().unwrap();
    let text = eval(&case("routes/leaderboard1.xml"), "out", &[], place.path());
    assert!(text.contains("1 / 1 routes finished, driving score 100.00"), "{text}");
}

/// Writes a route file with one straight route per id, with unusual town and scenario names.
fn routes_with_ids(file: &Path, ids: &[&str], weather: &str) {
    let points: String =
        (0..20).map(|i| format!("<position x=\"{}\" y=\"0\" z=\"0\"/>", 2 * i)).collect();
    let route = |id: &&str| {
        format!(
            "<route id=\"{id}\" town=\"To/wn\"><waypoints>{points}</waypoints><scenarios><scenario \
             name=\"../x\" type=\"Accident\"/></scenarios>{weather}</route>"
        )
    };
    let text: String = ids.iter().map(route).collect();
    fs::write(file, format!("<routes>{text}</routes>")).unwrap();
}

#[test]
fn route_ids_may_be_any_text() {
    let place = tempfile::tempdir().unwrap();
    let long = "x".repeat(5_000);
    let ids = ["a/b", "a_b", "../../out", "Straße 7", "7_rep0", "", "..", "007", &long];
    let routes = place.path().join("routes.xml");
    routes_with_ids(&routes, &ids, "");
    let n = ids.len();
    let text = eval(&routes, "out", &["--motion", "motion"], place.path());
    assert!(text.contains(&format!("{n} / {n} routes finished, driving score 100.00")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 1_000), "{text}");
    let text = eval(&routes, "out", &["--motion", "motion"], place.path());
    assert!(text.contains(&format!("0 driven now, {n} kept from earlier runs")), "{text}");
    let count = |folder: &str| fs::read_dir(place.path().join(folder)).unwrap().count();
    assert_eq!((count("out/routes"), count("motion")), (n, n));
    assert_eq!(
        result(&place.path().join("out"), "RouteScenario_007_rep0.json")["town_name"],
        "To/wn"
    );

    for shard in ["1/2", "2/2"] {
        eval(&routes, &shard[..1], &["--shard", shard], place.path());
    }
    let text = printed(place.path(), &["merge", "1", "2", "--out", "merged"], 0);
    assert!(text.contains(&format!("{n} / {n} drives finished")), "{text}");
    let arguments = ["score", "merged", "--routes", "routes.xml", "--rule", "corrected"];
    let text = printed(place.path(), &[&arguments[..], &["--motion", "motion"]].concat(), 0);
    assert!(text.contains(&format!("% over {n} drives\n\nability")), "{text}");
    let text = printed(place.path(), &["report", "merged", "--routes", "routes.xml"], 0);
    assert!(text.contains("report.html"), "{text}");
    let page = fs::read_to_string(place.path().join("merged/report.html")).unwrap();
    for link in ["href=\"#a%2Fb/0/1\"", "href=\"#a_b/0/1\"", "href=\"#Stra%C3%9Fe%207/0/1\""] {
        assert!(page.contains(link), "{link} is missing");
    }
    printed(place.path(), &["report", "merged", "--mcap", "mcap"], 0);
    assert_eq!(count("mcap"), n);
    let names = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["1", "2", "mcap", "merged", "motion", "out", "routes.xml"]);

    let text = eval(&routes, "only", &["--only", "a/b,007"], place.path());
    assert!(text.contains("2 / 2 routes finished"), "{text}");
    let arguments = ["eval", "--routes", "routes.xml", "--out", "no", "--driver", "autopilot"];
    refused(place.path(), &[&arguments[..], &["--only", "b"]].concat(), &["no route \"b\""]);
}

#[test]
fn records_and_motion_logs_have_official_keys() {
    let place = tempfile::tempdir().unwrap();
    let routes = place.path().join("routes.xml");
    let weather = "<weathers><weather route_percentage=\"0\" cloudiness=\"100.0\" \
                   precipitation=\"50.0\" precipitation_deposits=\"100.0\" wetness=\"80.0\" \
                   wind_intensity=\"80.0\" sun_azimuth_angle=\"-1.0\" sun_altitude_angle=\"45.0\" \
                   fog_density=\"10.0\"/></weathers>";
    routes_with_ids(&routes, &["7"], weather);
    eval(&routes, "out", &["--motion", "motion"], place.path());
    let record = result(&place.path().join("out"), "RouteScenario_7_rep0.json");
    assert_eq!(record["weather_id"], "15");
    let name = record["save_name"].as_str().unwrap();
    assert!(name.starts_with("RouteScenario_7_rep0_To_wn_.._x_15_"), "{name}");
    let log = place.path().join("motion").join(name).join("metric_info.json");
    let log: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    for step in log.as_object().unwrap().values() {
        for key in [
            "acceleration",
            "angular_velocity",
            "forward_vector",
            "right_vector",
            "location",
            "rotation",
        ] {
            let numbers = step[key].as_array().unwrap();
            assert!(numbers.len() == 3 && numbers.iter().all(Value::is_number), "{step}");
        }
    }
    let first = &log["1"];
    let ego = first["location"][0].as_f64().unwrap();
    assert!((-1.0..2.0).contains(&ego), "{first}");
    assert!(first["rotation"][2].as_f64().unwrap().abs() < 1.0, "{first}");

    routes_with_ids(&routes, &["8"], &weather.replace("10.0", "10.5"));
    eval(&routes, "none", &[], place.path());
    let record = result(&place.path().join("none"), "RouteScenario_8_rep0.json");
    assert_eq!(record["weather_id"], Value::Null);
}
