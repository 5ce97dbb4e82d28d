//! The understanding expert in layer groups equals that in one network, bit for bit: as networks,
//! in a drive, and for every command that reads a folder.

use super::command;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::model::automot::Networks;
use tandem::pilot::{Run, RunFile};
use tandem::runtime::Loaded;
use tandem::scene::{self, World};
use tandem::tensor::HostTensor;
use tandem_export::automot::{Checkpoint, ExportOptions};
use tandem_export::contract::TensorSpec;
use tandem_export::options::Precision;
use tandem_testkit::automot::{TINY, small_frames, synthesize};
use tandem_testkit::world::demo_world;

const LAYERS: usize = 4;

/// Tokens of the prompt without padding.
const LENGTH: usize = 50;

type Tensors = BTreeMap<String, HostTensor>;

fn checkpoint(folder: &Path) -> Checkpoint {
    synthesize(TINY, 3, &folder.join("checkpoint"))
}

fn export(checkpoint: &Checkpoint, precision: Precision, groups: usize, out: &Path) {
    let options = ExportOptions { precision, understanding_groups: groups, ..small_frames() };
    let summary = tandem_testkit::automot::export(checkpoint, &options, out);
    assert_eq!(summary.networks.len(), 3 + groups);
}

/// A prompt of text, six image tokens, text, six image tokens and text,
/// with pseudorandom embeddings.
fn prompt(inputs: &[TensorSpec]) -> Tensors {
    let capacity = inputs.iter().find(|spec| spec.name == "token_ids").unwrap().shape[0];
    let slot = |i: usize| match i {
        10..16 => i as i64 - 9,
        20..26 => i as i64 - 13,
        _ => 0,
    };
    let noise = |n: usize| (0..n).map(|i| (i as f32 * 12.9898).sin()).collect::<Vec<_>>();
    let integers =
        |spec: &TensorSpec, values: Vec<i64>| HostTensor::from_slice(&spec.shape, &values);
    inputs
        .iter()
        .map(|spec| {
            let rows = 0..capacity;
            let tensor = match spec.name.as_str() {
                "token_ids" => integers(spec, rows.map(|i| (i * 37 % 1000) as i64).collect()),
                "image_slot" => integers(spec, rows.map(slot).collect()),
                "position_ids" => {
                    let axis = |a: usize| rows.clone().map(move |i| (i / (a + 1)) as i64);
                    integers(spec, (0..3).flat_map(axis).collect())
                }
                "visible_until" => {
                    let until = |i: usize| if i < LENGTH { i as i64 + 1 } else { 0 };
                    integers(spec, rows.map(until).collect())
                }
                "image_tokens" | "deepstack" => {
                    HostTensor::from_slice(&spec.shape, &noise(spec.shape.iter().product()))
                }
                other => panic!("no prompt has {other}"),
            };
            (spec.name.clone(), tensor)
        })
        .collect()
}

/// Runs a network on the tensors of its input names and adds its outputs.
fn run(folder: &Path, network: &str, tensors: &mut Tensors) {
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}"));
    let engine = backend.unwrap().load(&NetworkFile::read(folder, network).unwrap()).unwrap();
    let contract = engine.contract();
    let mut outputs: Vec<HostTensor> =
        contract.outputs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape)).collect();
    let inputs: Vec<_> = contract
        .inputs
        .iter()
        .map(|spec| tensors.get(&spec.name).unwrap_or_else(|| panic!("{network}: {}", spec.name)))
        .map(HostTensor::view)
        .collect();
    let mut views: Vec<_> = outputs.iter_mut().map(HostTensor::view_mut).collect();
    engine.clone().session().run(&inputs, &mut views).unwrap();
    drop((inputs, views));
    for (spec, output) in contract.outputs.iter().zip(outputs) {
        assert!(tensors.insert(spec.name.clone(), output).is_none(), "{} twice", spec.name);
    }
}

/// Runs the expert in one and in `groups` networks and compares all keys and values.
#[track_caller]
fn check(precision: Precision, groups: usize) {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let (single, grouped) = (place.path().join("single"), place.path().join("grouped"));
    export(&checkpoint, precision, 1, &single);
    export(&checkpoint, precision, groups, &grouped);

    let inputs = NetworkFile::read(&single, "understanding").unwrap().contract.inputs;
    let mut expected = prompt(&inputs);
    let mut found = prompt(&inputs);
    run(&single, "understanding", &mut expected);
    for group in 0..groups {
        run(&grouped, &format!("understanding.{group}"), &mut found);
    }
    for name in (0..LAYERS).flat_map(|l| [format!("keys.{l}"), format!("values.{l}")]) {
        let [expected, found] = [&expected[&name], &found[&name]].map(HostTensor::as_slice::<f32>);
        let real = expected.iter().filter(|value| **value != 0.0).count();
        assert!(real > expected.len() / 2, "{name} is mostly zeros");
        let differ = expected.iter().zip(found).filter(|(e, f)| e.to_bits() != f.to_bits()).count();
        assert_eq!(differ, 0, "{name} in {groups} groups differs in {differ} of {}", found.len());
    }
}

