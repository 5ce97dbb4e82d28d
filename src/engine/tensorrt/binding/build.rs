//! Compiles a network file to an engine.

use super::heap;
use super::monitor::{Listener, Messages, Monitor};
use super::open::TensorRt;
use crate::engine::builder::PeakMemory;
use crate::engine::tensorrt::Target;
use crate::engine::{LAYER_FORMAT, LayerReport, NetworkFile};
use crate::tensor::DType;
use crate::timing::Stopwatch;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_export::contract::{Contract, TensorSpec};
use tandem_export::folder::graph_file;
use trtx::host_memory::HostMemory;
use trtx::{
    Builder, BuilderConfig, BuilderFlag, DataType, Logger, NetworkDefinition, OnnxParser,
    ProfilingVerbosity, Tensor,
};

/// Settings of one build. The engine has the precision of the graph: each tensor keeps its type.
#[derive(Clone)]
pub struct BuildRequest {
    /// GPUs of the engine, which contains kernels for all of them and the weights once.
    /// [`Target::Native`] cannot be combined with others.
    pub targets: BTreeSet<Target>,
    /// Called for each step, from any thread; it must not panic.
    pub progress: Listener,
    /// Cancels the build at its next step when set to true.
    pub cancel: Arc<AtomicBool>,
}

impl BuildRequest {
    /// Creates a build for `targets` without progress reports or cancellation.
    pub fn for_targets(targets: impl IntoIterator<Item = Target>) -> Self {
        Self {
            targets: targets.into_iter().collect(),
            progress: Arc::new(|_| {}),
            cancel: Arc::default(),
        }
    }
}

impl fmt::Debug for BuildRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BuildRequest")
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

/// Times and sizes of one build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BuildReport {
    /// Name and version of the library.
    pub library: String,
    pub targets: Vec<&'static str>,
    /// Time for parsing the graph file.
    pub parse_ns: u64,
    /// Time for compiling the network.
    pub build_ns: u64,
    pub engine_bytes: u64,
    /// Peak resident memory of the process during the build, library and mapped weights included;
    /// `None` if the system does not report it.
    pub peak_bytes: Option<u64>,
    /// Number of layers of the parsed network.
    pub network_layers: u32,
    /// Layers of the engine; `None` if the library did not list them.
    #[serde(skip)]
    pub layers: Option<LayerReport>,
    pub warnings: Vec<String>,
}

/// Error returned when TensorRT cannot build an engine.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot build for {}: {rule}", if found.is_empty() { "no target" } else { found })]
    Targets {
        found: String,
        /// Rule that the targets violate.
        rule: &'static str,
    },
    #[error(
        "{library} refuses network {network:?}{}: {reason}",
        node.as_ref().map(|node| format!(" at node {node:?}")).unwrap_or_default()
    )]
    Refused {
        library: String,
        network: String,
        /// Node that the parser rejected, if its messages name one.
        node: Option<String>,
        reason: String,
    },
    #[error(
        "network {network:?} does not match its contract: {what} {name:?} should be {expected}, the \
         graph has {found}; export it again"
    )]
    Contract {
        network: String,
        /// Side of the network, "input" or "output".
        what: &'static str,
        name: String,
        expected: String,
        found: String,
    },
    #[error(
        "cannot build network {network:?} for the GPU of this machine: {library} finds no usable GPU ({reason}); specify a target such as {}, or install the NVIDIA driver (nvidia-smi must run)",
        Target::Sm89
    )]
    NoDevice { library: String, network: String, reason: String },
    #[error("the build of network {network:?} was canceled")]
    Canceled { network: String },
    #[error("cannot write the engine of network {network:?}")]
    Write {
        network: String,
        #[source]
        source: io::Error,
    },
}

impl TensorRt {
    /// Builds one engine for all targets of `request` and writes it to `into`.
    ///
    /// The library reads the graph from its folder, to which weight locations are relative. It
    /// prints a line to the terminal when its compiler fails. Fails if the library rejects the
    /// graph, the build is canceled, or writing fails; a part of the engine may then be written.
    pub fn build(
        &self,
        file: &NetworkFile,
        request: &BuildRequest,
        into: &mut dyn Write,
    ) -> Result<BuildReport, BuildError> {
        check_targets(&request.targets)?;
        heap::trim();
        let job = Job { library: self.name(), file, request, messages: Messages::default() };
        let logger = job.or_refused(Logger::new(job.messages.clone()))?;
        let peak = PeakMemory::start();
        let mut builder = job.or_refused(Builder::new(&logger))?;
        let (engine, parsed) = job.compile(&logger, &mut builder)?;
        let peak_bytes = peak.bytes();
        job.check_canceled()?;
        into.write_all(&engine).map_err(|source| {
            let network = job.network();
            BuildError::Write { network, source }
        })?;
        Ok(BuildReport {
            library: job.library.clone(),
            targets: request.targets.iter().map(|target| target.name()).collect(),
            parse_ns: parsed.parse_ns,
            build_ns: parsed.build_ns,
            engine_bytes: engine.len() as u64,
            peak_bytes,
            network_layers: parsed.network_layers,
            layers: job.messages.layers().map(|layers| LayerReport {
                format: LAYER_FORMAT,
                library: job.library.clone(),
                layers,
            }),
            warnings: job.messages.warnings(),
        })
    }
}

