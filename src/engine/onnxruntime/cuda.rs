//! ONNX Runtime back end for NVIDIA GPUs: the CUDA provider, using tandem's streams and memory.
//!
//! **Not yet run on a GPU.** The CUDA provider receives its stream when a network is loaded, so a
//! network that runs on two streams is loaded twice. Nodes do not fall back to the CPU: loading fails if
//! the provider has no kernel for a node.

#![expect(unsafe_code, reason = "calls the library's C interface to run on the device's memory")]

use super::backend::{OpenError, check as check_contract, check_sizes, environment, version};
use super::bindings::{Binding, Bindings, Network};
use super::error::SessionError;
use super::library::GPU_LIBRARY;
use super::raw::Names;
use super::weights::{ROOT_ENTRY, Weights};
use crate::device::cuda::CudaDevice;
use crate::device::{Device, DeviceError, DeviceView, DeviceViewMut, Stream};
use crate::engine::contract_check::{buffers_of, check_tensors};
use crate::engine::library::{self, LibrarySearch};
use crate::engine::staging::Staging;
use crate::engine::{Backend, Engine, LoadError, NetworkFile, Session, SessionRunError};
use crate::sync::lock;
use crate::tensor::{TensorView, TensorViewMut};
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session as OrtSession};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tandem_export::contract::Contract;

/// Options of engines on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CudaOptions {
    /// Limit of the arena for intermediate results, bytes, without weights; `None` for no limit.
    pub memory_limit: Option<usize>,
}

/// Name by which the provider opens cuDNN, for convolutions, when a network is loaded.
const CUDNN: &str = "libcudnn.so.9";

/// ONNX Runtime on one stream of a GPU.
pub struct OnnxRuntimeCuda {
    environment: ort::environment::Environment,
    library: PathBuf,
    _cudnn: libloading::Library,
    device: CudaDevice,
    stream: Arc<dyn Stream>,
    options: CudaOptions,
}

impl OnnxRuntimeCuda {
    /// Finds or fetches the library for GPUs (256 MB) and loads it, on the first call of the
    /// process. `progress` receives a line when a fetch begins. Fails if the library cannot be
    /// found, fetched or loaded, or has no CUDA provider, cuDNN does not load, this process has
    /// loaded the library for the CPU, or the stream belongs to another device.
    pub fn open(
        device: CudaDevice,
        stream: Arc<dyn Stream>,
        options: CudaOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, OpenError> {
        device.own_stream(&*stream)?;
        let (wanted, _) =
            library::find_or_fetch(&LibrarySearch::from_environment(GPU_LIBRARY), progress)?;
        let no_provider = |missing| OpenError::NoProvider { path: wanted.clone(), missing };
        let files = GPU_LIBRARY.files[1..].iter().copied();
        if let Some(missing) = files.into_iter().find(|file| !wanted.with_file_name(file).is_file())
        {
            return Err(no_provider(format!("{missing} is not in its folder")));
        }
        let (environment, library) = environment(|| Ok(wanted.clone()))?;
        if library != wanted {
            return Err(OpenError::Second { path: wanted, loaded: library });
        }
        let cudnn = cudnn(CUDNN)?;
        match CUDA::is_available() {
            Ok(true) => Ok(Self { environment, library, _cudnn: cudnn, device, stream, options }),
            Ok(false) => Err(no_provider("it was built without the provider".to_owned())),
            Err(error) => Err(no_provider(error.to_string())),
        }
    }

    /// Returns the path of the loaded library.
    pub fn library(&self) -> &PathBuf {
        &self.library
    }

    /// Returns the session options of this back end.
    fn builder(&self, root: &Path) -> Result<SessionBuilder, SessionError> {
        let stream = self.device.own_stream(&*self.stream).expect("checked when it was opened");
        let number = i32::try_from(self.device.ordinal())?;
        // The arena grows by the requested size, not to the next power of two: the first runs allocate
        // all of it. TF32 is off, so that f32 networks are references; other types are not affected.
        let provider = CUDA::default()
            .with_device_id(number)
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false);
        let provider = match self.options.memory_limit {
            None => provider,
            Some(bytes) => provider.with_memory_limit(bytes),
        };
        // SAFETY: `stream` outlives every session of this builder: the engine owns both and drops the
        // session first (field order of `CudaEngine`).
        let provider = unsafe { provider.with_compute_stream(stream.raw().cast()) };
        let mut builder = OrtSession::builder(&self.environment)?
            .with_intra_threads(1)?
            .with_prepacking(false)?;
        let root = root.to_str().ok_or(SessionError::Root)?;
        let entries = [
            (ROOT_ENTRY, root),
            ("session.disable_cpu_ep_fallback", "1"),
            // Weights have fixed sizes, so they are allocated outside the arena.
            ("session.use_device_allocator_for_initializers", "1"),
        ];
        for (key, value) in entries {
            builder = builder.with_config_entry(key, value)?;
        }
        builder
            .with_execution_providers([provider.build().error_on_failure()])
            .map_err(|error| explained(&error.to_string()))
    }