#[test]
fn two_groups_match_one_network() {
    check(Precision::F32, 2);
}

#[test]
fn groups_of_different_sizes_match_one_network() {
    check(Precision::F32, 3);
}

#[test]
fn one_group_per_layer_matches_one_network() {
    check(Precision::F32, LAYERS);
}

#[test]
fn groups_pass_emulated_bfloat16_unchanged() {
    check(Precision::Bf16Emulated, 2);
}

#[test]
fn groups_have_only_the_inputs_that_they_read() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    export(&checkpoint, Precision::F32, LAYERS, place.path().join("grouped").as_path());
    let names = |group: usize| -> (Vec<String>, Vec<String>) {
        let file =
            NetworkFile::read(&place.path().join("grouped"), &format!("understanding.{group}"));
        let contract = file.unwrap().contract;
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect();
        (names(&contract.inputs), names(&contract.outputs))
    };
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    // The checkpoint has two deepstack maps; the last layer has no attention.
    for (group, inputs, outputs) in [
        (1, &["hidden.0", "image_slot", "position_ids", "visible_until", "deepstack"][..], 3),
        (2, &["hidden.1", "position_ids", "visible_until"], 3),
        (3, &["hidden.2", "position_ids"], 2),
    ] {
        let found = names(group);
        assert_eq!((found.0, found.1.len()), (owned(inputs), outputs), "group {group}");
    }
    assert_eq!(names(0).1, ["keys.0", "values.0", "hidden.0"]);
}

/// Ticks of a drive with a prefill at every second tick.
const TICKS: u64 = 40;

/// Drives and returns the command of each tick and the version of its prefix.
fn drive(networks: &Path) -> Vec<(scene::Command, u64)> {
    let run = RunFile { warm_up_ticks: 0, refresh_period_ticks: 2, ..RunFile::default() };
    let run = Run::try_from(&run).unwrap();
    let model = Loaded::open(networks, &run, &mut |_| {}).unwrap();
    let mut world = demo_world(model.sensors(), 1);
    let mut pilot = model.pilot(world.plan(), &run).unwrap();
    let mut commands = Vec::new();
    for _ in 0..TICKS {
        let control = pilot.drive(&world.observe()).unwrap();
        let version = control.report.prefix.map_or(0, |prefix| prefix.version);
        commands.push((control.command, version));
        world.step(&control.command);
    }
    assert_eq!(pilot.statistics().refreshes_failed, 0);
    commands
}

#[test]
fn layer_groups_drive_as_one_network() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let (single, grouped) = (place.path().join("single"), place.path().join("grouped"));
    for (groups, out) in [(1, &single), (3, &grouped)] {
        let options = ExportOptions { understanding_groups: groups, ..ExportOptions::default() };
        tandem_testkit::automot::export(&checkpoint, &options, out);
    }
    let expected = drive(&single);
    assert!(expected.last().unwrap().1 > 5, "too few prefills");
    let moving = expected.iter().filter(|(command, _)| command.steer != 0.0).count();
    assert!(moving > 10, "{expected:?}");
    assert_eq!(drive(&grouped), expected);
}

fn copy(from: &Path, to: &Path, network: &str) {
    for ending in ["onnx", "json"] {
        let name = format!("{network}.{ending}");
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// Checks that loading `folder` fails with an error with all `fragments`.
#[track_caller]
fn refused(folder: &Path, fragments: &[&str]) {
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let error = match Networks::load(folder, &backend, &backend) {
        Ok(_) => panic!("{} was loaded", folder.display()),
        Err(error) => error.to_string(),
    };
    for fragment in fragments {
        assert!(error.contains(fragment), "{fragment:?} is missing in: {error}");
    }
}

#[test]
fn missing_or_extra_group_is_named() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let (two, three) = (place.path().join("two"), place.path().join("three"));
    export(&checkpoint, Precision::F32, 2, &two);
    export(&checkpoint, Precision::F32, 3, &three);

    copy(&three, &two, "understanding.2");
    refused(
        &two,
        &["understanding.2.json", "does not belong to the export", "\"understanding.1\""],
    );
    for ending in ["onnx", "json"] {
        fs::remove_file(two.join(format!("understanding.2.{ending}"))).unwrap();
    }
    fs::remove_file(two.join("understanding.1.json")).unwrap();
    refused(&two, &["cannot read", "understanding.1.json", "tandem export"]);

    // A summary that lists only the last group.
    let summary = fs::read_to_string(three.join("export.json")).unwrap();
    let mut summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    for group in ["understanding.0", "understanding.1"] {
        summary["networks"].as_object_mut().unwrap().remove(group);
        fs::remove_file(three.join(format!("{group}.json"))).unwrap();
    }
    fs::write(three.join("export.json"), summary.to_string()).unwrap();
    refused(&three, &["[\"understanding.2\"]", "without a gap", "export the checkpoint again"]);
}

#[test]
fn groups_of_two_exports_do_not_mix() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let [two, three, larger, probed] =
        ["two", "three", "larger", "probed"].map(|name| place.path().join(name));
    export(&checkpoint, Precision::F32, 2, &two);
    export(&checkpoint, Precision::F32, 3, &three);
    let options = ExportOptions { understanding_groups: 2, ..small_frames() };
    let other = ExportOptions { prefix_capacity: Some(640), ..options.clone() };
    tandem_testkit::automot::export(&checkpoint, &other, &larger);
    let other = ExportOptions { probes: true, ..options };
    tandem_testkit::automot::export(&checkpoint, &other, &probed);

    // Other layers under the same name.
    copy(&three, &two, "understanding.1");
    let fragments = ["group 1 of 3, from layer 1 on", "group 1 of 2, from layer 2 on"];
    refused(&two, &[&fragments[..], &["\"understanding.1\"", "another export"]].concat());

    // The same layers with another capacity.
    copy(&larger, &two, "understanding.1");
    refused(
        &two,
        &["understanding.0 outputs f32", "hidden.1", "understanding.1 expects f32 [640,"],
    );

    // The same layers with the same shapes.
    copy(&probed, &two, "understanding.1");
    refused(&two, &["\"understanding.1\"", "not the one that was exported there"]);

    // A group under the name of another.
    for ending in ["onnx", "json"] {
        let [from, to] = [0, 1].map(|group| two.join(format!("understanding.{group}.{ending}")));
        fs::copy(from, to).unwrap();
    }
    refused(&two, &["group 0 of 2, from layer 0 on", "group 1 of 2, from layer 2 on"]);
}

