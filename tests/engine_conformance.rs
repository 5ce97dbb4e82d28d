//! Conformance of every back end: contracts are checked, memory is the caller's, runs do not
//! allocate.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails here")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tandem::device::{
    Counter, Device, DeviceError, DeviceTensor, Emulation, ExpertStreams, HostDevice, Object,
};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{
    Backend, BuildError, BuildJob, BuildStep, Builder, BuiltNetwork, Engine, Key, LoadError,
    NetworkFile, NetworkFileError, Session, SessionRunError, StepListener, Target,
};
use tandem::tensor::{DType, HostTensor};
use tandem_export::contract::{Contract, ContractError, FORMAT, TensorSpec};
use tandem_export::onnx::{
    AttributeProto, DataLocation, DataType, GraphProto, ModelProto, NodeProto, OPSET,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use tandem_export::options::Precision;
use tandem_testkit::allocations::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const ROWS: usize = 3;
const WIDTH: usize = 4;

/// Writes a network `y = x · wᵀ` whose weight `w` is in an external file at an odd offset.
fn write_network(folder: &Path) {
    let weights: Vec<f32> = (0..WIDTH * WIDTH).map(|i| i as f32).collect();
    let mut file = vec![b'#'; 13];
    file.extend(weights.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(folder.join("w.bin"), &file).unwrap();
    let entry = |key: &str, value: String| StringStringEntryProto::new(key, value);
    let weight = TensorProto {
        dims: vec![WIDTH as i64; 2],
        data_type: Some(DataType::Float as i32),
        name: Some("w".into()),
        external_data: vec![
            entry("location", "w.bin".into()),
            entry("offset", "13".into()),
            entry("length", (4 * weights.len()).to_string()),
        ],
        data_location: Some(DataLocation::External as i32),
        ..TensorProto::default()
    };
    let node = NodeProto {
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        name: Some("gemm".into()),
        op_type: Some("Gemm".into()),
        attribute: vec![AttributeProto::int("transB", 1)],
    };
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(OPSET) }],
        graph: Some(GraphProto {
            node: vec![node],
            name: Some("toy".into()),
            initializer: vec![weight],
            input: vec![ValueInfoProto::tensor("x", DType::F32, &[ROWS, WIDTH])],
            output: vec![ValueInfoProto::tensor("y", DType::F32, &[ROWS, WIDTH])],
            value_info: vec![],
        }),
        ..ModelProto::default()
    };
    let bytes = prost::Message::encode_to_vec(&model);
    fs::write(folder.join("toy.onnx"), &bytes).unwrap();
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![ROWS, WIDTH],
        meaning: "rows".into(),
    };
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
    write_contract(
        folder,
        &Contract {
            format: FORMAT,
            network: "toy".into(),
            model: "test".into(),
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            sizes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            graph_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    );
}

fn write_contract(folder: &Path, contract: &Contract) {
    fs::write(folder.join("toy.json"), serde_json::to_vec(contract).unwrap()).unwrap();
}

fn change_contract(folder: &Path, change: impl FnOnce(&mut Contract)) {
    let mut contract = NetworkFile::read(folder, "toy").unwrap().contract;
    change(&mut contract);
    write_contract(folder, &contract);
}

