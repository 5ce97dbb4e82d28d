//! The three traits that every back end implements, and their errors.

use super::{NetworkFile, OperatorProfile, OperatorProfileError, Rebuild};
use crate::device::{DeviceError, DeviceView, DeviceViewMut, Stream};
use crate::tensor::{DType, TensorView, TensorViewMut};
use std::sync::Arc;
use tandem_export::contract::Contract;

/// Maximum number of inputs, and of outputs, of a network: keys and values of 36 layers and more fit.
pub const MAX_TENSORS: usize = 256;

/// A library that can run networks.
pub trait Backend: Send + Sync {
    /// Returns the library's name and version, for tables and result files.
    fn name(&self) -> String;

    /// Loads a network and compares it with its contract. Fails if the library rejects the graph, a
    /// weight file is missing or too short, or the loaded graph's inputs and outputs are not those
    /// of the contract.
    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError>;
}

/// A loaded network: immutable and shared.
pub trait Engine: Send + Sync {
    /// Returns the contract that the network was checked against.
    fn contract(&self) -> &Contract;

    /// Creates a session for one user. It makes the last allocation before the first run.
    fn session(self: Arc<Self>) -> Box<dyn Session>;

    /// Waits for runs in progress, stops the operator profiler, and returns the time of each operator
    /// over all runs except the first `warm_up`. `None` if the engine was loaded without a profiler,
    /// its back end has none, or the profiler was stopped before.
    #[expect(unused_variables, reason = "the default has no profiler")]
    fn end_operator_profile(
        &self,
        warm_up: u64,
    ) -> Option<Result<OperatorProfile, OperatorProfileError>> {
        None
    }
}

/// Session of one user of an engine.
pub trait Session: Send {
    /// Enqueues one run of the network on `stream` and returns without waiting. The run reads
    /// `inputs` and writes `outputs` in place; both are in the order of the contract. The first
    /// call with given memory binds the session to it and keeps that memory alive; later calls with
    /// it allocate no host memory here. Fails if a tensor does not match the contract, or the
    /// stream or memory belongs to a device that this engine does not run on. Failures of the
    /// library are returned here or by the stream.
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError>;

    /// Returns the number of runs with the same memory that must have completed before
    /// [`enqueue`](Self::enqueue) may be called while the stream captures a graph: libraries select
    /// kernels and allocate in their first runs, which a capture cannot contain. `None` if runs
    /// cannot be captured because they need the host.
    fn runs_before_capture(&self) -> Option<usize>;

    /// Runs the network once on host tensors and waits for the result: for validation and
    /// measurements. Reads `inputs` and writes `outputs`, both in the order of the contract. Fails
    /// if a tensor does not match the contract, or the library fails. `outputs` are then undefined.
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), SessionRunError>;
}

/// Error returned when a network cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{library} cannot load network {network:?}: {reason}")]
    Refused { library: String, network: String, reason: String },
    #[error(
        "{library} cannot load network {network:?}: this machine has no NVIDIA GPU with a usable driver \
         ({reason}); install the driver (nvidia-smi must run), or run on the CPU"
    )]
    NoDevice { library: String, network: String, reason: String },
    #[error(
        "the engine of network {network:?} does not match this installation ({}); build it again",
        differences.join("; ")
    )]
    Rebuild {
        network: String,
        differences: Vec<String>,
        /// Build that replaces the engine.
        rebuild: Option<Box<Rebuild>>,
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
        "network {network:?}: weight {weight:?} does not fit into {file:?}: it needs bytes {from} to {to}, the file has {length}; the checkpoint changed after the export, export it again"
    )]
    Weight {
        network: String,
        weight: String,
        file: std::path::PathBuf,
        /// Offset of the first byte of the weight.
        from: u64,
        /// Offset after the last byte of the weight.
        to: u64,
        length: u64,
    },
    #[error(
        "network {network:?}: cannot open weight file {file:?}{}: {source}; {}",
        link_target.as_ref().map_or(String::new(), |to| format!(", a link to {to:?}")),
        weight_file_advice(source)
    )]
    WeightFile {
        network: String,
        file: std::path::PathBuf,
        /// Target of the link, if it is one.
        link_target: Option<std::path::PathBuf>,
        #[source]
        source: std::io::Error,
    },
}

impl LoadError {
    /// Returns the build that replaces the engine, if the engine does not match this installation.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::Rebuild { rebuild, .. } => rebuild.as_deref(),
            _ => None,
        }
    }
}

/// Returns the advice for a weight file that cannot be opened.
fn weight_file_advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "the checkpoint moved after the export, export it again",
        std::io::ErrorKind::OutOfMemory => {
            "it is mapped into memory: free memory, or raise the address space limit (ulimit -v)"
        }
        std::io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "check its disk",
    }
}

/// Error returned when a run of a session fails.
#[derive(Debug, thiserror::Error)]
pub enum SessionRunError {
    #[error("network {network:?} has {expected} {what}s, the call passed {found}")]
    Count {
        network: String,
        /// Side of the network, "input" or "output".
        what: &'static str,
        expected: usize,
        found: usize,
    },
    #[error(
        "network {network:?}: {what} {name:?} is {expected_dtype} {expected_shape:?}, the call passed {found_dtype} {found_shape:?}"
    )]
    Tensor {
        network: String,
        /// Side of the network, "input" or "output".
        what: &'static str,
        name: String,
        expected_dtype: DType,
        expected_shape: Vec<usize>,
        found_dtype: DType,
        found_shape: Vec<usize>,
    },
    #[error("network {network:?}: {source}")]
    Device {
        network: String,
        #[source]
        source: DeviceError,
    },
    #[error("network {network:?} failed: {reason}")]
    Library { network: String, reason: String },
}
