//! Engines for GPUs, built with the TensorRT-RTX library on a machine without a GPU.

#![cfg(feature = "tensorrt")]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails here")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use tandem::engine::tensorrt::{
    BuildError, BuildReport, BuildRequest, LayerFindings, OpenError, Progress, Target, TensorRt,
};
use tandem::engine::{LoadError, NetworkFile};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::options::Precision;
use tandem_testkit::automot::{TINY, export, synthesize};
use tempfile::TempDir;

/// Three generations of GPUs.
const TARGETS: [Target; 3] = [Target::Sm86, Target::Sm89, Target::Sm120];

const NETWORKS: [&str; 4] = ["vision", "understanding", "bev", "action"];

/// The tiny networks, exported once per process.
static EXPORT: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engine");
    let checkpoint = synthesize(TINY, 7, &folder.path().join("checkpoint"));
    let options = ExportOptions { precision: Precision::Bf16, ..ExportOptions::default() };
    export(&checkpoint, &options, &out);
    (folder, out)
});

/// Locked during a build, because peak memory is measured for the process.
static BUILD_LOCK: Mutex<()> = Mutex::new(());

fn lock_builds() -> MutexGuard<'static, ()> {
    BUILD_LOCK.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn network(name: &str) -> NetworkFile {
    NetworkFile::read(&EXPORT.1, name).unwrap()
}

fn library() -> TensorRt {
    TensorRt::open(&mut |line| eprintln!("{line}")).unwrap()
}

fn build(name: &str, request: &BuildRequest) -> Result<(Vec<u8>, BuildReport), BuildError> {
    let _lock = lock_builds();
    let mut engine = Vec::new();
    let report = library().build(&network(name), request, &mut engine)?;
    assert_eq!(report.engine_bytes, engine.len() as u64);
    Ok((engine, report))
}

fn has_gpu() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
}

#[test]
fn every_network_builds_for_every_target() {
    for name in NETWORKS {
        for target in TARGETS {
            let (engine, report) = build(name, &BuildRequest::for_targets([target])).unwrap();
            assert!(engine.starts_with(b"vtrt"), "{name} {target}");
            assert!(report.network_layers > 0 && report.targets == [target.name()], "{report:?}");
            assert!(report.peak_bytes.unwrap() > report.engine_bytes, "{report:?}");
        }
    }
}

/// Builds `file` and compares the layers of its engine with the graph of `against`.
fn findings(file: &NetworkFile, against: &NetworkFile) -> LayerFindings {
    let _lock = lock_builds();
    let request = BuildRequest::for_targets([Target::Sm89]);
    let report = library().build(file, &request, &mut std::io::sink()).unwrap();
    report.layers.unwrap().findings(&against.graph).unwrap()
}

/// The tiny networks in half precision.
fn half(name: &str) -> NetworkFile {
    static HALF: LazyLock<PathBuf> = LazyLock::new(|| {
        let out = EXPORT.0.path().join("f16");
        let checkpoint = Checkpoint::open(&EXPORT.0.path().join("checkpoint")).unwrap();
        let options = ExportOptions { precision: Precision::F16, ..ExportOptions::default() };
        export(&checkpoint, &options, &out);
        out
    });
    NetworkFile::read(&HALF, name).unwrap()
}

#[test]
fn attention_is_one_kernel_per_layer() {
    // Attentions: blocks of the vision tower; layers of the understanding expert except the last,
    // which computes only keys and values; layers of the action expert.
    for (name, attentions) in [("vision", 3), ("understanding", 3), ("action", 4)] {
        for file in [network(name), half(name)] {
            let found = findings(&file, &file);
            assert!(found.is_as_requested(), "{name}: {found:#?}");
            assert!(found.attention.iter().all(|a| !a.is_spelled_out), "{name}: {found:#?}");
            assert_eq!((found.attention.len(), found.fused()), (attentions, attentions), "{name}");
            assert_eq!(found.attention_kernels, attentions, "{name}");
            assert!(found.weights_checked > 4 * attentions, "{name}: {found:#?}");
            // Sums of the final norm pass from one kernel to the next before they are rounded.
            let is_norm = |node: &String| node == "norm/rms_norm";
            for wider in &found.widened {
                assert!(wider.dtype == "f32" && wider.nodes.iter().any(is_norm), "{wider:?}");
            }
        }
    }
    // Four attentions, exported as single operators; the library fuses all but the narrowest.
    let file = network("bev");
    let found = findings(&file, &file);
    assert!(found.is_as_requested(), "{found:#?}");
    // Means of large maps pass from one kernel to the next before they are rounded.
    let is_mean = |node: &String| node.ends_with("/global_average_pool");
    for wider in &found.widened {
        assert!(wider.dtype == "f32" && wider.nodes.iter().any(is_mean), "{wider:?}");
    }
    assert!(found.attention.iter().all(|attention| attention.is_spelled_out), "{found:#?}");
    let several: Vec<&str> = found
        .attention
        .iter()
        .filter(|attention| !attention.is_fused)
        .map(|attention| attention.node.as_str())
        .collect();
    assert_eq!((several, found.fused()), (vec!["fusion.0/block.0/softmax"], 3));
}