/// Tests of one back end on host memory.
macro_rules! conformance {
    ($name:ident, $backend:expr) => {
        mod $name {
            use super::*;

            fn load(folder: &Path) -> Result<Arc<dyn Engine>, LoadError> {
                $backend.load(&NetworkFile::read(folder, "toy").unwrap())
            }

            fn toy() -> (tempfile::TempDir, Arc<dyn Engine>) {
                let folder = tempfile::tempdir().unwrap();
                write_network(folder.path());
                let engine = load(folder.path()).unwrap();
                (folder, engine)
            }

            fn input(first: f32) -> HostTensor {
                let values: Vec<f32> = (0..ROWS * WIDTH).map(|i| first + i as f32).collect();
                HostTensor::from_slice(&[ROWS, WIDTH], &values)
            }

            fn expected(x: &HostTensor) -> Vec<f32> {
                let x = x.as_slice::<f32>();
                (0..ROWS * WIDTH)
                    .map(|i| {
                        (0..WIDTH)
                            .map(|k| x[i / WIDTH * WIDTH + k] * (i % WIDTH * WIDTH + k) as f32)
                            .sum()
                    })
                    .collect()
            }

            #[test]
            fn external_weights_are_read_from_their_file() {
                let (_folder, engine) = toy();
                let (x, mut y) = (input(1.0), HostTensor::zeros(DType::F32, &[ROWS, WIDTH]));
                engine.session().run(&[x.view()], &mut [y.view_mut()]).unwrap();
                assert_eq!(y.as_slice::<f32>(), expected(&x));
            }

            #[test]
            fn run_reads_the_memory_it_is_given() {
                let (_folder, engine) = toy();
                let mut session = engine.session();
                // More buffers than a session keeps descriptors for.
                let inputs: Vec<HostTensor> = (0..40).map(|i| input(i as f32)).collect();
                for x in inputs.iter().chain(&inputs) {
                    let mut y = HostTensor::zeros(DType::F32, &[ROWS, WIDTH]);
                    session.run(&[x.view()], &mut [y.view_mut()]).unwrap();
                    assert_eq!(y.as_slice::<f32>(), expected(x));
                }
            }

            #[test]
            fn runs_do_not_allocate() {
                let (_folder, engine) = toy();
                let mut session = engine.session();
                let slots = [input(0.0), input(5.0), input(9.0)];
                let mut y = HostTensor::zeros(DType::F32, &[ROWS, WIDTH]);
                let mut run =
                    |x: &HostTensor| session.run(&[x.view()], &mut [y.view_mut()]).unwrap();
                slots.iter().for_each(&mut run);
                let before = allocations();
                for _ in 0..10 {
                    slots.iter().for_each(&mut run);
                }
                assert_eq!(allocations() - before, 0);
                // New memory costs the library a descriptor, which our allocator does not see.
                let fresh = input(3.0);
                let before = allocations();
                run(&fresh);
                assert_eq!(allocations() - before, 0, "new memory");
            }

            #[test]
            fn two_sessions_run_at_once() {
                let (_folder, engine) = toy();
                std::thread::scope(|scope| {
                    for first in [1.0, 100.0] {
                        let engine = Arc::clone(&engine);
                        scope.spawn(move || {
                            let mut session = engine.session();
                            let (x, mut y) =
                                (input(first), HostTensor::zeros(DType::F32, &[ROWS, WIDTH]));
                            for _ in 0..50 {
                                session.run(&[x.view()], &mut [y.view_mut()]).unwrap();
                                assert_eq!(y.as_slice::<f32>(), expected(&x));
                            }
                        });
                    }
                });
            }

            #[test]
            fn tensor_of_wrong_shape_or_type_is_refused() {
                let (_folder, engine) = toy();
                let mut session = engine.session();
                let mut y = HostTensor::zeros(DType::F32, &[ROWS, WIDTH]);
                let wide = HostTensor::zeros(DType::F32, &[ROWS, WIDTH + 1]);
                let error = session.run(&[wide.view()], &mut [y.view_mut()]).unwrap_err();
                assert!(matches!(error, SessionRunError::Tensor { .. }), "{error}");
                let integers = HostTensor::zeros(DType::I64, &[ROWS, WIDTH]);
                let error = session.run(&[integers.view()], &mut [y.view_mut()]).unwrap_err();
                let is_i64 =
                    matches!(error, SessionRunError::Tensor { found_dtype: DType::I64, .. });
                assert!(is_i64, "{error}");
                let error = session.run(&[], &mut [y.view_mut()]).unwrap_err();
                assert!(
                    matches!(error, SessionRunError::Count { expected: 1, found: 0, .. }),
                    "{error}"
                );
            }

            #[test]
            fn graph_that_contradicts_its_contract_is_refused() {
                let (folder, _) = toy();
                change_contract(folder.path(), |contract| {
                    contract.outputs[0].shape = vec![ROWS, 9]
                });
                let error = load(folder.path()).err().unwrap();
                let LoadError::Contract { what: "output", name, expected, .. } = &error else {
                    panic!("{error}")
                };
                assert!(name == "y" && expected.contains("[3, 9]"), "{error}");
                write_network(folder.path());
                change_contract(folder.path(), |contract| contract.inputs[0].name = "z".into());
                let error = load(folder.path()).err().unwrap();
                let LoadError::Contract { what: "input", name, .. } = &error else {
                    panic!("{error}")
                };
                assert_eq!(name, "z");
            }

            #[test]
            fn short_or_missing_weight_file_is_refused() {
                let (folder, _) = toy();
                fs::write(folder.path().join("w.bin"), [0; 20]).unwrap();
                let error = load(folder.path()).err().unwrap();
                assert!(matches!(error, LoadError::Weight { to: 77, length: 20, .. }), "{error}");
                fs::remove_file(folder.path().join("w.bin")).unwrap();
                let error = load(folder.path()).err().unwrap();
                assert!(matches!(error, LoadError::WeightFile { .. }), "{error}");
            }
        }
    };
}

