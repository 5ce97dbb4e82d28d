//! `tandem verify`: an engine compared with itself, with a damaged one, and with folders that
//! cannot be compared.

use super::command::{refused, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::options::Precision;
use tandem_testkit::automot::{TINY, export, small_frames, synthesize};
use tempfile::TempDir;

/// Exports a synthetic checkpoint, which `change` may modify, to `name` in `folder`.
fn engine(
    folder: &Path,
    name: &str,
    options: &ExportOptions,
    change: impl FnOnce(&Checkpoint),
) -> PathBuf {
    let weights = folder.join(format!("{name}.checkpoint"));
    change(&synthesize(TINY, 7, &weights));
    let out = folder.join(name);
    export(&Checkpoint::open(&weights).unwrap(), options, &out);
    out
}

/// Sets element `index` of an f32 tensor.
fn set(checkpoint: &Checkpoint, tensor: &str, index: u64, value: f32) {
    let entry = checkpoint.tensor(tensor).unwrap();
    let path = &checkpoint.files()[entry.file];
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_le_bytes(), entry.offset + 4 * index).unwrap();
}

/// Adds `step` to the first element of an f32 tensor.
fn nudge(checkpoint: &Checkpoint, tensor: &str, step: f32) {
    let old = checkpoint.values_f32(tensor).unwrap()[0];
    set(checkpoint, tensor, 0, old + step);
}

fn verify(engine: &Path, reference: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["verify", "--prompts", "2", "--engine"])
        .arg(engine)
        .arg("--reference")
        .arg(reference)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn accuracy(engine: &Path) -> Value {
    serde_json::from_slice(&fs::read(engine.join("accuracy.json")).unwrap()).unwrap()
}

/// Checks that limits were exceeded: exit code 1, with
/// `first` as first excess of the record and the verdict.
#[track_caller]
fn exceeds(output: &Output, engine: &Path, first: &str) {
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}{}", text(&output.stderr));
    assert!(printed.contains(&format!("beyond limits: {first}: ")), "{printed}");
    let record = accuracy(engine);
    assert_eq!(record["within_limits"], false);
    assert_eq!(record["excesses"][0]["quantity"], first);
}

/// A folder with a reference engine.
fn reference() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let reference = engine(folder.path(), "reference", &small_frames(), |_| {});
    (folder, reference)
}

const KEYS_OF_LAST_LAYER: &str = "language_model.model.layers.3.self_attn.k_proj.weight";

#[test]
fn engine_equals_itself_exactly() {
    let (folder, plain) = reference();
    let probes = ExportOptions { probes: true, ..small_frames() };
    let probed = engine(folder.path(), "probed", &probes, |_| {});
    let output = verify(&probed, &probed, &["--json", "--seed", "5"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let record = accuracy(&probed);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), record);
    let comparison = &record["comparison"];
    let exact = |difference: &Value| {
        assert_eq!(difference["max_abs"], 0.0, "{difference}");
        assert_eq!(difference["min_cosine"], 1.0, "{difference}");
        assert_eq!(difference["not_finite"], 0, "{difference}");
        assert_ne!(difference["vectors"], 0, "{difference}");
    };
    exact(&comparison["image_tokens"]);
    exact(&comparison["bev_tokens"]);
    let rows = |name: &str| comparison[name].as_array().unwrap();
    assert_eq!(rows("layers").len(), 4);
    rows("layers").iter().for_each(|layer| {
        exact(&layer["keys"]);
        exact(&layer["values"]);
    });
    for (name, count) in [("deepstack", 2), ("understanding_hidden", 3), ("action_hidden", 4)] {
        assert_eq!(rows(name).len(), count, "{name}");
        rows(name).iter().for_each(exact);
    }
    for name in ["route", "waypoints"] {
        assert_eq!(comparison[name]["max_distance_m"], 0.0);
        assert_ne!(comparison[name]["points"], 0);
    }
    // Two prompts, two trajectories each, eight decision tokens.
    assert_eq!(comparison["decisions"]["equal"], 32);
    assert_eq!(comparison["decisions"]["total"], 32);
    assert_eq!(record["inputs"], serde_json::json!({ "seed": 5, "prompts": 2 }));
    assert_eq!(record["engine"]["export_sha256"].as_str().unwrap().len(), 64);
    assert!(record["engine"]["backend"].as_str().unwrap().starts_with("ONNX Runtime"));

    // Only probes that one side lacks are left out.
    let output = verify(&plain, &probed, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("within limits"));
    let comparison = &accuracy(&plain)["comparison"];
    assert_eq!(comparison["action_hidden"], serde_json::json!([]));
    exact(&comparison["layers"][3]["keys"]);

    // A new export removes the record of the previous one.
    engine(folder.path(), "probed", &probes, |_| {});
    assert!(probed.join("export.json").exists() && !probed.join("accuracy.json").exists());
}