fn check_targets(targets: &BTreeSet<Target>) -> Result<(), BuildError> {
    let rule = if cfg!(feature = "tensorrt-enterprise") {
        "TensorRT 11 compiles only for the GPU of its own machine: the target is `native`"
    } else {
        "specify `native`, or one or more of the targets that need no GPU"
    };
    let is_native = targets.contains(&Target::Native);
    let fits = if cfg!(feature = "tensorrt-enterprise") {
        is_native && targets.len() == 1
    } else {
        !targets.is_empty() && (!is_native || targets.len() == 1)
    };
    if fits {
        return Ok(());
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    Err(BuildError::Targets { found: names.join(", "), rule })
}

/// Times of parsing and compiling, and the size of the network.
struct Compiled {
    parse_ns: u64,
    build_ns: u64,
    network_layers: u32,
}

/// Build of one network in progress.
struct Job<'a> {
    library: String,
    file: &'a NetworkFile,
    request: &'a BuildRequest,
    messages: Messages,
}

impl Job<'_> {
    fn network(&self) -> String {
        self.file.contract.network.clone()
    }

    /// Parses and compiles the network. The engine outlives the parser and its copies of weights.
    fn compile<'logger>(
        &self,
        logger: &'logger Logger,
        builder: &mut Builder<'logger>,
    ) -> Result<(HostMemory<'logger>, Compiled), BuildError> {
        let mut config = self.config(builder)?;
        let network = self.or_refused(builder.create_network(0))?;
        let mut parser = self.or_refused(OnnxParser::new(network, logger))?;
        let path = self.file.folder.canonicalize().unwrap_or_else(|_| self.file.folder.clone());
        let path = path.join(graph_file(&self.file.contract.network));
        let path = path.to_str().ok_or_else(|| {
            self.refusal(None, format!("it cannot open {path:?}: the path is not UTF-8"))
        })?;
        self.check_canceled()?;
        let watch = Stopwatch::start();
        self.or_refused(parser.parse_from_file(path, trtx::Severity::Warning as i32))?;
        let parse_ns = watch.elapsed().as_nanos() as u64;
        self.check_canceled()?;
        let network = parser.network_mut();
        check(&self.file.contract, network)?;
        let network_layers = network.nb_layers().try_into().unwrap_or(0);
        let watch = Stopwatch::start();
        let engine = self.or_refused(builder.build_serialized_network(network, &mut config))?;
        let build_ns = watch.elapsed().as_nanos() as u64;
        Ok((engine, Compiled { parse_ns, build_ns, network_layers }))
    }

    fn config<'logger>(
        &self,
        builder: &mut Builder<'logger>,
    ) -> Result<BuilderConfig<'logger>, BuildError> {
        let mut config = self.or_refused(builder.create_config())?;
        #[cfg(not(feature = "tensorrt-enterprise"))]
        {
            let count = self.request.targets.len().try_into().expect("there are seven targets");
            self.or_refused(config.set_nb_compute_capabilities(count))?;
            for (&target, index) in self.request.targets.iter().zip(0..) {
                self.or_refused(config.set_compute_capability(capability(target), index))?;
            }
        }
        // Needed for the list of layers in the log; it does not enlarge the engine.
        config.set_profiling_verbosity(ProfilingVerbosity::kDETAILED);
        // TF32 is on by default and rounds the inputs of f32 products to 10 bits of fraction.
        config.clear_flag(BuilderFlag::kTF32);
        // Auxiliary streams would not be confined to the multiprocessors of the caller's stream, and
        // their events would have to be part of a capture of that stream.
        config.set_max_aux_streams(0);
        let Self { request: BuildRequest { progress, cancel, .. }, .. } = self;
        let monitor = Monitor::new(Arc::clone(progress), Arc::clone(cancel));
        self.or_refused(config.set_progress_monitor(Box::new(monitor)))?;
        Ok(config)
    }

    fn check_canceled(&self) -> Result<(), BuildError> {
        if self.request.cancel.load(Ordering::Relaxed) {
            return Err(BuildError::Canceled { network: self.network() });
        }
        Ok(())
    }

    /// Converts an error of the library to one with the messages that it logged.
    fn or_refused<T>(&self, result: trtx::Result<T>) -> Result<T, BuildError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        self.check_canceled()?;
        let errors = self.messages.errors();
        let is_native = self.request.targets.contains(&Target::Native);
        if is_native && let Some(reason) = no_device(&errors) {
            let (library, network) = (self.library.clone(), self.network());
            return Err(BuildError::NoDevice { library, network, reason });
        }
        let reason = reason(&errors);
        let reason = if reason.is_empty() { error.to_string() } else { reason };
        Err(self.refusal(node(&errors), reason))
    }

    fn refusal(&self, node: Option<String>, reason: String) -> BuildError {
        let (library, network) = (self.library.clone(), self.network());
        BuildError::Refused { library, network, node, reason }
    }
}