/// A device with a back end that runs on it.
struct Place {
    device: Arc<dyn Device>,
    streams: ExpertStreams,
    backend: Box<dyn Backend>,
}

/// Tests of runs that are enqueued on a stream, for one
/// back end on one device. They pass without the device.
macro_rules! on_a_device {
    ($name:ident, $place:expr) => {
        mod $name {
            use super::*;

            struct Setup {
                _folder: tempfile::TempDir,
                session: Box<dyn Session>,
                device: Arc<dyn Device>,
                streams: ExpertStreams,
            }

            fn setup() -> Option<Setup> {
                let Place { device, streams, backend } = $place?;
                let folder = tempfile::tempdir().unwrap();
                write_network(folder.path());
                let file = NetworkFile::read(folder.path(), "toy").unwrap();
                let session = backend.load(&file).unwrap().session();
                Some(Setup { _folder: folder, session, device, streams })
            }

            /// Tensor on the device with the values `first`, `first + 1`, ….
            fn tensor(device: &dyn Device, first: f32) -> DeviceTensor {
                let values: Vec<f32> = (0..ROWS * WIDTH).map(|i| first + i as f32).collect();
                let mut tensor = DeviceTensor::zeros(device, DType::F32, &[ROWS, WIDTH]).unwrap();
                tensor.set(device, &HostTensor::from_slice(&[ROWS, WIDTH], &values)).unwrap();
                tensor
            }

            /// Output of the network for the input `tensor(first)`.
            fn expected(first: f32) -> Vec<f32> {
                let x = |row: usize, k: usize| first + (row * WIDTH + k) as f32;
                let y = |i: usize| {
                    (0..WIDTH).map(|k| x(i / WIDTH, k) * (i % WIDTH * WIDTH + k) as f32).sum()
                };
                (0..ROWS * WIDTH).map(y).collect()
            }

            fn values(device: &dyn Device, tensor: &DeviceTensor) -> Vec<f32> {
                tensor.to_host(device).unwrap().as_slice().to_vec()
            }

            #[test]
            fn runs_on_one_stream_are_ordered() {
                let Some(Setup { mut session, device, streams, .. }) = setup() else { return };
                let stream = &*streams.fast;
                let x = tensor(&*device, 1.0);
                let [mut once, mut twice] = [0.0; 2].map(|_| tensor(&*device, 0.0));
                session.enqueue(stream, &[x.view()], &[once.view_mut()]).unwrap();
                session.enqueue(stream, &[once.view()], &[twice.view_mut()]).unwrap();
                stream.synchronize().unwrap();
                let first = expected(1.0);
                assert_eq!(values(&*device, &once), first);
                let y = |i: usize| -> f32 {
                    let row = &first[i / WIDTH * WIDTH..];
                    (0..WIDTH).map(|k| row[k] * (i % WIDTH * WIDTH + k) as f32).sum()
                };
                assert_eq!(values(&*device, &twice), (0..ROWS * WIDTH).map(y).collect::<Vec<_>>());
            }

            #[test]
            fn slots_are_reused_in_any_order() {
                let Some(Setup { mut session, device, streams, .. }) = setup() else { return };
                let slots = [0.0, 50.0, 900.0].map(|first| (first, tensor(&*device, first)));
                let mut y = tensor(&*device, 0.0);
                for round in 0..12 {
                    let (first, x) = &slots[round * round % 3];
                    session.enqueue(&*streams.fast, &[x.view()], &[y.view_mut()]).unwrap();
                    streams.fast.synchronize().unwrap();
                    assert_eq!(values(&*device, &y), expected(*first), "round {round}");
                }
            }

            #[test]
            fn memory_of_a_run_lives_until_it_completes() {
                let Some(Setup { mut session, device, streams, .. }) = setup() else { return };
                let mut y = tensor(&*device, 0.0);
                for first in 0..40 {
                    let x = tensor(&*device, first as f32);
                    session.enqueue(&*streams.fast, &[x.view()], &[y.view_mut()]).unwrap();
                    drop(x);
                    streams.fast.synchronize().unwrap();
                    assert_eq!(values(&*device, &y), expected(first as f32));
                }
            }

            #[test]
            fn runs_on_bound_memory_do_not_allocate() {
                let Some(Setup { mut session, device, streams, .. }) = setup() else { return };
                let slots = [0.0, 50.0, 900.0].map(|first| tensor(&*device, first));
                let mut y = tensor(&*device, 0.0);
                let mut run = |x: &DeviceTensor| {
                    session.enqueue(&*streams.fast, &[x.view()], &[y.view_mut()]).unwrap();
                    streams.fast.synchronize().unwrap();
                };
                slots.iter().for_each(&mut run);
                let before = (allocations(), device.counts());
                (0..10).for_each(|_| slots.iter().for_each(&mut run));
                assert_eq!(allocations() - before.0, 0);
                assert_eq!((device.counts() - before.1)[Counter::Allocations], 0);
            }

            #[test]
            fn captured_network_reads_current_memory() {
                let Some(Setup { mut session, device, streams, .. }) = setup() else { return };
                let Some(runs_before) = session.runs_before_capture() else { return };
                let stream = &*streams.fast;
                let (mut x, mut y) = (tensor(&*device, 0.0), tensor(&*device, 0.0));
                for _ in 0..runs_before {
                    session.enqueue(stream, &[x.view()], &[y.view_mut()]).unwrap();
                    stream.synchronize().unwrap();
                }
                stream.begin_capture().unwrap();
                session.enqueue(stream, &[x.view()], &[y.view_mut()]).unwrap();
                let graph = stream.end_capture().unwrap();
                for first in [3.0, 7.0] {
                    x.set(&*device, &tensor(&*device, first).to_host(&*device).unwrap()).unwrap();
                    stream.launch(&graph).unwrap();
                    stream.synchronize().unwrap();
                    assert_eq!(values(&*device, &y), expected(first));
                }
            }

            #[test]
            fn tensors_of_wrong_contract_or_device_are_refused() {
                let Some(Setup { mut session, device, streams, .. }) = setup() else { return };
                let stream = &*streams.fast;
                let (x, mut y) = (tensor(&*device, 0.0), tensor(&*device, 0.0));
                let zeros = |dtype, width| DeviceTensor::zeros(&*device, dtype, &[ROWS, width]);
                let wide = zeros(DType::F32, WIDTH + 1).unwrap();
                let error = session.enqueue(stream, &[wide.view()], &[y.view_mut()]).unwrap_err();
                assert!(matches!(error, SessionRunError::Tensor { .. }), "{error}");
                let integers = zeros(DType::I64, WIDTH).unwrap();
                let error =
                    session.enqueue(stream, &[integers.view()], &[y.view_mut()]).unwrap_err();
                let is_i64 = matches!(error, SessionRunError::Tensor { found_dtype: DType::I64, .. });
                assert!(is_i64, "{error}");
                let error = session.enqueue(stream, &[x.view()], &[]).unwrap_err();
                assert!(matches!(error, SessionRunError::Count { expected: 1, found: 0, .. }), "{error}");
                let other = HostDevice::emulating(Emulation::default());
                let theirs = tensor(&other, 0.0);
                let error = session.enqueue(stream, &[theirs.view()], &[y.view_mut()]).unwrap_err();
                let source = DeviceError::Foreign(Object::Buffer);
                assert!(matches!(error, SessionRunError::Device { source: s, .. } if s == source));
            }
        }
    };
}

