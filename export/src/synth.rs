//! Common types for synthesizing checkpoints.

use crate::checkpoint::CheckpointError;
use std::io;
use std::path::PathBuf;

/// File that marks a folder as synthesized and holds its specification.
/// Such a folder may be replaced.
pub const MARKER: &str = "synth.json";

/// Weights of a synthesized checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SynthWeights {
    Random {
        seed: u64,
    },
    /// A hole in a sparse file, which reads as zeros.
    Sparse,
}

/// Size of a synthesized checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synthesized {
    /// Tensors in the weight file.
    pub tensors: usize,
    /// Elements of all parameters.
    pub parameters: usize,
    pub bytes: u64,
}

/// Error of synthesizing a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The output folder exists and was not synthesized.
    #[error(
        "{} exists and was not synthesized (it has no {MARKER}): give another folder or remove it",
        .0.display()
    )]
    Occupied(PathBuf),
    /// The output path has no last component.
    #[error("{} does not name a folder: end the path in a name", .0.display())]
    Unnamed(PathBuf),
    /// A value of the specification is not valid.
    #[error("the spec's {field} is {found}, expected {expected}")]
    Spec {
        /// Path of the key in the specification.
        field: &'static str,
        expected: String,
        found: String,
    },
    /// The specification does not have the structure that the family expects.
    #[error("not a checkpoint specification of model family {family:?}")]
    NotASpec {
        family: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// The configuration or the written checkpoint is not valid.
    #[error("the spec does not describe a valid checkpoint")]
    Model(#[from] CheckpointError),
    /// The check of the written folder returned a warning.
    #[error("the written folder does not match the spec: {0}")]
    UnexpectedWarning(String),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
