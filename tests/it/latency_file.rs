//! Latency files: write and read, refused files, and emulation of recorded latencies.

use super::command::done;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tandem::model::automot::stages;
use tandem::scene::{DeadlineVerdict, PrefillReport, PrefixInfo, TickReport};
use tandem::timing::{Span, Stage, StageSpans};
use tandem_profile::{LatencyFile, PhaseName, PhaseRecorder, PrefillSamples, TickFacts};
use tandem_testkit::latency_file::latency_file;

fn spans(of: &[(Stage, u64, u64)]) -> StageSpans {
    let mut spans = StageSpans::default();
    for &(stage, start_ns, took_ns) in of {
        spans.push(Span { stage, start_ns, took_ns });
    }
    spans
}

/// Ten ticks of slightly more than 10 ms; the fifth is late and publishes a prefix.
fn file() -> LatencyFile {
    let mut recorder = PhaseRecorder::new(PhaseName::BackToBack, 3, 10, 1000);
    for tick in 0..10 {
        let start_ns = 1000 + tick * 20_000_000;
        let stages =
            [(stages::BEV, start_ns + 10, 6_000_000 + tick), (Stage::TICK, start_ns, 10_000_000)];
        let mut report = TickReport { spans: spans(&stages), ..TickReport::default() };
        if tick >= 4 {
            report.prefix = Some(PrefixInfo { version: 7, age: Duration::from_millis(80) });
        }
        if tick == 4 {
            report.deadline = DeadlineVerdict::Missed { by: Duration::from_nanos(5) };
            report.prefill = Some(PrefillReport {
                version: 7,
                is_published: true,
                spans: spans(&[
                    (stages::RESIZE, 2000, 30),
                    (stages::RESIZE, 3000, 40),
                    (Stage::PREFILL, 1500, 5000),
                ]),
            });
        }
        recorder.tick(&report, TickFacts { start_ns, ..TickFacts::default() });
    }
    latency_file(vec![recorder.finish()])
}

#[test]
fn latency_file_survives_write_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let written = file();
    written.write(&path).unwrap();
    let read = LatencyFile::read(&path).unwrap();
    assert_eq!(read, written);

    let phase = read.phase(PhaseName::BackToBack).unwrap();
    assert_eq!((phase.statistics.ticks(), phase.statistics.deadline_misses()), (10, 1));
    assert_eq!(phase.statistics.stage(Stage::PREFILL).count(), 1);
    assert_eq!(phase.ticks.stages["bev"].took_ns[3], Some(6_000_003));
    assert_eq!(phase.ticks.stages["bev"].start_ns[1], Some(20_000_010));
    assert_eq!(phase.ticks.late_by_ns[4], Some(5));
    // Two runs of a stage are one entry: the start of the first and the sum of the durations.
    let resize = &phase.refreshes.stages["resize"];
    assert_eq!((resize.start_ns[0], resize.took_ns[0]), (Some(1000), Some(70)));
    assert_eq!((phase.refreshes.version[0], phase.refreshes.published_at[0]), (7, 4));
}

#[test]
fn files_of_format_1_are_read() {
    let path = Path::new(tandem_testkit::ROOT).join("tests/data/cases/latency-loaded-1.json");
    let read = LatencyFile::read(&path).unwrap();
    assert_eq!((read.format, read.phases[0].others_share), (1, None));
    assert_eq!((read.phases[0].ticks_due(), read.phases[0].due_ticks_missed()), (1100, 984));
}

#[track_caller]
fn refused(path: &Path, text: &str, fragments: &[&str]) {
    std::fs::write(path, text).unwrap();
    let error = LatencyFile::read(path).unwrap_err().to_string();
    for fragment in fragments {
        assert!(error.contains(fragment), "{fragment:?} is missing in: {error}");
    }
}

#[test]
fn incomplete_files_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let error = LatencyFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("latency.json") && error.contains("tandem profile"), "{error}");

    file().write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    refused(&path, &text[..text.len() / 2], &["latency.json", "EOF"]);
    refused(&path, "{\"format\": 99}", &["format 99", "take the profile again"]);
    refused(&path, "[]", &["not a complete latency file"]);
    let break_it = |at: &str, with: &str| {
        assert!(text.contains(at), "{at}");
        text.replacen(at, with, 1)
    };
    refused(
        &path,
        &break_it("\"page_faults\":[0,", "\"page_faults\":["),
        &["page_faults", "9", "10"],
    );
    refused(&path, &break_it("\"bev\":{\"start_ns\"", "\"bow\":{\"start_ns\""), &["bow"]);
    refused(&path, &break_it("\"tandem\":", "\"tamdem\":"), &["tamdem"]);
    refused(&path, &break_it("{\"ticks\":10,", "{\"ticks\":12,"), &["12 ticks", "10 sampled"]);
    refused(
        &path,
        &break_it("\"others_share\":null", "\"others_share\":1.5"),
        &["others_share", "1.5"],
    );
}

