//! Emulated bfloat16 against the single-precision vectors: how far bfloat16 alone moves things.
//!
//! The set's README gives the range for a full bfloat16 run of the original: 0.04 to 0.2 for route
//! and waypoints, 0.1 on average for BEV features. Nearer would mean that something is not rounded,
//! farther that something is rounded that the release keeps.

use crate::vectors::Vectors;
use crate::{expert, networks};
use half::bf16;
use tandem::engine::NetworkFile;
use tandem::model::UnderstandingExpert;
use tandem::tensor::HostTensor;
use tandem::timing::StageTimes;
use tandem_export::networks::{ExportOptions, Precision};

fn emulated() -> ExportOptions {
    ExportOptions { precision: Precision::Bf16Emulated, probes: true, ..ExportOptions::default() }
}

/// Fails if a value is not a bfloat16 number: a cast there and back was left out.
#[track_caller]
fn on_grid(what: &str, values: &[f32]) {
    let off = values.iter().find(|&&value| bf16::from_f32(value).to_f32() != value);
    assert_eq!(off, None, "{what} is not on bfloat16's grid");
}

/// Largest and mean difference.
#[track_caller]
fn distance(expected: &[f64], found: &[f32]) -> (f64, f64) {
    assert_eq!(expected.len(), found.len());
    let differences = expected.iter().zip(found).map(|(e, &f)| (e - f64::from(f)).abs());
    let (largest, sum) = differences.fold((0.0, 0.0), |(m, s), d: f64| (d.max(m), s + d));
    (largest, sum / expected.len() as f64)
}

/// Root of the summed squares of the difference over that of the expected values.
fn relative(expected: &[f64], found: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let mut differences = expected.iter().zip(found).map(|(e, &f)| e - f64::from(f));
    (squares(&mut differences) / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn golden_bf16_moves_route_and_waypoints_as_far_as_the_original_in_bf16() {
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
            on_grid(name, tensor.as_slice());
        }
        for name in ["route", "waypoints"] {
            let expected = vectors.need(&format!("f0.{name}")).values;
            let (largest, mean) = distance(&expected, outputs[name].as_slice());
            eprintln!("fast_{case}: {name} moves by {largest:.4} at most, {mean:.4} on average");
            assert!((0.01..=0.3).contains(&largest), "fast_{case}: {name} moves by {largest}");
        }
    }
}

#[test]
fn golden_bf16_moves_keys_and_values_by_the_size_of_its_rounding() {
    let Some(vectors) = Vectors::read("slow_C") else {
        eprintln!("this set of vectors has no slow_C");
        return;
    };
    let (mut expert, pool, request) = expert::expert_for(&vectors, Precision::Bf16Emulated);
    let mut times = StageTimes::default();
    let snapshot = expert.refresh(&request, pool.writer().unwrap(), &mut times).unwrap();
    let layout = snapshot.slot().layout();
    let length = snapshot.meta().valid_length;
    for layer in 0..layout.layers {
        let sides = [
            ("k_cache", snapshot.slot().keys(layer), layout.key_dim),
            ("v_cache", snapshot.slot().values(layer), layout.value_dim),
        ];
        for (name, found, dim) in sides {
            let name = format!("{name}.{layer}");
            on_grid(&name, found.as_slice());
            let stored = vectors.need(&name);
            let [tokens, heads, width] = stored.shape[..] else { panic!("a cache has three axes") };
            if tokens < length {
                eprintln!("this set keeps {tokens} tokens of {name}");
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
            eprintln!("slow_C: {name} is {error:.5} off, relative to its norm");
            assert!((1e-3..=0.03).contains(&error), "{name}: {error}");
        }
    }
}

#[test]
fn golden_bf16_moves_bev_features_as_far_as_the_original_in_bf16() {
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
            on_grid(name, &values(tensor));
        }
        let expected = vectors.need(&format!("{sample}.bev_feature")).values;
        let (largest, mean) = distance(&expected, &networks::planes(&outputs["bev_tokens"]));
        eprintln!("{sample}: BEV features move by {largest:.3} at most, {mean:.4} on average");
        assert!((0.02..=0.2).contains(&mean) && largest < 2.0, "{sample}: {mean}, {largest}");
    }
}
