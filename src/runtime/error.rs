//! Errors of opening an engine folder and of starting a route.

use crate::device::DeviceError;
use crate::engine::{EngineFolderError, Rebuild, RunError, onnxruntime};
use crate::model::{FamilyError, OptionsError};
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
    /// The model's family is not known.
    #[error(transparent)]
    Family(#[from] UnknownFamily),
    /// The run file's options are not those of the model's family.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The networks do not load.
    #[error("loading engine folder {}", folder.display())]
    Networks {
        /// The engine folder.
        folder: PathBuf,
        /// Why.
        source: FamilyError,
    },
    /// A network fails on inputs of zeros.
    #[error("running the networks before the first tick")]
    WarmUp(#[source] RunError),
    /// The networks give other answers on this device than the folder's golden run holds.
    #[error(transparent)]
    Golden(FamilyError),
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
            Self::Networks { source, .. } | Self::Golden(source) => source.rebuild(),
            _ => None,
        }
    }
}

/// A route cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A part of the model cannot be set up.
    #[error(transparent)]
    Model(#[from] FamilyError),
    /// The device has no memory for the KV cache.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The pilot does not start.
    #[error("starting the two experts")]
    Pilot(#[source] PilotError),
}

/// A name that no model family has.
#[derive(Debug, thiserror::Error)]
#[error("model family {found:?} is not known; this tandem runs {known}")]
pub struct UnknownFamily {
    /// The name, shortened.
    pub found: String,
    /// Names of the families that are known, as text.
    pub known: String,
}

/// The `model:` block of a run file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Its family is not known.
    #[error(transparent)]
    Family(#[from] UnknownFamily),
    /// Its options are not the family's.
    #[error(transparent)]
    Options(#[from] OptionsError),
}
