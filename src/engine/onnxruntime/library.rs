//! Where the ONNX Runtime library comes from.
//!
//! Three ways, in this order: the file named by `ORT_DYLIB_PATH`; tandem's cache folder; the Python
//! package of the pinned version, fetched once with pip, checked by hash and put into the cache.
//! Two processes that need it at once fetch it once: the cache is filled under a file lock, by rename.

use crate::engine::network_file::hex;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release that is fetched.
pub const VERSION: &str = "1.31.1";

/// The package of one machine architecture.
struct Package {
    platform: &'static str,
    sha256: &'static str,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const PACKAGE: Option<Package> = Some(Package {
    platform: "manylinux_2_28_x86_64",
    sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
});
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const PACKAGE: Option<Package> = Some(Package {
    platform: "manylinux_2_28_aarch64",
    sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
});
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const PACKAGE: Option<Package> = None;

/// Where a library was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// `ORT_DYLIB_PATH`.
    Environment,
    /// The cache folder.
    Cache,
    /// Fetched just now, into the cache folder.
    Fetched,
}

/// What the finder reads from the environment; tests give their own.
#[derive(Clone, Debug)]
pub struct Places {
    /// Value of `ORT_DYLIB_PATH`.
    pub explicit: Option<PathBuf>,
    /// tandem's cache folder, if one can be had.
    pub cache: Option<PathBuf>,
    /// The Python interpreter that runs pip.
    pub python: PathBuf,
}

impl Places {
    /// As the environment says: `ORT_DYLIB_PATH`, `TANDEM_CACHE_DIR` (else `XDG_CACHE_HOME/tandem`,
    /// else `HOME/.cache/tandem`), `python3`.
    #[expect(clippy::disallowed_methods, reason = "this is the library finder")]
    pub fn from_environment() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = path("TANDEM_CACHE_DIR")
            .or_else(|| path("XDG_CACHE_HOME").map(|base| base.join("tandem")))
            .or_else(|| path("HOME").map(|home| home.join(".cache").join("tandem")));
        Self { explicit: path("ORT_DYLIB_PATH"), cache, python: PathBuf::from("python3") }
    }

    /// The file that the cache holds once it was fetched.
    pub fn cached_library(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(folder_name()).join(format!("libonnxruntime.so.{VERSION}")))
    }
}

fn folder_name() -> String {
    format!("onnxruntime-{VERSION}-{}", std::env::consts::ARCH)
}

/// No library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// `ORT_DYLIB_PATH` names a file that is not there.
    #[error(
        "ORT_DYLIB_PATH names {path:?}, which does not exist; correct it, or unset it and tandem fetches ONNX Runtime {VERSION}"
    )]
    Explicit {
        /// The path.
        path: PathBuf,
    },
    /// None of the three ways worked.
    #[error(
        "ONNX Runtime was not found and could not be fetched: {why}\n\
         There are three ways to provide it:\n  \
         1. set ORT_DYLIB_PATH to a libonnxruntime.so of version {VERSION} or later,\n  \
         2. put libonnxruntime.so.{VERSION} into {cache} (copy it from a machine that has it),\n  \
         3. let tandem fetch it: that needs python3 with pip and a network, or a package mirror that pip knows"
    )]
    Unavailable {
        /// What went wrong with the last way.
        why: String,
        /// The cache folder's place for it.
        cache: String,
    },
}

/// Finds the library without fetching anything.
///
/// # Errors
/// If `ORT_DYLIB_PATH` names a missing file. `Ok(None)` if the cache is empty.
pub fn find(places: &Places) -> Result<Option<(PathBuf, Source)>, LibraryError> {
    if let Some(path) = &places.explicit {
        if !path.is_file() {
            return Err(LibraryError::Explicit { path: path.clone() });
        }
        return Ok(Some((path.clone(), Source::Environment)));
    }
    let cached = places.cached_library().filter(|path| path.is_file());
    Ok(cached.map(|path| (path, Source::Cache)))
}

