//! The understanding expert in layer groups gives, bit for bit, what it gives in one network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::collections::BTreeMap;
use std::path::Path;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::tensor::HostTensor;
use tandem_export::checkpoint::Checkpoint;
use tandem_export::contract::TensorSpec;
use tandem_export::folder::export_networks;
use tandem_export::networks::{ExportOptions, Precision};
use tandem_export::synth::{SynthSpec, synthesize};

const TINY: &str = include_str!("../configs/tiny.json");
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
