//! Where a vendor's library comes from.
//!
//! Three ways, in this order: the file named by the library's environment variable; tandem's cache
//! folder; the Python package of the pinned version, fetched once with pip, checked by hash and put
//! into the cache. Two processes that need it at once fetch it once: the cache is filled under a file
//! lock, by rename.

use super::network_file::hex;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that can be found, and the release of it that is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    /// Its name, for people.
    pub name: &'static str,
    /// The release that is fetched.
    pub version: &'static str,
    /// The environment variable that names its file.
    pub variable: &'static str,
    /// Its files, the one to load first. All lie in one folder.
    pub files: &'static [&'static str],
    /// The Python package that holds it.
    pub package: &'static str,
    /// Folder of [`Self::files`] within the package.
    pub folder: &'static str,
    /// The package for this machine, if there is one.
    pub wheel: Option<Wheel>,
}

/// The package of one machine architecture.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    /// Platform tag.
    pub platform: &'static str,
    /// SHA-256 of the package, lower-case hexadecimal.
    pub sha256: &'static str,
    /// Size of the package, megabytes.
    pub megabytes: u32,
}

impl Library {
    /// The file to load.
    pub fn file(&self) -> &'static str {
        self.files[0]
    }

    fn folder_name(&self) -> String {
        format!(
            "{}-{}-{}",
            self.name.to_lowercase().replace(' ', ""),
            self.version,
            std::env::consts::ARCH
        )
    }
}

/// Where a library was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Named by its environment variable.
    Environment,
    /// The cache folder.
    Cache,
    /// Fetched just now, into the cache folder.
    Fetched,
}

/// What the finder reads from the environment; tests give their own.
#[derive(Clone, Debug)]
pub struct Places {
    /// The library that is looked for.
    pub library: &'static Library,
    /// Value of the library's environment variable.
    pub explicit: Option<PathBuf>,
    /// tandem's cache folder, if one can be had.
    pub cache: Option<PathBuf>,
    /// The Python interpreter that runs pip.
    pub python: PathBuf,
}

impl Places {
    /// As the environment says: the library's own variable, [`cache_folder`], `python3`.
    #[expect(clippy::disallowed_methods, reason = "this is the library finder")]
    pub fn from_environment(library: &'static Library) -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = cache_folder();
        Self { library, explicit: path(library.variable), cache, python: PathBuf::from("python3") }
    }

    /// The file that the cache holds once it was fetched.
    pub fn cached_library(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(self.library.folder_name()).join(self.library.file()))
    }
}

/// tandem's cache folder, if the environment has one: `TANDEM_CACHE_DIR`, else
/// `XDG_CACHE_HOME/tandem`, else `HOME/.cache/tandem`.
#[expect(clippy::disallowed_methods, reason = "the cache is where the environment says")]
pub fn cache_folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("TANDEM_CACHE_DIR")
        .or_else(|| path("XDG_CACHE_HOME").map(|base| base.join("tandem")))
        .or_else(|| path("HOME").map(|home| home.join(".cache").join("tandem")))
}

/// No library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The environment variable names a file that is not there.
    #[error(
        "{} names {path:?}, which does not exist; correct it, or unset it and tandem {}",
        library.variable,
        if library.wheel.is_some() {
            format!("fetches {} {}", library.name, library.version)
        } else {
            format!("looks for {} {} in its cache folder", library.name, library.version)
        }
    )]
    Explicit {
        /// The library.
        library: &'static Library,
        /// The path.
        path: PathBuf,
    },
    /// None of the three ways worked.
    #[error(
        "{name} was not found and could not be fetched: {why}\n\
         There are three ways to provide it:\n  \
         1. set {} to its {} of version {} or later,\n  \
         2. put {} into {cache} (copy it from a machine that has it),\n  \
         3. let tandem fetch it: that needs python3 with pip and a network, or a package mirror that pip knows",
        library.variable,
        library.file(),
        library.version,
        library.files.join(" and "),
        name = library.name,
    )]
    Unavailable {
        /// The library.
        library: &'static Library,
        /// What went wrong with the last way.
        why: String,
        /// The cache folder's place for it.
        cache: String,
    },
}

/// Finds the library without fetching anything.
///
/// # Errors
/// If its environment variable names a missing file. `Ok(None)` if the cache is empty.
pub fn find(places: &Places) -> Result<Option<(PathBuf, Source)>, LibraryError> {
    if let Some(path) = &places.explicit {
        if !path.is_file() {
            return Err(LibraryError::Explicit { library: places.library, path: path.clone() });
        }
        return Ok(Some((path.clone(), Source::Environment)));
    }
    let cached = places.cached_library().filter(|path| is_complete(places.library, path));
    Ok(cached.map(|path| (path, Source::Cache)))
}

