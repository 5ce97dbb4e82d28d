//! Errors of opening an engine folder and starting a route.

use crate::device::DeviceError;
use crate::engine::{EngineFolderError, Rebuild, SessionRunError, onnxruntime};
use crate::model::{FamilyError, OptionsError};
use crate::pilot::PilotError;
use std::io;
use std::path::PathBuf;

/// Error returned when an engine folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    OnnxRuntime(#[from] onnxruntime::OpenError),
    #[cfg(feature = "tensorrt")]
    #[error(transparent)]
    TensorRt(#[from] crate::engine::tensorrt::OpenError),
    #[error(transparent)]
    EngineFolder(#[from] EngineFolderError),
    #[error(transparent)]
    Family(#[from] FamilyNameError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("loading engine folder {}", folder.display())]
    Networks { folder: PathBuf, source: FamilyError },
    #[error("running the networks before the first tick")]
    WarmUp(#[source] SessionRunError),
    /// The outputs on this device differ from the golden run.
    #[error(transparent)]
    Golden(FamilyError),
    #[error("cannot write operator profiles to {}", folder.display())]
    OperatorProfile { folder: PathBuf, source: io::Error },
    #[error("operators are measured on the CPU only")]
    OperatorsOnGpu,
}

impl OpenError {
    /// Returns the build that would make the engine folder usable, if a build is the remedy.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::EngineFolder(error) => error.rebuild(),
            Self::Networks { source, .. } | Self::Golden(source) => source.rebuild(),
            _ => None,
        }
    }
}

/// Error returned when a route cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Model(#[from] FamilyError),
    /// The KV cache cannot be allocated.
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("starting the two experts")]
    Pilot(#[source] PilotError),
}

/// Error returned for a name that does not identify one model family.
#[derive(Debug, thiserror::Error)]
pub enum FamilyNameError {
    #[error("model family {found:?} is not known; this tandem runs {known}")]
    Unknown {
        found: String,
        /// Names of the known families as text.
        known: String,
    },
    #[error("model families {first} and {second} are both named {name:?}; rename one of them")]
    Duplicate {
        name: &'static str,
        /// Rust type of one family.
        first: &'static str,
        /// Rust type of the other family.
        second: &'static str,
    },
}

/// Error returned for an unusable `model:` block of a run file.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error(transparent)]
    Family(#[from] FamilyNameError),
    #[error(transparent)]
    Options(#[from] OptionsError),
}
