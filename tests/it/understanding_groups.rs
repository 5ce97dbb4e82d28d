//! The understanding expert in layer groups gives, bit for bit, what it gives in one network: as
//! networks, behind the model, and through every command that takes a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tandem::control::{Localizer, PathFollower, PathFollowerConfig, StateFilterConfig};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::kv_cache::SlotPool;
use tandem::model::automot::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{
    AutomotAction, AutomotPerception, AutomotUnderstanding, Networks, PerceptionOptions, Positions,
    sensors,
};
use tandem::model::{Delays, Experts};
use tandem::pilot::{Pilot, Run, RunFile};
use tandem::scene::{self, Driver, World};
use tandem::tensor::HostTensor;
use tandem_evaluation::routes::parse_routes;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::synth::{SynthSpec, synthesize};
use tandem_export::contract::TensorSpec;
use tandem_export::folder::export_networks;
use tandem_export::options::Precision;
use tandem_world::EmbeddedWorld;

const TINY: &str = include_str!("../../configs/tiny.json");
const LAYERS: usize = 4;

/// Tokens of the prompt that are real; what follows is padding.
const LENGTH: usize = 50;

type Tensors = BTreeMap<String, HostTensor>;

fn checkpoint(folder: &Path) -> Checkpoint {
    let spec: SynthSpec = serde_json::from_str(TINY).unwrap();
    synthesize(&spec, 3, &folder.join("checkpoint"), |_, _| {}).unwrap();
    Checkpoint::open(&folder.join("checkpoint")).unwrap()
}

fn export(checkpoint: &Checkpoint, precision: Precision, groups: usize, out: &Path) {
    let options = ExportOptions {
        precision,
        frame_size: [64, 96],
        frames: 2,
        understanding_groups: groups,
        ..ExportOptions::default()
    };
    let summary = export_networks(checkpoint, &options, out, &mut |_| {}).unwrap();
    assert_eq!(summary.networks.len(), 3 + groups);
}

/// A prompt of text, six image tokens, text, six image tokens and text; numbers like noise.
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

/// Runs one network on the tensors of its names and adds what it gives.
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

