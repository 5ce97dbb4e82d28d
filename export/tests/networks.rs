//! Exports of a small synthetic checkpoint: content of the exported folder.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::networks::NAMES;
use tandem_export::automot::synth::{SynthSpec, synthesize};
use tandem_export::contract::{Contract, TensorSpec};
use tandem_export::dtype::DType;
use tandem_export::family::NetworkError;
use tandem_export::folder::{
    ExportError, Progress, SUMMARY_FILE, Summary, WEIGHTS_FILE, contract_file, export_networks,
    graph_file,
};
use tandem_export::onnx::{DataType, ModelProto, TensorProto, ValueInfoProto};
use tandem_export::options::{Precision, WeightStorage};
use tempfile::TempDir;

const TINY: &str = include_str!("../../configs/tiny.json");

/// A checkpoint and the path of an export in the same folder.
struct Fixture {
    folder: TempDir,
    checkpoint: Checkpoint,
}

impl Fixture {
    fn new(dtype: DType) -> Self {
        let folder = TempDir::new().unwrap();
        let spec = SynthSpec { dtype, ..serde_json::from_str(TINY).unwrap() };
        synthesize(&spec, 7, &folder.path().join("checkpoint"), |_, _| {}).unwrap();
        let checkpoint = Checkpoint::open(&folder.path().join("checkpoint")).unwrap();
        Self { folder, checkpoint }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("networks")
    }

    fn export(&self, precision: Precision) -> Summary {
        let options = ExportOptions { precision, ..small() };
        export_networks(&self.checkpoint, &options, &self.out(), &mut |_| {}).unwrap()
    }

    /// Names in the folder of the checkpoint.
    fn siblings(&self) -> Vec<String> {
        names_in(self.folder.path())
    }

    fn graph(&self, network: &str) -> ModelProto {
        let bytes = fs::read(self.out().join(graph_file(network))).unwrap();
        ModelProto::decode(&bytes[..]).unwrap()
    }
}