#[cfg(not(feature = "tensorrt-enterprise"))]
fn capability(target: Target) -> trtx::ComputeCapability {
    use trtx::ComputeCapability as Capability;
    match target {
        Target::Native => Capability::kCURRENT,
        Target::Sm75 => Capability::kSM75,
        Target::Sm80 => Capability::kSM80,
        Target::Sm86 => Capability::kSM86,
        Target::Sm89 => Capability::kSM89,
        Target::Sm120 => Capability::kSM120,
        Target::Sm121 => Capability::kSM121,
    }
}

/// Returns the message that reports a missing GPU or a driver that is too old.
pub(super) fn no_device(errors: &[String]) -> Option<String> {
    let cuda =
        errors.iter().flat_map(|message| message.lines()).find(|line| line.contains("CUDA"))?;
    // "... (cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
    let text = cuda.split_once("cudaError ").and_then(|(_, rest)| rest.split_once(": "));
    Some(text.map_or(cuda, |(_, text)| text.trim_end_matches(')')).to_owned())
}

/// Returns the node that the parser's messages name.
fn node(errors: &[String]) -> Option<String> {
    let lines = errors.iter().flat_map(|message| message.lines());
    let name = lines.filter_map(|line| line.split_once("Invalid Node - ")).next()?.1;
    Some(name.trim().to_owned())
}

/// Joins the messages without duplicates and without the library's stack frames. Messages about a
/// missing GPU are left out: the library logs them after each other error, even if no GPU is needed.
pub(super) fn reason(errors: &[String]) -> String {
    let is_frame = |line: &&str| {
        let frames =
            ["--- ", "While parsing node", "In function ", "Node name:", "Invalid Node - "];
        line.is_empty() || frames.iter().any(|frame| line.contains(frame))
    };
    let is_about_gpus = |line: &&str| line.contains("catchCudaError");
    let mut reasons: Vec<&str> = Vec::new();
    let lines = errors.iter().flat_map(|message| message.lines()).map(str::trim);
    for line in lines.filter(|line| !is_frame(line) && !is_about_gpus(line)) {
        if !reasons.contains(&line) {
            reasons.push(line);
        }
    }
    reasons.join("; ")
}

/// Compares the parsed graph's inputs and outputs with the contract.
fn check(contract: &Contract, network: &NetworkDefinition<'_>) -> Result<(), BuildError> {
    let inputs: Vec<_> = (0..network.nb_inputs()).map_while(|i| network.input(i).ok()).collect();
    let outputs: Vec<_> = (0..network.nb_outputs()).map_while(|i| network.output(i).ok()).collect();
    let sides = [("input", &contract.inputs, inputs), ("output", &contract.outputs, outputs)];
    for (what, specs, tensors) in sides {
        let wrong = |name: &str, expected: String, found: String| {
            let (network, name) = (contract.network.clone(), name.to_owned());
            BuildError::Contract { network, what, name, expected, found }
        };
        let found: Vec<(String, String)> =
            tensors.iter().map(|tensor| describe(tensor, network)).collect();
        let missing = || "no such tensor".to_owned();
        for spec in specs {
            let expected = expected(spec);
            let found = found.iter().find(|(name, _)| *name == spec.name);
            let found = found.map_or_else(missing, |(_, found)| found.clone());
            if found != expected {
                return Err(wrong(&spec.name, expected, found));
            }
        }
        let is_known = |name: &str| specs.iter().any(|spec| spec.name == name);
        if let Some((name, found)) = found.into_iter().find(|(name, _)| !is_known(name)) {
            return Err(wrong(&name, missing(), found));
        }
    }
    Ok(())
}

fn expected(spec: &TensorSpec) -> String {
    let shape: Vec<i64> = spec.shape.iter().map(|&extent| extent as i64).collect();
    format!("{} {shape:?}", spec.dtype)
}

/// Returns the name, and type and shape as text, of a tensor in the parsed graph.
fn describe(tensor: &Tensor<'_>, network: &NetworkDefinition<'_>) -> (String, String) {
    let name = tensor.name(network).unwrap_or_default();
    let shape = tensor.dimensions(network).unwrap_or_default();
    let dtype = match tensor.data_type(network) {
        DataType::kFLOAT => DType::F32.to_string(),
        DataType::kHALF => DType::F16.to_string(),
        DataType::kBF16 => DType::Bf16.to_string(),
        DataType::kINT64 => DType::I64.to_string(),
        DataType::kUINT8 => DType::U8.to_string(),
        DataType::kBOOL => DType::Bool.to_string(),
        other => format!("{other:?}"),
    };
    (name, format!("{dtype} {shape:?}"))
}
