//! Error of creating a session of the library.

use super::raw::MAX_RANK;
use crate::engine::MAX_TENSORS;
use std::io;
use std::path::PathBuf;

/// Error returned when a session cannot be created for a network.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("{message}")]
    Library { message: String },
    /// Message of the library for which a remedy is known.
    #[cfg(feature = "cuda")]
    #[error("{message}; {advice}")]
    Advised { message: String, advice: &'static str },
    #[error("the path of the weights' folder is not UTF-8")]
    Root,
    #[error("not an ONNX file: {0}")]
    NotOnnx(#[source] prost::DecodeError),
    #[error("the graph that the library wrote is not an ONNX file: {0}")]
    OptimizedNotOnnx(#[source] prost::DecodeError),
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{tensor:?} has more than {MAX_RANK} dimensions")]
    Rank { tensor: String },
    #[error("{count} inputs or outputs, at most {MAX_TENSORS} are supported")]
    Tensors { count: usize },
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// The device's ordinal exceeds the library's 32 bits.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Ordinal(#[from] std::num::TryFromIntError),
}

// Errors of the library's builder contain the builder, which is dropped here.
impl<R> From<ort::Error<R>> for SessionError {
    fn from(error: ort::Error<R>) -> Self {
        Self::Library { message: error.to_string() }
    }
}
