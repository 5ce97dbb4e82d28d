//! ONNX Runtime back end for the CPU.
//!
//! Weight files are memory-mapped and passed to the library by address, so that loading copies only
//! the matrices that are worth packing, and engines of one checkpoint share its pages.

use super::error::SessionError;
use super::library::{GPU_LIBRARY, LIBRARY};
use super::packing::Matrices;
use super::parts::Parts;
use super::profile::{ProfileFiles, Profiling};
use super::raw::MAX_RANK;
use super::session::CpuEngine;
use super::telemetry;
use super::weights::Weights;
use super::widen;
use crate::engine::library::{self, LibraryError, LibrarySearch};
use crate::engine::target::cpu_features;
use crate::engine::{
    Backend, BackendKind, BuiltNetwork, Engine, Key, LoadError, MAX_TENSORS, NetworkFile, Target,
};
use crate::sync::lock;
use crate::tensor::DType;
use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, ValueType};
use prost::Message;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tandem_export::contract::Contract;
use tandem_export::onnx::ModelProto;

/// Options of engines on the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuOptions {
    /// Number of threads of one run, the calling thread included.
    pub threads: usize,
    /// Copies matrices into the library's packed layout at load, where faster runs justify the memory.
    pub prepack: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { threads: 1, prepack: true }
    }
}

/// ONNX Runtime on the CPU of this machine.
pub struct OnnxRuntime {
    environment: ort::environment::Environment,
    library: PathBuf,
    options: CpuOptions,
    /// Cores of the worker threads; empty if the library chooses.
    worker_cores: Vec<usize>,
    /// Folder for operator profiles, if engines measure their operators.
    profiles: Option<PathBuf>,
}

/// The library of this process, which can be loaded only once.
static ENVIRONMENT: Mutex<Option<(ort::environment::Environment, PathBuf)>> = Mutex::new(None);

/// Error returned when ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(
        "cannot use {path:?} for the GPU: this process already uses {loaded:?}; open the GPU library \
         first, which also supports the CPU"
    )]
    Second { path: PathBuf, loaded: PathBuf },
    #[error(
        "{path:?} has no CUDA provider ({missing}); set {} to the library of the package {} {}, in the \
         folder with the package's other libraries",
        GPU_LIBRARY.variable,
        GPU_LIBRARY.package,
        GPU_LIBRARY.version
    )]
    NoProvider { path: PathBuf, missing: String },
    #[error(
        "cannot load {name} ({reason}); the CUDA provider needs cuDNN 9 for CUDA 13: install it, or add \
         its folder to LD_LIBRARY_PATH"
    )]
    NoCudnn { name: String, reason: String },
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    #[error(
        "ONNX Runtime would send telemetry: start the program with {}=1 in its environment",
        telemetry::VARIABLE
    )]
    Telemetry,
    #[error(
        "cannot use the ONNX Runtime library {path:?}: {reason}; version 1.{} or later is needed: set \
         {} to another file, or unset it and delete the copy in tandem's cache folder, and tandem \
         fetches the library",
        ort::sys::ORT_API_VERSION,
        LIBRARY.variable
    )]
    Load { path: PathBuf, reason: String },
}

/// Returns the library of this process, and on the first call loads it from the path that `find`
/// returns. The GPU library also supports the CPU.
pub(super) fn environment(
    find: impl FnOnce() -> Result<PathBuf, LibraryError>,
) -> Result<(ort::environment::Environment, PathBuf), OpenError> {
    let mut slot = lock(&ENVIRONMENT);
    if let Some(loaded) = &*slot {
        return Ok(loaded.clone());
    }
    if !telemetry::is_off() {
        return Err(OpenError::Telemetry);
    }
    let path = find()?;
    let load = |reason: String| OpenError::Load { path: path.clone(), reason };
    let environment = ort::init_from(&path)
        .map_err(|error| load(error.to_string()))?
        .with_name("tandem")
        .with_telemetry(false)
        .build()
        .map_err(|error| load(error.to_string()))?;
    // Errors are returned as well, so they need not be logged.
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    Ok(slot.insert((environment, path)).clone())
}