/// Runs a command that must succeed; returns its standard output as JSON.
#[track_caller]
fn json_of(arguments: &[&str]) -> serde_json::Value {
    let output = command::run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(rows: &serde_json::Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["network"].as_str().unwrap()).collect()
}

const IN_ORDER: [&str; 5] = ["vision", "understanding.0", "understanding.1", "bev", "action"];

#[test]
fn every_command_accepts_a_folder_of_layer_groups() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let [single, grouped, built] = ["single", "grouped", "built"].map(path);
    export(&checkpoint, Precision::F32, 1, single.as_ref());
    export(&checkpoint, Precision::F32, 2, grouped.as_ref());

    // A build into the folder of another export's engines leaves none of their files.
    json_of(&["build", "--network", &single, "--target", "cpu", "--out", &built, "--json"]);
    let build = ["build", "--network", &grouped, "--target", "cpu", "--out", &built, "--json"];
    let report = json_of(&build);
    // Folded weights of the other networks have other offsets in this export, so these are rebuilt,
    // too.
    assert_eq!(report["built"], serde_json::json!(IN_ORDER[1..]));
    let files = fs::read_dir(&built).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    let is_of_groups = |name: &&String| name.starts_with("understanding.");
    for file in files.iter().filter(is_of_groups) {
        let rest = &file["understanding.".len()..];
        assert!(rest.starts_with("0.") || rest.starts_with("1."), "{file} is of the other export");
    }
    // Only the engine that is missing is rebuilt.
    let lost =
        files.iter().find(|name| name.starts_with("understanding.1.") && name.ends_with("e"));
    fs::remove_file(Path::new(&built).join(lost.unwrap())).unwrap();
    assert_eq!(json_of(&build)["built"], serde_json::json!(["understanding.1"]));

    for folder in [&grouped, &built] {
        assert_eq!(names(&json_of(&["inspect", folder, "--json"])["networks"]), IN_ORDER);
        let roofline = json_of(&["roofline", "--engine", folder, "--device", "h200", "--json"]);
        assert_eq!(names(&roofline["networks"]), IN_ORDER);
        assert_eq!(roofline["floors"]["stages"].as_array().unwrap().len(), 4);
        let verify =
            ["verify", "--engine", folder, "--reference", &single, "--prompts", "1", "--json"];
        let record = json_of(&verify);
        assert_eq!(record["comparison"]["layers"].as_array().unwrap().len(), LAYERS);
    }

    let latency = path("latency.json");
    let mut profile = vec!["profile", "--engine", &built, "--phases", "alone", "--operators"];
    profile.extend(["--warm-up", "1", "--observations", "12", "--ticks", "4", "--json"]);
    profile.extend(["--out", &latency]);
    let report = json_of(&profile);
    let phases = report["phases"].as_array().unwrap();
    let prefills = phases.iter().find(|phase| phase["name"] == "understanding_alone").unwrap();
    // Each run of a group counts, two per prefill.
    let count = |stage: &str| prefills["stages"][stage]["count"].as_u64().unwrap();
    assert_eq!(count("understanding group"), 2 * count("understanding"));
    assert_eq!(prefills["rests"]["understanding"]["count"], count("understanding"));
    let hashes = report["engine"]["graphs_sha256"].as_object().unwrap();
    assert_eq!(hashes.len(), IN_ORDER.len());
    let mut measured = names(&report["operators"]);
    measured.sort_unstable();
    let mut expected = IN_ORDER;
    expected.sort_unstable();
    assert_eq!(measured, expected);

    profile[2] = &single;
    let report = json_of(&profile);
    let stages = &report["phases"][1]["stages"];
    assert_eq!(
        stages["understanding group"],
        serde_json::Value::Null,
        "one network has no group stage"
    );
}
