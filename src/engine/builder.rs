//! What a library must offer for engines to be built with it.

use super::folder::{FileError, NetworkFile, Prediction, WeightHashError};
use super::session::LoadError;
use super::target::{BackendKind, Target};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A library that turns networks into engine files.
///
/// [`super::build::build`] does everything around it: prediction against what there is, resuming,
/// hashing, and files that appear whole or not at all.
pub trait Builder {
    /// Which library.
    fn kind(&self) -> BackendKind;

    /// The library with its version; part of an engine's key.
    fn library_version(&self) -> String;

    /// What else of this machine an engine for `targets` depends on, such as CPU features; `None` if
    /// it can be built here and run elsewhere.
    fn machine(&self, targets: &[Target]) -> Option<String>;

    /// What building one network needs.
    ///
    /// # Errors
    /// If the graph cannot be read.
    fn predict(&self, file: &NetworkFile, targets: &[Target]) -> Result<Prediction, BuildError>;

    /// Builds one network.
    ///
    /// # Errors
    /// If the library refuses the network, a file cannot be read or written, or the build was
    /// canceled.
    fn build(&self, job: &BuildJob<'_>) -> Result<(), BuildError>;
}

/// One network to build.
pub struct BuildJob<'a> {
    /// The network as exported.
    pub file: &'a NetworkFile,
    /// What for; one engine runs on all of them.
    pub targets: &'a [Target],
    /// Where the engine goes. Its folder is empty, on the file system of the engine folder, and
    /// removed afterwards: room for files in between.
    pub engine: &'a Path,
    /// Where weights go that only this engine has, if there are any.
    pub weights: &'a Path,
    /// What the file at `weights` will be called beside the engine.
    pub weights_name: &'a str,
    /// Where the description of the engine's layers goes, if the library gives one.
    pub layers: &'a Path,
    /// Hears of the steps of the build.
    pub steps: &'a StepListener,
    /// Set when the build shall end.
    pub cancel: &'a Arc<AtomicBool>,
}

/// One step of one phase of a network's build. Phases nest; each has the library's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildStep<'a> {
    /// The network.
    pub network: &'a str,
    /// The phase.
    pub phase: &'a str,
    /// Phases around it; 0 for the one that is the whole build.
    pub depth: u32,
    /// Steps that are done.
    pub step: u32,
    /// Steps of the phase.
    pub steps: u32,
}

/// Who hears of steps. A library calls it from any of its threads, and it must not panic.
pub type StepListener = Arc<dyn Fn(BuildStep<'_>) + Send + Sync>;

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Available {
    /// Free memory, bytes; `None` if it cannot be told.
    pub memory_bytes: Option<u64>,
    /// Free disk where the engine folder is, bytes; `None` if it cannot be told.
    pub disk_bytes: Option<u64>,
}

impl Available {
    /// On this machine, with an engine folder in `folder`, which exists.
    pub fn here(folder: &Path) -> Self {
        Self { memory_bytes: free_memory(), disk_bytes: free_disk(folder) }
    }
}

/// `MemAvailable` of the kernel: what can be had without swapping.
fn free_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    kibibytes(&info, "MemAvailable:")
}

/// The number of a `Name:   123 kB` line, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(target_os = "linux")]
fn free_disk(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn free_disk(_: &Path) -> Option<u64> {
    None
}

/// The most memory this process had resident since [`Self::start`], mapped files included.
pub(in crate::engine) struct PeakMemory;

impl PeakMemory {
    /// Forgets the peak so far, where the kernel lets us; else the peak is that of the process.
    pub(in crate::engine) fn start() -> Self {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self
    }

    /// Bytes, `None` if the system does not say.
    pub(in crate::engine) fn bytes(&self) -> Option<u64> {
        kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
    }
}

/// A network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The network does not load, so it cannot be optimized either.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The library refused.
    #[error("{library} cannot build network {network:?}: {reason}")]
    Refused {
        /// The library.
        library: String,
        /// The network.
        network: String,
        /// The library's own words.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Someone asked for it.
    #[error("the build was interrupted")]
    Canceled,
}

impl BuildError {
    /// For `map_err` on what is done to `path`.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let error = FileError::at(what, path);
        move |source| Self::File(error(source))
    }
}

impl From<WeightHashError> for BuildError {
    fn from(error: WeightHashError) -> Self {
        match error {
            WeightHashError::File(error) => Self::File(error),
            WeightHashError::Canceled => Self::Canceled,
            WeightHashError::NotOnnx { network, source } => {
                let reason = format!("not an ONNX file: {source}");
                Self::Refused { library: "tandem".into(), network, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read_as_bytes() {
        let text = "MemTotal:  9 kB\nMemAvailable:   12 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(12 * 1024));
        assert_eq!(kibibytes(text, "MemFree:"), None);
        assert_eq!(kibibytes("MemAvailable: much\n", "MemAvailable:"), None);
    }
}
