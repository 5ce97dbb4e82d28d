//! `tandem build` and its engine folders: results, resumed builds, and refused folders.

use super::command::{refused, run, text};
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, UNIX_EPOCH};
use tandem::engine::build::{BuildFolderError, BuildRequest, Progress, Report, build};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{
    Backend, BackendKind, BuildError, BuildJob, Builder, EngineFolder, FreeResources, NetworkFile,
    Prediction, Target, read_network,
};
use tandem::tensor::{DType, HostTensor};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::networks::NAMES;
use tandem_export::contract::TensorSpec;
use tandem_export::options::WeightStorage;
use tandem_testkit::automot::{SOAK, export, small_frames, synthesize};
use tempfile::TempDir;

/// A folder with a checkpoint, its networks and its engines.
struct Folders {
    root: TempDir,
}

impl Folders {
    fn new() -> Self {
        let folders = Self { root: tempfile::tempdir().unwrap() };
        synthesize(SOAK, 3, &folders.path("checkpoint"));
        folders.export();
        folders
    }

    /// Also builds the engines with the command.
    fn built() -> Self {
        let folders = Self::new();
        let output = folders.build(&[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        folders
    }

    fn export(&self) {
        // Links, so that a change of the checkpoint changes the folder.
        let options = ExportOptions { weights: WeightStorage::Link, ..small_frames() };
        let checkpoint = Checkpoint::open(&self.path("checkpoint")).unwrap();
        export(&checkpoint, &options, &self.networks());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn networks(&self) -> PathBuf {
        self.path("networks")
    }

    fn engines(&self) -> PathBuf {
        self.path("engines")
    }

    /// Runs `tandem build` on the networks.
    fn build(&self, more: &[&str]) -> Output {
        let (networks, engines) = (self.networks(), self.engines());
        let mut arguments = vec!["build", "--network", networks.to_str().unwrap()];
        arguments.extend(["--out", engines.to_str().unwrap()]);
        arguments.extend(more);
        run(&arguments)
    }

    /// Runs `tandem verify` on the engines, which loads and runs them all.
    fn verify(&self) -> Output {
        let (networks, engines) = (self.networks(), self.engines());
        let mut arguments = vec!["verify", "--prompts", "1", "--json"];
        arguments.extend(["--engine", engines.to_str().unwrap()]);
        arguments.extend(["--reference", networks.to_str().unwrap()]);
        run(&arguments)
    }

    fn record(&self) -> Value {
        serde_json::from_slice(&fs::read(self.engines().join("engine.json")).unwrap()).unwrap()
    }

    fn change_record(&self, change: impl FnOnce(&mut Value)) {
        let mut record = self.record();
        change(&mut record);
        fs::write(self.engines().join("engine.json"), record.to_string()).unwrap();
    }

    /// File of network `index` under the key `kind` (`engine`, `own_weights`) of the record.
    fn file(&self, index: usize, kind: &str) -> PathBuf {
        let record = self.record();
        self.engines().join(record["networks"][index][kind]["name"].as_str().unwrap())
    }

    /// Sorted names of the files in the engine folder.
    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.engines()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> =
            entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn cpu(prepack: bool) -> OnnxRuntime {
    let options = CpuOptions { prepack, ..CpuOptions::default() };
    OnnxRuntime::open(options, &mut |line| eprintln!("{line}")).unwrap()
}

#[test]
fn second_build_changes_nothing() {
    let folders = Folders::new();
    let output = folders.build(&["--json", "--target", "cpu", "--precision", "f32"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["built"], serde_json::json!(NAMES));
    assert_eq!(printed["engine"], folders.record());
    for network in folders.record()["networks"].as_array().unwrap() {
        let build = &network["build"];
        let predicted = |of: &str| build["predicted"][of].as_u64().unwrap();
        assert!(build["result_bytes"].as_u64().unwrap() > 0);
        assert!(
            build["result_bytes"].as_u64().unwrap()
                <= predicted("result_bytes") + predicted("scratch_bytes"),
            "{build}"
        );
        assert!(network["key"]["machine"].as_str().unwrap().starts_with(std::env::consts::ARCH));
    }
    assert!(!folders.listing().iter().any(|name| name.ends_with("partial")), "leftovers");
    let (listing, record) = (folders.listing(), folders.record());
    let output = folders.build(&["--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["built"], serde_json::json!([]));
    assert_eq!((folders.listing(), folders.record()), (listing, record));
}

/// Input values: small numbers, and integers that are valid for every input.
fn values(spec: &TensorSpec, seed: &mut u32) -> HostTensor {
    let mut next = || {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let count = spec.shape.iter().product::<usize>();
    match spec.dtype {
        DType::F32 => {
            let values: Vec<f32> = (0..count).map(|_| next()).collect();
            HostTensor::from_slice(&spec.shape, &values)
        }
        DType::I64 => HostTensor::from_slice(&spec.shape, &vec![1_i64; count]),
        other => HostTensor::zeros(other, &spec.shape),
    }
}

fn answers(backend: &dyn Backend, folder: &Path, network: &str) -> Vec<HostTensor> {
    let engine = backend.load(&read_network(folder, network).unwrap()).unwrap();
    let contract = engine.contract().clone();
    let mut seed = 1;
    let inputs: Vec<HostTensor> =
        contract.inputs.iter().map(|spec| values(spec, &mut seed)).collect();
    let mut outputs: Vec<HostTensor> =
        contract.outputs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape)).collect();
    let views: Vec<_> = inputs.iter().map(HostTensor::view).collect();
    let mut into: Vec<_> = outputs.iter_mut().map(HostTensor::view_mut).collect();
    engine.session().run(&views, &mut into).unwrap();
    outputs
}

#[test]
fn built_engines_match_their_networks_bit_for_bit() {
    let folders = Folders::built();
    // The library sums in another order if it packs matrices.
    let pairs = |prepack| NAMES.map(|network| (cpu(prepack), network));
    for (backend, network) in [false, true].into_iter().flat_map(pairs) {
        let engine = answers(&backend, &folders.engines(), network);
        let reference = answers(&backend, &folders.networks(), network);
        for (a, b) in engine.iter().zip(&reference) {
            assert_eq!(a.view().bytes, b.view().bytes, "{network}");
            assert!(a.view().bytes.iter().any(|&byte| byte != 0), "{network} returns zeros");
        }
    }
}

#[test]
fn built_engines_do_not_copy_weights() {
    let folders = Folders::built();
    let record = folders.record();
    let written =
        |index: usize| record["networks"][index]["build"]["result_bytes"].as_u64().unwrap();
    // All networks except the BEV encoder, which stores its convolutions in another layout.
    for index in [0, 1, 3] {
        assert_eq!(record["networks"][index]["own_weights"], Value::Null);
        assert!(written(index) < 50_000, "{} bytes of {}", written(index), NAMES[index]);
    }
    assert!(folders.file(2, "own_weights").exists());
}

#[test]
fn inspect_reports_whether_the_accuracy_record_is_current() {
    let folders = Folders::built();
    let output = folders.verify();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let inspect = |folder: &Path| -> Value {
        let output = run(&["inspect", folder.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = inspect(&folders.engines());
    assert_eq!(found["accuracy"]["is_current"], true);
    assert_eq!(found["accuracy"]["within_limits"], true);
    assert_eq!(found["latency"], Value::Null);
    assert_eq!(found["engine"], folders.record());
    let layers = found["networks"][1]["parts"].as_array().unwrap();
    let layers = layers.iter().find(|part| part["name"] == "layer.*").unwrap();
    assert_eq!(layers["count"], 2);
    assert!(layers["parameters"].as_u64().unwrap() > 10_000);

    let networks = inspect(&folders.networks());
    assert_eq!(networks["engine"], Value::Null);
    assert_eq!(networks["networks"], found["networks"], "the graphs are the same");

    // A changed record is another engine.
    folders.change_record(|record| record["networks"][0]["build"]["seconds"] = 9.0.into());
    assert_eq!(inspect(&folders.engines())["accuracy"]["is_current"], false);
    let page = run(&["inspect", folders.engines().to_str().unwrap()]);
    let page = text(&page.stdout);
    for fragment in ["engine folder", "GFLOP", "for other content", "understanding/keys.0"] {
        assert!(page.contains(fragment), "{fragment:?} is missing in: {page}");
    }
}

#[test]
fn profile_is_stored_with_the_engines_that_ran() {
    let folders = Folders::built();
    let out = folders.path("latency.json");
    let profile = |folder: &Path| {
        let [folder, out] = [folder, &out].map(|path| path.to_str().unwrap());
        let mut arguments = vec!["profile", "--engine", folder, "--out", out];
        arguments.extend(["--phases", "back-to-back", "--ticks", "3", "--warm-up", "1"]);
        let output = run(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let latency = || -> Value {
        let output = run(&["inspect", folders.engines().to_str().unwrap(), "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["latency"].clone()
    };
    profile(&folders.networks());
    assert!(!folders.networks().join("latency.json").exists(), "networks have no engine record");
    profile(&folders.engines());
    let certificate = folders.engines().join("latency.json");
    assert_eq!(fs::read(&certificate).unwrap(), fs::read(&out).unwrap());
    let file: Value = serde_json::from_slice(&fs::read(&certificate).unwrap()).unwrap();
    for network in folders.record()["networks"].as_array().unwrap() {
        let name = network["contract"]["network"].as_str().unwrap();
        assert_eq!(file["engine"]["built"][name], network["key"]);
    }
    assert_eq!(latency()["is_current"], true);
    folders.change_record(|record| record["networks"][1]["key"]["library"] = "another".into());
    assert_eq!(latency()["is_current"], false);
}

#[test]
fn built_engines_drive_a_route() {
    let folders = Folders::built();
    let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../routes/straight.xml");
    let (engines, results) = (folders.engines(), folders.path("results"));
    let output = run(&[
        "eval",
        "--routes",
        routes,
        "--driver",
        "automot",
        "--tick-cap",
        "12",
        "--engine",
        engines.to_str().unwrap(),
        "--out",
        results.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn damaged_and_foreign_engine_files_are_refused_by_name() {
    let folders = Folders::built();
    let (engine, weights) = (folders.file(0, "engine"), folders.file(2, "own_weights"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let original = fs::read(&engine).unwrap();

    fs::write(&engine, &original[..original.len() / 2]).unwrap();
    refused(&folders.verify(), &[&name(&engine), "truncated", "tandem build --network"]);
    flip(&weights, 4096);
    fs::write(&engine, &original).unwrap();
    refused(&folders.verify(), &[&name(&weights), "is not the file that was built"]);
    flip(&weights, 4096);
    fs::copy(folders.file(1, "engine"), &engine).unwrap();
    refused(&folders.verify(), &[&name(&engine), "another file"]);
    fs::write(&engine, vec![b'x'; original.len()]).unwrap();
    refused(&folders.verify(), &[&name(&engine), "damaged or from another folder"]);
    fs::remove_file(&engine).unwrap();
    refused(&folders.verify(), &[&name(&engine), "No such file", "tandem build --network"]);

    let inspected = run(&["inspect", folders.engines().to_str().unwrap()]);
    assert_eq!(inspected.status.code(), Some(1), "an unusable engine fails the check");
    assert!(text(&inspected.stdout).contains("cannot be used: cannot read"));

    // Only the damaged engine is rebuilt.
    let output = folders.build(&["--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["built"], serde_json::json!(["vision"]));
    assert!(folders.verify().status.success());
}

#[test]
fn invalid_engine_record_is_refused() {
    let folders = Folders::built();
    let path = folders.engines().join("engine.json");
    let original = fs::read(&path).unwrap();

    folders.change_record(|record| record["format"] = 7.into());
    refused(&folders.verify(), &["has format 7", "reads format 2", "build the folder again"]);
    fs::write(&path, &original[..original.len() - 9]).unwrap();
    refused(&folders.verify(), &["engine.json", "is not the record of an engine folder"]);
    fs::write(&path, &original).unwrap();
    folders.change_record(|record| record["networks"][0]["engine"]["name"] = "../x".into());
    refused(&folders.verify(), &["\"../x\"", "not a file name"]);
    fs::remove_file(&path).unwrap();
    refused(&folders.verify(), &["contains engines but no engine.json", "tandem build"]);
    assert!(folders.build(&[]).status.success());
    assert!(folders.verify().status.success());
}

#[test]
fn proposed_command_rebuilds_engines_of_another_machine() {
    let folders = Folders::built();
    let change = |key: &str, value: &str| {
        folders.change_record(|record| {
            for network in record["networks"].as_array_mut().unwrap() {
                network["key"][key] = value.into();
            }
        });
    };
    change("library", "ONNX Runtime 1.99.0");
    refused(&folders.verify(), &["library", "1.99.0"]);
    change("tandem", "0.0.1");
    refused(&folders.verify(), &["library", "tandem: built for \"0.0.1\""]);
    change("machine", "riscv64 vector");
    let error = refused(&folders.verify(), &["machine: built for \"riscv64 vector\", here is"]);
    let command = error.split('`').nth(1).unwrap();
    assert!(command.starts_with("tandem build --network "), "{command}");
    let output = run(&command.split(' ').skip(1).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(folders.verify().status.success());

    // Without the network folder, the engine folder is the source.
    change("machine", "riscv64 vector");
    let weights = folders.engines().join("weights.bin");
    let bytes = fs::read(&weights).unwrap();
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, bytes).unwrap();
    let elsewhere = folders.path("elsewhere");
    fs::rename(folders.networks(), &elsewhere).unwrap();
    let engines = folders.engines();
    let output = run(&[
        "verify",
        "--engine",
        engines.to_str().unwrap(),
        "--reference",
        elsewhere.to_str().unwrap(),
    ]);
    let error = refused(&output, &["machine"]);
    let command = error.split('`').nth(1).unwrap();
    let output = run(&command.split(' ').skip(1).collect::<Vec<_>>());
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
}

#[test]
fn moved_or_changed_weights_are_named() {
    let folders = Folders::built();
    let weights = folders.path("checkpoint").join("model.safetensors");
    let away = folders.path("away");
    fs::rename(&weights, &away).unwrap();
    refused(&folders.verify(), &["model.safetensors", "is missing", "tandem build"]);
    fs::rename(&away, &weights).unwrap();
    assert!(folders.verify().status.success());

    // A new modification time alone is accepted.
    let file = fs::OpenOptions::new().write(true).open(&weights).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    assert!(folders.verify().status.success());

    let checkpoint = Checkpoint::open(&folders.path("checkpoint")).unwrap();
    let entry = checkpoint.tensor("language_model.model.layers.0.self_attn.q_proj.weight").unwrap();
    flip(&weights, entry.offset + 4);
    refused(&folders.verify(), &["model.safetensors", "changed since the engine was built"]);

    let fragments = ["model.safetensors", "changed since the export", "tandem export --checkpoint"];
    refused(&folders.build(&[]), &fragments);
    folders.export();
    let output = folders.build(&["--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        printed["built"],
        serde_json::json!(["understanding"]),
        "other networks do not read this weight"
    );
    assert!(folders.verify().status.success());

    fs::write(&weights, b"short").unwrap();
    refused(&folders.verify(), &["changed since the engine was built", "now 5"]);
}

/// Changes the record to engines for a GPU that compute in `precision`.
fn pretend_gpu(folders: &Folders, precision: &str) {
    folders.change_record(|record| {
        for network in record["networks"].as_array_mut().unwrap() {
            let key = &mut network["key"];
            key["targets"] = serde_json::json!(["sm89"]);
            key["backend"] = "tensorrt-rtx".into();
            key["machine"] = Value::Null;
            key["precision"] = precision.into();
        }
    });
}

/// Runs the commands between the last two backticks of `error`.
fn run_proposed(error: &str) {
    let mut quoted = error.rsplit('`');
    let commands = quoted.nth(1).unwrap();
    for command in commands.split(" && ") {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(arguments[0], "tandem", "{command}");
        let output = run(&arguments[1..]);
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    }
}

#[test]
fn gpu_engines_on_a_cpu_propose_a_cpu_build() {
    for (precision, first) in [("f32", "tandem build --network"), ("bf16", "tandem export --check")]
    {
        let folders = Folders::built();
        pretend_gpu(&folders, precision);
        let fragments = ["built for \"sm89\"", "\"cpu\"", first, "--target cpu"];
        let error = refused(&folders.verify(), &fragments);
        assert!(!error.contains("tensorrt-rtx --target"), "a GPU build is proposed: {error}");
        let before = folders.record();
        run_proposed(&error);
        assert_eq!(folders.record(), before, "engines for the GPU changed");
        let (cpu, networks) = (folders.path("engines-cpu"), folders.networks());
        let arguments = ["verify", "--prompts", "1", "--engine", cpu.to_str().unwrap()];
        let output = run(&[&arguments[..], &["--reference", networks.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[test]
fn unavailable_targets_and_back_ends_name_the_available_ones() {
    let folders = Folders::new();
    refused(&folders.build(&["--target", "gpu"]), &["sm75, sm80, sm86, sm89, sm120, sm121"]);
    let rtx = |target| folders.build(&["--backend", "tensorrt-rtx", "--target", target]);
    refused(&rtx("sm90"), &["sm86", "TensorRT 11", "CUDA provider"]);
    refused(&rtx("8.7"), &["sm87", "sm86"]);
    refused(&folders.build(&["--target", "sm89"]), &["--backend tensorrt-rtx"]);
    refused(&folders.build(&["--precision", "bf16"]), &["compute in f32", "--precision bf16"]);
    refused(&folders.build(&["--precision", "fp16"]), &["compute in f32", "--precision f16"]);
    refused(&folders.build(&["--backend", "magic"]), &["onnxruntime, tensorrt-rtx, tensorrt"]);
    assert!(!folders.engines().exists());

    let out = folders.networks();
    let networks = out.to_str().unwrap();
    let output = run(&["build", "--network", networks, "--out", networks]);
    refused(&output, &["is not an engine folder", "--out"]);
    let nowhere = folders.path("nowhere");
    let output = run(&["build", "--network", nowhere.to_str().unwrap(), "--out", networks]);
    refused(&output, &["export.json", "tandem export"]);
}

/// ONNX Runtime with a callback before each build.
struct WithCallback<'a> {
    inner: OnnxRuntime,
    before: &'a (dyn Fn(&str) -> Result<(), BuildError> + 'a),
}

impl Builder for WithCallback<'_> {
    fn kind(&self) -> BackendKind {
        self.inner.kind()
    }

    fn library_version(&self) -> String {
        self.inner.library_version()
    }

    fn machine(&self, targets: &[Target]) -> Option<String> {
        self.inner.machine(targets)
    }

    fn predict(&self, file: &NetworkFile, targets: &[Target]) -> Result<Prediction, BuildError> {
        self.inner.predict(file, targets)
    }

    fn build(&self, job: &BuildJob<'_>) -> Result<(), BuildError> {
        (self.before)(&job.file.contract.network)?;
        self.inner.build(job)
    }
}

/// Builds with the library; calls `before` before each network.
fn build_with_callback(
    folders: &Folders,
    available: FreeResources,
    cancel: &Arc<AtomicBool>,
    before: &dyn Fn(&str) -> Result<(), BuildError>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, BuildFolderError> {
    let request = BuildRequest {
        network: &folders.networks(),
        out: &folders.engines(),
        targets: &[Target::Cpu],
        precision: None,
        hashes: Some(folders.path("hashes.json")),
        available: &|_| available,
        steps: Arc::new(|_| {}),
        cancel,
    };
    build(&request, &WithCallback { inner: cpu(true), before }, progress)
}

const PLENTY: FreeResources = FreeResources { memory_bytes: None, disk_bytes: None };

#[test]
fn too_little_disk_or_memory_is_refused_before_building() {
    let folders = Folders::new();
    let no_cancel = Arc::new(AtomicBool::new(false));
    let must_not_run = |_: &str| -> Result<(), BuildError> { panic!("the build was started") };
    let attempt = |memory_bytes, disk_bytes| {
        let available = FreeResources { memory_bytes, disk_bytes };
        let result =
            build_with_callback(&folders, available, &no_cancel, &must_not_run, &mut |_| {});
        result.err().unwrap()
    };
    let error = attempt(None, Some(20_000_000));
    let BuildFolderError::Disk { needed_mb, available_mb, .. } = error else { panic!("{error}") };
    // Convolutions of the BEV encoder are larger if they are widened for AVX-512.
    #[cfg(target_arch = "x86_64")]
    let is_widened = std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    let is_widened = false;
    let expected_mb = if is_widened { 88.0 } else { 77.0 };
    assert_eq!((needed_mb.round(), available_mb.round()), (expected_mb, 20.0));
    let error = attempt(Some(1_000_000), None);
    let BuildFolderError::Memory { available_mb, .. } = error else { panic!("{error}") };
    assert_eq!(available_mb.round(), 1.0);
    assert!(!folders.engines().join("engine.json").exists());
}

#[test]
fn killed_build_is_resumed() {
    let folders = Folders::new();
    let no_cancel = Arc::new(AtomicBool::new(false));
    let fail_at_bev = |network: &str| {
        if network == "bev" { Err(BuildError::Canceled) } else { Ok(()) }
    };
    assert!(build_with_callback(&folders, PLENTY, &no_cancel, &fail_at_bev, &mut |_| {}).is_err());
    // State after a kill: intermediate and partial files, no record.
    assert!(folders.engines().join("scratch.partial").is_dir());
    fs::write(folders.engines().join("scratch.partial").join("optimized.onnx"), "half").unwrap();
    fs::write(folders.engines().join(".engine.json.abcdefghijkl.part"), "{\"form").unwrap();
    assert!(EngineFolder::read(&folders.engines()).is_err(), "not finished");

    let built = RefCell::new(Vec::new());
    let count = |network: &str| {
        built.borrow_mut().push(network.to_owned());
        Ok(())
    };
    let report = build_with_callback(&folders, PLENTY, &no_cancel, &count, &mut |_| {}).unwrap();
    assert_eq!(*built.borrow(), ["bev", "action"]);
    assert_eq!(report.built, ["bev", "action"]);
    let listing = folders.listing();
    let endings = [".partial", ".part", ".built.json"];
    let left = |name: &&String| endings.iter().any(|ending| name.ends_with(ending));
    assert_eq!(listing.iter().find(left), None, "{listing:?}");
    assert!(folders.verify().status.success());
}

#[test]
fn interrupted_build_keeps_finished_engines() {
    let folders = Folders::new();
    let cancel = Arc::new(AtomicBool::new(false));
    let interrupt = |network: &str| {
        cancel.store(network == "understanding", Ordering::Relaxed);
        Ok(())
    };
    let error =
        build_with_callback(&folders, PLENTY, &cancel, &interrupt, &mut |_| {}).err().unwrap();
    assert!(matches!(error, BuildFolderError::Build(BuildError::Canceled)), "{error}");
    cancel.store(false, Ordering::Relaxed);
    let mut kept = Vec::new();
    let no_op = |_: &str| Ok(());
    build_with_callback(&folders, PLENTY, &cancel, &no_op, &mut |progress| {
        if let Progress::Kept { network } = progress {
            kept.push(network.to_owned());
        }
    })
    .unwrap();
    assert!(kept.contains(&"vision".to_owned()), "{kept:?}");
}

#[test]
fn concurrent_second_build_waits_for_the_first() {
    let folders = Folders::new();
    let no_cancel = Arc::new(AtomicBool::new(false));
    let (started, has_started): (SyncSender<()>, Receiver<()>) = sync_channel(8);
    let (waits, is_waiting): (SyncSender<String>, Receiver<String>) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_waiting = is_waiting;
            // The first network is built only after the other build waits.
            let before = |network: &str| {
                if network == "vision" {
                    started.send(()).unwrap();
                    let holder = is_waiting.recv().unwrap();
                    assert_eq!(holder, format!("process {}", std::process::id()));
                }
                Ok(())
            };
            let report =
                build_with_callback(&folders, PLENTY, &no_cancel, &before, &mut |_| {}).unwrap();
            assert_eq!(report.built.len(), NAMES.len());
        });
        // Dropped here if this side fails, so that the other side does not wait forever.
        let waits = waits;
        has_started.recv().unwrap();
        let must_not_run = |_: &str| -> Result<(), BuildError> { panic!("built twice") };
        let report =
            build_with_callback(&folders, PLENTY, &no_cancel, &must_not_run, &mut |progress| {
                if let Progress::Waiting { holder } = progress {
                    waits.send(holder.to_owned()).unwrap();
                }
            });
        assert_eq!(report.unwrap().built, [""; 0]);
    });
}

#[test]
fn cached_hashes_are_not_recomputed() {
    let folders = Folders::new();
    let no_cancel = Arc::new(AtomicBool::new(false));
    let hashed = |folders: &Folders| {
        let mut hashed = 0;
        let no_op = |_: &str| Ok(());
        build_with_callback(folders, PLENTY, &no_cancel, &no_op, &mut |progress| {
            hashed += usize::from(matches!(progress, Progress::Hashing { .. }));
        })
        .unwrap();
        hashed
    };
    assert!(hashed(&folders) > 0);
    assert_eq!(hashed(&folders), 0);
    let weights = folders.path("checkpoint").join("model.safetensors");
    let file = fs::OpenOptions::new().write(true).open(&weights).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    assert!(hashed(&folders) > 0);
}
