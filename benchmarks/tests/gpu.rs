//! The measurement for GPUs, on an emulated device: what its result holds, and what a part that fails
//! makes of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::synth::synthesize;
use tandem_export::folder::{TOKENIZER_FILE, export_networks};

const SMALLEST: &str = include_str!("../../configs/soak.json");

fn export(folder: &Path) -> std::path::PathBuf {
    let (checkpoint, engine) = (folder.join("checkpoint"), folder.join("engine"));
    synthesize(&serde_json::from_str(SMALLEST).unwrap(), 1, &checkpoint, |_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(&checkpoint).unwrap();
    export_networks(&checkpoint, &ExportOptions::default(), &engine, &mut |_| {}).unwrap();
    engine
}

fn measure(device: &str, engine: &Path, out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem-benchmarks"))
        .args(["gpu", "--device", device, "--ticks", "30", "--refreshes", "3"])
        // Parts get shares of this; a day's worth, so that runs end every part on a slow machine.
        .args(["--minutes", "1440"])
        .args(["--raw", "7", "--engine"])
        .arg(engine)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap()
}

fn check_series(told: &Value, names: &[&str], runs: u64) {
    for name in names {
        let series = &told[name];
        let of = |key: &str| series[key].as_u64().unwrap_or_else(|| panic!("{name}: {series}"));
        assert_eq!(of("count"), runs, "{name}");
        let kept = series["samples"].as_array().unwrap().len() as u64;
        assert!(kept <= 7 && kept + of("samples_left_out") == runs, "{name}: {series}");
        let ranks = ["min", "p50", "p90", "p99", "p99.9", "max"].map(of);
        assert!(ranks.is_sorted(), "{name}: {series}");
    }
}

#[test]
fn every_part_is_told_in_every_arrangement_and_nothing_is_allocated_in_any() {
    let folder = tempfile::tempdir().unwrap();
    let engine = export(folder.path());
    let out = folder.path().join("gpu.json");
    let output = measure("emulated", &engine, &out);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let result: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((&result["format"], &result["failed"]), (&1.into(), &0.into()));
    assert_eq!(result["machine_card"]["gpus"], Value::Array(Vec::new()), "no GPU is claimed");
    assert_eq!(result["engine"]["options"]["precision"], "f32");
    let arrangements = result["arrangements"].as_array().unwrap();
    assert_eq!(arrangements.len(), 4);
    for (place, arrangement) in arrangements.iter().enumerate() {
        let graphs = arrangement["graphs"].as_bool().unwrap();
        assert_eq!(graphs, place < 2);
        let parts = arrangement["parts"].as_object().unwrap();
        assert_eq!(parts.len(), 4);
        for (name, part) in parts {
            let (runs, counts) = (part["runs"].as_u64().unwrap(), &part["counts"]);
            assert_eq!(part["stopped_by"], "runs", "{name}");
            assert_eq!(
                (&counts["allocations"], &counts["frees"]),
                (&0.into(), &0.into()),
                "{name}"
            );
            if part.get("ticks").is_some() {
                let stages =
                    ["tick", "act", "device", "upload", "bev", "action", "download", "host"];
                check_series(&part["ticks"], &stages, runs);
            }
            if part.get("refreshes").is_some() {
                let done = part["refreshes_done"].as_u64().unwrap_or(runs);
                check_series(&part["refreshes"], &["refresh", "vision", "understanding"], done);
            }
        }
        let launches = &parts["ticks alone"]["per_run"]["launches"];
        assert_eq!(launches.as_f64(), Some(f64::from(u8::from(graphs))), "a tick is one graph");
        // Only the newest frame is uploaded again.
        let uploaded = |name: &str| parts[name]["counts"]["uploads"].as_u64().unwrap();
        let runs = parts["refreshes alone, one frame new"]["runs"].as_u64().unwrap();
        let [all, one] = ["refreshes alone, all frames new", "refreshes alone, one frame new"];
        assert_eq!(uploaded(all) - uploaded(one), 3 * runs);
        // This device cannot be split; the result lists what is missing.
        let missing = arrangement["could_not_be_had"].as_array().unwrap();
        assert_eq!(missing.len(), usize::from(!arrangement["share"].is_null()));
    }
    assert!(printed.contains("refreshes alone, one frame new"), "{printed}");
}

#[test]
fn a_part_that_fails_is_told_with_its_error_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let engine = export(folder.path());
    std::fs::remove_file(engine.join(TOKENIZER_FILE)).unwrap();
    let out = folder.path().join("gpu.json");
    let output = measure("host", &engine, &out);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(result["failed"], 4);
    for arrangement in result["arrangements"].as_array().unwrap() {
        let error = arrangement["failed"].as_str().unwrap();
        assert!(error.contains(TOKENIZER_FILE), "{error}");
    }
}

#[test]
fn a_device_or_folder_that_is_not_there_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("gpu.json");
    for (device, printed) in [("cuda:99", "cuda:99"), ("host", "export.json")] {
        let output = measure(device, &folder.path().join("nothing"), &out);
        assert_eq!(output.status.code(), Some(1), "{device}");
        let error = String::from_utf8(output.stderr).unwrap();
        if device == "host" || cfg!(not(feature = "cuda")) {
            assert!(error.contains(printed), "{error}");
        }
        assert!(!out.exists());
    }
}