/// Options with small frames, for small folded tables, and linked weights.
fn small() -> ExportOptions {
    let weights = WeightStorage::Link;
    ExportOptions { frame_size: [64, 96], frames: 2, weights, ..ExportOptions::default() }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

/// Tensor, file, offset and length of every weight outside the graph file.
fn external(graph: &ModelProto) -> Vec<(&TensorProto, String, usize, usize)> {
    let tensors = &graph.graph.as_ref().unwrap().initializer;
    tensors
        .iter()
        .filter(|tensor| !tensor.external_data.is_empty())
        .map(|tensor| {
            let at: BTreeMap<_, _> = tensor
                .external_data
                .iter()
                .map(|entry| (entry.key.clone().unwrap(), entry.value.clone().unwrap()))
                .collect();
            let number = |key: &str| at[key].parse().unwrap();
            (tensor, at["location"].clone(), number("offset"), number("length"))
        })
        .collect()
}

#[test]
fn external_data_are_the_bytes_of_the_tensor() {
    let fixture = Fixture::new(DType::F32);
    fixture.export(Precision::F32);
    let (mut stored, mut converted) = (0, 0);
    for network in NAMES {
        for (tensor, file, offset, length) in external(&fixture.graph(network)) {
            let bytes = fs::read(fixture.out().join(&file)).unwrap();
            let found = &bytes[offset..offset + length];
            let name = tensor.name.as_deref().unwrap();
            // `layer.weight.rows.0..8` and `layer.weight.as.2x3` are read from `layer.weight`.
            let (base, rows) = match name.split_once(".rows.") {
                Some((base, rows)) => (base, rows.split_once("..").map(|(_, end)| end)),
                None => (name.split_once(".as.").map_or(name, |(base, _)| base), None),
            };
            let Ok(entry) = fixture.checkpoint.tensor(base) else {
                assert_eq!((file.as_str(), offset % 64), (WEIGHTS_FILE, 0), "{name}");
                continue;
            };
            let values = fixture.checkpoint.values_f32(base).unwrap();
            let expected = match rows {
                Some(end) => {
                    let width = entry.shape[1];
                    &values[..end.parse::<usize>().unwrap() * width]
                }
                None => &values[..],
            };
            assert_eq!(found, bytemuck::cast_slice::<f32, u8>(expected), "{name}");
            match entry.dtype {
                DType::F32 => {
                    assert_eq!(file, "model.safetensors", "{name} is f32 and was copied");
                    stored += 1;
                }
                _ => {
                    assert_eq!((file.as_str(), offset % 64), (WEIGHTS_FILE, 0), "{name}");
                    converted += 1;
                }
            }
        }
    }
    assert!(stored > 100 && converted > 100, "{stored} stored, {converted} converted");
}

#[test]
fn last_layer_projects_only_the_heads_that_are_read() {
    let fixture = Fixture::new(DType::F32);
    fixture.export(Precision::F32);
    let graph = fixture.graph("understanding");
    let used = external(&graph);
    let last = "language_model.model.layers.3.self_attn";
    let of_last = used
        .iter()
        .filter_map(|(tensor, ..)| tensor.name.as_deref().unwrap().strip_prefix(last))
        .collect::<Vec<_>>();
    // Two heads of twelve out of four.
    let expected = [".k_norm.weight", ".k_proj.weight.rows.0..24", ".v_proj.weight.rows.0..24"];
    let inline =
        graph.graph.as_ref().unwrap().initializer.iter().map(|t| t.name.as_deref().unwrap());
    let inline = inline.filter(|name| name.starts_with(last)).count();
    assert_eq!((of_last, inline), (expected.to_vec(), 3));
}

#[test]
fn bf16_export_of_bf16_weights_copies_only_scaled_weights() {
    let fixture = Fixture::new(DType::Bf16);
    let summary = fixture.export(Precision::Bf16);
    let (mut folded, mut tensors) = (0, 0);
    for network in NAMES {
        for (tensor, file, _, length) in external(&fixture.graph(network)) {
            let name = tensor.name.as_deref().unwrap();
            if file == WEIGHTS_FILE {
                let is_scaled = name.starts_with("bev_encoder.") && name.ends_with(".scaled");
                let is_copied = name.contains(".weight") || name.contains(".bias");
                assert!(is_scaled || !is_copied, "{name} is copied");
                folded += length as u64;
                tensors += 1;
            }
        }
    }
    // The rest of the file is alignment.
    assert!(folded <= summary.converted_bytes && summary.converted_bytes < folded + 64 * tensors);
    assert_eq!(summary.weight_files, ["model.safetensors"]);
}

#[test]
fn batch_norms_are_folded_and_rounded_once() {
    for (precision, to) in [
        (Precision::F32, DType::F32),
        (Precision::Bf16, DType::Bf16),
        (Precision::F16, DType::F16),
        (Precision::Bf16Emulated, DType::Bf16),
    ] {
        let fixture = Fixture::new(DType::Bf16);
        fixture.export(precision);
        let values = |name: String| fixture.checkpoint.values_f32(&name).unwrap();
        let rounded = |value: f64| match to {
            DType::F16 => half::f16::from_f64(value).to_f64(),
            DType::Bf16 => half::bf16::from_f64(value).to_f64(),
            _ => f64::from(value as f32),
        };
        let graph = fixture.graph("bev");
        let mut checked = 0;
        for (tensor, file, offset, length) in external(&graph) {
            let Some(name) = tensor.name.as_deref().unwrap().strip_suffix(".conv.weight.scaled")
            else {
                continue;
            };
            let norm = |part: &str| values(format!("{name}.bn.{part}"));
            let (weight, bias) = (norm("weight"), norm("bias"));
            let (mean, variance) = (norm("running_mean"), norm("running_var"));
            let factor = |i: usize| f64::from(weight[i]) / (f64::from(variance[i]) + 1e-5).sqrt();
            let stored = values(format!("{name}.conv.weight"));
            let expected: Vec<f64> = stored
                .iter()
                .enumerate()
                .map(|(i, &value)| {
                    rounded(f64::from(value) * factor(i * weight.len() / stored.len()))
                })
                .collect();
            let bytes = fs::read(fixture.out().join(&file)).unwrap();
            assert_eq!(
                numbers(&bytes[offset..offset + length], tensor.data_type.unwrap()),
                expected,
                "{name} in {precision:?}"
            );
            let shift = graph.graph.as_ref().unwrap().initializer.iter();
            let shift = shift
                .clone()
                .find(|t| t.name.as_deref() == Some(&format!("{name}.conv.folded_shift")))
                .unwrap();
            if let Some(raw) = &shift.raw_data {
                let expected: Vec<f64> = (0..weight.len())
                    .map(|i| rounded(f64::from(bias[i]) - f64::from(mean[i]) * factor(i)))
                    .collect();
                assert_eq!(numbers(raw, shift.data_type.unwrap()), expected, "{name}");
                checked += 1;
            }
        }
        assert!(checked > 20, "{checked} convolutions");
    }
}

/// Numbers of an ONNX tensor of floating-point type.
fn numbers(bytes: &[u8], data_type: i32) -> Vec<f64> {
    let two = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    if data_type == DataType::Bfloat16 as i32 {
        two.map(|b| half::bf16::from_le_bytes(b).to_f64()).collect()
    } else if data_type == DataType::Float16 as i32 {
        two.map(|b| half::f16::from_le_bytes(b).to_f64()).collect()
    } else {
        let four = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        four.map(|b| f64::from(f32::from_le_bytes(b))).collect()
    }
}

#[test]
fn weight_that_two_networks_convert_is_stored_once() {
    let fixture = Fixture::new(DType::Bf16);
    fixture.export(Precision::F32);
    let place = |network: &str| {
        external(&fixture.graph(network))
            .into_iter()
            .find(|(tensor, ..)| tensor.name.as_deref().unwrap().ends_with("embed_tokens.weight"))
            .map(|(_, file, offset, length)| (file, offset, length))
            .unwrap()
    };
    assert_eq!(place("understanding"), place("action"));
    assert_eq!(place("action").2, 1000 * 64 * 4);
    let summary = fs::read_to_string(fixture.out().join(SUMMARY_FILE)).unwrap();
    let summary: Summary = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary.weight_files, [""; 0], "no weights are read from the checkpoint");
}

