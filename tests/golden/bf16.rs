//! Comparison of emulated bfloat16 with the single-precision vectors: the effect of bfloat16 alone.
//!
//! The README of the vectors has the range for a full bfloat16 run of the original: 0.04 to 0.2 for
//! route and waypoints, 0.1 on average for BEV features. A smaller difference would mean that a value
//! is not rounded, a larger one that a value is rounded that the AutoMoT release does not round.

use crate::vectors::Vectors;
use crate::{expert, networks};
use half::bf16;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::model::{OpenGate, UnderstandingExpert};
use tandem::tensor::HostTensor;
use tandem::timing::StageSpans;
use tandem_export::automot::ExportOptions;
use tandem_export::contract::{Contract, FORMAT};
use tandem_export::dtype::DType;
use tandem_export::graph::{Graph, Network, Source, Value};
use tandem_export::onnx::{
    DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use tandem_export::options::Precision;

fn emulated() -> ExportOptions {
    ExportOptions { precision: Precision::Bf16Emulated, probes: true, ..ExportOptions::default() }
}

/// Checks that all values are bfloat16 numbers, so that no rounding is missing.
#[track_caller]
fn check_rounded(what: &str, values: &[f32]) {
    let unrounded = values.iter().find(|&&value| bf16::from_f32(value).to_f32() != value);
    assert_eq!(unrounded, None, "{what} is not rounded to bfloat16");
}

/// Largest and mean difference.
#[track_caller]
fn distance(expected: &[f64], found: &[f32]) -> (f64, f64) {
    assert_eq!(expected.len(), found.len());
    let differences = expected.iter().zip(found).map(|(e, &f)| (e - f64::from(f)).abs());
    let (largest, sum) = differences.fold((0.0, 0.0), |(m, s), d: f64| (d.max(m), s + d));
    (largest, sum / expected.len() as f64)
}

/// Norm of the difference divided by the norm of the expected values.
fn relative(expected: &[f64], found: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let mut differences = expected.iter().zip(found).map(|(e, &f)| e - f64::from(f));
    (squares(&mut differences) / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn golden_bf16_change_of_route_and_waypoints_is_in_range() {
    let folder = networks::export_as(&emulated());
    let contract = NetworkFile::read(&folder.path().join("engine"), "action").unwrap().contract;
    for case in ["A", "B", "C"] {
        let fast = Vectors::read(&format!("fast_{case}"));
        let (Some(vectors), Some(cache)) = (fast, Vectors::read(&format!("slow_{case}"))) else {
            eprintln!("this set of vectors has no case {case}");
            continue;
        };
        let name = format!("slow_{case}");
        let mut cache = networks::Cache { vectors: &cache, name: &name, computed: None };
        let inputs = networks::fast_inputs(&vectors, &mut cache, &contract, "f0", 0).unwrap();
        let outputs = networks::run(folder.path(), "action", inputs);
        for (name, tensor) in outputs.iter().filter(|(name, _)| name.starts_with("probe.")) {
            check_rounded(name, tensor.as_slice());
        }
        for name in ["route", "waypoints"] {
            let expected = vectors.need(&format!("f0.{name}")).values;
            let (largest, mean) = distance(&expected, outputs[name].as_slice());
            eprintln!("fast_{case}: {name} changes by {largest:.4} at most, {mean:.4} on average");
            assert!((0.01..=0.3).contains(&largest), "fast_{case}: {name} changes by {largest}");
        }
    }
}

#[test]
fn golden_bf16_change_of_keys_and_values_is_in_range() {
    let Some(vectors) = Vectors::read("slow_C") else {
        eprintln!("this set of vectors has no slow_C");
        return;
    };
    let (mut expert, pool, request) = expert::expert_for(&vectors, Precision::Bf16Emulated, 1);
    let mut spans = StageSpans::default();
    let snapshot = expert.prefill(&request, pool.writer().unwrap(), &OpenGate, &mut spans).unwrap();
    let layout = snapshot.slot().layout();
    let length = snapshot.meta().valid_length;
    for layer in 0..layout.layers {
        let sides = [
            (
                "k_cache",
                expert::on_host(snapshot.slot(), snapshot.slot().keys(layer)),
                layout.key_dim,
            ),
            (
                "v_cache",
                expert::on_host(snapshot.slot(), snapshot.slot().values(layer)),
                layout.value_dim,
            ),
        ];
        for (name, found, dim) in sides {
            let name = format!("{name}.{layer}");
            check_rounded(&name, found.as_slice());
            let stored = vectors.need(&name);
            let [tokens, heads, width] = stored.shape[..] else { panic!("a cache has three axes") };
            if tokens < length {
                eprintln!("this set stores {tokens} tokens of {name}");
                continue;
            }
            let (mut expected, mut given) = (Vec::new(), Vec::new());
            for head in 0..layout.heads {
                let start = head * layout.capacity * dim;
                given.extend_from_slice(&found.as_slice::<f32>()[start..start + tokens * dim]);
                expected.extend((0..tokens * dim).map(|i| {
                    let (token, entry) = (i / dim, i % dim);
                    stored.values[(token * heads + head) * width + entry]
                }));
            }
            let error = relative(&expected, &given);
            eprintln!("slow_C: {name} differs by {error:.5}, relative to its norm");
            assert!((1e-3..=0.03).contains(&error), "{name}: {error}");
        }
    }
}

#[test]
fn golden_bf16_change_of_bev_features_is_in_range() {
    let Some(vectors) = Vectors::read("bev_encoder") else {
        eprintln!("this set of vectors has no bev_encoder");
        return;
    };
    let folder = networks::export_as(&emulated());
    for sample in ["s0", "s1", "s2", "s3"] {
        let Some(inputs) = networks::bev_inputs(&vectors, sample) else { continue };
        let outputs = networks::run(folder.path(), "bev", inputs);
        let values = |tensor: &HostTensor| tensor.as_slice::<f32>().to_vec();
        for (name, tensor) in &outputs {
            check_rounded(name, &values(tensor));
        }
        let expected = vectors.need(&format!("{sample}.bev_feature")).values;
        let (largest, mean) = distance(&expected, &networks::planes(&outputs["bev_tokens"]));
        eprintln!("{sample}: BEV features change by {largest:.3} at most, {mean:.4} on average");
        assert!((0.02..=0.2).contains(&mean) && largest < 2.0, "{sample}: {mean}, {largest}");
    }
}

/// Builds a graph with one input, `[1, 1, 2, 4]`, and one output, and runs it on ONNX Runtime.
fn computed(x: &[f32; 8], build: impl FnOnce(&mut Graph<'_>, &Value) -> Value) -> Vec<f32> {
    let tensors = BTreeMap::new();
    let mut graph = Graph::new("toy", &tensors, DType::Bf16).emulating();
    let input = graph.input("x", DType::Bf16, &[1, 1, 2, 4], "numbers");
    let result = build(&mut graph, &input);
    graph.output("y", &result, "numbers");
    let network = graph.finish();
    let contract = Contract {
        format: FORMAT,
        network: "toy".into(),
        model: "test".into(),
        inputs: network.inputs.clone(),
        outputs: network.outputs.clone(),
        sizes: BTreeMap::new(),
        numbers: BTreeMap::new(),
        graph_sha256: String::new(),
    };
    let graph = encoded(network);
    let graph_sha256 = Sha256::digest(&graph).iter().map(|byte| format!("{byte:02x}")).collect();
    let contract = Contract { graph_sha256, ..contract };
    let folder = tempfile::tempdir().unwrap();
    let file = NetworkFile { folder: folder.path().into(), contract, graph, built: None };
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}"));
    let engine = backend.unwrap().load(&file).unwrap();
    let mut y = HostTensor::zeros(DType::F32, &engine.contract().outputs[0].shape.clone());
    let x = HostTensor::from_slice(&[1, 1, 2, 4], x);
    engine.session().run(&[x.view()], &mut [y.view_mut()]).unwrap();
    y.as_slice().to_vec()
}

/// Encodes the graph file of a network with inline constants only.
fn encoded(network: Network) -> Vec<u8> {
    let info = |specs: &[tandem_export::contract::TensorSpec]| {
        specs.iter().map(|s| ValueInfoProto::tensor(&s.name, s.dtype, &s.shape)).collect()
    };
    let (input, output) = (info(&network.inputs), info(&network.outputs));
    let constants = network.initializers.into_iter().map(|initializer| {
        let Source::Inline(bytes) = initializer.source else { panic!("a small constant") };
        TensorProto {
            dims: initializer.dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(DataType::from(initializer.dtype) as i32),
            name: Some(initializer.name),
            raw_data: Some(bytes),
            ..TensorProto::default()
        }
    });
    let graph = GraphProto {
        node: network.nodes,
        name: Some(network.name),
        initializer: constants.collect(),
        input,
        output,
        value_info: network.values,
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
    ModelProto {
        ir_version: Some(IR_VERSION),
        graph: Some(graph),
        opset_import: vec![opset],
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// Rounds to the nearest bfloat16 number.
fn near(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

const X: [f32; 8] = [1.0, -0.7, 3.3, 0.01, 2.2, -5.1, 0.4, 1.9];

#[test]
fn results_are_rounded_between_operators() {
    // Each step is less than half of the spacing of bfloat16 at one, so each is rounded away. The sum
    // of both steps would not be.
    let y = computed(&[1.0; 8], |g, x| {
        let step = g.constant("step", &[1], &[0.003]);
        let x = g.add(x, &step);
        g.add(&x, &step)
    });
    assert_eq!(y, [1.0; 8]);
    let y = computed(&X, |g, x| g.add(x, x));
    assert_eq!(y, X.map(|x| 2.0 * near(x)), "inputs are rounded");
    let y = computed(&X, |g, x| g.scale(x, 0.3, "factor"));
    assert_eq!(y, X.map(|x| near(near(x) * 0.3)), "the factor is not rounded");
}

#[test]
fn rms_norm_rounds_before_the_weight_and_after() {
    let weight = [1.3, 0.6, -0.9, 1.7].map(near);
    let y = computed(&X, |g, x| {
        let weight = g.constant("weight", &[4], &weight);
        g.rms_norm(x, &weight, 1e-6)
    });
    let expected = X.as_chunks::<4>().0.iter().flat_map(|row| {
        let row = row.map(near);
        let mean = row.iter().map(|x| x * x).sum::<f32>() / 4.0;
        let root = (mean + 1e-6).sqrt();
        [0, 1, 2, 3].map(|i| near(near(row[i] / root) * weight[i]))
    });
    assert_eq!(y, expected.collect::<Vec<_>>());
}

#[test]
fn rotary_rounds_by_the_type_of_its_tables() {
    let (cos, sin) = ([0.3_f32, 0.8, -0.2, 0.5], [0.9_f32, -0.5, 0.7, 0.1]);
    let rotated = |dtype| {
        computed(&X, |g, x| {
            let cos = g.constant_as("cos", dtype, &[1, 2, 2], &cos);
            let sin = g.constant_as("sin", dtype, &[1, 2, 2], &sin);
            g.rotary(x, &cos, &sin)
        })
    };
    // Pairs of a row are (0, 2) and (1, 3).
    let expected = |table: &dyn Fn(f32) -> f32, step: &dyn Fn(f32) -> f32| {
        let mut y = [0.0; 8];
        for (row, pair) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let [first, second] = [4 * row + pair, 4 * row + pair + 2];
            let [a, b] = [X[first], X[second]].map(near);
            let [c, s] = [cos[2 * row + pair], sin[2 * row + pair]].map(table);
            y[first] = near(step(a * c) - step(b * s));
            y[second] = near(step(b * c) + step(a * s));
        }
        y
    };
    assert_eq!(rotated(DType::Bf16), expected(&near, &near), "every step is rounded");
    assert_eq!(rotated(DType::F32), expected(&|x| x, &|x| x), "only the result is rounded");
}