#[test]
fn engine_of_another_type_than_its_graph_is_detected() {
    for (name, against) in [("action", half("action")), ("bev", half("bev"))] {
        let found = findings(&network(name), &against);
        assert!(!found.is_as_requested() && !found.narrowed.is_empty(), "{name}: {found:#?}");
        // Products whose weights are f32 in both graphs are unchanged.
        let changed = found.weights_changed.len();
        assert!(
            changed > 0 && found.weights_changed.iter().all(|w| w.dtype == "f16"),
            "{found:#?}"
        );
        assert_eq!(changed, found.weights_checked, "{name}");
    }
}

#[test]
fn extra_streams_and_expanded_weights_are_detected() {
    use tandem::engine::{Layer, LayerTensor};
    let file = network("action");
    let _lock = lock_builds();
    let request = BuildRequest::for_targets([Target::Sm89]);
    let report = library().build(&file, &request, &mut std::io::sink()).unwrap().layers.unwrap();
    let found = report.findings(&file.graph).unwrap();
    assert!(found.orders_streams.is_empty() && found.expanded_weights.is_empty(), "{found:#?}");
    let layer = |kind: &str| Layer {
        name: format!("a {kind}"),
        kind: kind.into(),
        kernel: String::new(),
        inputs: vec![],
        constants: vec![],
        outputs: vec![],
        nodes: vec![],
    };
    let mut two_streams = report.clone();
    two_streams.layers.extend([layer("signal"), layer("wait")]);
    let found = two_streams.findings(&file.graph).unwrap();
    assert!(!found.is_as_requested());
    assert_eq!(found.orders_streams, ["a signal", "a wait"]);
    // A layer that expands the stored weight of a product.
    let mut expanding = report;
    let mut expand = layer("dequantize");
    let wide = LayerTensor { name: "wide".into(), dtype: "f32".into(), shape: vec![64, 32] };
    expand.constants.push(LayerTensor {
        dtype: "i8".into(),
        name: "stored".into(),
        ..wide.clone()
    });
    expand.outputs.push(wide.clone());
    let is_product = |layer: &&mut Layer| layer.nodes.iter().any(|n| n.contains(".gate_proj"));
    let product = expanding.layers.iter_mut().find(is_product).unwrap();
    product.inputs.push(wide);
    let name = product.name.clone();
    expanding.layers.insert(0, expand);
    let found = expanding.findings(&file.graph).unwrap();
    assert!(!found.is_as_requested());
    let [expanded] = &found.expanded_weights[..] else { panic!("{found:#?}") };
    assert_eq!((&expanded.read_by[..], expanded.bytes), (&[name][..], 64 * 32 * 4));
}

#[test]
fn attention_of_several_kernels_is_detected() {
    let file = network("action");
    let _lock = lock_builds();
    let request = BuildRequest::for_targets([Target::Sm89]);
    let report = library().build(&file, &request, &mut std::io::sink()).unwrap().layers.unwrap();
    let of_layer_2 = |layer: &&mut tandem::engine::Layer| {
        layer.is_attention_kernel() && layer.nodes.iter().any(|node| node == "layer.2/attention")
    };
    let broken = |change: &dyn Fn(&mut tandem::engine::Layer)| {
        let mut report = report.clone();
        change(report.layers.iter_mut().find(of_layer_2).unwrap());
        let found = report.findings(&file.graph).unwrap();
        let several = found.attention.iter().filter(|attention| !attention.is_fused);
        (found.is_as_requested(), several.map(|a| a.node.clone()).collect::<Vec<_>>())
    };
    assert_eq!(broken(&|_| {}), (true, vec![]));
    // A separate product; a kernel of another layer; a kernel of two layers.
    let layers = ["layer.2/attention".to_owned(), "layer.3/attention".to_owned()];
    let products = broken(&|layer| {
        layer.name = "product".into();
        layer.kernel = "product".into();
    });
    assert_eq!(products, (false, layers[..1].to_vec()));
    let moved = broken(&|layer| layer.nodes = vec!["layer.2/add".into()]);
    assert_eq!(moved, (false, layers[..1].to_vec()));
    let both = broken(&|layer| layer.nodes = layers.to_vec());
    assert_eq!(both, (false, layers.to_vec()));
}