fn key(graph: &str) -> tandem::engine::Key {
    serde_json::from_value(serde_json::json!({
        "graph_sha256": graph, "weights_sha256": "b".repeat(64), "targets": ["cpu"],
        "machine": null, "backend": "onnxruntime", "library": "a library", "precision": "f32",
        "tandem": "0",
    }))
    .unwrap()
}

#[test]
fn engine_keys_must_match_the_graphs_that_ran() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let hash = "a".repeat(64);
    let mut written = file();
    written.engine.graphs_sha256.insert("action".into(), hash.clone());
    written.engine.built.insert("action".into(), key(&hash));
    written.write(&path).unwrap();
    assert_eq!(LatencyFile::read(&path).unwrap(), written);

    let broken = |change: &dyn Fn(&mut LatencyFile), fragments: &[&str]| {
        let mut file = written.clone();
        change(&mut file);
        refused(&path, &serde_json::to_string(&file).unwrap(), fragments);
    };
    let action = "action".to_owned();
    broken(
        &|file| file.engine.built.insert(action.clone(), key(&"c".repeat(64))).map_or((), drop),
        &["action", "aaaa", "cccc"],
    );
    broken(
        &|file| file.engine.built.insert("vision".into(), key(&hash)).map_or((), drop),
        &["vision", "engine keys of"],
    );
    broken(
        &|file| file.engine.built.get_mut(&action).unwrap().weights_sha256 = "none".into(),
        &["action", "invalid hash"],
    );
    // Older files have no keys.
    let mut file = written.clone();
    file.engine.built.clear();
    file.write(&path).unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("built"));
    assert!(LatencyFile::read(&path).unwrap().engine.built.is_empty());
}

#[test]
fn ticks_beyond_the_samples_are_counted() {
    let mut recorder = PhaseRecorder::new(PhaseName::Paced, 0, 2, 0);
    for _ in 0..5 {
        recorder.tick(&TickReport::default(), TickFacts::default());
    }
    let phase = recorder.finish();
    assert_eq!((phase.statistics.ticks(), phase.ticks.start_ns.len()), (5, 2));
    assert_eq!(phase.samples_dropped, 3);
}

#[test]
fn recorded_latencies_can_be_emulated() {
    let recorded = file().recorded_latencies();
    assert_eq!(recorded.fast_ns, vec![10_000_000; 10]);
    assert_eq!(recorded.slow_ns, [5000]);
    let hardware = file().emulated_hardware();
    assert!(hardware.starts_with("emulated hardware: "), "{hardware}");
    assert!(hardware.contains("recorded on 1970-01-01"), "{hardware}");
    // A phase at the real period takes precedence over a back-to-back one, and its response over
    // the tick.
    let mut both = file();
    let mut paced = both.phases[0].clone();
    paced.name = PhaseName::Paced;
    let response = paced.ticks.stages["tick"].clone();
    paced.ticks.stages.insert("response".to_owned(), response);
    paced.ticks.stages.get_mut("response").unwrap().took_ns[3] = Some(7);
    both.phases.push(paced);
    assert_eq!(both.recorded_latencies().fast_ns[3], 7);
    // A phase without prefills does not.
    both.phases[1].refreshes = PrefillSamples::default();
    assert_eq!(both.recorded_latencies().fast_ns[3], 10_000_000);
}

#[test]
fn results_name_the_emulated_hardware() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    file().write(&folder.path().join("latency.json")).unwrap();
    let hardware = file().emulated_hardware();
    let spec = format!("file:{}", path("latency.json"));
    let drive = ["--routes", "routes/straight.xml", "--driver", "autopilot", "--tick-cap", "60"];
    let eval = |out: &str, spec: &str, more: &[&str]| {
        done(&[&["eval"], &drive[..], &["--out", out, "--latency", spec], more].concat())
    };
    assert!(eval(&path("a"), &spec, &[]).contains(&hardware));
    let page = fs::read_to_string(folder.path().join("a/report.html")).unwrap();
    assert!(page.contains("emulated hardware: "), "missing on the page");
    let run = fs::read_to_string(folder.path().join("a/run.json")).unwrap();
    for fragment in ["latency.json (SHA-256)", "latency.json (machine)", "emulated hardware: "] {
        assert!(run.contains(fragment), "{fragment:?} is missing in {run}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&eval(&path("a"), &spec, &["--json"])).unwrap();
    assert_eq!(json["emulated_hardware"][0], hardware.as_str());
    // The sampled latencies are kept and reproduce the drive.
    let again = format!("replayed:{}", path("a"));
    eval(&path("b"), &again, &[]);
    let record = |out: &str| {
        let routes = fs::read_dir(folder.path().join(out).join("routes")).unwrap();
        fs::read(routes.last().unwrap().unwrap().path()).unwrap()
    };
    assert_eq!(record("a"), record("b"));

    let swept = [&["sweep"], &drive[..], &["--slow", &spec, "--fast", "0", "--out", &path("c")]];
    assert!(done(&swept.concat()).contains(&hardware));
    let sweep = fs::read_to_string(folder.path().join("c/sweep.json")).unwrap();
    assert!(sweep.contains("emulated hardware: "), "{sweep}");
}
