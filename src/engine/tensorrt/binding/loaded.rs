//! Engine loaded onto a GPU.

#![expect(
    unsafe_code,
    reason = "extends the logger's lifetime; implements Send for library objects"
)]

use super::backend::TensorRtOnGpu;
use super::monitor::Messages;
use super::session::GpuSession;
use crate::device::Stream;
use crate::device::cuda::CudaDevice;
#[cfg(not(feature = "tensorrt-enterprise"))]
use crate::engine::folder::record::RUNTIME_CACHE_ENDING;
#[cfg(not(feature = "tensorrt-enterprise"))]
use crate::engine::tensorrt::runtime_cache::RuntimeCacheFile;
use crate::engine::{Backend, BuiltNetwork, Engine, LoadError, NetworkFile, Session};
use crate::sync::lock;
use crate::tensor::DType;
#[cfg(not(feature = "tensorrt-enterprise"))]
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use tandem_export::contract::{Contract, TensorSpec};
use trtx::{CudaEngine, DataType, ExecutionContext, Logger, Runtime, TensorIOMode};

/// Network that the library deserialized onto a GPU.
pub(super) struct GpuEngine {
    pub(super) contract: Contract,
    pub(super) device: CudaDevice,
    /// Stream of runs on host tensors.
    pub(super) stream: Arc<dyn Stream>,
    pub(super) messages: Messages,
    /// The first context, created when the engine is loaded so that a lack of memory is reported then.
    /// Declared before the engine that it belongs to.
    spare: Mutex<Option<Context>>,
    #[cfg(not(feature = "tensorrt-enterprise"))]
    cache: Cache,
    deserialized: Mutex<Deserialized>,
}

/// The library's objects of an engine, in the order in which they are dropped.
struct Deserialized {
    engine: CudaEngine<'static>,
    _runtime: Runtime<'static>,
    _logger: Arc<Logger>,
}

// SAFETY: the library's engines and runtimes have no thread affinity. The mutex around `Deserialized`
// lets one thread at a time use them, and the device's context is current on that thread.
unsafe impl Send for Deserialized {}

