//! Drives as MCAP files for Foxglove: read back, they equal the drive.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tandem::model::automot::stages;
use tandem::scene::{PrefixInfo, SensorSuite};
use tandem_drivers::Autopilot;
use tandem_evaluation::campaign::log::{LoggedEvent, RouteLog};
use tandem_evaluation::campaign::run_route;
use tandem_evaluation::report::write_mcap;
use tandem_evaluation::routes::read_routes;
use tandem_world::EmbeddedWorld;

/// A drive of the demo route to which a timed tick, a prefix and two infractions were added.
fn drive() -> RouteLog {
    let file = Path::new(tandem_testkit::ROOT).join("routes/demo.xml");
    let route = read_routes(&file).unwrap().remove(0);
    let suite = SensorSuite { truth: true, ..SensorSuite::default() };
    let mut world = EmbeddedWorld::new(&route, suite, 7).unwrap();
    let cancel = AtomicBool::new(false);
    let mut log = run_route(&mut world, &mut Autopilot::new(), 200, &cancel, &mut |_, _| {}).log;
    log.ticks[99].stages.set(stages::LIDAR_HISTOGRAM, Duration::from_micros(1500));
    log.ticks[99].prefix = Some(PrefixInfo { version: 4, age: Duration::from_millis(125) });
    let event =
        |tick| LoggedEvent { tick, kind: "red_light".to_owned(), message: "made up".to_owned() };
    log.events = vec![event(Some(100)), event(None)];
    log
}

#[test]
fn mcap_has_schemas_times_and_converted_axes() {
    let log = drive();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive.mcap");
    let written = write_mcap(&path, &log).unwrap();
    assert!(!folder.path().join("drive.partial").exists());
    let bytes = std::fs::read(&path).unwrap();
    let mut by_topic: BTreeMap<String, Vec<(u64, Value)>> = BTreeMap::new();
    let mut read = 0;
    let mut last = 0;
    for message in mcap::MessageStream::new(&bytes).unwrap() {
        let message = message.unwrap();
        assert!(message.log_time >= last, "times go backwards");
        last = message.log_time;
        read += 1;
        let channel = &message.channel;
        assert_eq!(channel.message_encoding, "json");
        let schema = channel.schema.as_ref().unwrap();
        assert_eq!(schema.encoding, "jsonschema");
        let schema: Value = serde_json::from_slice(&schema.data).unwrap();
        let data: Value = serde_json::from_slice(&message.data).unwrap();
        // Every first-level field of a message is in its schema.
        for key in data.as_object().unwrap().keys() {
            let is_known = schema["properties"].get(key).is_some()
                || schema.get("additionalProperties").is_some();
            assert!(is_known, "{} has no {key}", channel.topic);
        }
        by_topic.entry(channel.topic.clone()).or_default().push((message.log_time, data));
    }
    assert_eq!(read, written);
    let ticks = log.ticks.len();
    let counts: BTreeMap<&str, usize> =
        by_topic.iter().map(|(topic, messages)| (topic.as_str(), messages.len())).collect();
    let expected = [
        ("/command", ticks),
        ("/ego", ticks),
        ("/log", 2),
        ("/map", 1),
        ("/prefix", 1),
        ("/scene", ticks.div_ceil(2)),
        ("/stages", 1),
        ("/tf", ticks),
    ];
    assert_eq!(counts, BTreeMap::from(expected));

    let tick = &log.ticks[99];
    let (time_ns, pose) = &by_topic["/ego"][99];
    assert_eq!(*time_ns, 5_000_000_000, "the 100th tick is at 5 s");
    assert_eq!(pose["timestamp"], serde_json::json!({"sec": 5, "nsec": 0}));
    assert_eq!(pose["pose"]["position"]["x"].as_f64().unwrap(), tick.x_m);
    assert_eq!(pose["pose"]["position"]["y"].as_f64().unwrap(), -tick.y_m, "north is up");
    let turned = pose["pose"]["orientation"]["z"].as_f64().unwrap();
    assert!((turned - (-tick.yaw_rad / 2.0).sin()).abs() < 1e-12);
    assert_eq!(by_topic["/stages"][0].1["lidar_histogram_ms"], serde_json::json!(1.5));
    assert_eq!(by_topic["/prefix"][0].1["age_ms"], serde_json::json!(125.0));
    assert_eq!(by_topic["/log"][0].0, 5_000_000_000);

    let scene = &by_topic["/scene"][50].1;
    let near = log.actors.iter().flat_map(|track| &track.runs);
    let near =
        near.filter(|run| (run.first_scene..run.first_scene + run.poses.len()).contains(&50));
    let shown = scene["entities"].as_array().unwrap();
    let actors = shown.iter().filter(|one| one["id"].as_str().unwrap().starts_with("actor "));
    assert_eq!(actors.count(), near.count());
    assert!(shown.iter().any(|one| one["id"] == "ego"));
    let strips = by_topic["/map"][0].1["entities"].as_array().unwrap().len();
    assert_eq!(strips, log.strips.len() + 1, "every lane and the route");
}

#[test]
fn missing_folder_is_named() {
    let error = write_mcap(Path::new("/nowhere/at/all.mcap"), &RouteLog::default()).unwrap_err();
    assert!(error.to_string().contains("cannot write \"/nowhere/at/all.mcap\""), "{error}");
}
