//! Operator profiles: complete, attributed to the parts of a network, and only on request.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, LazyLock};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, Engine, NetworkFile, OperatorProfile};
use tandem::tensor::{HostTensor, TensorViewMut};
use tandem_export::automot::ExportOptions;
use tandem_export::automot::networks::NAMES;
use tandem_export::options::Precision;
use tandem_testkit::automot::{TINY, export, small_frames, synthesize};
use tempfile::TempDir;

/// A folder with the networks of the tiny checkpoint in two precisions.
struct Exports {
    folder: TempDir,
}

impl Exports {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let checkpoint = synthesize(TINY, 7, &folder.path().join("checkpoint"));
        for precision in [Precision::F32, Precision::Bf16Emulated] {
            let options = ExportOptions { precision, ..small_frames() };
            export(&checkpoint, &options, &folder.path().join(format!("{precision:?}")));
        }
        Self { folder }
    }

    fn engine(&self, precision: Precision) -> PathBuf {
        self.folder.path().join(format!("{precision:?}"))
    }
}

static EXPORTS: LazyLock<Exports> = LazyLock::new(Exports::new);

fn backend() -> OnnxRuntime {
    OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}")).unwrap()
}

fn load(backend: &OnnxRuntime, precision: Precision, network: &str) -> Arc<dyn Engine> {
    backend.load(&NetworkFile::read(&EXPORTS.engine(precision), network).unwrap()).unwrap()
}

/// Runs a network on zeros `times` times; returns the last outputs.
fn run(engine: &Arc<dyn Engine>, times: usize) -> Vec<HostTensor> {
    let contract = engine.contract();
    let zeros = |specs: &[tandem_export::contract::TensorSpec]| -> Vec<HostTensor> {
        specs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape)).collect()
    };
    let (inputs, mut outputs) = (zeros(&contract.inputs), zeros(&contract.outputs));
    let mut session = Arc::clone(engine).session();
    for _ in 0..times {
        let views: Vec<_> = inputs.iter().map(HostTensor::view).collect();
        let mut out: Vec<TensorViewMut<'_>> =
            outputs.iter_mut().map(HostTensor::view_mut).collect();
        session.run(&views, &mut out).unwrap();
    }
    outputs
}

/// Profiles a network of the tiny checkpoint in a new
/// folder; also returns the names of the files there.
fn measure(precision: Precision, network: &str, warm_up: u64) -> (OperatorProfile, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let backend = backend().with_operator_profile(&folder.path().join("profiles")).unwrap();
    let engine = load(&backend, precision, network);
    run(&engine, 5);
    let profile = engine.end_operator_profile(warm_up).unwrap().unwrap();
    (profile, names_in(&folder.path().join("profiles")))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Parts of a network in which operators must run.
fn expected_parts(network: &str) -> BTreeSet<String> {
    let numbered = |stem: &str, count| (0..count).map(|n| format!("{stem}.{n}")).collect();
    let layers: Vec<String> = numbered("layer", 4);
    let (named, numbers): (&[&str], Vec<String>) = match network {
        "vision" => (&["patch_embed", "merger", "deepstack", "deepstack.0", "deepstack.1"], {
            numbered("block", 3)
        }),
        "understanding" => (&["embed", "mask", "rope"], layers),
        "bev" => (
            &[
                "normalize",
                "tokens",
                "image.stem",
                "image.s1",
                "image.s2",
                "image.s3",
                "image.s4",
                "lidar.stem",
                "lidar.s1",
                "lidar.s2",
                "lidar.s3",
                "lidar.s4",
            ],
            numbered("fusion", 4),
        ),
        "action" => (
            &["embed", "mask", "rope", "norm", "head.route", "head.waypoints", "head.decision"],
            layers,
        ),
        other => panic!("{other} is not a network"),
    };
    named.iter().map(|name| name.to_string()).chain(numbers).collect()
}

#[test]
fn every_operator_runs_and_belongs_to_a_part() {
    for precision in [Precision::F32, Precision::Bf16Emulated] {
        for network in NAMES {
            let (profile, _) = measure(precision, network, 2);
            assert_eq!((profile.network.as_str(), profile.runs), (network, 3));
            assert!(!profile.cut_short && profile.resolution_ns == 1_000);
            for operator in &profile.operators {
                assert_eq!(operator.count, 3, "{network}: {operator:?}");
                assert!(operator.part.is_some(), "{network}: {operator:?}");
            }
            let mut found: BTreeSet<String> =
                profile.operators.iter().filter_map(|operator| operator.part.clone()).collect();
            if precision == Precision::Bf16Emulated {
                found.remove("inputs");
            }
            assert_eq!(found, expected_parts(network), "{precision:?}");
        }
    }
}

#[test]
fn parts_and_residual_add_up_to_the_runs() {
    for network in NAMES {
        let (profile, _) = measure(Precision::F32, network, 0);
        assert!(profile.run_total_ns > 0 && profile.residual_ns() >= 0, "{profile:?}");
        for rows in [profile.parts(), profile.layer_groups("layer", 2)] {
            let parts: u64 = rows.iter().map(|row| row.total_ns).sum();
            assert_eq!(parts.cast_signed() + profile.residual_ns(), profile.run_total_ns as i64);
            assert_eq!(
                rows.iter().map(|row| row.operators).sum::<usize>(),
                profile.operators.len()
            );
            assert!(rows.iter().all(|row| row.count == 5 * row.operators as u64));
        }
    }
}

#[test]
fn layers_come_in_order_and_in_groups() {
    for (network, order) in [
        ("understanding", vec!["embed", "mask", "rope", "layer.0-2", "layer.3"]),
        (
            "action",
            vec![
                "embed",
                "mask",
                "rope",
                "layer.0-2",
                "layer.3",
                "norm",
                "head.route",
                "head.waypoints",
                "head.decision",
            ],
        ),
    ] {
        let (profile, _) = measure(Precision::F32, network, 0);
        let rows = profile.layer_groups("layer", 3);
        let names: Vec<&str> = rows.iter().filter_map(|row| row.part.as_deref()).collect();
        assert_eq!(names, order);
    }
}

#[test]
fn profiling_leaves_only_the_library_profile() {
    let (_, files) = measure(Precision::F32, "action", 0);
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].starts_with("action.") && files[0].ends_with(".json"), "{files:?}");
}

