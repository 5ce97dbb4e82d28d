//! The ONNX Runtime back end on an NVIDIA GPU: its CUDA provider, on a stream and in memory of ours.
//!
//! A network is loaded for one stream, since the provider takes its stream when a network is loaded:
//! whoever runs one network on two streams loads it twice. Nothing falls back to the CPU: a node that
//! the provider does not take is an error when the network is loaded.

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
use crate::engine::library::{self, Places};
use crate::engine::staging::Staging;
use crate::engine::{Backend, Engine, LoadError, NetworkFile, RunError, Session};
use crate::sync::lock;
use crate::tensor::{TensorView, TensorViewMut};
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session as OrtSession};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tandem_export::contract::Contract;

/// How engines use the GPU.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CudaOptions {
    /// Bytes that the library may keep for intermediate results, weights aside; `None`: as many as it
    /// takes.
    pub memory_limit: Option<usize>,
}

/// The library that the provider runs convolutions with. It opens it by this name, when a network is
/// loaded.
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
    /// Loads the library for GPUs, finding or fetching it (256 MB) on the first call of the process.
    /// `progress` gets one line when a fetch begins.
    ///
    /// # Errors
    /// If there is no library and none can be fetched, it does not load or has no CUDA provider, cuDNN
    /// does not load, this process has loaded the library for the CPU, or the stream is none of the
    /// device's.
    pub fn open(
        device: CudaDevice,
        stream: Arc<dyn Stream>,
        options: CudaOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, OpenError> {
        device.own_stream(&*stream)?;
        let (wanted, _) = library::find_or_fetch(&Places::from_environment(GPU_LIBRARY), progress)?;
        let no_provider = |missing| OpenError::NoProvider { path: wanted.clone(), missing };
        let files = GPU_LIBRARY.files[1..].iter().copied();
        if let Some(missing) = files.into_iter().find(|file| !wanted.with_file_name(file).is_file())
        {
            return Err(no_provider(format!("{missing} does not lie beside it")));
        }
        let (environment, library) = environment(|| Ok(wanted.clone()))?;
        if library != wanted {
            return Err(OpenError::Second { path: wanted, loaded: library });
        }
        let cudnn = cudnn(CUDNN)?;
        match CUDA::is_available() {
            Ok(true) => Ok(Self { environment, library, _cudnn: cudnn, device, stream, options }),
            Ok(false) => Err(no_provider("it is built without".to_owned())),
            Err(error) => Err(no_provider(error.to_string())),
        }
    }

    /// The library file in use.
    pub fn library(&self) -> &PathBuf {
        &self.library
    }

    /// Session options of this back end.
    fn builder(&self, root: &Path) -> Result<SessionBuilder, SessionError> {
        let stream = self.device.own_stream(&*self.stream).expect("checked when it was opened");
        let number = i32::try_from(self.device.ordinal())?;
        // Memory grows by what is asked for and not to the next power of two: all of it is taken by
        // the first runs. TF32 is off, so that f32 networks are references; it does nothing to others.
        let provider = CUDA::default()
            .with_device_id(number)
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false);
        let provider = match self.options.memory_limit {
            None => provider,
            Some(bytes) => provider.with_memory_limit(bytes),
        };
        // SAFETY: the stream outlives every session made of this builder: the engine keeps both, and
        // drops the session first.
        let provider = unsafe { provider.with_compute_stream(stream.raw().cast()) };
        let mut builder = OrtSession::builder(&self.environment)?
            .with_intra_threads(1)?
            .with_prepacking(false)?;
        let root = root.to_str().ok_or(SessionError::Root)?;
        let entries = [
            (ROOT_ENTRY, root),
            ("session.disable_cpu_ep_fallback", "1"),
            // Weights are as large as they are: beside the arena, not in its steps.
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

/// Opens cuDNN. Without it networks load, and the first convolution fails.
fn cudnn(name: &str) -> Result<libloading::Library, OpenError> {
    // SAFETY: NVIDIA's library, which the provider opens as well; its initializers are run by loading
    // it at any time.
    unsafe { libloading::Library::new(name) }
        .map_err(|error| OpenError::NoCudnn { name: name.to_owned(), reason: error.to_string() })
}

/// Returns the library's message as an error, with what to do about it where the message says only
/// what is missing.
fn explained(message: &str) -> SessionError {
    let message = message.trim_end().to_owned();
    let has_no_kernel = message.contains("Provider type for ") && message.contains(" is not set");
    let advice = if message.contains("cuDNN is unavailable") {
        "the CUDA provider needs cuDNN 9 for convolutions: install it, or name its folder in \
         LD_LIBRARY_PATH"
    } else if message.contains("cannot open shared object file") {
        "the CUDA provider needs libcublas, libcublasLt, libcurand and libcudart of CUDA 13, and \
         libcudnn 9: install them, or name their folders in LD_LIBRARY_PATH"
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

    /// Loads the network as it was exported: what was built of it is for other back ends, and lies
    /// beside it.
    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError> {
        let network = file.contract.network.as_str();
        let refused = |error: SessionError| LoadError::Refused {
            library: self.name(),
            network: network.to_owned(),
            reason: error.to_string(),
        };
        check_sizes(&file.contract).map_err(&refused)?;
        // The library reads the weights from their files itself and copies them to the device. Given
        // by address, as on the CPU, they would be used where they are.
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

/// A network that was loaded for a stream.
struct CudaEngine {
    contract: Contract,
    names: Names,
    info: MemoryInfo<'static>,
    options: RunOptions,
    /// Held while a run is submitted, since a stream takes one after the other; true once a run
    /// was refused.
    has_failed: Mutex<bool>,
    session: OrtSession,
    device: CudaDevice,
    /// Declared after the session, which is told of it by address.
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

/// A session on a stream of a GPU.
struct CudaSession {
    engine: Arc<CudaEngine>,
    bindings: Bindings<CudaEngine>,
    /// For runs on tensors of the host, from the first one on.
    staging: Option<Staging>,
}

/// Options of runs: they do not wait for the device at their end.
fn run_options() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.disable_device_sync()?;
    Ok(options)
}

impl CudaEngine {
    /// Refuses streams but the one that the network was loaded for, and memory of other devices.
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
                "this network was loaded for another stream of its device: load it for this one",
            ));
        }
        buffers_of(inputs, outputs).try_for_each(|buffer| own.check_memory(buffer))?;
        own.make_current()
    }

    /// Submits one run to the engine's stream.
    fn submit(&self, binding: &Binding<Self>) -> Result<(), RunError> {
        let failed =
            |reason: String| RunError::Library { network: self.contract.network.clone(), reason };
        let mut has_failed = lock(&self.has_failed);
        if *has_failed {
            // Seen with 1.31.1: behind a run that failed on its way to the device, plans of
            // convolutions are gone, and every later run fails with other words.
            return Err(failed("an earlier run of it failed; load it again".to_owned()));
        }
        // SAFETY: the stream orders the run with all other accesses to the memory. The session keeps
        // the binding; when that is dropped, its memory is freed behind the work that uses it.
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
    ) -> Result<(), RunError> {
        let contract = &self.engine.contract;
        check_tensors(contract, inputs, outputs)?;
        self.engine
            .check_place(stream, inputs, outputs)
            .map_err(|source| RunError::Device { network: contract.network.clone(), source })?;
        let binding = self.bindings.to(&self.engine, inputs, outputs)?;
        self.engine.submit(&binding)
    }

    fn runs_before_capture(&self) -> Option<usize> {
        // The library allocates at the first run, lays its memory out by it for the second, and then
        // calls nothing that a capture cannot hold. Its own graphs are per thread and captured in the
        // mode that makes other threads' calls fail, so they stay off.
        Some(2)
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError> {
        let engine = Arc::clone(&self.engine);
        let failed = |source| RunError::Device { network: engine.contract.network.clone(), source };
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
    fn a_missing_library_is_said_with_what_to_install() {
        let words = "Failed to load library libonnxruntime_providers_cuda.so with error: \
                     libcublasLt.so.13: cannot open shared object file: No such file or directory\n";
        let said = explained(words).to_string();
        for part in [
            "libcublasLt.so.13",
            "directory; the CUDA provider",
            "CUDA 13",
            "libcudnn 9",
            "LD_LIBRARY_PATH",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(explained("another error").to_string(), "another error");
    }

    #[test]
    fn missing_cudnn_and_missing_kernel_are_explained() {
        let said = explained("cuDNN is unavailable: dlopen failed for libcudnn.so.9").to_string();
        assert!(said.contains("needs cuDNN 9") && said.contains("LD_LIBRARY_PATH"), "{said}");
        let said = explained(
            "Provider type for GlobalAveragePool node 'image.s1/b1/global_average_pool' is not set.",
        )
        .to_string();
        assert!(said.ends_with("no kernel in the CUDA provider"), "{said}");
    }

    #[test]
    fn missing_cudnn_is_reported_with_what_to_install() {
        let error = cudnn("libcudnn-of-no-machine.so.9").unwrap_err().to_string();
        for part in ["libcudnn-of-no-machine.so.9", "cuDNN 9", "LD_LIBRARY_PATH"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
