//! Interface between a build and the library that compiles engines.

use super::folder::{FileError, NetworkFile, Prediction, WeightHashError};
use super::session::LoadError;
use super::target::{BackendKind, Target};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Library that compiles networks into engine files.
///
/// [`super::build::build`] does the rest: comparing predicted with free memory and disk, resuming,
/// hashing, and writing files atomically.
pub trait Builder {
    /// Returns the back end that runs the engines.
    fn kind(&self) -> BackendKind;

    /// Returns the library's name and version, which are part of an engine's key.
    fn library_version(&self) -> String;

    /// Returns the properties of this machine on which engines for `targets` depend, such as CPU
    /// features. `None` if engines built here run on other machines.
    fn machine(&self, targets: &[Target]) -> Option<String>;

    /// Predicts the memory and disk that building one network needs. Fails if the graph cannot be
    /// read.
    fn predict(&self, file: &NetworkFile, targets: &[Target]) -> Result<Prediction, BuildError>;

    /// Compiles one network. Fails if the library rejects the network, a file cannot be read or
    /// written, or the build was canceled.
    fn build(&self, job: &BuildJob<'_>) -> Result<(), BuildError>;
}

/// Paths and settings for building one network.
pub struct BuildJob<'a> {
    pub file: &'a NetworkFile,
    /// Targets of the engine, which runs on all of them.
    pub targets: &'a [Target],
    /// Path of the engine to write. Its folder is empty, on the file system of the engine folder, and
    /// removed afterwards: temporary files may be written there.
    pub engine: &'a Path,
    /// Path for converted weights that belong to this engine alone, if the library writes any.
    pub weights: &'a Path,
    /// Final name of the file at `weights`, which will be in the engine's folder.
    pub weights_name: &'a str,
    /// Path for the list of the engine's layers, if the library provides one.
    pub layers: &'a Path,
    /// Called for each step of the build.
    pub steps: &'a StepListener,
    /// Cancels the build when set to true.
    pub cancel: &'a Arc<AtomicBool>,
}

/// Progress of one phase of a network's build. Phases nest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildStep<'a> {
    pub network: &'a str,
    /// Phase, named by the library.
    pub phase: &'a str,
    /// Number of enclosing phases; 0 for the build itself.
    pub depth: u32,
    /// Completed steps of the phase, of `steps`.
    pub step: u32,
    pub steps: u32,
}

/// Callback for build steps. The library calls it from any of its threads; it must not panic.
pub type StepListener = Arc<dyn Fn(BuildStep<'_>) + Send + Sync>;

/// Free memory and disk of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeResources {
    /// `None` if the system does not report it.
    pub memory_bytes: Option<u64>,
    /// Free space of the engine folder's file system; `None` if the system does not report it.
    pub disk_bytes: Option<u64>,
}

impl FreeResources {
    /// Reads the free resources of this machine; `folder`, the engine folder, exists.
    pub fn here(folder: &Path) -> Self {
        Self { memory_bytes: free_memory(), disk_bytes: free_disk(folder) }
    }
}

/// Returns the kernel's `MemAvailable`: memory that can be allocated without swapping.
fn free_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    kibibytes(&info, "MemAvailable:")
}

/// Parses a line `Name:   123 kB` and returns bytes.
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

/// Peak resident memory of this process since [`Self::start`], mapped files included.
pub(in crate::engine) struct PeakMemory;

impl PeakMemory {
    /// Resets the kernel's peak, where it permits that; otherwise the peak is that of the process.
    pub(in crate::engine) fn start() -> Self {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self
    }

    /// Returns bytes, or `None` if the system does not report them.
    pub(in crate::engine) fn bytes(&self) -> Option<u64> {
        kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
    }
}

/// Error returned when a network cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{library} cannot build network {network:?}: {reason}")]
    Refused { library: String, network: String, reason: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the build was interrupted")]
    Canceled,
}

impl BuildError {
    /// Returns a closure for `map_err` on the result of an operation on `path`.
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
    fn kernel_kibibytes_are_parsed_as_bytes() {
        let text = "MemTotal:  9 kB\nMemAvailable:   12 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(12 * 1024));
        assert_eq!(kibibytes(text, "MemFree:"), None);
        assert_eq!(kibibytes("MemAvailable: much\n", "MemAvailable:"), None);
    }
}