/// ONNX Runtime on the CPU.
fn cpu() -> OnnxRuntime {
    // A process loads one ONNX Runtime, and the GPU's also runs the CPU provider, so it is loaded
    // first. If it cannot be opened, the GPU tests fail and the CPU tests load their own.
    #[cfg(feature = "cuda")]
    let _gpu = gpu::open().inspect_err(|error| eprintln!("no provider for the GPU: {error}"));
    OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}")).unwrap()
}

fn on_the_host(device: HostDevice, backend: impl Backend + 'static) -> Option<Place> {
    let streams = device.streams(None).unwrap();
    Some(Place { device: Arc::new(device), streams, backend: Box::new(backend) })
}

fn emulated() -> HostDevice {
    HostDevice::emulating(Emulation::default())
}

on_a_device!(onnxruntime_cpu_on_the_host, on_the_host(HostDevice::new(), cpu()));
on_a_device!(onnxruntime_cpu_emulated, on_the_host(emulated(), cpu()));
on_a_device!(onnxruntime_cpu_built_emulated, on_the_host(emulated(), BuiltFirst(cpu())));

#[cfg(feature = "cuda")]
mod gpu {
    use super::Place;
    use std::sync::Arc;
    use tandem::device::Device;
    use tandem::device::cuda::CudaDevice;
    use tandem::engine::onnxruntime::{CudaOptions, OnnxRuntimeCuda, OpenError};

