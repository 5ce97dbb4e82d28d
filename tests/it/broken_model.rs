//! Models whose weights hold a NaN: their drives are not those of a bad driver, and every place that
//! shows a drive says so.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn tandem(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(arguments)
        .current_dir(tandem_testkit::ROOT)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes the first number of a tensor in a safetensors file NaN.
fn break_tensor(file: &Path, tensor: &str) {
    let mut bytes = fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    assert_eq!(json[tensor]["dtype"], "F32");
    let at = 8 + header + json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

/// Drives six ticks with a model whose `tensor` holds a NaN, then resumes the finished campaign:
/// both are failed checks that say `line`, and the record and the page hold the count of `key`.
fn check(tensor: &str, key: &str, line: &str) {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (checkpoint, engine, out) = (place("checkpoint"), place("engine"), place("out"));
    let synth = ["checkpoint", "synth", "--config", "configs/tiny.json", "--seed", "1", "--out"];
    assert!(tandem(&[&synth[..], &[&*checkpoint]].concat()).status.success());
    break_tensor(&folder.path().join("checkpoint/model.safetensors"), tensor);
    assert!(tandem(&["export", "--checkpoint", &checkpoint, "--out", &engine]).status.success());

    let routes = ["eval", "--routes", "routes/short.xml", "--only", "11", "--tick-cap", "36"];
    let model = ["--driver", "automot", "--engine", &engine, "--out", &out];
    let eval = [&routes[..], &model].concat();
    let output = tandem(&eval);
    let (said, table) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(line), "{said}");
    let header = table.lines().find(|row| row.contains("prefills failed")).unwrap();
    assert!(header.contains("not finite") && header.contains("oldest prefix s"), "{header}");

    let output = tandem(&[&eval[..], &["--json"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "a resumed campaign: {said}");
    assert!(said.contains(line), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["campaign"]["kept"], 1);
    let count = json["safety"][key].as_u64().unwrap();
    assert!(count > 0, "{json}");

    let record = folder.path().join("out/routes/RouteScenario_11_rep0.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(record["_checkpoint"]["records"][0]["safety"][key], count);
    let page = fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("Faults of the model"), "the page does not show it");
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
