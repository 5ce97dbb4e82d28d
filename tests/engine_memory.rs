//! Engines on the CPU map their weight files: loading one or more copies no weights unless matrices
//! are packed. In a binary of its own because it measures the memory of the process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails here")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};

/// Width of the understanding expert's feed-forward
/// part: three matrices of this times 64 per layer.
const WIDE: u64 = 32_768;

/// Anonymous resident memory of this process, bytes.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_an_engine_twice_copies_no_weights() {
    let root = tempfile::tempdir().unwrap();
    let [checkpoint, networks, engines] =
        ["checkpoint", "networks", "engines"].map(|name| root.path().join(name));
    let mut spec: Value = serde_json::from_str(include_str!("../configs/soak.json")).unwrap();
    spec["text"]["intermediate_size"] = WIDE.into();
    let config = root.path().join("config.json");
    fs::write(&config, spec.to_string()).unwrap();
    // Other processes prepare the folders, so that this one has no freed memory to reuse.
    let tandem = |arguments: &[&str], folders: [(&str, &Path); 2]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(arguments);
        folders.into_iter().for_each(|(flag, folder)| {
            command.arg(flag).arg(folder);
        });
        assert!(command.output().unwrap().status.success());
    };
    tandem(&["checkpoint", "synth"], [("--config", &config), ("--out", &checkpoint)]);
    let frames = ["export", "--frame-size", "64x96", "--frames", "2"];
    tandem(&frames, [("--checkpoint", &checkpoint), ("--out", &networks)]);
    tandem(&["build"], [("--network", &networks), ("--out", &engines)]);
    let library = |prepack| {
        let options = CpuOptions { prepack, ..CpuOptions::default() };
        OnnxRuntime::open(options, &mut |_| {}).unwrap()
    };
    let load = |prepack, folder: &Path| {
        let file = NetworkFile::read(folder, "understanding").unwrap();
        let before = anonymous();
        let engine = library(prepack).load(&file).unwrap();
        assert!(!engine.contract().inputs.is_empty());
        (engine, anonymous().saturating_sub(before))
    };
    let matrices = 2 * 3 * 64 * WIDE * 4;
    let (_first, once) = load(false, &engines);
    let (_second, twice) = load(false, &engines);
    assert!(once < matrices / 4, "{once} bytes for {matrices} of matrices");
    assert!(twice < matrices / 4, "{twice} bytes for {matrices} of matrices, the second time");
    // Packed matrices are copied, which shows that this test detects copies.
    let (_engine, packed) = load(true, &engines);
    assert!(packed > matrices / 2, "{packed} bytes for {matrices} of packed matrices");
    let (_network, packed) = load(true, &networks);
    assert!(packed > matrices / 2, "{packed} bytes for {matrices} of packed matrices");
}
