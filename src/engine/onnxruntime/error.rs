//! Errors of making a session of the library.

use super::raw::MAX_RANK;
use crate::engine::MAX_TENSORS;
use std::io;
use std::path::PathBuf;

/// Error returned when a network does not become a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("{message}")]
    Library { message: String },
    /// The library refuses the graph for a reason that has a remedy.
    #[cfg(feature = "cuda")]
    #[error("{message}; {advice}")]
    Advised { message: String, advice: &'static str },
    #[error("the path of the weights' folder is not UTF-8")]
    Root,
    #[error("not an ONNX file: {0}")]
    NotOnnx(#[source] prost::DecodeError),
    #[error("the library's own graph is not an ONNX file: {0}")]
    OptimizedNotOnnx(#[source] prost::DecodeError),
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{tensor:?} has more than {MAX_RANK} dimensions")]
    Rank { tensor: String },
    #[error("{count} tensors on one side, {MAX_TENSORS} at most")]
    Tensors { count: usize },
    /// The device does not answer.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// The library counts devices in fewer bits.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Ordinal(#[from] std::num::TryFromIntError),
}

// Errors of the library's builder carry the builder, which is of no use any more.
impl<R> From<ort::Error<R>> for SessionError {
    fn from(error: ort::Error<R>) -> Self {
        Self::Library { message: error.to_string() }
    }
}