    fn load_session(&self, graph: &[u8], root: &Path) -> Result<OrtSession, SessionError> {
        self.device.make_current()?;
        self.builder(root)?.commit_from_memory(graph).map_err(|error| explained(&error.to_string()))
    }
}

/// Opens cuDNN. Without it, networks would load but the first convolution would fail.
fn cudnn(name: &str) -> Result<libloading::Library, OpenError> {
    // SAFETY: `name` is NVIDIA's library, which the provider opens as well; its initializers may run at
    // any time.
    unsafe { libloading::Library::new(name) }
        .map_err(|error| OpenError::NoCudnn { name: name.to_owned(), reason: error.to_string() })
}

/// Converts the library's message to an error, with advice where the message names only what is missing.
fn explained(message: &str) -> SessionError {
    let message = message.trim_end().to_owned();
    let has_no_kernel = message.contains("Provider type for ") && message.contains(" is not set");
    let advice = if message.contains("cuDNN is unavailable") {
        "the CUDA provider needs cuDNN 9 for convolutions: install it, or add its folder to \
         LD_LIBRARY_PATH"
    } else if message.contains("cannot open shared object file") {
        "the CUDA provider needs libcublas, libcublasLt, libcurand and libcudart of CUDA 13, and \
         libcudnn 9: install them, or add their folders to LD_LIBRARY_PATH"
    } else if has_no_kernel
        || message.contains("disable_cpu_ep_fallback")
        || message.contains("fallback to CPU EP")
    {
        "some of its nodes have no kernel in the CUDA provider"
    } else {
        return SessionError::Library { message };
    };
    SessionError::Advised { message, advice }
}

impl Backend for OnnxRuntimeCuda {
    fn name(&self) -> String {
        format!("ONNX Runtime {} (CUDA) on {}", version(&self.library), self.device.name())
    }

    /// Loads the exported network and ignores a built engine, which is for other back ends.
    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError> {
        let network = file.contract.network.as_str();
        let refused = |error: SessionError| LoadError::Refused {
            library: self.name(),
            network: network.to_owned(),
            reason: error.to_string(),
        };
        check_sizes(&file.contract).map_err(&refused)?;
        // The library reads the weights from their files and copies them to the device. If they were
        // passed by address, as on the CPU, kernels would read them from host memory.
        let (weights, graph) = Weights::map(file, &file.graph, None)?;
        let root = weights.root().to_owned();
        drop(weights);
        let session = self.load_session(&graph, &root).map_err(&refused)?;
        check_contract(&file.contract, &session)?;
        let number = i32::try_from(self.device.ordinal()).map_err(|error| refused(error.into()))?;
        let info = MemoryInfo::new(
            AllocationDevice::CUDA,
            number,
            AllocatorType::Device,
            MemoryType::Default,
        );
        Ok(Arc::new(CudaEngine {
            names: Names::of(&file.contract),
            contract: file.contract.clone(),
            info: info.map_err(|error| refused(error.into()))?,
            options: run_options().map_err(|error| refused(error.into()))?,
            has_failed: Mutex::new(false),
            session,
            device: self.device.clone(),
            stream: Arc::clone(&self.stream),
        }))
    }
}

/// Network loaded for one stream.
struct CudaEngine {
    contract: Contract,
    names: Names,
    info: MemoryInfo<'static>,
    options: RunOptions,
    /// True after a run failed. Locked while a run is enqueued, so that runs do not interleave.
    has_failed: Mutex<bool>,
    session: OrtSession,
    device: CudaDevice,
    /// Declared after the session, which holds its address.
    stream: Arc<dyn Stream>,
}

impl Engine for CudaEngine {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn session(self: Arc<Self>) -> Box<dyn Session> {
        Box::new(CudaSession { engine: self, bindings: Bindings::new(), staging: None })
    }
}

impl Network for CudaEngine {
    fn names(&self) -> &Names {
        &self.names
    }

    fn library_session(&self) -> &OrtSession {
        &self.session
    }