/// Whether every file of `library` lies beside `path`.
fn is_complete(library: &Library, path: &Path) -> bool {
    library.files.iter().all(|file| path.with_file_name(file).is_file())
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
        library: places.library,
        why,
        cache: places
            .cached_library()
            .and_then(|path| path.parent().map(|folder| folder.display().to_string()))
            .unwrap_or_else(|| "a cache folder (set HOME or TANDEM_CACHE_DIR)".into()),
    };
    let Some(wheel) = &places.library.wheel else {
        let arch = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        return Err(unavailable(format!("no package is known for {arch}")));
    };
    let (Some(cache), Some(path)) = (&places.cache, places.cached_library()) else {
        return Err(unavailable("there is no cache folder: HOME is not set".into()));
    };
    fetch(places, wheel, cache, &path, progress).map_err(unavailable)
}

fn fetch(
    places: &Places,
    wheel: &Wheel,
    cache: &Path,
    path: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(PathBuf, Source), String> {
    let io_error = |what: &str, path: &Path, error: io::Error| {
        format!("cannot {what} {}: {error}", path.display())
    };
    let library = places.library;
    fs::create_dir_all(cache).map_err(|error| io_error("create", cache, error))?;
    let lock_path = cache.join(format!("{}.lock", library.folder_name()));
    let lock = File::create(&lock_path).map_err(|error| io_error("create", &lock_path, error))?;
    lock.lock().map_err(|error| io_error("lock", &lock_path, error))?;
    // Another process may have fetched it while this one waited for the lock.
    if is_complete(library, path) {
        return Ok((path.to_path_buf(), Source::Cache));
    }
    progress(&format!(
        "fetching {} {} ({} MB) into {}",
        library.name,
        library.version,
        wheel.megabytes,
        cache.display()
    ));
    let scratch = cache.join(format!("{}.partial", library.folder_name()));
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(|error| io_error("clear", &scratch, error))?;
    }
    fs::create_dir_all(&scratch).map_err(|error| io_error("create", &scratch, error))?;
    let package = download(places, wheel, &scratch)?;
    let unpacked = scratch.join("unpacked");
    extract(places, &package, &unpacked)?;
    let staged = scratch.join("staged");
    fs::create_dir_all(&staged).map_err(|error| io_error("create", &staged, error))?;
    for file in library.files {
        let from = unpacked.join(library.folder).join(file);
        let to = staged.join(file);
        fs::rename(&from, &to).map_err(|error| io_error("unpack", &from, error))?;
        File::open(&to)
            .and_then(|file| file.sync_all())
            .map_err(|error| io_error("write", &to, error))?;
    }
    let folder = path.parent().expect("the cached library lies in a folder of the cache");
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| io_error("clear", folder, error))?;
    }
    fs::rename(&staged, folder).map_err(|error| io_error("rename into", folder, error))?;
    fs::remove_dir_all(&scratch).map_err(|error| io_error("clear", &scratch, error))?;
    Ok((path.to_path_buf(), Source::Fetched))
}