#[test]
fn query_tokens_are_folded_with_their_projectors() {
    let fixture = Fixture::new(DType::F32);
    fixture.export(Precision::F32);
    let graph = fixture.graph("action");
    let (_, file, offset, length) = external(&graph)
        .into_iter()
        .find(|(tensor, ..)| tensor.name.as_deref() == Some("query_tokens"))
        .unwrap();
    let bytes = fs::read(fixture.out().join(file)).unwrap();
    let found = bytes[offset..offset + length].as_chunks().0;
    let found = found.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<_>>();

    let read = |name: String| fixture.checkpoint.values_f32(&name).unwrap();
    let linear = |x: &[f64], prefix: &str| -> Vec<f64> {
        let weight = read(format!("{prefix}.weight"));
        let bias = read(format!("{prefix}.bias"));
        let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
        weight.chunks(x.len()).zip(bias).map(|(row, b)| dot(row) + f64::from(b)).collect()
    };
    let gelu = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    };
    let mut expected = Vec::new();
    for (queries, projector, dim) in [
        ("reasoning_queries", "reasoning_projector", 20),
        ("route_queries", "route_projector", 24),
        ("waypoint_queries", "waypoint_projector", 24),
    ] {
        for query in read(format!("{queries}.weight")).chunks(dim) {
            let query = query.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let hidden = linear(&query, &format!("{projector}.fc1"));
            let hidden = hidden.into_iter().map(gelu).collect::<Vec<_>>();
            expected.extend(linear(&hidden, &format!("{projector}.fc2")));
        }
    }
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        // Single precision over sums of 64 terms.
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{i}: {found}, not {expected}");
    }
}

