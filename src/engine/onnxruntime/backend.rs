//! The ONNX Runtime back end on the CPU.
//!
//! Weights are memory-mapped once per file and handed to the library by address, so that loading
//! copies only the matrices that are worth packing, and engines over one checkpoint share its pages.

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
use crate::engine::library::{self, LibraryError, Places};
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

/// How engines use the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuOptions {
    /// Threads of one run, the caller's included.
    pub threads: usize,
    /// Copies matrices into the library's own layout at load, where the faster runs are worth the
    /// memory.
    pub prepack: bool,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { threads: 1, prepack: true }
    }
}

/// ONNX Runtime on the CPU.
pub struct OnnxRuntime {
    environment: ort::environment::Environment,
    library: PathBuf,
    options: CpuOptions,
    /// Cores of the threads beside the caller's; none: as the library likes.
    worker_cores: Vec<usize>,
    /// Where engines write what their operators take, if they measure it.
    profiles: Option<PathBuf>,
}

/// The library of this process: it can be loaded once.
static ENVIRONMENT: Mutex<Option<(ort::environment::Environment, PathBuf)>> = Mutex::new(None);

/// ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(
        "cannot use {path:?} for the GPU: this process already uses {loaded:?}; open the GPU's first, \
         which serves the CPU as well"
    )]
    Second { path: PathBuf, loaded: PathBuf },
    #[error(
        "{path:?} has no CUDA provider ({missing}); name the library of the package {} {} in {}, with \
         the files that lie beside it there",
        GPU_LIBRARY.package,
        GPU_LIBRARY.version,
        GPU_LIBRARY.variable
    )]
    NoProvider { path: PathBuf, missing: String },
    #[error(
        "{name} does not load ({reason}); the CUDA provider needs cuDNN 9 for CUDA 13: install it, or \
         name its folder in LD_LIBRARY_PATH"
    )]
    NoCudnn {
        /// File that was opened.
        name: String,
        reason: String,
    },
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    #[error(
        "ONNX Runtime would send telemetry: start the program with {}=1 in its environment",
        telemetry::VARIABLE
    )]
    Telemetry,
    #[error(
        "cannot use the ONNX Runtime library {path:?}: {reason}; version 1.{} or later is needed: \
         name another file in {}, or unset it and delete a copy in tandem's cache folder, and tandem \
         fetches one",
        ort::sys::ORT_API_VERSION,
        LIBRARY.variable
    )]
    Load { path: PathBuf, reason: String },
}

/// The library of this process, loaded from where `find` says if there is none so far. What is there
/// for GPUs serves CPUs as well.
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
    // What the library logs as an error also comes back as one; said once is enough.
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    Ok(slot.insert((environment, path)).clone())
}

impl OnnxRuntime {
    /// Loads the library (finding or fetching it on the first call of the process).
    ///
    /// # Errors
    /// If there is no library and none can be fetched, or it does not load.
    pub fn open(options: CpuOptions, progress: &mut dyn FnMut(&str)) -> Result<Self, OpenError> {
        let (environment, library) = environment(|| {
            let (path, _) = library::find_or_fetch(&Places::from_environment(LIBRARY), progress)?;
            Ok(path)
        })?;
        Ok(Self { environment, library, options, worker_cores: Vec::new(), profiles: None })
    }

    /// Pins the workers of networks that are loaded from now on to `cores`, the calling thread's own
    /// affinity aside. The library reports nothing: name cores that can be had.
    #[must_use]
    pub fn with_worker_cores(self, cores: Vec<usize>) -> Self {
        Self { worker_cores: cores, ..self }
    }

    /// Makes engines that are loaded from now on measure their operators, until
    /// [`Engine::end_operator_profile`]. The library's own profiles appear in `folder`, which is made
    /// if need be, and stay there: one file per engine, which trace viewers open.
    ///
    /// Such engines are slower: by microseconds per operator and run.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn with_operator_profile(mut self, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        self.profiles = Some(folder.canonicalize()?);
        Ok(self)
    }

    /// The library file in use.
    pub fn library(&self) -> &PathBuf {
        &self.library
    }

    /// Session options of this back end.
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

    /// The library with its version.
    pub(super) fn described_library(&self) -> String {
        format!("ONNX Runtime {}", version(&self.library))
    }

    /// Refuses what was built for another machine, library or version of tandem.
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
        // What was built for a GPU may go on being used there.
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
        // Built engines were widened at their build.
        let block = if file.built.is_none() { widen::block() } else { None };
        let (weights, graph) = Weights::map(file, source, block)?;
        let commit = |builder: SessionBuilder| -> Result<OrtSession, SessionError> {
            Ok(weights.add_to(builder)?.commit_from_memory(&graph)?)
        };
        // Built engines were optimized at their build.
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
                "matrices are not packed: a second copy would take too much memory; runs are slower"
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

/// Version of the library, as its file name says it; its build information names only a commit.
pub(super) fn version(library: &Path) -> String {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.split_once(".so.") {
        Some((_, version)) => version.to_owned(),
        None => format!("of unknown version ({name})"),
    }
}

/// The library's notation for every worker on all of `cores`: workers apart by semicolons, cores by
/// commas and counted from 1. The caller's thread is no worker.
fn worker_affinities(threads: usize, cores: &[usize]) -> Option<String> {
    if threads < 2 || cores.is_empty() {
        return None;
    }
    let cores: Vec<String> = cores.iter().map(|core| (core + 1).to_string()).collect();
    Some(vec![cores.join(","); threads - 1].join(";"))
}

/// Refuses networks that a session has no room for.
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

/// Checks the loaded graph's inputs and outputs, in order, against the contract.
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
                found(&spec.name).map_or("nothing of that name".to_owned(), |outlet| match outlet
                    .dtype()
                {
                    ValueType::Tensor { ty, shape, .. } => {
                        let shape: Vec<usize> =
                            shape.iter().map(|&d| d.try_into().unwrap_or(0)).collect();
                        describe(dtype_of(*ty), &shape)
                    }
                    other => format!("{other:?}"),
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
                expected: "nothing of that name".into(),
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
