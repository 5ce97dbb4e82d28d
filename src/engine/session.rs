//! The three nouns every back end implements.

use super::{NetworkFile, OperatorProfile, OperatorProfileError, Rebuild};
use crate::device::{DeviceError, DeviceView, DeviceViewMut, Stream};
use crate::tensor::{DType, TensorView, TensorViewMut};
use std::sync::Arc;
use tandem_export::contract::Contract;

/// Maximum number of tensors on one side of a network: keys and values of 36 layers and a few more.
pub const MAX_TENSORS: usize = 256;

/// A library that can run networks.
pub trait Backend: Send + Sync {
    /// What it is, with its version, for tables and records.
    fn name(&self) -> String;

    /// Loads a network and checks it against its contract.
    ///
    /// # Errors
    /// If the library refuses the graph, a weight file is missing or short, or the loaded graph's
    /// inputs and outputs are not those of the contract.
    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError>;
}

/// A loaded network: immutable, shared.
pub trait Engine: Send + Sync {
    /// Its inputs, outputs and sizes.
    fn contract(&self) -> &Contract;

    /// A session for one user. This is the last allocation before the first run.
    fn session(self: Arc<Self>) -> Box<dyn Session>;

    /// Ends measuring operators, once runs in flight are over, and says what each took in all runs
    /// but the first `warm_up`. `None` if this engine does not measure them, or no longer: only a
    /// back end that was asked to attaches a profiler when it loads a network, and not every back
    /// end has one.
    #[expect(unused_variables, reason = "a back end without a profiler has nothing to leave out")]
    fn end_operator_profile(
        &self,
        warm_up: u64,
    ) -> Option<Result<OperatorProfile, OperatorProfileError>> {
        None
    }
}

/// One user of an engine.
pub trait Session: Send {
    /// Hands one run of the network to `stream`, which reads `inputs` and writes `outputs` in place
    /// when its turn comes; both are in the order of the contract. Does not wait for it. The first
    /// call with some memory binds the session to it, later ones allocate nothing of ours; a session
    /// keeps the memory that it is bound to alive.
    ///
    /// # Errors
    /// If a tensor is not what the contract says, or the stream or memory is of a device that this
    /// engine does not run on. What the library fails with comes from here or from the stream.
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), RunError>;

    /// How many plain runs with the same memory have to be over before
    /// [`enqueue`](Self::enqueue) may be called while the stream captures a graph: libraries choose
    /// kernels and allocate in their first runs, which no capture can hold. `None` if runs cannot be
    /// captured at all, since the host has something to do within them.
    fn runs_before_capture(&self) -> Option<usize>;

    /// Runs the network once on tensors of the host and waits for it: for checks and measurements.
    /// Reads `inputs` and writes `outputs`, both in the order of the contract.
    ///
    /// # Errors
    /// If a tensor is not what the contract says, or the library fails. Outputs are then undefined.
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError>;
}

/// A network could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library refused.
    #[error("{library} cannot load network {network:?}: {reason}")]
    Refused {
        /// The back end.
        library: String,
        /// The network.
        network: String,
        /// The library's own words.
        reason: String,
    },
    /// There is no GPU to load it on.
    #[error(
        "{library} cannot load network {network:?}: this machine has no NVIDIA GPU with a driver that \
         it can use ({reason}); install the driver (nvidia-smi must run), or run on the CPU"
    )]
    NoDevice {
        /// The back end.
        library: String,
        /// The network.
        network: String,
        /// The library's own words.
        reason: String,
    },
    /// The network was built for another back end, library, machine or version of tandem.
    #[error(
        "network {network:?} was built for something else than what is here ({}); build it again",
        differences.join("; ")
    )]
    Rebuild {
        /// The network.
        network: String,
        /// What differs.
        differences: Vec<String>,
        /// Build that makes an engine for what is here.
        rebuild: Option<Box<Rebuild>>,
    },
    /// The loaded graph is not what the contract promises.
    #[error(
        "network {network:?} does not keep its contract: {what} {name:?} should be {expected}, the \
         graph has {found}; export it again"
    )]
    Contract {
        /// The network.
        network: String,
        /// "input" or "output".
        what: &'static str,
        /// The tensor.
        name: String,
        /// Type and shape in the contract.
        expected: String,
        /// Type and shape in the graph.
        found: String,
    },
    /// A weight file cannot be used.
    #[error(
        "network {network:?}: weight {weight:?} lies outside {file:?}: it needs bytes {from} to {to}, the file has {length}; the checkpoint changed after the export, export it again"
    )]
    Weight {
        /// The network.
        network: String,
        /// The weight.
        weight: String,
        /// Its file.
        file: std::path::PathBuf,
        /// First byte needed.
        from: u64,
        /// One past the last byte needed.
        to: u64,
        /// Length of the file.
        length: u64,
    },
    /// A weight file cannot be opened.
    #[error(
        "network {network:?}: cannot open weight file {file:?}{}: {source}; {}",
        led_to.as_ref().map_or(String::new(), |to| format!(", a link to {to:?}")),
        weight_file_advice(source)
    )]
    WeightFile {
        /// The network.
        network: String,
        /// The file.
        file: std::path::PathBuf,
        /// Target of the link, if it is one.
        led_to: Option<std::path::PathBuf>,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl LoadError {
    /// Build that makes an engine for what is here, if that is what the network needs.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::Rebuild { rebuild, .. } => rebuild.as_deref(),
            _ => None,
        }
    }
}

/// What to do about a weight file that cannot be opened.
fn weight_file_advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "the checkpoint moved after the export, export it again",
        std::io::ErrorKind::OutOfMemory => {
            "it is mapped into memory: free some, or raise the limit of the address space (ulimit -v)"
        }
        std::io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "check the disk that it is on",
    }
}

/// A run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The wrong number of tensors.
    #[error("network {network:?} has {expected} {what}s, was given {found}")]
    Count {
        /// The network.
        network: String,
        /// "input" or "output".
        what: &'static str,
        /// How many the contract has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A tensor of another type or shape.
    #[error(
        "network {network:?}: {what} {name:?} is {expected_dtype} {expected_shape:?}, was given {found_dtype} {found_shape:?}"
    )]
    Tensor {
        /// The network.
        network: String,
        /// "input" or "output".
        what: &'static str,
        /// The tensor.
        name: String,
        /// Contract's element type.
        expected_dtype: DType,
        /// Contract's shape.
        expected_shape: Vec<usize>,
        /// Given element type.
        found_dtype: DType,
        /// Given shape.
        found_shape: Vec<usize>,
    },
    /// The device cannot take the run.
    #[error("network {network:?}: {source}")]
    Device {
        /// The network.
        network: String,
        /// Why.
        #[source]
        source: DeviceError,
    },
    /// The library failed.
    #[error("network {network:?} failed: {reason}")]
    Library {
        /// The network.
        network: String,
        /// The library's own words.
        reason: String,
    },
}