fn download(places: &Places, wheel: &Wheel, scratch: &Path) -> Result<PathBuf, String> {
    let requirements = scratch.join("requirements.txt");
    let Library { package, version, .. } = places.library;
    let line = format!("{package}=={version} --hash=sha256:{}\n", wheel.sha256);
    fs::write(&requirements, line)
        .map_err(|error| format!("cannot write {}: {error}", requirements.display()))?;
    let output = Command::new(&places.python)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.12"])
        .args(["--platform", wheel.platform, "--require-hashes", "--dest"])
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
    let package = fs::read_dir(scratch)
        .map_err(|error| format!("cannot read {}: {error}", scratch.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip reported success but left no package")?;
    let bytes = fs::read(&package)
        .map_err(|error| format!("cannot read {}: {error}", package.display()))?;
    let found = hex(&Sha256::digest(&bytes));
    if found != wheel.sha256 {
        return Err(format!(
            "the fetched package has SHA-256 {found}, expected {}: it was not used",
            wheel.sha256
        ));
    }
    Ok(package)
}

fn extract(places: &Places, package: &Path, into: &Path) -> Result<(), String> {
    let program =
        "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2], sys.argv[3:])";
    let Library { folder, files, .. } = places.library;
    let output = Command::new(&places.python)
        .args(["-c", program])
        .arg(package)
        .arg(into)
        .args(files.iter().map(|file| format!("{folder}/{file}")))
        .output()
        .map_err(|error| format!("cannot start {}: {error}", places.python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "cannot unpack {}: {}",
            package.display(),
            said.lines().last().unwrap_or("no message")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const LIBRARY: &Library = &Library {
        name: "Some Library",
        version: "1.2",
        variable: "SOME_DYLIB_PATH",
        files: &["libsome.so.1", "libsome_parser.so.1"],
        package: "some-libs",
        folder: "some/libs",
        wheel: Some(Wheel { platform: "any", sha256: "0", megabytes: 24 }),
    };

    /// Held by tests that write a script and start it: a process that another test starts in between
    /// would inherit the open script, and the system starts no file that is open for writing.
    static SCRIPTS: Mutex<()> = Mutex::new(());

    fn places(folder: &Path) -> Places {
        Places {
            library: LIBRARY,
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
        assert!(error.contains("gone.so") && error.contains("SOME_DYLIB_PATH"), "{error}");
    }

    #[test]
    fn an_explicit_file_comes_before_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mut places = places(folder.path());
        let cached = places.cached_library().unwrap();
        fs::create_dir_all(cached.parent().unwrap()).unwrap();
        fs::write(&cached, "").unwrap();
        assert_eq!(find(&places).unwrap(), None, "one of its two files");
        fs::write(cached.with_file_name("libsome_parser.so.1"), "").unwrap();
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
        for way in ["SOME_DYLIB_PATH", "libsome.so.1", "python3 with pip", "no-such-python"] {
            assert!(error.contains(way), "{way} is missing in: {error}");
        }
        assert_eq!(lines.len(), 1, "one progress line: {lines:?}");
    }

    #[test]
    fn a_failing_pip_leaves_nothing_that_looks_fetched() {
        let _alone = SCRIPTS.lock().unwrap();
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
        let _alone = SCRIPTS.lock().unwrap();
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

    /// Places whose pip fetches the package "package\n" and notes each time that it did, and the
    /// wheel that names that package.
    fn fetching(folder: &Path) -> (Places, Wheel) {
        let python = folder.join("python3");
        let script = format!(
            "#!/bin/sh\n\
             if [ \"$1\" = -m ]; then\n\
               while [ \"$1\" != --dest ]; do shift; done\n\
               sleep 0.2; echo package > \"$2/x.whl\"; echo once >> '{}/count'\n\
             else\n\
               mkdir -p \"$4/some/libs\"; echo library > \"$4/$5\"; echo parser > \"$4/$6\"\n\
             fi\n",
            folder.display()
        );
        fs::write(&python, script).unwrap();
        make_executable(&python);
        let sha256 = &hex(&Sha256::digest(b"package\n")).leak()[..];
        let wheel = Wheel { platform: "any", sha256, megabytes: 24 };
        let library = Box::leak(Box::new(Library { wheel: Some(wheel), ..*LIBRARY }));
        (Places { library, python, ..places(folder) }, wheel)
    }

    #[test]
    fn two_processes_at_once_fetch_it_once() {
        let _alone = SCRIPTS.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (places, wheel) = fetching(folder.path());
        let library = places.cached_library().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    fetch(&places, &wheel, folder.path(), &library, &mut |_| {}).unwrap();
                    assert_eq!(fs::read_to_string(&library).unwrap(), "library\n");
                });
            }
        });
        assert_eq!(fs::read_to_string(folder.path().join("count")).unwrap(), "once\n");
    }

    #[test]
    fn a_fetch_that_was_interrupted_is_started_anew() {
        let _alone = SCRIPTS.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (places, _) = fetching(folder.path());
        let library = places.cached_library().unwrap();
        let scratch = folder.path().join(format!("{}.partial", places.library.folder_name()));
        fs::create_dir_all(&scratch).unwrap();
        fs::write(scratch.join("half.whl"), "pack").unwrap();
        // One of two files: as good as none.
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(&library, "half").unwrap();
        let found = find_or_fetch(&places, &mut |_| {}).unwrap();
        assert_eq!(found, (library.clone(), Source::Fetched));
        assert_eq!(fs::read_to_string(&library).unwrap(), "library\n");
        let parser = library.with_file_name("libsome_parser.so.1");
        assert_eq!(fs::read_to_string(parser).unwrap(), "parser\n");
        assert!(!scratch.exists());
    }

    #[cfg(unix)]
    fn make_executable(path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
