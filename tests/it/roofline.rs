//! Lower bounds of the full-size networks compared with a derivation by hand from the layer shapes
//! of the AutoMoT release: an action step of 101 tokens over a prefix of 700 tokens in 0.77 ms, a
//! prefill of 700 tokens in 6.6 ms, four frames in 1.7 ms, at 4.3 TB/s and 790 TFLOP/s.

use std::collections::BTreeMap;
use tandem::model::automot::networks::Contracts;
use tandem::tensor::DType;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::synth::synthesize_sparse;
use tandem_export::folder::export_networks;
use tandem_export::options::Precision;
use tandem_profile::roofline::lower_bound::{
    Bound, StageCosts, Work, costs, lower_bound, lower_bounds,
};
use tandem_profile::roofline::peak_rates::{PeakRates, Source, device};

fn full_size() -> Vec<StageCosts> {
    let folder = tempfile::tempdir().unwrap();
    let spec = serde_json::from_str(include_str!("../../configs/full.json")).unwrap();
    let weights = folder.path().join("checkpoint");
    synthesize_sparse(&spec, &weights).unwrap();
    let checkpoint = Checkpoint::open(&weights).unwrap();
    let options = ExportOptions { precision: Precision::Bf16, ..ExportOptions::default() };
    let engine = folder.path().join("engine");
    export_networks(&checkpoint, &options, &engine, &mut |_| {}).unwrap();
    costs(&engine, &Contracts::read(&engine).unwrap().outline(5).unwrap()).unwrap()
}

/// Peak rates of an H200 that the derivation uses.
fn derivation() -> PeakRates {
    PeakRates {
        threads: None,
        name: "h200 as derived".to_owned(),
        bytes_per_s: 4.3e12,
        flops_per_s: BTreeMap::from([(DType::Bf16, 790e12)]),
        source: Source::Datasheet { document: "derivation".to_owned() },
    }
}

#[track_caller]
fn near(found: f64, expected: f64, share: f64) {
    assert!((found / expected - 1.0).abs() <= share, "{found} is not {expected}");
}

#[test]
fn full_size_bounds_on_an_h200_match_the_derivation() {
    let costs = full_size();

    // The derivation counts layers and prefix. Our network also has the output head, embedding and
    // heads; without them, both are 3.3 GB. A capacity of 640 instead of 700 tokens is 0.1 % of it.
    let action = &costs[3].networks[0];
    assert_eq!(action.network, "action");
    let layers = action.parts_named("layer.");
    let flops = BTreeMap::from([(DType::Bf16, layers.flops())]);
    let bytes = layers.parameter_bytes + action.minimum_traffic.kv_bytes;
    let step = lower_bound(&Work { bytes, flops }, &derivation()).unwrap();
    near(step.floor_ms, 0.77, 0.005);
    assert_eq!(step.bound_by, Bound::Memory);
    // The derivation has 0.37 TFLOP, with the heads and rounded up; 0.353 for the layers alone over
    // 640 columns.
    near(step.compute_ms, 0.47, 0.06);

    // At the same rates, the complete network also reads the 0.78 GB of the output head.
    let derived = lower_bounds(&costs, &derivation(), 4).unwrap();
    let [vision, understanding, _, action] = &derived.stages[..] else { panic!() };
    near(action.floor.floor_ms, step.floor_ms + 2.0 * 388_956_160.0 / 4.3e9, 0.01);
    // Here 640 instead of 700 tokens, and 35 layers instead of 36.
    near(understanding.floor.floor_ms, 6.6 * (640.0 / 700.0) * (35.0 / 36.0), 0.04);
    assert_eq!(understanding.floor.bound_by, Bound::Compute);
    // The derivation has 1.34 TFLOP; the mergers add 0.11.
    near(4.0 * vision.floor.floor_ms, 1.7 * 1.45 / 1.34, 0.02);

    // At the vendor's rates every bound is shorter and of the same kind.
    let vendor = lower_bounds(&costs, &device("h200").unwrap(), 4).unwrap();
    for (vendor, derived) in vendor.stages.iter().zip(&derived.stages) {
        assert!(vendor.floor.floor_ms < derived.floor.floor_ms, "{vendor:?}");
        assert_eq!(vendor.floor.bound_by, derived.floor.bound_by);
    }
    let vendor_ms: Vec<f64> = vendor.stages.iter().map(|stage| stage.floor.floor_ms).collect();
    let [vision, understanding, bev, action] = vendor_ms[..] else { panic!() };
    near(action, 4.1163e9 / 4.8e12 * 1e3, 1e-3);
    assert_eq!(vendor.tick_ms, bev + action);
    assert_eq!(vendor.refresh_ms, 4.0 * vision + understanding);
}