#[test]
fn contracts_describe_their_graphs() {
    let fixture = Fixture::new(DType::Bf16);
    let summary = fixture.export(Precision::Bf16);
    for network in NAMES {
        let bytes = fs::read(fixture.out().join(graph_file(network))).unwrap();
        let hash =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = fs::read_to_string(fixture.out().join(contract_file(network))).unwrap();
        let contract: Contract = serde_json::from_str(&text).unwrap();
        assert_eq!((&contract.graph_sha256, &contract.network[..]), (&hash, network));
        assert_eq!(summary.networks[network], hash);

        let graph = fixture.graph(network).graph.unwrap();
        let info = |specs: &[TensorSpec]| -> Vec<ValueInfoProto> {
            specs.iter().map(|s| ValueInfoProto::tensor(&s.name, s.dtype, &s.shape)).collect()
        };
        assert_eq!(graph.input, info(&contract.inputs), "{network}");
        assert_eq!(graph.output, info(&contract.outputs), "{network}");
    }
    let text = fs::read_to_string(fixture.out().join(SUMMARY_FILE)).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

/// Outermost scopes of a network's nodes.
fn parts(graph: &ModelProto) -> BTreeSet<String> {
    let nodes = &graph.graph.as_ref().unwrap().node;
    let part = |name: &str| name.split_once('/').map(|(part, _)| part.to_owned());
    nodes.iter().map(|node| part(node.name()).unwrap_or_else(|| panic!("{node:?}"))).collect()
}

#[test]
fn every_node_is_in_a_part_of_its_network() {
    let numbered = |stem: &str, numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers.map(|n| format!("{stem}{n}")).collect()
    };
    let named = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let expected = [
        [
            named(&["patch_embed", "merger", "deepstack"]),
            numbered("block.", 0..3),
            numbered("deepstack.", 0..2),
        ]
        .concat(),
        [named(&["embed", "mask", "rope"]), numbered("layer.", 0..4)].concat(),
        [
            named(&["normalize", "image.stem", "lidar.stem", "tokens"]),
            numbered("image.s", 1..5),
            numbered("lidar.s", 1..5),
            numbered("fusion.", 0..4),
        ]
        .concat(),
        [
            named(&["embed", "mask", "rope", "norm"]),
            named(&["head.route", "head.waypoints", "head.decision"]),
            numbered("layer.", 0..4),
        ]
        .concat(),
    ];
    for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Bf16Emulated] {
        for probes in [false, true] {
            let fixture = Fixture::new(DType::F32);
            let options = ExportOptions { precision, probes, ..small() };
            export_networks(&fixture.checkpoint, &options, &fixture.out(), &mut |_| {}).unwrap();
            for (network, expected) in NAMES.into_iter().zip(&expected) {
                let mut found = parts(&fixture.graph(network));
                if precision == Precision::Bf16Emulated {
                    found.remove("inputs");
                }
                if probes {
                    found.remove("outputs");
                }
                let expected: BTreeSet<String> = expected.iter().cloned().collect();
                assert_eq!(found, expected, "{network}, {precision:?}, probes: {probes}");
            }
        }
    }
}

#[test]
fn keys_and_values_of_understanding_match_inputs_of_action() {
    let fixture = Fixture::new(DType::Bf16);
    fixture.export(Precision::Bf16);
    let contract = |network| -> Contract {
        let text = fs::read_to_string(fixture.out().join(contract_file(network))).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (understanding, action) = (contract("understanding"), contract("action"));
    let mut n_shared = 0;
    for given in &understanding.outputs {
        let taken = &action.inputs[action.input(&given.name).unwrap()];
        assert_eq!((given.dtype, &given.shape), (taken.dtype, &taken.shape), "{}", given.name);
        n_shared += 1;
    }
    assert_eq!(n_shared, 2 * 4, "keys and values of four layers");
    assert_eq!(contract("bev").outputs[0].shape, action.inputs[0].shape);
}

/// Exports, and removes the temporary folder while converted weights are
/// written, so that the export fails.
fn interrupted(fixture: &Fixture) -> ExportError {
    let mut remove = |progress: Progress| {
        if let Progress::Weights { .. } = progress {
            for name in fixture.siblings().iter().filter(|name| name.ends_with(".part")) {
                fs::remove_dir_all(fixture.folder.path().join(name)).unwrap();
            }
        }
    };
    let options = ExportOptions { precision: Precision::Bf16, ..small() };
    export_networks(&fixture.checkpoint, &options, &fixture.out(), &mut remove).unwrap_err()
}

#[test]
fn failed_export_leaves_no_files() {
    let fixture = Fixture::new(DType::F32);
    let error = interrupted(&fixture);
    assert!(matches!(error, ExportError::Write { .. }), "{error}");
    assert_eq!(fixture.siblings(), ["checkpoint"]);
}

#[test]
fn panic_during_an_export_leaves_no_files() {
    let fixture = Fixture::new(DType::F32);
    let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut stop = |progress| assert!(progress != Progress::Syncing, "stopped for the test");
        export_networks(&fixture.checkpoint, &small(), &fixture.out(), &mut stop)
    }));
    assert!(attempt.is_err());
    assert_eq!(fixture.siblings(), ["checkpoint"]);
}

