//! Parameters of the build that replaces an engine folder.

use crate::engine::target::{BackendKind, Target};
use std::path::PathBuf;
use tandem_export::folder::Summary;
use tandem_export::options::Precision;

/// Parameters of a build that replaces engines which cannot be used.
#[derive(Clone, PartialEq, Debug)]
pub struct Rebuild {
    /// Export that must run first, because the target does not support the networks' precision.
    pub export: Option<Reexport>,
    /// Folder of the networks to build.
    pub network: PathBuf,
    /// `None` selects the default for the targets.
    pub backend: Option<BackendKind>,
    pub targets: Vec<Target>,
    /// `None` accepts the precision of the export.
    pub precision: Option<Precision>,
    pub out: PathBuf,
}

/// Parameters of an export that must precede a build.
#[derive(Clone, PartialEq, Debug)]
pub struct Reexport {
    /// Summary with the checkpoint and the options.
    pub summary: Summary,
    pub out: PathBuf,
}