    fn memory_info(&self) -> &MemoryInfo<'static> {
        &self.info
    }

    fn run_options(&self) -> Option<&RunOptions> {
        Some(&self.options)
    }
}

/// Session on a stream of a GPU.
struct CudaSession {
    engine: Arc<CudaEngine>,
    bindings: Bindings<CudaEngine>,
    /// Memory for runs on host tensors, allocated by the first of them.
    staging: Option<Staging>,
}

/// Returns run options with which a run does not wait for the device at its end.
fn run_options() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.disable_device_sync()?;
    Ok(options)
}

impl CudaEngine {
    /// Refuses streams other than the one that the network was loaded for, and memory of other devices.
    fn check_place(
        &self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), DeviceError> {
        let given = self.device.own_stream(stream)?;
        let own = self.device.own_stream(&*self.stream)?;
        if given.raw() != own.raw() {
            return Err(DeviceError::Misuse(
                "this network was loaded for another stream of its device; load it for this stream",
            ));
        }
        buffers_of(inputs, outputs).try_for_each(|buffer| own.check_memory(buffer))?;
        own.make_current()
    }

    /// Submits one run to the engine's stream.
    fn submit(&self, binding: &Binding<Self>) -> Result<(), SessionRunError> {
        let failed = |reason: String| SessionRunError::Library {
            network: self.contract.network.clone(),
            reason,
        };
        let mut has_failed = lock(&self.has_failed);
        if *has_failed {
            // Observed with 1.31.1: after a run failed while being enqueued, the plans of convolutions
            // are lost and every later run fails with another message.
            return Err(failed("an earlier run of this network failed; load it again".to_owned()));
        }
        // SAFETY: the stream orders the run with all other accesses to the memory. The session owns
        // `binding`; when it is dropped, its memory is freed in stream order, after the run.
        let ran = unsafe { binding.call_library() };
        *has_failed = ran.is_err();
        ran.map_err(|error| failed(error.to_string()))
    }
}

impl Session for CudaSession {
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        let contract = &self.engine.contract;
        check_tensors(contract, inputs, outputs)?;
        self.engine.check_place(stream, inputs, outputs).map_err(|source| {
            SessionRunError::Device { network: contract.network.clone(), source }
        })?;
        let binding = self.bindings.to(&self.engine, inputs, outputs)?;
        self.engine.submit(&binding)
    }

    fn runs_before_capture(&self) -> Option<usize> {
        // The library allocates in the first run and replans its memory for the second; later runs
        // make no calls that a capture forbids. Its own CUDA graphs stay off: they are per thread, and
        // captured in the mode in which calls of other threads fail.
        Some(2)
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        let engine = Arc::clone(&self.engine);
        let failed =
            |source| SessionRunError::Device { network: engine.contract.network.clone(), source };
        let mut staging = match self.staging.take() {
            Some(staging) => staging,
            None => Staging::new(&engine.device, &engine.contract).map_err(failed)?,
        };
        let stream = &*engine.stream;
        let ran = staging.run(stream, &engine.contract, inputs, outputs, |inputs, outputs| {
            self.enqueue(stream, inputs, outputs)
        });
        self.staging = Some(staging);
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_cuda_library_is_reported_with_advice() {
        let message = "Failed to load library libonnxruntime_providers_cuda.so with error: \
                     libcublasLt.so.13: cannot open shared object file: No such file or directory\n";
        let text = explained(message).to_string();
        for part in [
            "libcublasLt.so.13",
            "directory; the CUDA provider",
            "CUDA 13",
            "libcudnn 9",
            "LD_LIBRARY_PATH",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(explained("another error").to_string(), "another error");
    }

    #[test]
    fn missing_cudnn_and_missing_kernel_are_explained() {
        let text = explained("cuDNN is unavailable: dlopen failed for libcudnn.so.9").to_string();
        assert!(text.contains("needs cuDNN 9") && text.contains("LD_LIBRARY_PATH"), "{text}");
        let text = explained(
            "Provider type for GlobalAveragePool node 'image.s1/b1/global_average_pool' is not set.",
        )
        .to_string();
        assert!(text.ends_with("no kernel in the CUDA provider"), "{text}");
    }

    #[test]
    fn missing_cudnn_is_reported_with_advice() {
        let error = cudnn("libcudnn-of-no-machine.so.9").unwrap_err().to_string();
        for part in ["libcudnn-of-no-machine.so.9", "cuDNN 9", "LD_LIBRARY_PATH"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
