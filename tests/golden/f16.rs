//! Comparison of half precision on the CPU with the single-precision vectors.
//!
//! ONNX Runtime inserts casts around operators without a half-precision kernel and removes casts that
//! cancel, so some results that a GPU rounds remain in single precision. The differences are therefore
//! at most those on a GPU.

use crate::vectors::Vectors;
use crate::{expert, networks};
use half::f16;
use std::collections::BTreeMap;
use tandem::engine::NetworkFile;
use tandem::model::{OpenGate, UnderstandingExpert};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::StageSpans;
use tandem_export::automot::ExportOptions;
use tandem_export::options::Precision;

/// Half precision has a relative rounding error of 2⁻¹¹. After a few hundred roundings the direction of
/// a vector differs by about 2⁻¹¹ · √100, and its cosine by half the square of that, 1e-5. The error
/// of bfloat16 is 64 times as large.
const MIN_COSINE: f64 = 0.9999;

/// An eighth of the change of a point that is allowed for bfloat16, which is eight times as coarse.
const MAX_DISTANCE_M: f64 = 0.3 / 8.0;

fn halved(tensor: &HostTensor) -> HostTensor {
    let values: Vec<f16> = tensor.as_slice::<f32>().iter().map(|&v| f16::from_f32(v)).collect();
    HostTensor::from_slice(tensor.shape(), &values)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[track_caller]
fn check_keys_and_values(case: &str) {
    let Some(vectors) = Vectors::read(case) else {
        eprintln!("this set of vectors has no {case}");
        return;
    };
    let (mut expert, pool, request) = expert::expert_for(&vectors, Precision::F16, 1);
    let mut spans = StageSpans::default();
    let snapshot = expert.prefill(&request, pool.writer().unwrap(), &OpenGate, &mut spans).unwrap();
    let layout = snapshot.slot().layout();
    assert_eq!(layout.dtype, DType::F16);
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
            let stored = vectors.need(&name);
            let [tokens, heads, width] = stored.shape[..] else { panic!("a cache has three axes") };
            let tokens = tokens.min(snapshot.meta().valid_length);
            let found = found.as_slice::<f16>();
            let (mut least, mut infinite) = (1.0_f64, 0);
            for (token, head) in (0..tokens).flat_map(|t| (0..layout.heads).map(move |h| (t, h))) {
                let ours = &found[(head * layout.capacity + token) * dim..][..dim];
                infinite += ours.iter().filter(|value| !value.is_finite()).count();
                let ours: Vec<f64> = ours.iter().map(|value| value.to_f64()).collect();
                let theirs = &stored.values[(token * heads + head) * width..][..dim];
                least = least.min(cosine(&ours, theirs));
            }
            eprintln!("{case}: {name}: least cosine {least:.7}, {infinite} values not finite");
            assert_eq!(infinite, 0, "{case}: {name}");
            assert!(least >= MIN_COSINE, "{case}: {name}: {least}");
            assert!(least < 1.0 - 1e-9, "{case}: {name} is not half precision");
        }
    }
}

#[test]
fn golden_f16_directions_of_keys_and_values_in_slow_a() {
    check_keys_and_values("slow_A");
}

#[test]
fn golden_f16_directions_of_keys_and_values_in_slow_c() {
    check_keys_and_values("slow_C");
}

#[test]
fn golden_f16_change_of_route_and_waypoints_is_in_range() {
    let options = ExportOptions { precision: Precision::F16, ..ExportOptions::default() };
    let folder = networks::export_as(&options);
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
        let typed = |(name, tensor): (String, HostTensor)| {
            let wanted = contract.inputs[contract.input(&name).unwrap()].dtype;
            let tensor = if wanted == DType::F16 { halved(&tensor) } else { tensor };
            (name, tensor)
        };
        let inputs: BTreeMap<_, _> = inputs.into_iter().map(typed).collect();
        let outputs = networks::run(folder.path(), "action", inputs);
        for name in ["route", "waypoints"] {
            let expected = vectors.need(&format!("f0.{name}")).values;
            let found = outputs[name].as_slice::<f32>();
            assert!(found.iter().all(|value| value.is_finite()), "fast_{case}: {name}");
            let points = found.as_chunks::<2>().0.iter().zip(expected.as_chunks::<2>().0);
            let distance =
                points.map(|(f, e)| (f64::from(f[0]) - e[0]).hypot(f64::from(f[1]) - e[1]));
            let largest = distance.fold(0.0, f64::max);
            eprintln!("fast_{case}: {name} changes by {largest:.5} m at most");
            assert!((1e-6..=MAX_DISTANCE_M).contains(&largest), "fast_{case}: {name}: {largest}");
        }
    }
}
