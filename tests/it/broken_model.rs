//! Models with a NaN among their weights: evaluation reports the failure of the model wherever it
//! shows a drive.

use super::command::{run, text};
use std::fs;
use std::path::Path;
use tandem_testkit::automot::{TINY, synthesize};

/// Sets the first element of a tensor in a safetensors file to NaN.
fn break_tensor(file: &Path, tensor: &str) {
    let mut bytes = fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    assert_eq!(json[tensor]["dtype"], "F32");
    let at = 8 + header + json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

/// Drives six ticks with a model whose `tensor` has a NaN, then resumes the finished campaign. Both
/// fail the check with the message `line`; the record and the page have the count of `key`.
fn check(tensor: &str, key: &str, line: &str) {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (checkpoint, engine, out) = (place("checkpoint"), place("engine"), place("out"));
    synthesize(TINY, 1, checkpoint.as_ref());
    break_tensor(&folder.path().join("checkpoint/model.safetensors"), tensor);
    assert!(run(&["export", "--checkpoint", &checkpoint, "--out", &engine]).status.success());

    let routes = ["eval", "--routes", "routes/short.xml", "--only", "11", "--tick-cap", "36"];
    let model = ["--driver", "automot", "--engine", &engine, "--out", &out];
    let eval = [&routes[..], &model].concat();
    let output = run(&eval);
    let (printed, table) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains(line), "{printed}");
    let header = table.lines().find(|row| row.contains("prefills failed")).unwrap();
    assert!(header.contains("not finite") && header.contains("oldest prefix s"), "{header}");

    let output = run(&[&eval[..], &["--json"]].concat());
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "resumed: {printed}");
    assert!(printed.contains(line), "{printed}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["campaign"]["kept"], 1);
    let count = json["safety"][key].as_u64().unwrap();
    assert!(count > 0, "{json}");

    let record = folder.path().join("out/routes/RouteScenario_11_rep0.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(record["_checkpoint"]["records"][0]["safety"][key], count);
    let page = fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("Faults of the model"), "missing on the page");
    assert!(page.contains(&format!("<td class=\"n bad\" data-v=\"{count}\">")));
}

#[test]
fn answers_that_are_not_finite_fail_the_evaluation() {
    let line = "check failed: 6 answers of the model were not finite";
    check("route_head.mlp.0.bias", "answers_not_finite", line);
}

#[test]
fn prefills_that_are_not_finite_fail_the_evaluation() {
    let tensor = "language_model.model.layers.1.input_layernorm.weight";
    check(tensor, "prefills_failed", "prefills failed");
}