impl OnnxRuntime {
    /// Finds or fetches the library and loads it, on the first call of the process. Fails if the
    /// library cannot be found, fetched or loaded.
    pub fn open(options: CpuOptions, progress: &mut dyn FnMut(&str)) -> Result<Self, OpenError> {
        let (environment, library) = environment(|| {
            let (path, _) =
                library::find_or_fetch(&LibrarySearch::from_environment(LIBRARY), progress)?;
            Ok(path)
        })?;
        Ok(Self { environment, library, options, worker_cores: Vec::new(), profiles: None })
    }

    /// Pins the worker threads of networks loaded later to `cores`; the calling thread's affinity is
    /// unchanged. The library reports no errors: `cores` must be available to the process.
    #[must_use]
    pub fn with_worker_cores(self, cores: Vec<usize>) -> Self {
        Self { worker_cores: cores, ..self }
    }

    /// Attaches the library's profiler to engines loaded later, until
    /// [`Engine::end_operator_profile`]. The profiles remain in `folder`, which is created if needed:
    /// one file per engine, which trace viewers open.
    ///
    /// Profiled runs are slower by microseconds per operator. Fails if the folder cannot be
    /// created.
    pub fn with_operator_profile(mut self, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        self.profiles = Some(folder.canonicalize()?);
        Ok(self)
    }

    /// Returns the path of the loaded library.
    pub fn library(&self) -> &PathBuf {
        &self.library
    }

    /// Returns the session options of this back end.
    pub(super) fn builder(&self, prepack: bool) -> Result<SessionBuilder, SessionError> {
        let builder = OrtSession::builder(&self.environment)?
            .with_intra_threads(self.options.threads)?
            .with_intra_op_spinning(false)?
            .with_prepacking(prepack)?;
        match worker_affinities(self.options.threads, &self.worker_cores) {
            None => Ok(builder),
            Some(affinities) => {
                Ok(builder.with_config_entry("session.intra_op_thread_affinities", affinities)?)
            }
        }
    }

    /// Returns the library's name and version.
    pub(super) fn described_library(&self) -> String {
        format!("ONNX Runtime {}", version(&self.library))
    }

    /// Refuses an engine that was built for another machine, library or version of tandem.
    fn check_key(&self, network: &str, built: &BuiltNetwork) -> Result<(), LoadError> {
        let now = Key {
            targets: vec![Target::Cpu],
            machine: Some(cpu_features()),
            backend: BackendKind::OnnxRuntime,
            library: self.described_library(),
            tandem: env!("CARGO_PKG_VERSION").to_owned(),
            ..built.key.clone()
        };
        if now == built.key {
            return Ok(());
        }
        // An engine for a GPU stays valid on that GPU, so it is not replaced.
        let is_for_cpu = built.key.targets == now.targets;
        let rebuild = if is_for_cpu { &built.rebuild } else { &built.rebuild_for_cpu }.clone();
        let (network, differences) = (network.to_owned(), built.key.differences(&now));
        Err(LoadError::Rebuild { network, differences, rebuild })
    }