/// Execution context of one session.
pub(super) struct Context(pub(super) ExecutionContext<'static>);

// SAFETY: a context may be used from any thread, by one at a time; each session owns one exclusively.
// The reference count of its configuration is not atomic, but the context is the only owner.
unsafe impl Send for Context {}

/// Kernels compiled for this GPU: the library's cache and the file that stores it.
#[cfg(not(feature = "tensorrt-enterprise"))]
struct Cache {
    kernels: Arc<trtx::RuntimeCache>,
    file: RuntimeCacheFile,
    /// Content of the file when the cache was opened.
    read: Option<Vec<u8>>,
}

impl GpuEngine {
    pub(super) fn load(
        backend: &TensorRtOnGpu,
        file: &NetworkFile,
        built: &BuiltNetwork,
    ) -> Result<Self, LoadError> {
        let network = file.contract.network.as_str();
        let messages = Messages::default();
        let failed = |reason: String| LoadError::Refused {
            library: backend.name(),
            network: network.to_owned(),
            reason,
        };
        let refused = |error: trtx::Error| backend.refused(network, &messages, &error);
        backend.device.make_current().map_err(|error| failed(error.to_string()))?;
        let logger = Arc::new(Logger::new(messages.clone()).map_err(refused)?);
        // SAFETY: `logger` is heap-allocated and does not move. `Deserialized` drops the engine, then
        // the runtime, then `logger`, so `forever` outlives both users.
        let forever: &'static Logger = unsafe { &*Arc::as_ptr(&logger) };
        let mut runtime = Runtime::new(forever).map_err(refused)?;
        #[cfg(not(feature = "tensorrt-enterprise"))]
        check_validity(&runtime, &built.bytes).map_err(failed)?;
        let mut engine = runtime.deserialize_cuda_engine(&built.bytes).map_err(refused)?;
        check(&file.contract, &engine)?;
        #[cfg(not(feature = "tensorrt-enterprise"))]
        let cache = Cache::open(backend, file, built, &mut engine).map_err(refused)?;
        #[cfg(feature = "tensorrt-enterprise")]
        let _ = &mut engine;
        let deserialized = Deserialized { engine, _runtime: runtime, _logger: logger };
        let loaded = Self {
            contract: file.contract.clone(),
            device: backend.device.clone(),
            stream: Arc::clone(&backend.stream),
            messages: messages.clone(),
            spare: Mutex::new(None),
            #[cfg(not(feature = "tensorrt-enterprise"))]
            cache,
            deserialized: Mutex::new(deserialized),
        };
        let first =
            loaded.make_context().map_err(|error| backend.refused(network, &messages, &error))?;
        *lock(&loaded.spare) = Some(first);
        Ok(loaded)
    }

    /// Returns a context for another session; the device's context is current.
    pub(super) fn context(&self) -> Result<Context, trtx::Error> {
        let spare = lock(&self.spare).take();
        spare.map_or_else(|| self.make_context(), Ok)
    }

    #[cfg(not(feature = "tensorrt-enterprise"))]
    fn make_context(&self) -> Result<Context, trtx::Error> {
        let mut deserialized = lock(&self.deserialized);
        let mut config = deserialized.engine.create_runtime_config()?;
        config.set_runtime_cache(Arc::clone(&self.cache.kernels))?;
        deserialized.engine.create_execution_context_with_config(Rc::new(config)).map(Context)
    }

    #[cfg(feature = "tensorrt-enterprise")]
    fn make_context(&self) -> Result<Context, trtx::Error> {
        let mut deserialized = lock(&self.deserialized);
        deserialized.engine.create_execution_context().map(Context)
    }
}

impl Engine for GpuEngine {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn session(self: Arc<Self>) -> Box<dyn Session> {
        Box::new(GpuSession::new(self))
    }
}

#[cfg(not(feature = "tensorrt-enterprise"))]
impl Drop for GpuEngine {
    fn drop(&mut self) {
        self.cache.save();
        // The fields dropped next need the device's context; this fails only for a lost device.
        let _ = self.device.make_current();
    }
}

#[cfg(feature = "tensorrt-enterprise")]
impl Drop for GpuEngine {
    fn drop(&mut self) {
        // The fields dropped next need the device's context; this fails only for a lost device.
        let _ = self.device.make_current();
    }
}

#[cfg(not(feature = "tensorrt-enterprise"))]
impl Cache {
    /// Creates the library's cache and fills it from the file for this library, GPU and driver.
    fn open(
        backend: &TensorRtOnGpu,
        file: &NetworkFile,
        built: &BuiltNetwork,
        engine: &mut CudaEngine<'static>,
    ) -> Result<Self, trtx::Error> {
        let (major, minor) = backend.device.compute_capability();
        let platform = format!(
            "{}; {}; compute capability {major}.{minor}; driver for CUDA {}",
            backend.library.name(),
            backend.device.gpu(),
            backend.device.driver()
        );
        let key = built.key.sha256();
        let name = format!("{}.{}.{RUNTIME_CACHE_ENDING}", file.contract.network, &key[..12]);
        let file = RuntimeCacheFile::new(&file.folder.join(name), &platform);
        let kernels = engine.create_runtime_config()?.create_runtime_cache()?;
        // If the library rejects the content, it compiles the kernels again, as without a file.
        let read = file.read().filter(|bytes| kernels.deserialize(bytes).is_ok());
        Ok(Self { kernels: Arc::new(kernels), file, read })
    }

    /// Writes the cache to its file if kernels were compiled since it was opened.
    fn save(&self) {
        let Ok(bytes) = self.kernels.serialize() else { return };
        if self.read.as_deref() == Some(&bytes[..]) || bytes.is_empty() {
            return;
        }
        if let Err(error) = self.file.write(&bytes) {
            tracing::warn!(
                "cannot write compiled kernels to {}: {error}; the next start compiles them again",
                self.file.path().display()
            );
        }
    }
}

/// Lets the library validate the engine's header and returns its reasons if it is invalid.
#[cfg(not(feature = "tensorrt-enterprise"))]
fn check_validity(runtime: &Runtime<'_>, bytes: &[u8]) -> Result<(), String> {
    let (validity, why) = runtime.engine_validity(bytes).map_err(|error| error.to_string())?;
    if matches!(validity, trtx::EngineValidity::kINVALID) {
        let why: Vec<&str> = why.iter_names().map(|(name, _)| name).collect();
        return Err(format!("the engine is not valid on this machine: {}", why.join(", ")));
    }
    Ok(())
}

/// Compares the engine's inputs and outputs with the contract.
fn check(contract: &Contract, engine: &CudaEngine<'_>) -> Result<(), LoadError> {
    let count = engine.nb_io_tensors().unwrap_or(0);
    let names: Vec<String> = (0..count).filter_map(|at| engine.io_tensor_name(at).ok()).collect();
    let sides = [
        ("input", &contract.inputs, TensorIOMode::kINPUT),
        ("output", &contract.outputs, TensorIOMode::kOUTPUT),
    ];
    for (what, specs, mode) in sides {
        let is_here = |name: &String| engine.tensor_io_mode(name).is_ok_and(|found| found == mode);
        let wrong = |name: &str, expected: String, found: String| LoadError::Contract {
            network: contract.network.clone(),
            what,
            name: name.to_owned(),
            expected,
            found,
        };
        let missing = || "no such tensor".to_owned();
        for spec in specs {
            let expected = expected(spec);
            let known = names.iter().find(|name| **name == spec.name).filter(|name| is_here(name));
            let found = known.map_or_else(missing, |name| describe(engine, name));
            if found != expected {
                return Err(wrong(&spec.name, expected, found));
            }
        }
        let is_extra =
            |name: &&String| is_here(name) && !specs.iter().any(|spec| spec.name == **name);
        if let Some(extra) = names.iter().find(is_extra) {
            return Err(wrong(extra, missing(), describe(engine, extra)));
        }
    }
    Ok(())
}

fn expected(spec: &TensorSpec) -> String {
    let shape: Vec<i64> = spec.shape.iter().map(|&extent| extent as i64).collect();
    format!("{} {shape:?}", spec.dtype)
}

/// Returns the type and shape of an engine's tensor as text.
fn describe(engine: &CudaEngine<'_>, name: &str) -> String {
    let dtype = match engine.tensor_data_type(name) {
        Ok(DataType::kFLOAT) => DType::F32.to_string(),
        Ok(DataType::kHALF) => DType::F16.to_string(),
        Ok(DataType::kBF16) => DType::Bf16.to_string(),
        Ok(DataType::kINT64) => DType::I64.to_string(),
        Ok(DataType::kUINT8) => DType::U8.to_string(),
        Ok(DataType::kBOOL) => DType::Bool.to_string(),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    };
    format!("{dtype} {:?}", engine.tensor_shape(name).unwrap_or_default())
}