fn tandem(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(arguments).stdin(std::process::Stdio::null()).output().unwrap()
}

/// Relative difference of two numbers.
fn relative_difference(predicted: u64, measured: u64) -> f64 {
    (predicted as f64 - measured as f64).abs() / measured as f64
}

/// Compares the measured and the predicted costs of an engine record.
fn predictions_hold(record: &Value) {
    for network in record["networks"].as_array().unwrap() {
        let build = &network["build"];
        let number = |value: &Value| value.as_u64().unwrap();
        let predicted = |of: &str| number(&build["predicted"][of]);
        let memory = predicted("memory_bytes") + predicted("mapped_bytes");
        assert!(
            relative_difference(memory, number(&build["peak_resident_bytes"])) < 0.15,
            "{build:#}"
        );
        let disk = predicted("result_bytes");
        assert!(relative_difference(disk, number(&build["result_bytes"])) < 0.15, "{build:#}");
    }
}

#[test]
fn build_reports_progress_and_predicts_its_cost() {
    let _lock = lock_builds();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engines");
    let [network, out] = [&EXPORT.1, &out].map(|path| path.to_str().unwrap());
    let backend = ["--backend", "tensorrt-rtx", "--target", "sm89,sm120"];
    let output = tandem(&[&["build", "--network", network, "--out", out][..], &backend].concat());
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    for name in NETWORKS {
        assert!(printed.contains(&format!("{name}: Building engine, step 1 of ")), "{printed}");
    }
    let output = tandem(&["inspect", out, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    predictions_hold(&found["engine"]);
    let action = &found["networks"][3]["layers"];
    assert_eq!(action["attention_kernels"], 4);
    assert_eq!(action["weights_changed"], serde_json::json!([]));
    let page = String::from_utf8(tandem(&["inspect", out]).stdout).unwrap();
    for fragment in ["fused attentions", "action bf16", "fusion.0/block.0/softmax is decomposed"] {
        assert!(page.contains(fragment), "{fragment:?} is missing in: {page}");
    }

    // A changed layer list is refused.
    let name = found["engine"]["networks"][3]["layers"]["name"].as_str().unwrap();
    let path = Path::new(out).join(name);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("mha", "mhb")).unwrap();
    let output = tandem(&["inspect", out]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(name) && error.contains("tandem build"), "{error}");
}

#[test]
fn missing_kernel_is_an_error_with_the_librarys_reason() {
    // Attention in single precision, as exported for CPUs.
    let out = EXPORT.0.path().join("f32");
    let checkpoint = Checkpoint::open(&EXPORT.0.path().join("checkpoint")).unwrap();
    export(&checkpoint, &ExportOptions::default(), &out);
    let file = NetworkFile::read(&out, "action").unwrap();
    let _lock = lock_builds();
    let request = BuildRequest::for_targets([Target::Sm89]);
    let error = library().build(&file, &request, &mut std::io::sink()).unwrap_err();
    let BuildError::Refused { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("Attention") && error.to_string().contains("action"), "{error}");
}

#[test]
fn engine_for_several_targets_has_the_weights_once() {
    let (_, one) = build("vision", &BuildRequest::for_targets([Target::Sm89])).unwrap();
    let (_, all) = build("vision", &BuildRequest::for_targets(TARGETS)).unwrap();
    assert_eq!(all.targets, ["sm86", "sm89", "sm120"]);
    assert!(all.engine_bytes < one.engine_bytes * 11 / 10, "{all:?} {one:?}");
}

#[test]
fn progress_names_phases_and_never_exceeds_them() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&steps);
    let progress = move |progress: Progress<'_>| {
        let Progress { phase, depth, step, steps } = progress;
        kept.lock().unwrap().push((phase.to_owned(), depth, step, steps));
    };
    let request =
        BuildRequest { progress: Arc::new(progress), ..BuildRequest::for_targets([Target::Sm89]) };
    build("vision", &request).unwrap();
    let steps = steps.lock().unwrap();
    assert!(steps.iter().all(|(_, _, step, steps)| step <= steps), "{steps:?}");
    let outer = steps.iter().filter(|(_, depth, ..)| *depth == 0);
    assert!(outer.clone().all(|(phase, ..)| phase == "Building engine"), "{steps:?}");
    let outer: Vec<u32> = outer.map(|step| step.2).collect();
    assert!(outer.len() > 2 && outer.is_sorted() && outer[0] == 0, "{outer:?}");
}

