//! The build that makes an engine folder again.

use crate::engine::target::{BackendKind, Target};
use std::path::PathBuf;
use tandem_export::folder::Summary;
use tandem_export::options::Precision;

/// Parameters of a build that replaces engines which cannot be used.
#[derive(Clone, PartialEq, Debug)]
pub struct Rebuild {
    /// Export that has to run first, because the networks compute in a precision that the target does
    /// not support.
    pub export: Option<Reexport>,
    /// Folder of the networks to build.
    pub network: PathBuf,
    /// Back end; `None`: the default for the targets.
    pub backend: Option<BackendKind>,
    /// Targets of each engine.
    pub targets: Vec<Target>,
    /// Precision of the networks; `None`: whatever they were exported in.
    pub precision: Option<Precision>,
    /// Engine folder to write.
    pub out: PathBuf,
}

/// Parameters of an export.
#[derive(Clone, PartialEq, Debug)]
pub struct Reexport {
    /// Checkpoint and options.
    pub summary: Summary,
    /// Network folder to write.
    pub out: PathBuf,
}