    fn refused(&self, network: &str, error: &SessionError) -> LoadError {
        let network = network.to_owned();
        LoadError::Refused { library: self.name(), network, reason: error.to_string() }
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> String {
        format!("{} (CPU)", self.described_library())
    }

    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError> {
        let network = file.contract.network.as_str();
        let refused = |error: SessionError| self.refused(network, &error);
        if let Some(built) = &file.built {
            self.check_key(network, built)?;
        }
        let source = file.built.as_ref().map_or(&file.graph, |built| &built.bytes);
        // Built engines were widened during their build.
        let block = if file.built.is_none() { widen::block() } else { None };
        let (weights, graph) = Weights::map(file, source, block)?;
        let commit = |builder: SessionBuilder| -> Result<OrtSession, SessionError> {
            Ok(weights.add_to(builder)?.commit_from_memory(&graph)?)
        };
        // Built engines were optimized during their build.
        let builder = |prepack: bool| -> Result<SessionBuilder, SessionError> {
            let builder = self.builder(prepack)?;
            match &file.built {
                None => Ok(builder),
                Some(_) => Ok(builder.with_optimization_level(GraphOptimizationLevel::Disable)?),
            }
        };
        let exported = ModelProto::decode(file.graph.as_slice())
            .map_err(|error| refused(SessionError::NotOnnx(error)))?
            .graph
            .unwrap_or_default();
        let matrices = Matrices::of(&exported);
        if self.options.prepack && matrices.are_too_large() {
            tracing::warn!(
                network,
                gigabytes = matrices.bytes as f64 / 1e9,
                "matrices are not packed because the copy would take too much memory; runs are slower"
            );
        }
        let is_packed = self.options.prepack && matrices.are_worth_packing();
        let mut profiling = None;
        let mut measured = builder(is_packed).map_err(&refused)?;
        if let Some(folder) = &self.profiles {
            let files = ProfileFiles::new(folder, network);
            let unpacked = builder(false).map_err(&refused)?;
            let parts = Parts::of(&exported.node);
            let placed = files.graph(&parts, unpacked, commit).map_err(&refused)?;
            profiling = Some(Profiling::new(parts, placed));
            measured =
                measured.with_profiling(files.prefix()).map_err(|error| refused(error.into()))?;
        }
        let session = commit(measured).map_err(&refused)?;
        check_sizes(&file.contract).map_err(&refused)?;
        check(&file.contract, &session)?;
        Ok(Arc::new(CpuEngine::new(file.contract.clone(), session, profiling, weights)))
    }
}

/// Returns the library's version from its file name; its build information contains only a commit.
pub(super) fn version(library: &Path) -> String {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.split_once(".so.") {
        Some((_, version)) => version.to_owned(),
        None => format!("of unknown version ({name})"),
    }
}

/// Returns the library's affinity string that lets each worker run on all of `cores`: workers are
/// separated by semicolons, cores by commas and numbered from 1. The calling thread is not a worker.
fn worker_affinities(threads: usize, cores: &[usize]) -> Option<String> {
    if threads < 2 || cores.is_empty() {
        return None;
    }
    let cores: Vec<String> = cores.iter().map(|core| (core + 1).to_string()).collect();
    Some(vec![cores.join(","); threads - 1].join(";"))
}

/// Refuses networks with more dimensions or tensors than a session supports.
pub(super) fn check_sizes(contract: &Contract) -> Result<(), SessionError> {
    let mut tensors = contract.inputs.iter().chain(&contract.outputs);
    if let Some(deep) = tensors.find(|spec| spec.shape.len() > MAX_RANK) {
        return Err(SessionError::Rank { tensor: deep.name.clone() });
    }
    let mut sides = [&contract.inputs, &contract.outputs].into_iter();
    match sides.find(|side| side.len() > MAX_TENSORS) {
        None => Ok(()),
        Some(side) => Err(SessionError::Tensors { count: side.len() }),
    }
}

/// Compares the loaded graph's inputs and outputs with the contract, in order.
pub(super) fn check(contract: &Contract, session: &OrtSession) -> Result<(), LoadError> {
    let sides = [
        ("input", &contract.inputs, session.inputs()),
        ("output", &contract.outputs, session.outputs()),
    ];
    for (what, specs, outlets) in sides {
        let found = |name: &str| outlets.iter().find(|outlet| outlet.name() == name);
        for spec in specs {
            let expected = describe(Some(spec.dtype), &spec.shape);
            let found =
                found(&spec.name).map_or("no such tensor".to_owned(), |outlet| {
                    match outlet.dtype() {
                        ValueType::Tensor { ty, shape, .. } => {
                            let shape: Vec<usize> =
                                shape.iter().map(|&d| d.try_into().unwrap_or(0)).collect();
                            describe(dtype_of(*ty), &shape)
                        }
                        other => format!("{other:?}"),
                    }
                });
            if found != expected {
                let (network, name) = (contract.network.clone(), spec.name.clone());
                return Err(LoadError::Contract { network, what, name, expected, found });
            }
        }
        if let Some(extra) =
            outlets.iter().find(|outlet| !specs.iter().any(|spec| spec.name == outlet.name()))
        {
            return Err(LoadError::Contract {
                network: contract.network.clone(),
                what,
                name: extra.name().to_owned(),
                expected: "no such tensor".into(),
                found: format!("{:?}", extra.dtype()),
            });
        }
    }
    Ok(())
}

fn describe(dtype: Option<DType>, shape: &[usize]) -> String {
    dtype.map_or("an unknown type".into(), |dtype| format!("{dtype} {shape:?}"))
}

fn dtype_of(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Bfloat16 => DType::Bf16,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Bool => DType::Bool,
        _ => return None,
    })
}