#[test]
fn failed_export_leaves_the_previous_one_unchanged() {
    let fixture = Fixture::new(DType::F32);
    let before = fixture.export(Precision::F32);
    let files = names_in(&fixture.out());
    interrupted(&fixture);
    assert_eq!(fixture.siblings(), ["checkpoint", "networks"]);
    assert_eq!(names_in(&fixture.out()), files);
    let text = fs::read_to_string(fixture.out().join(SUMMARY_FILE)).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), before);
}

#[test]
fn new_export_replaces_the_previous_one() {
    let fixture = Fixture::new(DType::F32);
    let first = fixture.export(Precision::F32);
    let second = fixture.export(Precision::Bf16);
    assert_ne!(first.networks, second.networks);
    assert_eq!(fixture.siblings(), ["checkpoint", "networks"]);
    let text = fs::read_to_string(fixture.out().join(SUMMARY_FILE)).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), second);
}

#[test]
fn equal_exports_have_equal_files() {
    let fixture = Fixture::new(DType::Bf16);
    let read = || -> Vec<Vec<u8>> {
        names_in(&fixture.out())
            .iter()
            .map(|name| fs::read(fixture.out().join(name)).unwrap())
            .collect()
    };
    fixture.export(Precision::F32);
    let first = read();
    fixture.export(Precision::F32);
    assert!(first == read());
}

#[test]
fn folder_with_other_files_is_not_replaced() {
    let fixture = Fixture::new(DType::F32);
    fixture.export(Precision::F32);
    fs::write(fixture.out().join("notes.txt"), "mine").unwrap();
    let error = export_networks(&fixture.checkpoint, &small(), &fixture.out(), &mut |_| {});
    let error = error.unwrap_err();
    assert!(
        matches!(&error, ExportError::ForeignFile { path } if path.ends_with("notes.txt")),
        "{error}"
    );
    assert_eq!(fs::read_to_string(fixture.out().join("notes.txt")).unwrap(), "mine");
}

#[test]
fn export_into_the_checkpoint_folder_needs_no_link() {
    let fixture = Fixture::new(DType::F32);
    let dir = fixture.checkpoint.dir();
    let weights = fs::read(dir.join("model.safetensors")).unwrap();
    for _ in 0..2 {
        export_networks(&fixture.checkpoint, &small(), dir, &mut |_| {}).unwrap();
        assert!(dir.join(SUMMARY_FILE).is_file() && dir.join("config.json").is_file());
        assert!(!dir.join("model.safetensors").is_symlink());
        assert!(names_in(dir).iter().all(|name| !name.starts_with('.')), "{:?}", names_in(dir));
    }
    assert!(weights == fs::read(dir.join("model.safetensors")).unwrap());
}

