//! `tandem checkpoint`, and other verbs that read checkpoint folders, at the command line.

use super::command::{path, text};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Exit code, standard output and standard error of a command.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = super::command::run(arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn synth(config: &str, out: &Path) -> String {
    let arguments = ["checkpoint", "synth", "--sparse", "--config", config, "--out", path(out)];
    let (code, _, error) = run(&arguments);
    assert_eq!(code, Some(0), "{error}");
    error
}

#[test]
fn inspect_exit_code_shows_whether_export_is_possible() {
    let holder = tempfile::tempdir().unwrap();
    let folder = holder.path().join("checkpoint");
    synth("configs/tiny.json", &folder);
    let (code, text, _) = run(&["checkpoint", "inspect", path(&folder)]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["model.safetensors", "923 tensors", "understanding expert: 4 layers", "sparse"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    fs::write(folder.join("extra.safetensors"), "").unwrap();
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let (code, text, _) = run(&["checkpoint", "inspect", path(&folder), "--json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &found["problems"]), (Some(0), &Value::Array(Vec::new())));
    let notes = found["notes"].to_string();
    assert!(notes.contains("extra.safetensors") && notes.contains("cannot drive"), "{notes}");
    assert_eq!(found["config"]["text"]["vocab_size"], 1000);

    // Only building the networks detects that the number of heads does not divide the widths.
    let bev = folder.join("bev_config.json");
    let original = fs::read_to_string(&bev).unwrap();
    fs::write(&bev, original.replace("\"n_head\": 4", "\"n_head\": 5")).unwrap();
    let (code, text, _) = run(&["checkpoint", "inspect", path(&folder)]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("problem: ") && text.contains("multiple of 5"), "{text}");
    fs::write(&bev, original).unwrap();

    fs::write(folder.join("config.json"), "{}").unwrap();
    let (code, text, _) = run(&["checkpoint", "inspect", path(&folder)]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("problem: ") && text.contains("text_config"), "{text}");
    let (code, _, error) = run(&["checkpoint", "inspect", path(&holder.path().join("nowhere"))]);
    assert_eq!(code, Some(2), "{error}");
}

#[test]
fn export_refuses_an_invalid_tokenizer_before_writing() {
    let holder = tempfile::tempdir().unwrap();
    let folder = holder.path().join("checkpoint");
    synth("configs/tiny.json", &folder);
    let file = folder.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    tokenizer["pre_tokenizer"] = serde_json::json!({"type": "NoSuchStep"});
    fs::write(&file, tokenizer.to_string()).unwrap();
    let out = holder.path().join("network");
    let (code, _, error) = run(&["export", "--checkpoint", path(&folder), "--out", path(&out)]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("cannot load tokenizer") && error.contains("tokenizer.json"), "{error}");
    assert!(!out.exists());
    let (code, text, _) = run(&["checkpoint", "inspect", path(&folder)]);
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn published_configuration_is_synthesized_and_predicted() {
    let config = "tests/data/cases/qwen3-vl-4b.json";
    let holder = tempfile::tempdir().unwrap();
    let notes = synth(config, &holder.path().join("checkpoint"));
    for assumed in ["no automot_args.json", "the action expert", "no bev_config.json"] {
        assert!(notes.contains(assumed), "{notes}");
    }
    let roofline = |config: &str| {
        let (code, text, error) =
            run(&["roofline", "--config", config, "--device", "h200", "--json"]);
        assert_eq!(code, Some(0), "{error}");
        text
    };
    // The AutoMoT release is that model with defaults for the remaining parts.
    assert_eq!(roofline(config), roofline("configs/full.json"));
    assert_eq!(roofline(path(&holder.path().join("checkpoint"))), roofline(config));
}

#[test]
fn configuration_of_another_model_is_refused_by_name() {
    let holder = tempfile::tempdir().unwrap();
    let file = holder.path().join("config.json");
    fs::write(&file, r#"{"model_type": "qwen3", "hidden_size": 64}"#).unwrap();
    for verb in [&["roofline", "--device", "h200"][..], &["checkpoint", "synth", "--out", "x"]] {
        let (code, _, error) = run(&[verb, &["--config", path(&file)]].concat());
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("model_type is \"qwen3\"") && error.contains("qwen3_vl"), "{error}");
    }
}