/// Runs the expert in one and in `groups` networks and compares every key and value.
#[track_caller]
fn check(precision: Precision, groups: usize) {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let (whole, parts) = (place.path().join("whole"), place.path().join("parts"));
    export(&checkpoint, precision, 1, &whole);
    export(&checkpoint, precision, groups, &parts);

    let inputs = NetworkFile::read(&whole, "understanding").unwrap().contract.inputs;
    let mut expected = prompt(&inputs);
    let mut found = prompt(&inputs);
    run(&whole, "understanding", &mut expected);
    for group in 0..groups {
        run(&parts, &format!("understanding.{group}"), &mut found);
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
fn two_groups_give_what_one_network_gives() {
    check(Precision::F32, 2);
}

#[test]
fn groups_of_different_sizes_give_what_one_network_gives() {
    check(Precision::F32, 3);
}

#[test]
fn a_group_for_every_layer_gives_what_one_network_gives() {
    check(Precision::F32, LAYERS);
}

#[test]
fn groups_hand_emulated_bfloat16_over_unchanged() {
    check(Precision::Bf16Emulated, 2);
}

#[test]
fn only_a_group_that_reads_an_input_has_it() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    export(&checkpoint, Precision::F32, LAYERS, place.path().join("parts").as_path());
    let names = |group: usize| -> (Vec<String>, Vec<String>) {
        let file =
            NetworkFile::read(&place.path().join("parts"), &format!("understanding.{group}"));
        let contract = file.unwrap().contract;
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect();
        (names(&contract.inputs), names(&contract.outputs))
    };
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    // The checkpoint has two deepstack maps; the last layer attends to nothing.
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

/// Ticks of a drive with refreshes at every second of them.
const TICKS: u64 = 40;

/// What was commanded at each tick, and the version of the prefix that it rested on.
fn drive(engine: &Path) -> Vec<(scene::Command, u64)> {
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let networks = Networks::load(engine, &backend, &backend).unwrap();
    let run = RunFile { warm_up_ticks: 0, refresh_period_ticks: 2, ..RunFile::default() };
    let run = Run::try_from(&run).unwrap();
    let routes = include_str!("../../routes/demo.xml");
    let routes = parse_routes(routes, "routes/demo.xml").unwrap();
    let mut world = EmbeddedWorld::new(&routes[0], sensors(), 1).unwrap();
    let tokenizer = Tokenizer::read(&engine.join("tokenizer.json")).unwrap();
    let understanding = AutomotUnderstanding::new(&networks, tokenizer).unwrap();
    let plan = world.plan();
    let points = plan.points.iter().map(PlanPoint::from);
    let planner = RoutePlanner::new(points, RoutePlannerConfig::default());
    let frames = understanding.frames_per_prompt();
    let perception =
        AutomotPerception::new(&networks, planner, frames, PerceptionOptions::default()).unwrap();
    let action = AutomotAction::new(&networks, Positions::default()).unwrap();
    let mut pilot = Pilot::new(
        &run,
        Experts {
            perception,
            understanding: Box::new(understanding),
            action: Box::new(action),
            follower: Box::new(PathFollower::new(PathFollowerConfig::default())),
            delays: Delays::Command,
        },
        Localizer::new(StateFilterConfig::default(), plan.reference),
        SlotPool::new(&networks.device, networks.prefix, 3).unwrap(),
    )
    .unwrap();
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
fn a_drive_through_layer_groups_commands_what_a_drive_through_one_network_does() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let (whole, parts) = (place.path().join("whole"), place.path().join("parts"));
    for (groups, out) in [(1, &whole), (3, &parts)] {
        let options = ExportOptions { understanding_groups: groups, ..ExportOptions::default() };
        export_networks(&checkpoint, &options, out, &mut |_| {}).unwrap();
    }
    let expected = drive(&whole);
    assert!(expected.last().unwrap().1 > 5, "a drive without refreshes shows nothing");
    let moving = expected.iter().filter(|(command, _)| command.steer != 0.0).count();
    assert!(moving > 10, "{expected:?}");
    assert_eq!(drive(&parts), expected);
}

fn copy(from: &Path, to: &Path, network: &str) {
    for ending in ["onnx", "json"] {
        let name = format!("{network}.{ending}");
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// Loading `folder` fails with an error that holds every one of `says`.
#[track_caller]
fn refused(folder: &Path, says: &[&str]) {
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let error = match Networks::load(folder, &backend, &backend) {
        Ok(_) => panic!("{} was loaded", folder.display()),
        Err(error) => error.to_string(),
    };
    for word in says {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

#[test]
fn a_group_that_is_missing_or_one_too_many_is_named() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let (two, three) = (place.path().join("two"), place.path().join("three"));
    export(&checkpoint, Precision::F32, 2, &two);
    export(&checkpoint, Precision::F32, 3, &three);

    copy(&three, &two, "understanding.2");
    refused(&two, &["understanding.2.json", "not of the export", "\"understanding.1\""]);
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
    let options = ExportOptions {
        frame_size: [64, 96],
        frames: 2,
        understanding_groups: 2,
        ..ExportOptions::default()
    };
    let other = ExportOptions { prefix_capacity: Some(640), ..options.clone() };
    export_networks(&checkpoint, &other, &larger, &mut |_| {}).unwrap();
    let other = ExportOptions { probes: true, ..options };
    export_networks(&checkpoint, &other, &probed, &mut |_| {}).unwrap();

    // Other layers, though the name is right.
    copy(&three, &two, "understanding.1");
    let says = ["group 1 of 3, from layer 1 on", "group 1 of 2, from layer 2 on"];
    refused(&two, &[&says[..], &["\"understanding.1\"", "another export"]].concat());

    // The same layers over another capacity.
    copy(&larger, &two, "understanding.1");
    refused(&two, &["understanding.0 gives f32", "hidden.1", "understanding.1 takes f32 [640,"]);

    // The same layers in the same shapes.
    copy(&probed, &two, "understanding.1");
    refused(&two, &["\"understanding.1\"", "not the one that was exported there"]);

    // A group under another's name.
    for ending in ["onnx", "json"] {
        let [from, to] = [0, 1].map(|group| two.join(format!("understanding.{group}.{ending}")));
        fs::copy(from, to).unwrap();
    }
    refused(&two, &["group 0 of 2, from layer 0 on", "group 1 of 2, from layer 2 on"]);
}

fn tandem(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs a command that has to succeed; what it printed.
#[track_caller]
fn said(arguments: &[&str]) -> serde_json::Value {
    let output = tandem(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(rows: &serde_json::Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["network"].as_str().unwrap()).collect()
}

const IN_ORDER: [&str; 5] = ["vision", "understanding.0", "understanding.1", "bev", "action"];

#[test]
fn every_command_that_takes_a_folder_takes_one_of_layer_groups() {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(place.path());
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let [whole, parts, built] = ["whole", "parts", "built"].map(path);
    export(&checkpoint, Precision::F32, 1, whole.as_ref());
    export(&checkpoint, Precision::F32, 2, parts.as_ref());

    // Built anew where another export's engines were, which leaves nothing of those behind.
    said(&["build", "--network", &whole, "--target", "cpu", "--out", &built, "--json"]);
    let build = ["build", "--network", &parts, "--target", "cpu", "--out", &built, "--json"];
    let report = said(&build);
    // The others' folded weights lie elsewhere in this export, so they are built anew, too.
    assert_eq!(report["built"], serde_json::json!(IN_ORDER[1..]));
    let files = fs::read_dir(&built).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    let is_of_groups = |name: &&String| name.starts_with("understanding.");
    for file in files.iter().filter(is_of_groups) {
        let rest = &file["understanding.".len()..];
        assert!(rest.starts_with("0.") || rest.starts_with("1."), "{file} is of the other export");
    }
    // Per engine: a lost one is built again, the others stay.
    let lost =
        files.iter().find(|name| name.starts_with("understanding.1.") && name.ends_with("e"));
    fs::remove_file(Path::new(&built).join(lost.unwrap())).unwrap();
    assert_eq!(said(&build)["built"], serde_json::json!(["understanding.1"]));

    for folder in [&parts, &built] {
        assert_eq!(names(&said(&["inspect", folder, "--json"])["networks"]), IN_ORDER);
        let roofline = said(&["roofline", "--engine", folder, "--device", "h200", "--json"]);
        assert_eq!(names(&roofline["networks"]), IN_ORDER);
        assert_eq!(roofline["floors"]["stages"].as_array().unwrap().len(), 4);
        let verify =
            ["verify", "--engine", folder, "--reference", &whole, "--prompts", "1", "--json"];
        let record = said(&verify);
        assert_eq!(record["comparison"]["layers"].as_array().unwrap().len(), LAYERS);
    }

    let latency = path("latency.json");
    let mut profile = vec!["profile", "--engine", &built, "--phases", "alone", "--operators"];
    profile.extend(["--warm-up", "1", "--observations", "12", "--ticks", "4", "--json"]);
    profile.extend(["--out", &latency]);
    let report = said(&profile);
    let phases = report["phases"].as_array().unwrap();
    let refreshes = phases.iter().find(|phase| phase["name"] == "understanding_alone").unwrap();
    // Each run of a group counts for itself: two per refresh.
    let count = |stage: &str| refreshes["stages"][stage]["count"].as_u64().unwrap();
    assert_eq!(count("understanding group"), 2 * count("understanding"));
    assert_eq!(refreshes["rests"]["understanding"]["count"], count("understanding"));
    let hashes = report["engine"]["graphs_sha256"].as_object().unwrap();
    assert_eq!(hashes.len(), IN_ORDER.len());
    let mut measured = names(&report["operators"]);
    measured.sort_unstable();
    let mut expected = IN_ORDER;
    expected.sort_unstable();
    assert_eq!(measured, expected);

    profile[2] = &whole;
    let report = said(&profile);
    let stages = &report["phases"][1]["stages"];
    assert_eq!(stages["understanding group"], serde_json::Value::Null, "one network is no group");
}