#[test]
fn copied_weights_are_those_of_the_checkpoint() {
    let fixture = Fixture::new(DType::F32);
    fixture.export(Precision::F32);
    let all = || -> Vec<(String, Vec<u8>)> {
        let mut files = BTreeMap::new();
        let mut values = Vec::new();
        for network in NAMES {
            for (tensor, file, offset, length) in external(&fixture.graph(network)) {
                let path = fixture.out().join(&file);
                let bytes = files.entry(file).or_insert_with(|| fs::read(path).unwrap());
                values
                    .push((tensor.name.clone().unwrap(), bytes[offset..offset + length].to_vec()));
            }
        }
        values
    };
    let linked = all();
    let options = ExportOptions { weights: WeightStorage::Copy, ..small() };
    let summary =
        export_networks(&fixture.checkpoint, &options, &fixture.out(), &mut |_| {}).unwrap();
    assert_eq!(summary.weight_files, [""; 0]);
    assert!(all() == linked);
    for name in names_in(&fixture.out()) {
        assert!(!fixture.out().join(&name).is_symlink(), "{name}");
    }
    for network in NAMES {
        for (tensor, file, offset, _) in external(&fixture.graph(network)) {
            assert_eq!((file.as_str(), offset % 64), (WEIGHTS_FILE, 0), "{:?}", tensor.name);
        }
    }
    let names = |summary: &Summary| -> Vec<String> {
        summary.weights.iter().map(|file| file.name.clone()).collect()
    };
    assert_eq!(names(&summary), [WEIGHTS_FILE]);
}

#[test]
fn small_weights_are_copied_unless_links_are_requested() {
    let fixture = Fixture::new(DType::F32);
    let options = ExportOptions { weights: WeightStorage::Auto, ..small() };
    let summary =
        export_networks(&fixture.checkpoint, &options, &fixture.out(), &mut |_| {}).unwrap();
    assert_eq!(summary.weight_files, [""; 0]);
    let summary = fixture.export(Precision::F32);
    assert!(fixture.out().join("model.safetensors").is_symlink());
    let origins: Vec<bool> = summary.weights.iter().map(|file| file.origin.is_some()).collect();
    assert_eq!(origins, [false, true], "the weights file and the link");
}

#[test]
fn unaligned_weights_are_copied_to_aligned_offsets() {
    let fixture = Fixture::new(DType::F32);
    let path = fixture.checkpoint.dir().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    // Another space at the end of the header shifts every weight by a byte.
    let header = &bytes[8..8 + length as usize];
    let shifted =
        [&(length + 1).to_le_bytes(), header, b" ", &bytes[8 + length as usize..]].concat();
    fs::write(&path, shifted).unwrap();
    let checkpoint = Checkpoint::open(fixture.checkpoint.dir()).unwrap();
    let summary = export_networks(&checkpoint, &small(), &fixture.out(), &mut |_| {}).unwrap();
    for network in NAMES {
        for (tensor, file, offset, _) in external(&fixture.graph(network)) {
            let is_integer = tensor.data_type == Some(7);
            assert!(file == WEIGHTS_FILE && offset % 4 == 0 || is_integer, "{:?}", tensor.name);
        }
    }
    assert!(summary.converted_bytes > 0);
}

#[test]
fn export_command_repeats_the_options() {
    let fixture = Fixture::new(DType::F32);
    let summary = fixture.export(Precision::F32);
    let command = summary.export_command(&fixture.out());
    let out = fixture.out();
    assert!(command.starts_with("tandem export --checkpoint /"), "{command}");
    let rest = format!(
        " --precision f32 --frame-size 64x96 --frames 2 --weights link --out {}",
        out.display()
    );
    assert!(command.ends_with(&rest), "{command}");
}

/// Checks the error of an export with these options.
#[track_caller]
fn refused(options: ExportOptions, message: &str) {
    let fixture = Fixture::new(DType::F32);
    let error = export_networks(&fixture.checkpoint, &options, &fixture.out(), &mut |_| {});
    let error = error.unwrap_err();
    assert!(matches!(
        error,
        ExportError::Network(
            NetworkError::FrameSize { .. }
                | NetworkError::PrefixCapacity { .. }
                | NetworkError::LayerGroups { .. }
        )
    ));
    assert_eq!(error.to_string(), message);
    assert_eq!(fixture.siblings(), ["checkpoint"]);
}