#[test]
fn unmeasured_engine_leaves_no_profile() {
    let before = names_in(Path::new("."));
    let engine = load(&backend(), Precision::F32, "action");
    run(&engine, 2);
    assert!(engine.end_operator_profile(0).is_none());
    assert_eq!(names_in(Path::new(".")), before);
}

#[test]
fn measuring_changes_no_result() {
    let folder = TempDir::new().unwrap();
    let plain = run(&load(&backend(), Precision::F32, "action"), 1);
    let measured = backend().with_operator_profile(folder.path()).unwrap();
    let engine = load(&measured, Precision::F32, "action");
    let bytes = |outputs: &[HostTensor]| -> Vec<Vec<u8>> {
        outputs.iter().map(|output| output.view().bytes.to_vec()).collect()
    };
    assert_eq!(bytes(&run(&engine, 1)), bytes(&plain));
    assert_eq!(engine.end_operator_profile(0).unwrap().unwrap().runs, 1);
    assert!(engine.end_operator_profile(0).is_none());
    assert_eq!(bytes(&run(&engine, 1)), bytes(&plain), "outputs differ after the profile ended");
}

#[test]
fn profile_includes_runs_of_two_threads() {
    let folder = TempDir::new().unwrap();
    let measured = backend().with_operator_profile(folder.path()).unwrap();
    let engine = load(&measured, Precision::F32, "action");
    let begun = Barrier::new(3);
    let profile = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                run(&engine, 1);
                begun.wait();
                run(&engine, 30);
            });
        }
        begun.wait();
        engine.end_operator_profile(0).unwrap().unwrap()
    });
    assert!((2..=62).contains(&profile.runs), "{}", profile.runs);
    for operator in &profile.operators {
        assert_eq!(operator.count, profile.runs, "{operator:?}");
    }
}

#[test]
fn engine_that_never_ran_has_an_empty_profile() {
    let folder = TempDir::new().unwrap();
    let measured = backend().with_operator_profile(folder.path()).unwrap();
    let profile = load(&measured, Precision::F32, "bev").end_operator_profile(0).unwrap().unwrap();
    assert_eq!((profile.runs, profile.run_total_ns, profile.operators.len()), (0, 0, 0));
}

#[test]
fn missing_profile_is_an_error_with_its_name() {
    let folder = TempDir::new().unwrap();
    let measured = backend().with_operator_profile(folder.path()).unwrap();
    let engine = load(&measured, Precision::F32, "action");
    fs::remove_dir_all(folder.path()).unwrap();
    run(&engine, 1);
    let error = engine.end_operator_profile(0).unwrap().unwrap_err().to_string();
    assert!(error.contains("\"action\"") && error.contains("cannot read"), "{error}");
    let error = measured
        .load(&NetworkFile::read(&EXPORTS.engine(Precision::F32), "action").unwrap())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("cannot write") && error.contains("action."), "{error}");
}
