//! The ONNX Runtime back end on an NVIDIA GPU: its CUDA provider, on a stream and in memory of ours.
//!
//! A network is loaded for one stream, since the provider takes its stream when a network is loaded:
//! whoever runs one network on two lanes loads it twice. Nothing falls back to the CPU: a node that
//! the provider does not take is an error when the network is loaded.

#![expect(unsafe_code, reason = "calls the library's C interface to run on the device's memory")]

use super::backend::{
    OpenError, check as check_contract, check_sizes, environment, names, version,
};
use super::library::GPU_LIBRARY;
use super::session::{Descriptor, KNOWN_BINDINGS, MAX_TENSORS, Memory, check};
use super::weights::{ROOT_ENTRY, Weights};
use crate::device::cuda::CudaDevice;
use crate::device::{Buffer, Device, DeviceError, DeviceView, DeviceViewMut, Stream};
use crate::engine::agreement::{agree_all, buffers_of};
use crate::engine::library::{self, Places};
use crate::engine::staging::Staging;
use crate::engine::{Backend, Engine, LoadError, NetworkFile, RunError, Session};
use crate::tensor::{TensorView, TensorViewMut};
use arrayvec::ArrayVec;
use ort::AsPointer;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session as OrtSession};
use ort::sys::OrtValue;
use std::ffi::{CString, c_char, c_void};
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

    /// Session options of this back end. The library's builder errors carry the builder itself.
    fn builder(&self, root: &Path) -> Result<SessionBuilder, String> {
        let stream = self.device.own_stream(&*self.stream).expect("checked when it was opened");
        let number = i32::try_from(self.device.ordinal()).map_err(|error| error.to_string())?;
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
        let mut builder =
            OrtSession::builder(&self.environment).map_err(|error| error.to_string())?;
        builder = builder.with_intra_threads(1).map_err(|error| error.to_string())?;
        builder = builder.with_prepacking(false).map_err(|error| error.to_string())?;
        let root = root.to_str().ok_or("the path of the weights' folder is not UTF-8")?;
        let entries = [
            (ROOT_ENTRY, root),
            ("session.disable_cpu_ep_fallback", "1"),
            // Weights are as large as they are: beside the arena, not in its steps.
            ("session.use_device_allocator_for_initializers", "1"),
        ];
        for (key, value) in entries {
            builder = builder.with_config_entry(key, value).map_err(|error| error.to_string())?;
        }
        builder
            .with_execution_providers([provider.build().error_on_failure()])
            .map_err(|error| explained(&error.to_string()))
    }

    fn load_session(&self, graph: &[u8], root: &Path) -> Result<OrtSession, String> {
        self.device.make_current().map_err(|error| error.to_string())?;
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

/// The library's message, with what to do about it where it says only what is missing.
fn explained(words: &str) -> String {
    let words = words.trim_end();
    if words.contains("cuDNN is unavailable") {
        return format!(
            "{words}; the CUDA provider needs cuDNN 9 for convolutions: install it, or name its folder \
             in LD_LIBRARY_PATH"
        );
    }
    if words.contains("cannot open shared object file") {
        return format!(
            "{words}; the CUDA provider needs libcublas, libcublasLt, libcurand and libcudart of CUDA \
             13, and libcudnn 9: install them, or name their folders in LD_LIBRARY_PATH"
        );
    }
    let has_no_kernel = words.contains("Provider type for ") && words.contains(" is not set");
    if has_no_kernel
        || words.contains("disable_cpu_ep_fallback")
        || words.contains("fallback to CPU EP")
    {
        return format!("{words}; some of its nodes have no kernel in the CUDA provider");
    }
    words.to_owned()
}

impl Backend for OnnxRuntimeCuda {
    fn name(&self) -> String {
        format!("ONNX Runtime {} (CUDA) on {}", version(&self.library), self.device.name())
    }

    /// Loads the network as it was exported: what was built of it is for other back ends, and lies
    /// beside it.
    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError> {
        let network = file.contract.network.as_str();
        let refused = |reason: String| LoadError::Refused {
            library: self.name(),
            network: network.to_owned(),
            reason,
        };
        check_sizes(&file.contract).map_err(&refused)?;
        // The library reads the weights from their files itself and copies them to the device. Given
        // by address, as on the CPU, they would be used where they are.
        let (weights, graph) = Weights::map(file, &file.graph, None)?;
        let root = weights.root().to_owned();
        drop(weights);
        let session = self.load_session(&graph, &root).map_err(&refused)?;
        check_contract(&file.contract, &session)?;
        let number =
            i32::try_from(self.device.ordinal()).map_err(|error| refused(error.to_string()))?;
        let info = MemoryInfo::new(
            AllocationDevice::CUDA,
            number,
            AllocatorType::Device,
            MemoryType::Default,
        );
        Ok(Arc::new(CudaEngine {
            input_names: names(&file.contract.inputs),
            output_names: names(&file.contract.outputs),
            contract: file.contract.clone(),
            info: info.map_err(|error| refused(error.to_string()))?,
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
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    info: MemoryInfo<'static>,
    /// Held while a run is handed over, since a stream takes one after the other; true once a run
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
        Box::new(CudaSession { engine: self, bindings: ArrayVec::new(), staging: None })
    }
}

/// A session on a stream of a GPU.
struct CudaSession {
    engine: Arc<CudaEngine>,
    bindings: ArrayVec<Binding, KNOWN_BINDINGS>,
    /// For runs on tensors of the host, from the first one on.
    staging: Option<Staging>,
}

/// A network with all its tensors.
struct Binding {
    input_names: Vec<*const c_char>,
    inputs: Vec<*const OrtValue>,
    output_names: Vec<*const c_char>,
    outputs: Vec<*mut OrtValue>,
    options: RunOptions,
    /// What the descriptors describe, inputs first.
    buffers: Vec<Buffer>,
    /// What the values belong to.
    _descriptors: Vec<Descriptor>,
}

// SAFETY: the names lead into CStrings of the engine, which the session keeps beside the binding, the
// values are those of the descriptors, which describe memory of the buffers; the binding keeps both.
// The library's objects have no thread affinity.
unsafe impl Send for Binding {}

impl CudaSession {
    /// Place of the binding to these tensors, made on first sight.
    fn binding(
        &mut self,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<usize, RunError> {
        let is_of = |binding: &Binding| {
            let mut known = binding.buffers.iter().map(|buffer| (buffer.address(), buffer.bytes()));
            buffers_of(inputs, outputs)
                .all(|buffer| known.next() == Some((buffer.address(), buffer.bytes())))
        };
        if let Some(known) = self.bindings.iter().position(is_of) {
            return Ok(known);
        }
        let engine = &*self.engine;
        let network = &engine.contract.network;
        let specs = engine.contract.inputs.iter().chain(&engine.contract.outputs);
        let descriptors = specs.zip(buffers_of(inputs, outputs)).map(|(spec, buffer)| {
            let (address, bytes) = (buffer.address() as *mut c_void, buffer.bytes());
            Descriptor::new(&engine.info, Memory { address, bytes }, spec, network)
        });
        let descriptors = descriptors.collect::<Result<Vec<_>, _>>()?;
        let (described, written) = descriptors.split_at(inputs.len());
        let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect();
        let options = run_options().map_err(|error| RunError::Library {
            network: network.clone(),
            reason: error.to_string(),
        })?;
        let binding = Binding {
            input_names: pointers(&engine.input_names),
            inputs: described.iter().map(|known| known.value.as_ptr().cast_const()).collect(),
            output_names: pointers(&engine.output_names),
            outputs: written.iter().map(|known| known.value.as_ptr()).collect(),
            options,
            buffers: buffers_of(inputs, outputs).cloned().collect(),
            _descriptors: descriptors,
        };
        if self.bindings.is_full() {
            self.bindings.remove(0);
        }
        self.bindings.push(binding);
        Ok(self.bindings.len() - 1)
    }
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

    /// Hands one run over to the engine's stream.
    fn hand_over(&self, binding: &Binding) -> Result<(), RunError> {
        let mut has_failed = self.has_failed.lock().expect("no holder of this lock panics");
        if *has_failed {
            // Seen with 1.31.1: behind a run that failed on its way to the device, plans of
            // convolutions are gone, and every later run fails with other words.
            return Err(RunError::Library {
                network: self.contract.network.clone(),
                reason: "an earlier run of it failed; load it again".to_owned(),
            });
        }
        // The library takes the outputs' array for writing, though it has nothing to write there.
        let mut outputs: ArrayVec<*mut OrtValue, MAX_TENSORS> =
            binding.outputs.iter().copied().collect();
        // SAFETY: the engine owns the library's session. Names, values and the memory behind them are
        // kept by the engine and the binding until the session, which keeps both, is dropped; memory
        // that goes then is freed behind the work that uses it. Shapes and lengths were checked
        // against the contract.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                binding.options.ptr(),
                binding.input_names.as_ptr(),
                binding.inputs.as_ptr(),
                binding.inputs.len(),
                binding.output_names.as_ptr(),
                binding.output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        let ran = check(&self.contract.network, status);
        *has_failed = ran.is_err();
        ran
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
        agree_all(contract, inputs, outputs)?;
        self.engine
            .check_place(stream, inputs, outputs)
            .map_err(|source| RunError::Device { network: contract.network.clone(), source })?;
        let place = self.binding(inputs, outputs)?;
        self.engine.hand_over(&self.bindings[place])
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
        let said = explained(words);
        for part in [
            "libcublasLt.so.13",
            "directory; the CUDA provider",
            "CUDA 13",
            "libcudnn 9",
            "LD_LIBRARY_PATH",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(explained("something else"), "something else");
    }

    #[test]
    fn missing_cudnn_and_missing_kernel_are_explained() {
        let said = explained("cuDNN is unavailable: dlopen failed for libcudnn.so.9");
        assert!(said.contains("needs cuDNN 9") && said.contains("LD_LIBRARY_PATH"), "{said}");
        let said = explained(
            "Provider type for GlobalAveragePool node 'image.s1/b1/global_average_pool' is not set.",
        );
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
