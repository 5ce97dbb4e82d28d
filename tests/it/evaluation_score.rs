//! `tandem score`: folders of the official tools and of tandem, and refused folders.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Ids and scenario types of the routes of [`Results`].
const ROUTES: [(u32, &str); 3] = [(7, "ParkedObstacle"), (8, "T_Junction"), (9, "InvadingTurn")];

/// A folder with a route file and result files.
struct Results {
    root: tempfile::TempDir,
}

impl Results {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let routes: String = ROUTES
            .iter()
            .map(|(id, kind)| {
                format!(
                    "<route id=\"{id}\" town=\"Town01\"><waypoints>\
                     <position x=\"0\" y=\"0\" z=\"0\"/><position x=\"10\" y=\"0\" z=\"0\"/>\
                     <position x=\"40\" y=\"0\" z=\"0\"/></waypoints>\
                     <scenarios><scenario name=\"{kind}_1\" type=\"{kind}\"/></scenarios></route>\n"
                )
            })
            .collect();
        fs::write(root.path().join("routes.xml"), format!("<routes>\n{routes}</routes>")).unwrap();
        fs::create_dir(root.path().join("results")).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, records: &[Value]) {
        let file = json!({ "_checkpoint": { "records": records }, "entry_status": "Started" });
        fs::write(self.path("results").join(name), file.to_string()).unwrap();
    }

    fn score(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tandem"))
            .arg("score")
            .arg(self.path("results"))
            .arg("--routes")
            .arg(self.path("routes.xml"))
            .args(more)
            .output()
            .unwrap()
    }

    /// Scores, checks the exit code, and returns standard output.
    #[track_caller]
    fn scored(&self, more: &[&str], code: i32) -> String {
        let output = self.score(more);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Checks that scoring fails with an error that has all `fragments`.
    #[track_caller]
    fn refused(&self, fragments: &[&str]) {
        let output = self.score(&[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(!error.contains("panicked"), "{error}");
        assert!(output.stdout.is_empty());
        for fragment in fragments {
            assert!(error.contains(fragment), "{fragment:?} is missing in: {error}");
        }
    }
}

fn record(id: u32, score: f64) -> Value {
    let kind = ROUTES.iter().find(|(known, _)| *known == id).map_or("X", |(_, kind)| *kind);
    let mut infractions = json!({ "collisions_vehicle": [], "red_light": [],
        "min_speed_infractions": ["Average speed is 150.0% of the surrounding traffic's one"] });
    if score < 100.0 {
        infractions["collisions_vehicle"] = json!(["hit"]);
    }
    json!({
        "index": 0, "route_id": format!("RouteScenario_{id}_rep0"), "town_name": "Town01",
        "scenario_name": format!("{kind}_1"), "save_name": format!("save_{id}"),
        "status": "Completed", "infractions": infractions,
        "scores": { "score_route": 100, "score_penalty": score / 100.0, "score_composed": score },
        "meta": { "route_length": 40.0, "duration_game": 8.0, "duration_system": 1.0 },
    })
}

#[test]
fn official_folder_is_scored_by_either_rule() {
    let place = Results::new();
    place.write("shard_0.json", &[record(7, 100.0), record(8, 60.0)]);
    place.write("shard_1.json", &[record(9, 100.0)]);
    // Files that the official tools write to the same folder.
    fs::write(place.path("results/merged.json"), "not even JSON").unwrap();
    fs::write(place.path("results/merged_ability.json"), "{}").unwrap();

    let official: Value = serde_json::from_str(&place.scored(&["--json"], 0)).unwrap();
    assert_eq!((&official["finished"], &official["total"]), (&json!(3), &json!(3)));
    assert_eq!(official["rule"], "official");
    assert_eq!(official["driving_score"], Value::Null);
    let score = official["official_tool"]["score_sum_over_220"].as_f64().unwrap();
    assert!((score - 260.0 / 220.0).abs() < 1e-12, "{score}");
    assert_eq!(official["efficiency"]["value"], 150.0);
    assert!(official["abilities_0_0_4"]["error"].as_str().unwrap().contains("Merging"));

    let corrected = place.scored(&["--json", "--rule", "corrected"], 0);
    let corrected: Value = serde_json::from_str(&corrected).unwrap();
    let score = corrected["driving_score"].as_f64().unwrap();
    assert!((score - 260.0 / 3.0).abs() < 1e-12, "{score}");
    let abilities = &corrected["abilities_0_0_4"];
    assert_eq!(abilities["Overtaking"], 1.0);
    assert_eq!(abilities["Merging"], Value::Null);
    // Route 8 has a collision but no infraction of a sign, and passed its junction.
    assert_eq!(abilities["Traffic_Signs"], 1.0);
    assert_eq!(corrected["abilities_0_0_3"]["Traffic_Signs"], 0.5);

    let text = place.scored(&[], 0);
    assert!(text.starts_with("3 / 3 routes finished, no driving score by the official"), "{text}");
    for fragment in ["rule official", "official:", "corrected:", "by 220 (scores 1.18", "SHA-256"] {
        assert!(text.contains(fragment), "{fragment:?} is missing in: {text}");
    }
}

#[test]
fn missing_routes_are_named_with_exit_code_1() {
    let place = Results::new();
    place.write("a.json", &[record(8, 100.0)]);
    let text = place.scored(&[], 1);
    assert!(text.starts_with("1 / 3 routes finished"), "{text}");
    let named = "2 drives have no record: RouteScenario_7_rep0, RouteScenario_9_rep0";
    assert!(text.contains(named), "{text}");
    let text = place.scored(&["--subset", "8"], 0);
    assert!(text.starts_with("1 / 1 routes finished"), "{text}");
}

#[test]
fn duplicates_are_refused_and_named_with_their_files() {
    let place = Results::new();
    place.write("a.json", &[record(7, 100.0), record(8, 100.0)]);
    place.write("b.json", &[record(7, 20.0)]);
    place.refused(&["RouteScenario_7_rep0", "a.json", "b.json", "remove"]);
}

#[test]
fn repetitions_are_separate_drives() {
    let place = Results::new();
    let mut again = record(7, 50.0);
    again["route_id"] = json!("RouteScenario_7_rep1");
    place.write("a.json", &[record(7, 100.0), again]);
    let text = place.scored(&["--subset", "7"], 0);
    assert!(text.starts_with("2 / 2 drives (1 routes, 2 times each) finished"), "{text}");
}

#[test]
fn records_of_other_routes_are_refused() {
    let place = Results::new();
    place.write("a.json", &[record(7, 100.0), record(77, 100.0)]);
    place.refused(&["RouteScenario_77_rep0", "routes.xml"]);
    let mut elsewhere = record(7, 100.0);
    elsewhere["town_name"] = json!("Town12");
    place.write("a.json", &[elsewhere]);
    place.refused(&["RouteScenario_7_rep0", "Town12", "Town01"]);
}

#[test]
fn truncated_and_foreign_files_are_named() {
    let place = Results::new();
    place.refused(&["no result files", "results"]);
    fs::write(place.path("results/a.json"), "").unwrap();
    place.refused(&["a.json", "not a complete JSON file"]);
    fs::write(place.path("results/a.json"), "{}").unwrap();
    place.refused(&["a.json", "_checkpoint"]);
    let mut cut = record(7, 100.0);
    cut.as_object_mut().unwrap().remove("scores");
    place.write("a.json", &[cut]);
    place.refused(&["a.json", "RouteScenario_7_rep0", "scores"]);
}

/// Adds the `run.json` of a campaign with a route file of this hash.
fn make_campaign(place: &Results, sha256: &str) {
    let run = json!({
        "tandem_version": "0.1.0", "route_file_sha256": sha256, "seed": 1, "driver": "autopilot",
        "settings": {},
    });
    let results = place.path("results");
    fs::write(results.join("run.json"), run.to_string()).unwrap();
    fs::create_dir_all(results.join("routes")).unwrap();
    let file = json!({ "_checkpoint": { "records": [record(7, 100.0)] } });
    fs::write(results.join("routes/RouteScenario_7_rep0.json"), file.to_string()).unwrap();
}

#[test]
fn folder_is_compared_with_its_route_file() {
    let place = Results::new();
    make_campaign(&place, "00ff");
    place.refused(&["00ff", "routes.xml"]);
    let hash = sha256(&place.path("routes.xml"));
    make_campaign(&place, &hash);
    let text = place.scored(&["--subset", "7"], 0);
    assert!(text.contains("the results name this file"), "{text}");
    assert!(text.contains("not CARLA scores"), "{text}");
    fs::write(place.path("results/run.json"), "{}").unwrap();
    place.refused(&["run.json"]);
}

fn sha256(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn smoothness_needs_the_logs_of_every_drive() {
    let place = Results::new();
    place.write("a.json", &[record(7, 100.0)]);
    let text =
        place.scored(&["--subset", "7", "--motion", place.path("motion").to_str().unwrap()], 0);
    assert!(text.contains("smoothness: n/a: cannot read"), "{text}");
    let folder = place.path("motion").join("save_7");
    fs::create_dir_all(&folder).unwrap();
    let still = json!({ "acceleration": [0, 0, 0], "angular_velocity": [0, 0, 0],
        "forward_vector": [1, 0, 0], "right_vector": [0, 1, 0] });
    let log: serde_json::Map<String, Value> =
        (0..30).map(|step| (step.to_string(), still.clone())).collect();
    fs::write(folder.join("metric_info.json"), Value::Object(log).to_string()).unwrap();
    let text =
        place.scored(&["--subset", "7", "--motion", place.path("motion").to_str().unwrap()], 0);
    assert!(text.contains("smoothness: 100.0 % over 1 drives"), "{text}");
}

#[test]
fn missing_route_file_error_names_the_option() {
    let place = Results::new();
    place.write("a.json", &[record(7, 100.0)]);
    let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .arg("score")
        .arg(place.path("results"))
        .env_remove("TANDEM_BENCH2DRIVE")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--routes FILE") && error.contains("TANDEM_BENCH2DRIVE"), "{error}");
}
