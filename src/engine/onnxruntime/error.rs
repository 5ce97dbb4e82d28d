//! Errors of making a session of the library.

use super::raw::MAX_RANK;
use crate::engine::MAX_TENSORS;
use std::io;
use std::path::PathBuf;

/// Error returned when a network does not become a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The library refuses an option or the graph.
    #[error("{message}")]
    Library {
        /// Message of the library.
        message: String,
    },
    /// The library refuses the graph for a reason that has a remedy.
    #[cfg(feature = "cuda")]
    #[error("{message}; {advice}")]
    Advised {
        /// Message of the library.
        message: String,
        advice: &'static str,
    },
    /// The library takes the folder as text.
    #[error("the path of the weights' folder is not UTF-8")]
    Root,
    /// The graph cannot be decoded.
    #[error("not an ONNX file: {0}")]
    NotOnnx(#[source] prost::DecodeError),
    /// The graph that the library wrote cannot be decoded.
    #[error("the library's own graph is not an ONNX file: {0}")]
    OptimizedNotOnnx(#[source] prost::DecodeError),
    /// A file of a profile cannot be written.
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
    /// A tensor has more dimensions than a session has room for.
    #[error("{tensor:?} has more than {MAX_RANK} dimensions")]
    Rank { tensor: String },
    /// A network has more tensors than a session has room for.
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