#[test]
fn wrong_weight_of_a_late_layer_is_located() {
    let (folder, reference) = reference();
    let damaged = |name: &str, tensor: &str, step| {
        engine(folder.path(), name, &small_frames(), |checkpoint| nudge(checkpoint, tensor, step))
    };
    // One of 3072 weights, of mean magnitude 0.12, is changed by 0.3.
    let last = damaged("last", KEYS_OF_LAST_LAYER, 0.3);
    exceeds(&verify(&last, &reference, &[]), &last, "keys of layer 3");
    let layers = &accuracy(&last)["comparison"]["layers"];
    assert_eq!(layers[3]["values"]["max_abs"], 0.0, "only keys are wrong");
    assert_eq!(layers[2]["keys"]["max_abs"], 0.0, "only the last layer is wrong");
    // A looser limit passes, and the record has that limit.
    assert_eq!(verify(&last, &reference, &["--min-cosine", "0.9"]).status.code(), Some(0));
    assert!(accuracy(&last)["comparison"]["layers"][3]["keys"]["min_cosine"].as_f64() < Some(0.99));

    let tensor = "language_model.model.layers.2.self_attn.v_proj.weight";
    let before = damaged("before", tensor, 1.0);
    exceeds(&verify(&before, &reference, &[]), &before, "values of layer 2");
}

#[test]
fn wrong_weight_of_an_action_layer_is_found() {
    let folder = TempDir::new().unwrap();
    let probes = ExportOptions { probes: true, ..small_frames() };
    let reference = engine(folder.path(), "reference", &probes, |_| {});
    let damaged = engine(folder.path(), "damaged", &probes, |checkpoint| {
        let tensor = "language_model.model.layers.2.mlp_mot_gen.down_proj.weight";
        nudge(checkpoint, tensor, 1.0);
    });
    let output = verify(&damaged, &reference, &[]);
    exceeds(&output, &damaged, "hidden state of action layer 2");
}

#[test]
fn nan_fails_on_either_side() {
    let (folder, reference) = reference();
    let broken = engine(folder.path(), "broken", &small_frames(), |checkpoint| {
        set(checkpoint, KEYS_OF_LAST_LAYER, 0, f32::NAN);
    });
    for [engine, against] in [[&broken, &reference], [&reference, &broken], [&broken, &broken]] {
        exceeds(&verify(engine, against, &["--min-cosine", "-1"]), engine, "keys of layer 3");
    }
}

#[test]
fn incomparable_folders_are_refused() {
    let (folder, reference) = reference();
    let frames = ExportOptions { frame_size: [64, 64], ..small_frames() };
    let frames = engine(folder.path(), "frames", &frames, |_| {});
    let output = verify(&frames, &reference, &[]);
    refused(&output, &["different shapes", "the vision network's input 0", "[16, 1536]"]);
    assert!(!frames.join("accuracy.json").exists());

    let nowhere = folder.path().join("nowhere");
    refused(&verify(&nowhere, &reference, &[]), &["nowhere", "not an engine folder"]);
    refused(&verify(&reference, folder.path(), &[]), &["cannot read", "tandem export"]);

    let foreign = engine(folder.path(), "foreign", &small_frames(), |_| {});
    fs::write(foreign.join("tokenizer.json"), "{}").unwrap();
    refused(&verify(&foreign, &reference, &[]), &["different tokenizers"]);
    fs::remove_file(foreign.join("tokenizer.json")).unwrap();
    refused(&verify(&foreign, &reference, &[]), &["cannot read", "tokenizer.json"]);

    for arguments in [["--prompts", "0"], ["--min-cosine", "NaN"], ["--max-point-distance", "-1"]] {
        refused(&verify(&reference, &reference, &arguments), &[arguments[0]]);
    }
}

#[test]
fn failed_write_keeps_the_previous_record() {
    let (_folder, engine) = reference();
    assert_eq!(verify(&engine, &engine, &[]).status.code(), Some(0));
    let before = fs::read(engine.join("accuracy.json")).unwrap();
    // Files may not grow, as on a full disk.
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tandem")])
        .args(["verify", "--prompts", "2", "--seed", "1", "--engine"])
        .arg(&engine)
        .arg("--reference")
        .arg(&engine)
        .output()
        .unwrap();
    refused(&output, &["cannot write"]);
    assert_eq!(fs::read(engine.join("accuracy.json")).unwrap(), before);

    let mut permissions = fs::metadata(&engine).unwrap().permissions();
    let writable = permissions.clone();
    permissions.set_readonly(true);
    fs::set_permissions(&engine, permissions).unwrap();
    // The superuser may write to read-only folders.
    if fs::write(engine.join("probe"), "").is_err() {
        refused(&verify(&engine, &engine, &["--seed", "1"]), &["cannot write", "accuracy.json"]);
        assert_eq!(fs::read(engine.join("accuracy.json")).unwrap(), before);
    }
    fs::set_permissions(&engine, writable).unwrap();
}