/// Finds the library, fetching it if need be. `progress` gets one line when a fetch begins.
///
/// # Errors
/// If there is no library and none can be fetched; the message says which ways exist.
pub fn find_or_fetch(
    places: &Places,
    progress: &mut dyn FnMut(&str),
) -> Result<(PathBuf, Source), LibraryError> {
    if let Some(found) = find(places)? {
        return Ok(found);
    }
    let unavailable = |why: String| LibraryError::Unavailable {
        why,
        cache: places
            .cached_library()
            .and_then(|path| path.parent().map(|folder| folder.display().to_string()))
            .unwrap_or_else(|| "a cache folder (set HOME or TANDEM_CACHE_DIR)".into()),
    };
    let Some(package) = &PACKAGE else {
        let arch = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        return Err(unavailable(format!("no package is known for {arch}")));
    };
    let (Some(cache), Some(library)) = (&places.cache, places.cached_library()) else {
        return Err(unavailable("there is no cache folder: HOME is not set".into()));
    };
    fetch(places, package, cache, &library, progress).map_err(unavailable)
}

fn fetch(
    places: &Places,
    package: &Package,
    cache: &Path,
    library: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(PathBuf, Source), String> {
    let io_error = |what: &str, path: &Path, error: io::Error| {
        format!("cannot {what} {}: {error}", path.display())
    };
    fs::create_dir_all(cache).map_err(|error| io_error("create", cache, error))?;
    let lock_path = cache.join(format!("{}.lock", folder_name()));
    let lock = File::create(&lock_path).map_err(|error| io_error("create", &lock_path, error))?;
    lock.lock().map_err(|error| io_error("lock", &lock_path, error))?;
    // Another process may have fetched it while this one waited for the lock.
    if library.is_file() {
        return Ok((library.to_path_buf(), Source::Cache));
    }
    progress(&format!("fetching ONNX Runtime {VERSION} (24 MB) into {}", cache.display()));
    let scratch = cache.join(format!("{}.partial", folder_name()));
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(|error| io_error("clear", &scratch, error))?;
    }
    fs::create_dir_all(&scratch).map_err(|error| io_error("create", &scratch, error))?;
    let wheel = download(places, package, &scratch)?;
    let unpacked = scratch.join("unpacked");
    extract(places, &wheel, &unpacked)?;
    let from = unpacked.join("onnxruntime/capi").join(format!("libonnxruntime.so.{VERSION}"));
    let staged = scratch.join("staged");
    fs::create_dir_all(&staged).map_err(|error| io_error("create", &staged, error))?;
    let staged_library = staged.join(format!("libonnxruntime.so.{VERSION}"));
    fs::rename(&from, &staged_library).map_err(|error| io_error("unpack", &from, error))?;
    File::open(&staged_library)
        .and_then(|file| file.sync_all())
        .map_err(|error| io_error("write", &staged_library, error))?;
    let folder = library.parent().expect("the cached library lies in a folder of the cache");
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| io_error("clear", folder, error))?;
    }
    fs::rename(&staged, folder).map_err(|error| io_error("rename into", folder, error))?;
    fs::remove_dir_all(&scratch).map_err(|error| io_error("clear", &scratch, error))?;
    Ok((library.to_path_buf(), Source::Fetched))
}

