//! Errors of opening an engine folder and of starting a route.

use crate::device::DeviceError;
use crate::engine::{EngineFolderError, Rebuild, RunError, onnxruntime};
use crate::model::automot::golden::GoldenError;
use crate::model::automot::tokenizer::TokenizerError;
use crate::model::automot::{NetworksError, SetupError};
use crate::pilot::PilotError;
use std::io;
use std::path::PathBuf;

/// An engine folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device does not exist, or cannot be shared as the run asks.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// ONNX Runtime cannot be used.
    #[error(transparent)]
    OnnxRuntime(#[from] onnxruntime::OpenError),
    /// TensorRT cannot be used.
    #[cfg(feature = "tensorrt")]
    #[error(transparent)]
    TensorRt(#[from] crate::engine::tensorrt::OpenError),
    /// The record of built engines cannot be read.
    #[error(transparent)]
    EngineFolder(#[from] EngineFolderError),
    /// The networks do not load.
    #[error("loading engine folder {}", folder.display())]
    Networks {
        /// The engine folder.
        folder: PathBuf,
        /// Why.
        source: Box<NetworksError>,
    },
    /// A network fails on inputs of zeros.
    #[error("running the networks before the first tick")]
    WarmUp(#[source] RunError),
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The networks give other answers on this device than the folder's golden run holds.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// Operator profiles cannot be written.
    #[error("cannot write operator profiles to {}", folder.display())]
    OperatorProfile {
        /// Where they were to be written.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Operators were to be measured on a GPU.
    #[error("operators are only measured on the CPU")]
    OperatorsOnGpu,
}

impl OpenError {
    /// Build that makes the engine folder usable, if that is what it needs.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::EngineFolder(error) => error.rebuild(),
            Self::Networks { source, .. } => source.rebuild(),
            _ => None,
        }
    }
}

/// A route cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The understanding expert cannot be set up.
    #[error(transparent)]
    Understanding(#[from] Box<SetupError>),
    /// The action expert cannot be set up.
    #[error(transparent)]
    Action(#[from] Box<NetworksError>),
    /// The device has no memory for the KV cache.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The pilot does not start.
    #[error("starting the two experts")]
    Pilot(#[source] PilotError),
}
