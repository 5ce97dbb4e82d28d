//! Loads the library and checks its flavor and version.

#![expect(unsafe_code, reason = "loads a vendor's library and calls its version functions")]

use crate::engine::library::{self, Library, LibraryError, LibrarySearch};
use crate::sync::lock;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Library that this build supports.
#[cfg(not(feature = "tensorrt-enterprise"))]
pub(super) const LIBRARY: &Library = crate::engine::tensorrt::RTX;
/// Library that this build supports.
#[cfg(feature = "tensorrt-enterprise")]
pub(super) const LIBRARY: &Library = crate::engine::tensorrt::ENTERPRISE;

/// Version of the API that this build was compiled against; later minor versions are compatible.
const COMPILED_AGAINST: Version = if cfg!(feature = "tensorrt-enterprise") {
    Version { major: 11, minor: 4, patch: 0 }
} else {
    Version { major: 1, minor: 7, patch: 0 }
};

/// Version of a TensorRT library.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// TensorRT-RTX counts from 1, TensorRT is at 10 and 11.
    pub major: i32,
    pub minor: i32,
    pub patch: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Error returned when TensorRT cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error("cannot read {path:?}: {source}; {} needs {}, in one folder", LIBRARY.name, LIBRARY.files.join(" and "))]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path:?} is damaged: {what}; remove its folder and tandem fetches {} {} again, or copy the file again from its source",
        LIBRARY.name,
        LIBRARY.version
    )]
    Damaged { path: PathBuf, what: String },
    #[error("cannot load {path:?}: {reason}")]
    Load { path: PathBuf, reason: String },
    #[error(
        "{path:?} is {found}, this tandem supports {}: set {} to its library, or build tandem with the feature `{}` instead",
        LIBRARY.name,
        LIBRARY.variable,
        if cfg!(feature = "tensorrt-enterprise") { "tensorrt" } else { "tensorrt-enterprise" }
    )]
    Flavor { path: PathBuf, found: String },
    #[error(
        "{path:?} is {} {found}, version {COMPILED_AGAINST} or later of {}.x is needed; unset {} and tandem uses {}",
        LIBRARY.name,
        COMPILED_AGAINST.major,
        LIBRARY.variable,
        LIBRARY.version
    )]
    Version { path: PathBuf, found: Version },
    #[error("cannot use {path:?}: this process already uses {loaded:?}")]
    Second { path: PathBuf, loaded: PathBuf },
}

/// Loaded TensorRT library whose flavor and version this build supports.
#[derive(Clone, Debug)]
pub struct TensorRt {
    path: PathBuf,
    version: Version,
}

/// The library of this process, which can be loaded only once.
static LOADED: Mutex<Option<TensorRt>> = Mutex::new(None);

impl TensorRt {
    /// Finds or fetches the library and loads it. `progress` receives a line when a fetch begins.
    /// Fails if the library cannot be found, fetched or loaded, or this build does not support it.
    pub fn open(progress: &mut dyn FnMut(&str)) -> Result<Self, OpenError> {
        let (path, _) =
            library::find_or_fetch(&LibrarySearch::from_environment(LIBRARY), progress)?;
        Self::open_file(&path)
    }

    /// Loads the library from `path`, a file of any name; its ONNX parser is in the same folder.
    /// Fails if the library is damaged, of another flavor or too old, or does not load.
    pub fn open_file(path: &Path) -> Result<Self, OpenError> {
        let path = path
            .canonicalize()
            .map_err(|source| OpenError::Read { path: path.to_path_buf(), source })?;
        let parser = path.with_file_name(LIBRARY.files[1]);
        check_complete(&path)?;
        let version = version_of(&path)?;
        check_complete(&parser)?;
        let mut slot = lock(&LOADED);
        match &*slot {
            Some(loaded) if loaded.path == path => return Ok(loaded.clone()),
            Some(loaded) => return Err(OpenError::Second { path, loaded: loaded.path.clone() }),
            None => {}
        }
        let load = |path: &Path, error: trtx::Error| {
            let (path, reason) = (path.to_path_buf(), error.to_string());
            OpenError::Load { path, reason }
        };
        trtx::dynamically_load_tensorrt(Some(&path)).map_err(|error| load(&path, error))?;
        trtx::dynamically_load_tensorrt_onnxparser(Some(&parser))
            .map_err(|error| load(&parser, error))?;
        Ok(slot.insert(Self { path, version }).clone())
    }

    /// Returns the path of the loaded library.
    pub fn library(&self) -> &Path {
        &self.path
    }

    /// Returns the version of the loaded library.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the library's name and version, for tables and result files.
    pub fn name(&self) -> String {
        format!("{} {}", LIBRARY.name, self.version)
    }
}

/// Checks that a file is a 64-bit ELF library and has the length given by its header: the loader would
/// map a truncated library, and accessing the missing part kills the process.
fn check_complete(path: &Path) -> Result<(), OpenError> {
    let read = |source| OpenError::Read { path: path.to_path_buf(), source };
    let damaged = |what: String| OpenError::Damaged { path: path.to_path_buf(), what };
    let file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut header = Vec::with_capacity(64);
    file.take(64).read_to_end(&mut header).map_err(read)?;
    if header.len() < 64 || !header.starts_with(b"\x7fELF\x02") {
        return Err(damaged("it is not a 64-bit shared library".to_owned()));
    }
    // Offset, entry size and count of the section headers, which linkers place at the end of a file.
    let field = |at: usize, bytes: usize| {
        header[at..at + bytes].iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let end = field(0x28, 8).saturating_add(field(0x3a, 2) * field(0x3c, 2));
    if length < end {
        return Err(damaged(format!("it has {length} bytes instead of {end}")));
    }
    Ok(())
}

/// Loads a library and returns its version, before any other part of its API is used.
fn version_of(path: &Path) -> Result<Version, OpenError> {
    let load = |error: libloading::Error| OpenError::Load {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    // SAFETY: `path` is a complete ELF library. Loading runs its initializers; the file was named by the
    // user or belongs to the package whose hash was checked, and tandem's code does not depend on state
    // that the initializers may change.
    let library = unsafe { libloading::Library::new(path) }.map_err(load)?;
    let call = |symbol: &str| -> Result<Option<i32>, OpenError> {
        // SAFETY: all versions of both flavors export these functions with C linkage, without
        // parameters, and with a 32-bit integer as the result.
        let function = unsafe { library.get::<unsafe extern "C" fn() -> i32>(symbol) };
        let Ok(function) = function else { return Ok(None) };
        // SAFETY: as above; the function returns a constant and accesses no memory.
        Ok(Some(unsafe { function() }))
    };
    let foreign = |found: String| OpenError::Flavor { path: path.to_path_buf(), found };
    let none = || foreign("not a TensorRT library (it has no version function)".to_owned());
    let version = Version {
        major: call("getInferLibMajorVersion")?.ok_or_else(none)?,
        minor: call("getInferLibMinorVersion")?.ok_or_else(none)?,
        patch: call("getInferLibPatchVersion")?.ok_or_else(none)?,
    };
    if version.major != COMPILED_AGAINST.major {
        let flavor = if version.major < 8 { "TensorRT-RTX" } else { "TensorRT" };
        return Err(foreign(format!("{flavor} {version}")));
    }
    if version < COMPILED_AGAINST {
        return Err(OpenError::Version { path: path.to_path_buf(), found: version });
    }
    Ok(version)
}