fn download(places: &Places, package: &Package, scratch: &Path) -> Result<PathBuf, String> {
    let requirements = scratch.join("requirements.txt");
    let line = format!("onnxruntime=={VERSION} --hash=sha256:{}\n", package.sha256);
    fs::write(&requirements, line)
        .map_err(|error| format!("cannot write {}: {error}", requirements.display()))?;
    let output = Command::new(&places.python)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.12"])
        .args(["--platform", package.platform, "--require-hashes", "--dest"])
        .arg(scratch)
        .arg("--requirement")
        .arg(&requirements)
        .output()
        .map_err(|error| format!("cannot start {}: {error}", places.python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = said.lines().rev().take(3).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        return Err(format!("pip could not fetch it ({}): {}", output.status, tail.join(" / ")));
    }
    let wheel = fs::read_dir(scratch)
        .map_err(|error| format!("cannot read {}: {error}", scratch.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip reported success but left no package")?;
    let bytes =
        fs::read(&wheel).map_err(|error| format!("cannot read {}: {error}", wheel.display()))?;
    let found = hex(&Sha256::digest(&bytes));
    if found != package.sha256 {
        return Err(format!(
            "the fetched package has SHA-256 {found}, expected {}: it was not used",
            package.sha256
        ));
    }
    Ok(wheel)
}

fn extract(places: &Places, wheel: &Path, into: &Path) -> Result<(), String> {
    let program =
        "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])";
    let member = format!("onnxruntime/capi/libonnxruntime.so.{VERSION}");
    let output = Command::new(&places.python)
        .args(["-c", program])
        .arg(wheel)
        .arg(member)
        .arg(into)
        .output()
        .map_err(|error| format!("cannot start {}: {error}", places.python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "cannot unpack {}: {}",
            wheel.display(),
            said.lines().last().unwrap_or("no message")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places {
            explicit: None,
            cache: Some(folder.to_path_buf()),
            python: folder.join("no-such-python"),
        }
    }

    #[test]
    fn a_missing_explicit_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let explicit = Some(folder.path().join("gone.so"));
        let error = find(&Places { explicit, ..places(folder.path()) }).unwrap_err().to_string();
        assert!(error.contains("gone.so") && error.contains("ORT_DYLIB_PATH"), "{error}");
    }

    #[test]
    fn an_explicit_file_comes_before_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mut places = places(folder.path());
        let cached = places.cached_library().unwrap();
        fs::create_dir_all(cached.parent().unwrap()).unwrap();
        fs::write(&cached, "").unwrap();
        assert_eq!(find(&places).unwrap(), Some((cached.clone(), Source::Cache)));
        let explicit = folder.path().join("mine.so");
        fs::write(&explicit, "").unwrap();
        places.explicit = Some(explicit.clone());
        assert_eq!(find(&places).unwrap(), Some((explicit, Source::Environment)));
    }

    #[test]
    fn without_library_and_python_the_error_names_all_three_ways() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        let error = find_or_fetch(&places(folder.path()), &mut |line| lines.push(line.to_string()))
            .unwrap_err()
            .to_string();
        for way in ["ORT_DYLIB_PATH", "libonnxruntime.so.", "python3 with pip", "no-such-python"] {
            assert!(error.contains(way), "{way} is missing in: {error}");
        }
        assert_eq!(lines.len(), 1, "one progress line: {lines:?}");
    }

    #[test]
    fn a_failing_pip_leaves_nothing_that_looks_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        fs::write(&python, "#!/bin/sh\necho 'ERROR: no network' >&2\nexit 1\n").unwrap();
        make_executable(&python);
        let places = Places { python, ..places(folder.path()) };
        let error = find_or_fetch(&places, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("no network"), "{error}");
        assert_eq!(find(&places).unwrap(), None);
    }

    #[test]
    fn a_package_with_another_hash_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        let script =
            "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\necho forged > \"$2/x.whl\"\n";
        fs::write(&python, script).unwrap();
        make_executable(&python);
        let places = Places { python, ..places(folder.path()) };
        let error = find_or_fetch(&places, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("was not used"), "{error}");
        assert_eq!(find(&places).unwrap(), None);
    }

    #[test]
    fn two_processes_at_once_fetch_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        let script = format!(
            "#!/bin/sh\n\
             if [ \"$1\" = -m ]; then\n\
               while [ \"$1\" != --dest ]; do shift; done\n\
               sleep 0.2; echo package > \"$2/x.whl\"; echo once >> '{}/count'\n\
             else\n\
               mkdir -p \"$5/onnxruntime/capi\"; echo library > \"$5/$4\"\n\
             fi\n",
            folder.path().display()
        );
        fs::write(&python, script).unwrap();
        make_executable(&python);
        let places = Places { python, ..places(folder.path()) };
        // SHA-256 of "package\n".
        let package =
            Package { platform: "any", sha256: &hex(&Sha256::digest(b"package\n")).leak()[..] };
        let library = places.cached_library().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    fetch(&places, &package, folder.path(), &library, &mut |_| {}).unwrap();
                    assert_eq!(fs::read_to_string(&library).unwrap(), "library\n");
                });
            }
        });
        assert_eq!(fs::read_to_string(folder.path().join("count")).unwrap(), "once\n");
    }

    #[cfg(unix)]
    fn make_executable(path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
