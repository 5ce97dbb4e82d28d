//! What families write when they synthesize checkpoints.

use crate::checkpoint::CheckpointError;
use std::io;
use std::path::PathBuf;

/// File that says in a folder that it was synthesized, from what; such a folder may be replaced.
pub const MARKER: &str = "synth.json";

/// Weights of a synthesized checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SynthWeights {
    /// Random values.
    Random {
        /// Seed of the values.
        seed: u64,
    },
    /// A hole in the file, which reads as zeros.
    Sparse,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synthesized {
    /// Tensors in the weight file.
    pub tensors: usize,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Bytes of the weight file.
    pub bytes: u64,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// Something stands where the folder should go.
    #[error(
        "{} exists and was not synthesized (it has no {MARKER}): give another folder or remove it",
        .0.display()
    )]
    Occupied(
        /// What stands there.
        PathBuf,
    ),
    /// The path names no folder that could be made.
    #[error("{} does not name a folder: end the path in a name", .0.display())]
    Unnamed(
        /// The path.
        PathBuf,
    ),
    /// A number or name of the spec is impossible.
    #[error("the spec's {field} is {found}, expected {expected}")]
    Spec {
        /// Where in the spec.
        field: &'static str,
        /// The rule.
        expected: String,
        /// The value.
        found: String,
    },
    /// The spec is not one of the family's.
    #[error("not a checkpoint specification of model family {family:?}")]
    NotASpec {
        /// The family.
        family: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The spec describes no possible model, or the folder came out other than asked.
    #[error("the spec describes no possible checkpoint")]
    Model(#[from] CheckpointError),
    /// The folder came out unlike the spec.
    #[error("the written folder is not what the spec asked for: {0}")]
    Odd(
        /// What the check found.
        String,
    ),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