#[test]
fn emulated_bf16_differs_from_f32_by_its_rounding() {
    let (folder, reference) = reference();
    let options = ExportOptions { precision: Precision::Bf16Emulated, ..small_frames() };
    let emulated = engine(folder.path(), "emulated", &options, |_| {});
    let output = verify(&emulated, &reference, &["--max-point-distance", "0.2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let record = accuracy(&emulated);
    assert_eq!(record["engine"]["precision"], "bf16-emulated");
    assert_eq!(record["reference"]["precision"], "f32");
    for layer in record["comparison"]["layers"].as_array().unwrap() {
        for part in ["keys", "values"] {
            // Values around one, on a grid of 1/128 between one and two.
            let largest = layer[part]["max_abs"].as_f64().unwrap();
            assert!((0.004..0.2).contains(&largest), "{layer}");
            assert!(layer[part]["min_cosine"].as_f64() < Some(0.999_99), "{layer}");
        }
    }
    for name in ["route", "waypoints"] {
        let distance = record["comparison"][name]["max_distance_m"].as_f64().unwrap();
        assert!((0.001..0.2).contains(&distance), "{name}: {distance}");
    }
}

/// Half precision rounds with a relative error of 2⁻¹¹. After n roundings of uniform error the
/// direction of a vector is off by about 2⁻¹¹ · √(n / 3), and its cosine by half the square of
/// that: 4e-6 for the hundred roundings between an image and the keys of a layer, 8e-5 for the two
/// thousand of the AutoMoT release. bfloat16 is eight times as coarse and 64 times as far off.
const F16_LIMITS: [&str; 4] = ["--min-cosine", "0.9999", "--max-point-distance", "0.01"];

#[test]
fn half_precision_differs_from_f32_by_its_rounding() {
    let (folder, reference) = reference();
    for groups in [1, 2] {
        let precision = Precision::F16;
        let options = ExportOptions { precision, understanding_groups: groups, ..small_frames() };
        let half = engine(folder.path(), &format!("half.{groups}"), &options, |_| {});
        let output = verify(&half, &reference, &F16_LIMITS);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        let record = accuracy(&half);
        assert_eq!(record["engine"]["precision"], "f16");
        let layers = record["comparison"]["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4);
        for layer in layers {
            for part in ["keys", "values"] {
                assert_eq!(layer[part]["not_finite"], 0, "{layer}");
                // Values around one are 2⁻¹⁰ apart; equal values would not be half precision.
                let largest = layer[part]["max_abs"].as_f64().unwrap();
                assert!((1e-4..0.03).contains(&largest), "{layer}");
            }
        }
    }
    // The limit separates the two 16-bit types.
    let options = ExportOptions { precision: Precision::Bf16Emulated, ..small_frames() };
    let emulated = engine(folder.path(), "emulated", &options, |_| {});
    assert_eq!(verify(&emulated, &reference, &F16_LIMITS).status.code(), Some(1));
}

#[test]
fn overflow_of_half_precision_is_located() {
    let folder = TempDir::new().unwrap();
    let large = |checkpoint: &Checkpoint| {
        // Representable in half precision, but twice the value is not.
        set(checkpoint, "language_model.model.layers.2.self_attn.v_proj.weight", 0, 6e4);
    };
    let reference = engine(folder.path(), "reference", &small_frames(), large);
    let options = ExportOptions { precision: Precision::F16, ..small_frames() };
    let half = engine(folder.path(), "half", &options, large);
    exceeds(&verify(&half, &reference, &F16_LIMITS), &half, "values of layer 2");
    assert_eq!(accuracy(&half)["excesses"][0]["measure"], "vectors not finite");
}

#[test]
fn unsupported_operator_is_named_with_its_network() {
    let (folder, reference) = reference();
    let options = ExportOptions { precision: Precision::Bf16, ..small_frames() };
    let bf16 = engine(folder.path(), "bf16", &options, |_| {});
    let fragments = ["\"vision\"", "Gemm", "patch_embed/gemm", "bf16-emulated"];
    refused(&verify(&bf16, &reference, &[]), &fragments);
}

#[test]
fn layer_groups_are_compared_as_one_network_layer_by_layer() {
    let (folder, reference) = reference();
    let options = ExportOptions { understanding_groups: 3, probes: true, ..small_frames() };
    let groups = engine(folder.path(), "groups", &options, |_| {});
    for [engine, against] in [[&groups, &reference], [&reference, &groups], [&groups, &groups]] {
        let output = verify(engine, against, &["--min-cosine", "1", "--max-point-distance", "0"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let layers = &accuracy(engine)["comparison"]["layers"];
        assert_eq!(layers.as_array().unwrap().len(), 4);
        for (layer, part) in [(0, "keys"), (1, "values"), (2, "keys"), (3, "values")] {
            assert_ne!(layers[layer][part]["vectors"], 0);
            assert_eq!(layers[layer][part]["max_abs"], 0.0);
        }
    }
    let hidden = &accuracy(&groups)["comparison"]["understanding_hidden"];
    assert_eq!(hidden.as_array().unwrap().len(), 3, "probes of all groups");

    let damaged = engine(folder.path(), "damaged", &options, |checkpoint| {
        nudge(checkpoint, KEYS_OF_LAST_LAYER, 0.3);
    });
    exceeds(&verify(&damaged, &reference, &[]), &damaged, "keys of layer 3");
    fs::remove_file(groups.join("understanding.1.onnx")).unwrap();
    refused(&verify(&groups, &reference, &[]), &["understanding.1.onnx", "tandem export"]);
}