#[test]
fn invalid_options_are_refused_before_anything_is_written() {
    refused(
        ExportOptions { frame_size: [64, 100], ..small() },
        "frame size [64, 100] is not a multiple of 32, the side of a merged patch",
    );
    // Two images of six tokens and two markers each, and at least one token of text.
    refused(
        ExportOptions { prefix_capacity: Some(16), ..small() },
        "prefix capacity 16 does not hold the prompt's 17 tokens",
    );
    for groups in [0, 5] {
        refused(
            ExportOptions { understanding_groups: groups, ..small() },
            &format!(
                "{groups} layer groups of an understanding expert of 4 layers; ask for 1 to 4"
            ),
        );
    }
}

#[test]
fn default_prefix_capacity_fits_the_prompt_of_the_release() {
    let fixture = Fixture::new(DType::F32);
    let options = ExportOptions::default();
    let summary =
        export_networks(&fixture.checkpoint, &options, &fixture.out(), &mut |_| {}).unwrap();
    assert_eq!(summary.prefix_capacity, Some(640));
}

#[test]
fn f16_export_rounds_every_weight_to_nearest() {
    let fixture = Fixture::new(DType::F32);
    let summary = fixture.export(Precision::F16);
    assert_eq!(summary.weight_files, [""; 0], "no weights are read from the checkpoint");
    let graph = fixture.graph("understanding");
    let (tensor, file, offset, length) = external(&graph)
        .into_iter()
        .find(|(tensor, ..)| tensor.name.as_deref().unwrap().ends_with("embed_tokens.weight"))
        .unwrap();
    let expected = fixture.checkpoint.values_f32(tensor.name.as_deref().unwrap()).unwrap();
    let bytes = fs::read(fixture.out().join(file)).unwrap();
    let found = bytes[offset..offset + length].as_chunks().0;
    assert_eq!(found.len(), expected.len());
    for (&found, expected) in found.iter().zip(expected) {
        assert_eq!(half::f16::from_le_bytes(found), half::f16::from_f32(expected));
    }
}

#[test]
fn weight_beyond_the_range_of_f16_is_refused_by_name() {
    let fixture = Fixture::new(DType::F32);
    let file = fixture.checkpoint.dir().join("model.safetensors");
    let entry = fixture.checkpoint.tensor("bev_encoder_proj.weight").unwrap().clone();
    let mut bytes = fs::read(&file).unwrap();
    // 65504 is the largest number of f16; 65520 is the smallest that rounds to infinity.
    let third = entry.offset as usize + 2 * 4;
    for (value, fits) in [(-65519.0_f32, true), (-65520.0, false)] {
        bytes[third..third + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(&file, &bytes).unwrap();
        let checkpoint = Checkpoint::open(fixture.checkpoint.dir()).unwrap();
        let options = ExportOptions { precision: Precision::F16, ..small() };
        let result = export_networks(&checkpoint, &options, &fixture.out(), &mut |_| {});
        let message = result.map(|_| ()).map_err(|error| error.to_string());
        let expected = "weight \"bev_encoder_proj.weight\" has the value -65520, beyond the range \
                        of f16; export as bf16";
        assert_eq!(message, if fits { Ok(()) } else { Err(expected.to_owned()) });
    }
}

#[test]
fn layer_groups_and_the_single_network_replace_each_other() {
    let fixture = Fixture::new(DType::F32);
    let dir = fixture.checkpoint.dir();
    let export = |groups, out: &Path| {
        let options = ExportOptions { understanding_groups: groups, ..small() };
        export_networks(&fixture.checkpoint, &options, out, &mut |_| {}).unwrap()
    };
    let of_understanding = |folder: &Path| -> Vec<String> {
        names_in(folder).into_iter().filter(|name| name.starts_with("understanding")).collect()
    };
    let two = ["understanding.0", "understanding.1"];
    // A separate folder is replaced atomically, in the checkpoint's folder files one by one.
    for out in [fixture.out(), dir.to_owned()] {
        export(3, &out);
        let summary = export(2, &out);
        let names = two.iter().flat_map(|name| [contract_file(name), graph_file(name)]);
        assert_eq!(of_understanding(&out), names.collect::<Vec<_>>(), "{}", out.display());
        assert!(two.iter().all(|name| summary.networks.contains_key(*name)), "{summary:?}");
        export(1, &out);
        assert_eq!(of_understanding(&out), ["understanding.json", "understanding.onnx"]);
    }
}
