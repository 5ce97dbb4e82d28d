//! `--map`: routes on the lanes of OpenDRIVE maps, folders of maps, and refused routes and maps.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tandem_evaluation::routes::read_routes;
use tandem_world::StreetMap;

fn case(name: &str) -> PathBuf {
    Path::new(tandem_testkit::ROOT).join("tests/data/cases/maps").join(name)
}

/// Runs `tandem`; returns the exit code, stdout and stderr.
fn tandem(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_tandem")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

/// Drives `routes` on `map` with the autopilot; returns the exit code, the records and stderr.
fn eval(routes: &Path, map: &Path, out: &Path) -> (i32, Vec<serde_json::Value>, String) {
    let (code, stdout, stderr) = tandem(&[
        &"eval",
        &"--routes",
        &routes,
        &"--map",
        &map,
        &"--driver",
        &"autopilot",
        &"--jobs",
        &"1",
        &"--out",
        &out,
        &"--json",
    ]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_default();
    let records = report["results"]["_checkpoint"]["records"].as_array();
    (code, records.cloned().unwrap_or_default(), stderr)
}

/// Checks that every route of `routes` is driven on `map` without a penalized infraction.
#[track_caller]
fn check_driven(routes: &Path, map: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let (code, records, stderr) = eval(routes, map, &folder.path().join("out"));
    assert_eq!(code, 0, "{stderr}");
    assert!(!records.is_empty());
    for record in records {
        assert_eq!(record["scores"]["score_composed"], 100.0, "{record:#}");
        let outside = record["infractions"]["outside_route_lanes"].as_array().unwrap();
        assert!(outside.is_empty(), "{outside:?}");
    }
}

/// Checks that nothing is driven or recorded, with one error that contains each of `parts`.
#[track_caller]
fn check_refused(routes: &Path, map: &Path, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (code, records, stderr) = eval(routes, map, &out);
    assert_eq!(code, 2, "{stderr}");
    assert!(records.is_empty() && !out.exists());
    for part in parts {
        assert!(stderr.contains(part), "{stderr:?} lacks {part:?}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn routes_on_hills_are_driven_on_their_lanes() {
    check_driven(&case("hill_penalised.xml"), &case("hill_penalised.xodr"));
    check_driven(&case("hill_refused.xml"), &case("hill_refused.xodr"));
}

#[test]
fn route_is_driven_at_the_heights_of_the_map() {
    let folder = tempfile::tempdir().unwrap();
    let flat = folder.path().join("flat.xml");
    let text = std::fs::read_to_string(case("hill_penalised.xml")).unwrap();
    let pieces: Vec<&str> = text.split(" z='").collect();
    let rest = pieces[1..].iter().map(|piece| &piece[piece.find('\'').unwrap() + 1..]);
    let lines: String = rest.map(|rest| format!(" z='0'{rest}")).collect();
    std::fs::write(&flat, format!("{}{lines}", pieces[0])).unwrap();
    check_driven(&flat, &case("hill_penalised.xodr"));
    let map = StreetMap::read(&case("hill_penalised.xodr")).unwrap();
    for point in map.plan(&read_routes(&flat).unwrap()[0]).unwrap().points {
        let height_m = 50.0 + 0.05 * point.position.x;
        assert!((point.position.z - height_m).abs() < 0.005, "{point:?}");
    }
}

#[test]
fn renumbered_lanes_lead_straight_on() {
    check_driven(&case("lane_offset_step.xml"), &case("lane_offset_step.xodr"));
    let map = StreetMap::read(&case("lane_offset_step.xodr")).unwrap();
    let route = &read_routes(&case("lane_offset_step.xml")).unwrap()[0];
    for point in map.plan(route).unwrap().points {
        assert!((point.position.y - 1.75).abs() < 0.01, "{point:?}");
    }
}

/// The lane offset has a step in the middle of a lane section, so that the lane jumps sideways: the
/// route crosses the junction in an arc, which is reported.
#[test]
fn disconnected_lanes_are_replaced_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("jump.xodr");
    let text = std::fs::read_to_string(case("lane_offset_step.xodr")).unwrap();
    std::fs::write(&map, text.replace("<laneOffset s='10'", "<laneOffset s='5'")).unwrap();
    let (code, records, stderr) =
        eval(&case("lane_offset_step.xml"), &map, &folder.path().join("out"));
    assert_eq!((code, records.len()), (0, 1), "{stderr}");
    assert!(stderr.contains("lanes of the map do not fit together"), "{stderr}");
    let route = &read_routes(&case("lane_offset_step.xml")).unwrap()[0];
    for point in StreetMap::read(&map).unwrap().plan(route).unwrap().points {
        assert!((point.position.y - 1.75).abs() < 0.01, "{point:?}");
    }
}

/// The hill map in UTM coordinates and UTF-16.
#[test]
fn maps_in_utm_coordinates_and_other_encodings_are_driven() {
    let folder = tempfile::tempdir().unwrap();
    let (east_m, north_m) = (612_345.25, 5_432_109.5);
    let map = std::fs::read_to_string(case("hill_refused.xodr")).unwrap();
    let map = map.replace("x='0' y='0'", &format!("x='{east_m}' y='{north_m}'"));
    let map = map.replace("<?xml version='1.0'?>", "<?xml version='1.0' encoding='UTF-16'?>");
    let units = std::iter::once(0xFEFF).chain(map.encode_utf16());
    let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    std::fs::write(folder.path().join("X.xodr"), bytes).unwrap();
    let positions: String = (0..60)
        .map(|idx| {
            let x = 5.0 + 2.0 * f64::from(idx);
            let (east, south) = (east_m + x, 1.75 - north_m);
            format!("<position x='{east}' y='{south}' z='{}'/>", 370.0 + 0.02 * x)
        })
        .collect();
    let routes = folder.path().join("routes.xml");
    let text = format!(
        "<!DOCTYPE routes><routes><route id='1' town='X'><waypoints>{positions}</waypoints></route></routes>"
    );
    std::fs::write(&routes, text).unwrap();
    check_driven(&routes, &folder.path().join("X.xodr"));
}

/// Writes a route file with one route in each of two towns.
fn two_towns(folder: &Path) -> PathBuf {
    let route = |name: &str, id: &str, town: &str| {
        let text = std::fs::read_to_string(case(name)).unwrap();
        let start = text.find("<route id").unwrap();
        let end = text.find("</routes>").unwrap();
        text[start..end].replace("id='1' town='X'", &format!("id='{id}' town='{town}'"))
    };
    let (hill, step) =
        (route("hill_refused.xml", "1", "Hill"), route("lane_offset_step.xml", "2", "Step"));
    let file = folder.join("routes.xml");
    std::fs::write(&file, format!("<routes>{hill}{step}</routes>")).unwrap();
    file
}

#[test]
fn folder_of_maps_gives_each_route_its_town() {
    let folder = tempfile::tempdir().unwrap();
    let routes = two_towns(folder.path());
    let maps = folder.path().join("maps");
    std::fs::create_dir(&maps).unwrap();
    std::fs::copy(case("hill_refused.xodr"), maps.join("Hill.xodr")).unwrap();
    check_refused(&routes, &maps, &["has no map of these towns", ": Step;", "TOWN.xodr"]);
    std::fs::copy(case("lane_offset_step.xodr"), maps.join("Step.xodr")).unwrap();
    check_driven(&routes, &maps);

    // A campaign is not resumed on another map.
    let out = folder.path().join("out");
    assert_eq!(eval(&routes, &maps, &out).0, 0);
    let run = std::fs::read_to_string(out.join("run.json")).unwrap();
    assert!(run.contains("map Hill (SHA-256)") && run.contains("map Step (SHA-256)"), "{run}");
    let hill = std::fs::read_to_string(case("hill_refused.xodr")).unwrap();
    std::fs::write(maps.join("Hill.xodr"), hill + "\n").unwrap();
    let (code, _, stderr) = eval(&routes, &maps, &out);
    assert!(code == 2 && stderr.contains("map Hill"), "{code} {stderr}");
}

#[test]
fn town_name_stays_in_the_map_folder() {
    let folder = tempfile::tempdir().unwrap();
    let routes = two_towns(folder.path());
    let text = std::fs::read_to_string(&routes).unwrap();
    std::fs::write(&routes, text.replace("'Hill'", "'../Hill'")).unwrap();
    std::fs::copy(case("hill_refused.xodr"), folder.path().join("Hill.xodr")).unwrap();
    let maps = folder.path().join("maps");
    std::fs::create_dir(&maps).unwrap();
    std::fs::copy(case("lane_offset_step.xodr"), maps.join("Step.xodr")).unwrap();
    check_refused(&routes, &maps, &["../Hill"]);
}

#[test]
fn route_of_another_map_is_refused_before_driving() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("north.xodr");
    let text = std::fs::read_to_string(case("hill_refused.xodr")).unwrap();
    std::fs::write(&map, text.replace("x='0' y='0'", "x='0' y='900'")).unwrap();
    let parts = ["route 1", "leads 900 m away", "north.xodr", "use the map of its town"];
    check_refused(&case("hill_refused.xml"), &map, &parts);
}

#[test]
fn distant_key_point_is_refused_before_driving() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.xml");
    let text = std::fs::read_to_string(case("lane_offset_step.xml")).unwrap();
    for (far, parts) in [
        ("1e18", ["route 1", "y=\"1e18\""]),
        ("4294967295", ["route 1", "y=\"4294967295\""]),
        ("32767", ["route 1", "key point 3 (x=6 y=32767 z=0)"]),
        ("NaN", ["route 1", "y=\"NaN\""]),
    ] {
        let bad = text.replace("x='6.000' y='1.750'", &format!("x='6.000' y='{far}'"));
        std::fs::write(&routes, bad).unwrap();
        check_refused(&routes, &case("lane_offset_step.xodr"), &parts);
    }
}

#[test]
fn traffic_signs_are_approximate_without_maps() {
    let folder = tempfile::tempdir().unwrap();
    let routes = two_towns(folder.path());
    let (maps, out) = (folder.path().join("maps"), folder.path().join("out"));
    std::fs::create_dir(&maps).unwrap();
    std::fs::copy(case("hill_refused.xodr"), maps.join("Hill.xodr")).unwrap();
    std::fs::copy(case("lane_offset_step.xodr"), maps.join("Step.xodr")).unwrap();
    // Scenarios of every ability, so that the official rule has a value.
    let kinds = ["ParkedObstacle", "VehicleTurningRoute", "YieldToEmergencyVehicle", "ParkingExit"];
    let text = std::fs::read_to_string(&routes).unwrap();
    let route = &text[text.find("<route id='2'").unwrap()..text.find("</routes>").unwrap()];
    let many: String = kinds
        .iter()
        .zip(2..)
        .map(|(kind, id)| {
            let scenario =
                format!("<scenarios><scenario name='s' type='{kind}'/></scenarios></route>");
            route.replace("id='2'", &format!("id='{id}'")).replace("</route>", &scenario)
        })
        .collect();
    std::fs::write(&routes, format!("<routes>{many}</routes>")).unwrap();
    let (code, records, stderr) = eval(&routes, &maps, &out);
    assert_eq!((code, records.len()), (0, 4), "{stderr}");
    let score = |more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&"score", &out, &"--routes", &routes];
        arguments.extend(more);
        tandem(&arguments).1
    };
    let table = score(&[]);
    assert!(table.contains("(approximate)") && table.contains("--map DIR"), "{table}");
    assert!(!score(&[&"--map", &maps]).contains("approximate"));
    let json: serde_json::Value = serde_json::from_str(&score(&[&"--json"])).unwrap();
    assert_eq!(
        json["abilities_0_0_4"]["approximate"],
        serde_json::json!(["Traffic_Signs", "mean"])
    );
    let json = score(&[&"--json", &"--map", &maps]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["abilities_0_0_3"]["approximate"], serde_json::json!([]));
    // The page of the campaign uses the maps; a page without them is marked.
    let page = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert!(page(&out.join("report.html")).contains("Junctions are those of the maps"));
    let other = folder.path().join("other.html");
    assert_eq!(tandem(&[&"report", &out, &"--routes", &routes, &"--out", &other]).0, 0);
    assert!(page(&other).contains("<br/>approximate</td>"));
}