#[test]
fn canceled_build_ends_at_the_next_step() {
    let cancel = Arc::new(AtomicBool::new(false));
    let after = Arc::new(AtomicU32::new(0));
    let (stop, count) = (Arc::clone(&cancel), Arc::clone(&after));
    let progress = move |progress: Progress<'_>| {
        if stop.load(Ordering::Relaxed) {
            count.fetch_add(1, Ordering::Relaxed);
        } else if progress.step == 1 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let progress = Arc::new(progress);
    let request = BuildRequest { progress, cancel, ..BuildRequest::for_targets([Target::Sm89]) };
    let error = build("vision", &request).unwrap_err();
    assert!(matches!(&error, BuildError::Canceled { network } if network == "vision"), "{error}");
    let after = after.load(Ordering::Relaxed);
    assert!(after < 10, "{after} of hundreds of steps ran after cancellation");
    // A build that is canceled before it begins fails at once.
    let error = build("vision", &request).unwrap_err();
    assert!(matches!(error, BuildError::Canceled { .. }), "{error}");
}

#[test]
fn native_target_needs_a_gpu() {
    let result = build("vision", &BuildRequest::for_targets([Target::Native]));
    if has_gpu() {
        result.unwrap();
        return;
    }
    let error = result.unwrap_err();
    assert!(matches!(error, BuildError::NoDevice { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("driver") && error.contains("sm89"), "{error}");
}

#[test]
fn targets_that_exclude_each_other_are_refused() {
    for targets in [vec![], vec![Target::Native, Target::Sm89]] {
        let error = build("vision", &BuildRequest::for_targets(targets)).unwrap_err();
        assert!(matches!(error, BuildError::Targets { .. }), "{error}");
    }
    let twice: BTreeSet<Target> = [Target::Sm89, Target::Sm89].into();
    assert_eq!(BuildRequest::for_targets(twice).targets.len(), 1);
}

#[test]
fn engine_inspection_needs_a_gpu() {
    let (engine, _) = build("vision", &BuildRequest::for_targets([Target::Sm86])).unwrap();
    if has_gpu() {
        return;
    }
    let error = library().inspect("vision", &engine).unwrap_err();
    eprintln!("{error}");
    assert!(matches!(error, LoadError::NoDevice { .. }), "{error}");
    assert!(error.to_string().contains("nvidia-smi"), "{error}");
}

#[test]
fn graph_that_breaks_its_contract_is_not_built() {
    let _lock = lock_builds();
    let mut file = network("vision");
    file.contract.outputs[0].shape[0] += 1;
    let request = BuildRequest::for_targets([Target::Sm89]);
    let error = library().build(&file, &request, &mut Vec::new()).unwrap_err();
    let BuildError::Contract { what, name, .. } = &error else { panic!("{error}") };
    assert_eq!((*what, name.as_str()), ("output", file.contract.outputs[0].name.as_str()));
}

#[test]
fn missing_weights_are_named() {
    let _lock = lock_builds();
    let folder = tempfile::tempdir().unwrap();
    for file in ["vision.onnx", "vision.json"] {
        fs::copy(EXPORT.1.join(file), folder.path().join(file)).unwrap();
    }
    let file = NetworkFile::read(folder.path(), "vision").unwrap();
    let request = BuildRequest::for_targets([Target::Sm89]);
    let error = library().build(&file, &request, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") || error.contains("weights.bin"), "{error}");
}

#[test]
fn full_disk_is_an_error() {
    let _lock = lock_builds();
    let mut full = fs::File::options().write(true).open("/dev/full").unwrap();
    let request = BuildRequest::for_targets([Target::Sm89]);
    let error = library().build(&network("vision"), &request, &mut full).unwrap_err();
    assert!(matches!(error, BuildError::Write { .. }), "{error}");
}

/// Compiles a shared library that reports TensorRT `version`, in its own folder.
fn stub_library(version: [i32; 3]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("v.c"), folder.path().join("libtensorrt_rtx.so.1"));
    let [major, minor, patch] = version;
    let text = format!(
        "int getInferLibMajorVersion(void) {{ return {major}; }}\n\
         int getInferLibMinorVersion(void) {{ return {minor}; }}\n\
         int getInferLibPatchVersion(void) {{ return {patch}; }}\n"
    );
    fs::write(&source, text).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    (folder, library)
}

#[test]
fn other_flavors_and_old_versions_are_refused() {
    let (_folder, eleven) = stub_library([11, 4, 0]);
    let error = TensorRt::open_file(&eleven).unwrap_err();
    assert!(matches!(error, OpenError::Flavor { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("TensorRT 11.4.0") && error.contains("tensorrt-enterprise"), "{error}");

    let (_folder, old) = stub_library([1, 3, 2]);
    let error = TensorRt::open_file(&old).unwrap_err();
    assert!(matches!(error, OpenError::Version { .. }), "{error}");
    assert!(error.to_string().contains("1.3.2") && error.to_string().contains("1.7"), "{error}");

    let parser = library().library().with_file_name("libtensorrt_onnxparser_rtx.so.1");
    let error = TensorRt::open_file(&parser).unwrap_err();
    assert!(error.to_string().contains("not a TensorRT library"), "{error}");
}

#[test]
fn damaged_or_incomplete_library_is_named() {
    let original = fs::read(library().library()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libtensorrt_rtx.so.1");
    for (bytes, what) in
        [(&original[..original.len() - 1], "instead of"), (&b"<html>"[..], "64-bit")]
    {
        fs::write(&path, bytes).unwrap();
        let error = TensorRt::open_file(&path).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let (folder, alone) = stub_library([1, 7, 1]);
    let error = TensorRt::open_file(&alone).unwrap_err();
    assert!(matches!(error, OpenError::Read { .. }), "{error}");
    assert!(error.to_string().contains("libtensorrt_onnxparser_rtx.so.1"), "{error}");
    let error = TensorRt::open_file(&folder.path().join("absent.so")).unwrap_err();
    assert!(error.to_string().contains("absent.so"), "{error}");
}

#[test]
fn process_has_one_library() {
    let first = library();
    assert_eq!(TensorRt::open_file(first.library()).unwrap().version(), first.version());
    let folder = tempfile::tempdir().unwrap();
    for file in ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"] {
        fs::copy(first.library().with_file_name(file), folder.path().join(file)).unwrap();
    }
    let error = TensorRt::open_file(&folder.path().join("libtensorrt_rtx.so.1")).unwrap_err();
    assert!(matches!(error, OpenError::Second { .. }), "{error}");
}

/// Two configurations between tiny and the AutoMoT release; the formula was fitted on the first and
/// on tiny. `cargo test --features tensorrt --test tensorrt -- --ignored --nocapture` needs 8 GB of
/// disk and 4 GB of memory, and prints the output of `tandem build`.
#[test]
#[ignore = "8 GB of disk and a minute"]
fn predictions_hold_for_larger_networks() {
    let _lock = lock_builds();
    let configs =
        [include_str!("../configs/mid.json"), include_str!("../configs/full-shallow.json")];
    for spec in configs {
        let folder = tempfile::tempdir().unwrap();
        let [checkpoint, networks, out] =
            ["checkpoint", "networks", "engines"].map(|name| folder.path().join(name));
        let checkpoint = synthesize(spec, 7, &checkpoint);
        let options = ExportOptions { precision: Precision::Bf16, ..ExportOptions::default() };
        export(&checkpoint, &options, &networks);
        let [networks, out] = [&networks, &out].map(|path| path.to_str().unwrap());
        let arguments = ["build", "--network", networks, "--out", out, "--json"];
        let backend = ["--backend", "tensorrt-rtx", "--target", "sm89"];
        let output = tandem(&[&arguments[..], &backend].concat());
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["built"], serde_json::json!(NETWORKS));
        predictions_hold(&printed["engine"]);
    }
}