    /// Opens the first GPU with ONNX Runtime's CUDA provider. Returns `None` without a GPU.
    pub(super) fn open() -> Result<Option<Place>, OpenError> {
        let device = match CudaDevice::open(0) {
            Ok(device) => device,
            Err(error) => {
                eprintln!("SKIPPED on a GPU: {error}");
                return Ok(None);
            }
        };
        let streams = device.streams(None)?;
        let (options, stream) = (CudaOptions::default(), Arc::clone(&streams.fast));
        let mut progress = |line: &str| eprintln!("{line}");
        let backend = OnnxRuntimeCuda::open(device.clone(), stream, options, &mut progress)?;
        Ok(Some(Place { device: Arc::new(device), streams, backend: Box::new(backend) }))
    }
}

#[cfg(feature = "cuda")]
on_a_device!(onnxruntime_on_a_gpu, gpu::open().unwrap());

conformance!(onnxruntime_cpu, cpu());

/// Back end that builds each network before loading it.
struct BuiltFirst(OnnxRuntime);

impl Backend for BuiltFirst {
    fn name(&self) -> String {
        self.0.name()
    }

    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError> {
        let scratch = tempfile::tempdir().unwrap();
        let engine = scratch.path().join("toy.engine");
        let targets = vec![Target::Cpu];
        let job = BuildJob {
            file,
            targets: &targets,
            engine: &engine,
            weights: &file.folder.join("own.bin"),
            weights_name: "own.bin",
            layers: &scratch.path().join("layers.json"),
            steps: &(Arc::new(|_: BuildStep<'_>| {}) as StepListener),
            cancel: &Arc::new(AtomicBool::new(false)),
        };
        match self.0.build(&job) {
            Err(BuildError::Load(error)) => return Err(error),
            built => built.unwrap(),
        }
        let key = Key {
            graph_sha256: file.contract.graph_sha256.clone(),
            weights_sha256: String::new(),
            machine: self.0.machine(&targets),
            targets,
            backend: self.0.kind(),
            library: self.0.library_version(),
            precision: Precision::F32,
            tandem: env!("CARGO_PKG_VERSION").into(),
        };
        let bytes = fs::read(&engine).unwrap();
        self.0.load(&NetworkFile {
            folder: file.folder.clone(),
            contract: file.contract.clone(),
            graph: file.graph.clone(),
            built: Some(BuiltNetwork { key, bytes, rebuild: None, rebuild_for_cpu: None }),
        })
    }
}

conformance!(onnxruntime_cpu_built, BuiltFirst(cpu()));

#[test]
fn damaged_graph_is_refused_before_the_library_loads_it() {
    let folder = tempfile::tempdir().unwrap();
    write_network(folder.path());
    let path = folder.path().join("toy.onnx");
    let mut graph = fs::read(&path).unwrap();
    graph[40] ^= 1;
    fs::write(&path, graph).unwrap();
    let error = NetworkFile::read(folder.path(), "toy").err().unwrap();
    assert!(matches!(error, NetworkFileError::Hash { .. }), "{error}");
}

#[test]
fn contract_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_network(folder.path());
    change_contract(folder.path(), |contract| contract.format = FORMAT + 1);
    let error = NetworkFile::read(folder.path(), "toy").err().unwrap();
    assert!(
        matches!(error, NetworkFileError::Contract { source: ContractError::Format { .. }, .. }),
        "{error}"
    );
}

#[test]
fn missing_network_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = NetworkFile::read(folder.path(), "toy").err().unwrap().to_string();
    assert!(error.contains("toy.json") && error.contains("tandem export"), "{error}");
}
