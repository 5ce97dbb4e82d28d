//! Finds vendor libraries, and fetches them if necessary.
//!
//! A library comes from, in this order: the file named by the library's environment variable; tandem's
//! cache folder; the Python package of the pinned version, which is fetched once with pip, checked by
//! hash and stored in the cache. The cache is filled under a file lock and by rename, so processes that
//! start together fetch a library once.
//!
//! Cached files are hashed before each use, and fetched again if they differ from the package's. A file
//! that the user names is accepted if it is as long as its ELF headers require.

use super::elf;
use crate::process::{Program, ProgramOutput};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_export::weights::hex;
use tandem_files::replaceable_by_all;

/// Vendor library and the release of it that is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    pub name: &'static str,
    pub version: &'static str,
    /// Environment variable that names its file.
    pub variable: &'static str,
    /// File names, all in one folder; the first is the one to load.
    pub files: &'static [&'static str],
    /// Python package that contains the library.
    pub package: &'static str,
    /// Folder of [`Self::files`] in the package.
    pub folder: &'static str,
    /// Package for this architecture, if one exists.
    pub wheel: Option<Wheel>,
}

/// Python package for one machine architecture.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    pub platform: &'static str,
    /// Lower-case SHA-256 of the package.
    pub sha256: &'static str,
    pub megabytes: u32,
    /// SHA-256 of each of [`Library::files`], in the same order.
    pub files_sha256: &'static [&'static str],
}

impl Wheel {
    /// Returns the time limit of a fetch, enough for 200 kB/s.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(120 + 5 * u64::from(self.megabytes))
    }
}

impl Library {
    /// Returns the name of the file to load.
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

/// Source from which a library was obtained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// File named by the environment variable.
    Environment,
    Cache,
    /// Fetched by this call and stored in the cache folder.
    Fetched,
}

/// Inputs of a search for a library, read from the environment or set by a test.
#[derive(Clone, Debug)]
pub struct LibrarySearch {
    pub library: &'static Library,
    /// Value of the library's environment variable.
    pub explicit: Option<PathBuf>,
    /// tandem's cache folder; `None` if the environment defines none.
    pub cache: Option<PathBuf>,
    /// Python interpreter that runs pip.
    pub python: Program,
}

impl LibrarySearch {
    /// Reads the environment: the library's variable, [`cache_folder`], `python3` in `PATH`.
    #[expect(clippy::disallowed_methods, reason = "this is the library finder")]
    pub fn from_environment(library: &'static Library) -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = cache_folder();
        let python = Program::find("python3").unwrap_or_else(|| Program::at("python3"));
        Self { library, explicit: path(library.variable), cache, python }
    }

    /// Returns the path of the library in the cache, whether or not the file exists.
    pub fn cached_library(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(self.library.folder_name()).join(self.library.file()))
    }
}

/// Returns tandem's cache folder: `TANDEM_CACHE_DIR`, else `XDG_CACHE_HOME/tandem`, else
/// `HOME/.cache/tandem`; `None` if none of these variables is set.
#[expect(clippy::disallowed_methods, reason = "the environment defines the cache folder")]
pub fn cache_folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("TANDEM_CACHE_DIR")
        .or_else(|| path("XDG_CACHE_HOME").map(|base| base.join("tandem")))
        .or_else(|| path("HOME").map(|home| home.join(".cache").join("tandem")))
}

/// Error returned when a library cannot be provided.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(
        "{} names {path:?}, which does not exist; correct it, or unset it and tandem {}",
        library.variable,
        if library.wheel.is_some() {
            format!("fetches {} {}", library.name, library.version)
        } else {
            format!("uses {} {} from its cache folder", library.name, library.version)
        }
    )]
    Explicit { library: &'static Library, path: PathBuf },
    #[error(
        "{path:?} was not copied completely: it has {found} bytes and its headers need {needed}; copy it \
         again, or delete it"
    )]
    Truncated {
        path: PathBuf,
        found: u64,
        /// Minimum length according to its headers.
        needed: u64,
    },
    #[error(
        "{path:?} is not loaded: every user of this machine can replace it, because {place:?} is \
         writable by all users; remove that permission (`chmod o-w {}`)",
        place.display()
    )]
    Replaceable {
        path: PathBuf,
        /// File or folder that is writable by all users.
        place: PathBuf,
    },
    #[error(
        "{path:?} is damaged: its SHA-256 is {found}, that of {} {} is {expected}; delete it and tandem \
         fetches it again, or set {} to it to use it unchanged",
        library.name,
        library.version,
        library.variable
    )]
    Damaged {
        library: &'static Library,
        path: PathBuf,
        found: String,
        /// SHA-256 of the package's file.
        expected: &'static str,
    },
    #[error("cannot read {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{name} was not found and could not be fetched: {why}\n\
         There are three ways to provide it:\n  \
         1. set {} to its {} of version {} or later,\n  \
         2. put {} into {cache} (copy it from a machine that has it),\n  \
         3. let tandem fetch it: that needs python3 with pip and a network, or a package mirror configured in pip",
        library.variable,
        library.file(),
        library.version,
        library.files.join(" and "),
        name = library.name,
    )]
    Unavailable {
        library: &'static Library,
        why: String,
        /// Folder of the library in the cache.
        cache: String,
    },
}

/// Finds the library without fetching it. Returns `None` if it is neither named nor cached. Fails
/// if its environment variable names a file that is missing or incomplete, a cached file differs
/// from the package's, or every user of this machine can replace a file that would be loaded.
pub fn find(places: &LibrarySearch) -> Result<Option<(PathBuf, Source)>, LibraryError> {
    if let Some(path) = &places.explicit {
        if !path.is_file() {
            return Err(LibraryError::Explicit { library: places.library, path: path.clone() });
        }
        refuse_replaceable(path)?;
        check_length(path)?;
        return Ok(Some((path.clone(), Source::Environment)));
    }
    let Some(path) = places.cached_library() else { return Ok(None) };
    let is_complete = is_complete(places.library, &path)?;
    Ok(is_complete.then_some((path, Source::Cache)))
}

/// Returns whether the folder of `path` contains every file of `library`. Fails if a file differs from
/// the package's or every user can replace it.
fn is_complete(library: &'static Library, path: &Path) -> Result<bool, LibraryError> {
    let files = || library.files.iter().map(|file| path.with_file_name(file));
    if !files().all(|path| path.is_file()) {
        return Ok(false);
    }
    files().try_for_each(|path| refuse_replaceable(&path))?;
    let Some(wheel) = &library.wheel else {
        return files().try_for_each(|path| check_length(&path)).map(|()| true);
    };
    for (path, &expected) in files().zip(wheel.files_sha256) {
        let found =
            sha256(&path).map_err(|source| LibraryError::Read { path: path.clone(), source })?;
        if found != expected {
            return Err(LibraryError::Damaged { library, path, found, expected });
        }
    }
    Ok(true)
}

/// Refuses a file that every user of the machine can replace.
fn refuse_replaceable(path: &Path) -> Result<(), LibraryError> {
    match replaceable_by_all(path) {
        Ok(None) => Ok(()),
        Ok(Some(place)) => Err(LibraryError::Replaceable { path: path.to_owned(), place }),
        Err(source) => Err(LibraryError::Read { path: path.to_owned(), source }),
    }
}

/// Refuses a truncated library: the loader maps it beyond its end, and accesses there kill the process.
fn check_length(path: &Path) -> Result<(), LibraryError> {
    let read = |source| LibraryError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let found = file.metadata().map_err(read)?.len();
    match elf::needed_length(&mut file).map_err(read)? {
        Some(needed) if needed > found => {
            Err(LibraryError::Truncated { path: path.to_owned(), found, needed })
        }
        _ => Ok(()),
    }
}

/// Computes the lower-case SHA-256 of a file.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// Finds the library, or fetches it if it is missing or its cached files are damaged. `progress`
/// receives a line at the start of a fetch and periodically while it runs. Fails if the library
/// cannot be found or fetched; the message lists the ways to provide it.
pub fn find_or_fetch(
    places: &LibrarySearch,
    progress: &mut dyn FnMut(&str),
) -> Result<(PathBuf, Source), LibraryError> {
    match find(places) {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => {}
        Err(error @ LibraryError::Damaged { .. }) => progress(&format!("warning: {error}")),
        Err(error) => return Err(error),
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
        return Err(unavailable(format!("it has no package for {arch}")));
    };
    let (Some(cache), Some(path)) = (&places.cache, places.cached_library()) else {
        return Err(unavailable("HOME is not set, so tandem has no cache folder".into()));
    };
    fetch(places, wheel, cache, &path, progress).map_err(unavailable)
}

/// Time between two progress lines of a fetch.
const PROGRESS_PERIOD: Duration = Duration::from_secs(15);

fn fetch(
    places: &LibrarySearch,
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
    if matches!(is_complete(library, path), Ok(true)) {
        return Ok((path.to_path_buf(), Source::Cache));
    }
    let scratch_prefix = format!(".{}.fetch-", library.folder_name());
    // Their processes have ended: a fetch holds the lock.
    remove_scratch(cache, &scratch_prefix).map_err(|error| io_error("clear", cache, error))?;
    let limit = wheel.time_limit();
    let what = format!("{} {} ({} MB)", library.name, library.version, wheel.megabytes);
    progress(&format!("fetching {what} into {}", cache.display()));
    let mut reported = Duration::ZERO;
    let mut waiting = |passed: Duration| {
        if passed >= reported + PROGRESS_PERIOD {
            reported = passed;
            progress(&format!(
                "fetching {what}: {} of at most {} s",
                passed.as_secs(),
                limit.as_secs()
            ));
        }
    };
    // The name is random and only this user may write into the folder.
    let scratch = tempfile::Builder::new()
        .prefix(&scratch_prefix)
        .tempdir_in(cache)
        .map_err(|error| io_error("create a folder in", cache, error))?;
    let package = download(places, wheel, scratch.path(), &mut waiting)?;
    let unpacked = scratch.path().join("unpacked");
    extract(places, &package, &unpacked, limit)?;
    let staged = scratch.path().join("staged");
    fs::create_dir_all(&staged).map_err(|error| io_error("create", &staged, error))?;
    for (file, expected) in library.files.iter().zip(wheel.files_sha256) {
        let from = unpacked.join(library.folder).join(file);
        let to = staged.join(file);
        fs::rename(&from, &to).map_err(|error| io_error("unpack", &from, error))?;
        File::open(&to)
            .and_then(|file| file.sync_all())
            .map_err(|error| io_error("write", &to, error))?;
        // Checks the very file that will be loaded: the package may have changed after its check.
        let found = sha256(&to).map_err(|error| io_error("read", &to, error))?;
        if found != *expected {
            return Err(format!(
                "{file} of the fetched package has SHA-256 {found}, expected {expected}: it was not used"
            ));
        }
    }
    let folder = path.parent().expect("the cached library is in a folder of the cache");
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| io_error("clear", folder, error))?;
    }
    fs::rename(&staged, folder).map_err(|error| io_error("rename into", folder, error))?;
    Ok((path.to_path_buf(), Source::Fetched))
}

/// Removes the folders of `cache` whose names begin with `prefix`.
fn remove_scratch(cache: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn download(
    places: &LibrarySearch,
    wheel: &Wheel,
    scratch: &Path,
    waiting: &mut dyn FnMut(Duration),
) -> Result<PathBuf, String> {
    let requirements = scratch.join("requirements.txt");
    let Library { package, version, .. } = places.library;
    let line = format!("{package}=={version} --hash=sha256:{}\n", wheel.sha256);
    fs::write(&requirements, line)
        .map_err(|error| format!("cannot write {}: {error}", requirements.display()))?;
    let fixed = "-I -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
                 --only-binary=:all: --implementation cp --python-version 3.12 --require-hashes";
    let mut arguments: Vec<&OsStr> = fixed.split(' ').map(OsStr::new).collect();
    arguments.extend(["--platform", wheel.platform, "--dest"].map(OsStr::new));
    arguments.extend([scratch.as_os_str(), OsStr::new("--requirement"), requirements.as_os_str()]);
    let ProgramOutput { status, stderr, .. } = places
        .python
        .run(&arguments, scratch, wheel.time_limit(), waiting)
        .map_err(|error| error.to_string())?;
    if !status.success() {
        let tail: Vec<&str> = stderr.lines().rev().take(3).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        return Err(format!("pip could not fetch it ({status}): {}", tail.join(" / ")));
    }
    let package = fs::read_dir(scratch)
        .map_err(|error| format!("cannot read {}: {error}", scratch.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip reported success but wrote no package")?;
    let found =
        sha256(&package).map_err(|error| format!("cannot read {}: {error}", package.display()))?;
    if found != wheel.sha256 {
        return Err(format!(
            "the fetched package has SHA-256 {found}, expected {}: it was not used",
            wheel.sha256
        ));
    }
    Ok(package)
}

fn extract(
    places: &LibrarySearch,
    package: &Path,
    into: &Path,
    limit: Duration,
) -> Result<(), String> {
    let program =
        "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2], sys.argv[3:])";
    let Library { folder, files, .. } = places.library;
    let files: Vec<String> = files.iter().map(|file| format!("{folder}/{file}")).collect();
    let mut arguments = vec![OsStr::new("-I"), OsStr::new("-c"), OsStr::new(program)];
    arguments.extend([package.as_os_str(), into.as_os_str()]);
    arguments.extend(files.iter().map(OsStr::new));
    let scratch = package.parent().expect("pip wrote it to the scratch folder");
    let ProgramOutput { status, stderr, .. } = places
        .python
        .run(&arguments, scratch, limit, &mut |_| {})
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!(
            "cannot unpack {}: {}",
            package.display(),
            stderr.lines().last().unwrap_or("no message")
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
        wheel: Some(Wheel {
            platform: "any",
            sha256: "0",
            megabytes: 24,
            // Of "library\n" and "parser\n".
            files_sha256: &[
                "b5e0dfe3c2b269568c488e74fdc56495a5729538ebc6ef36488c85a7d7a1730e",
                "647f9b279301015f3facd192146272caf1303a86ee2b490bb6e98f61aaa33804",
            ],
        }),
    };

    /// Locked by tests that write and then start a script: a process started meanwhile by another test
    /// would inherit the open file, and a file open for writing cannot be executed (ETXTBSY).
    static SCRIPTS: Mutex<()> = Mutex::new(());

    fn places(folder: &Path) -> LibrarySearch {
        LibrarySearch {
            library: LIBRARY,
            explicit: None,
            cache: Some(folder.to_path_buf()),
            python: Program::at(folder.join("no-such-python")),
        }
    }

    #[test]
    fn missing_explicit_file_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let explicit = Some(folder.path().join("gone.so"));
        let error =
            find(&LibrarySearch { explicit, ..places(folder.path()) }).unwrap_err().to_string();
        assert!(error.contains("gone.so") && error.contains("SOME_DYLIB_PATH"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn library_writable_by_all_users_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut places = places(folder.path());
        let cached = places.cached_library().unwrap();
        let own = cached.parent().unwrap();
        fs::create_dir_all(own).unwrap();
        fs::write(&cached, "library\n").unwrap();
        fs::write(cached.with_file_name("libsome_parser.so.1"), "parser\n").unwrap();
        let set_mode = |mode| fs::set_permissions(own, fs::Permissions::from_mode(mode)).unwrap();
        for explicit in [None, Some(cached.clone())] {
            places.explicit = explicit;
            set_mode(0o777);
            let error = find(&places).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod o-w {}", own.display())), "{error}");
            set_mode(0o755);
            assert!(find(&places).unwrap().is_some());
        }
    }

    #[test]
    fn explicit_file_has_priority_over_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mut places = places(folder.path());
        let cached = places.cached_library().unwrap();
        fs::create_dir_all(cached.parent().unwrap()).unwrap();
        fs::write(&cached, "library\n").unwrap();
        assert_eq!(find(&places).unwrap(), None, "one of its two files");
        fs::write(cached.with_file_name("libsome_parser.so.1"), "parser\n").unwrap();
        assert_eq!(find(&places).unwrap(), Some((cached.clone(), Source::Cache)));
        let explicit = folder.path().join("mine.so");
        fs::write(&explicit, "").unwrap();
        places.explicit = Some(explicit.clone());
        assert_eq!(find(&places).unwrap(), Some((explicit, Source::Environment)));
    }

    #[test]
    fn error_without_library_and_python_names_all_ways() {
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
    fn failing_pip_leaves_no_cached_library() {
        let _alone = SCRIPTS.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        fs::write(&python, "#!/bin/sh\necho 'ERROR: no network' >&2\nexit 1\n").unwrap();
        make_executable(&python);
        let places = LibrarySearch { python: Program::at(python), ..places(folder.path()) };
        let error = find_or_fetch(&places, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("no network"), "{error}");
        assert_eq!(find(&places).unwrap(), None);
    }

    #[test]
    fn package_with_another_hash_is_refused() {
        let _alone = SCRIPTS.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        let script =
            "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\necho forged > \"$2/x.whl\"\n";
        fs::write(&python, script).unwrap();
        make_executable(&python);
        let places = LibrarySearch { python: Program::at(python), ..places(folder.path()) };
        let error = find_or_fetch(&places, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("was not used"), "{error}");
        assert_eq!(find(&places).unwrap(), None);
    }

    /// Returns a search whose pip writes the package "package\n" and logs each call, and its wheel.
    fn fetching(folder: &Path) -> (LibrarySearch, Wheel) {
        let python = folder.join("python3");
        let script = format!(
            "#!/bin/sh\n\
             if [ \"$2\" = -m ]; then\n\
               while [ \"$1\" != --dest ]; do shift; done\n\
               sleep 0.2; echo package > \"$2/x.whl\"; echo once >> '{}/count'\n\
             else\n\
               mkdir -p \"$5/some/libs\"; echo library > \"$5/$6\"; echo parser > \"$5/$7\"\n\
             fi\n",
            folder.display()
        );
        fs::write(&python, script).unwrap();
        make_executable(&python);
        let sha256 = &hex(&Sha256::digest(b"package\n")).leak()[..];
        let wheel = Wheel { sha256, ..LIBRARY.wheel.unwrap() };
        let library = Box::leak(Box::new(Library { wheel: Some(wheel), ..*LIBRARY }));
        (LibrarySearch { library, python: Program::at(python), ..places(folder) }, wheel)
    }

    #[test]
    fn concurrent_fetches_download_once() {
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
    fn interrupted_fetch_is_restarted() {
        let _alone = SCRIPTS.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (places, _) = fetching(folder.path());
        let library = places.cached_library().unwrap();
        let scratch = folder.path().join(format!(".{}.fetch-dead", places.library.folder_name()));
        fs::create_dir_all(&scratch).unwrap();
        fs::write(scratch.join("half.whl"), "pack").unwrap();
        // One of two files does not count as cached.
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(&library, "half").unwrap();
        let found = find_or_fetch(&places, &mut |_| {}).unwrap();
        assert_eq!(found, (library.clone(), Source::Fetched));
        assert_eq!(fs::read_to_string(&library).unwrap(), "library\n");
        let parser = library.with_file_name("libsome_parser.so.1");
        assert_eq!(fs::read_to_string(parser).unwrap(), "parser\n");
        assert!(!scratch.exists());
    }

    #[test]
    fn damaged_cached_file_is_reported_and_fetched_again() {
        let _alone = SCRIPTS.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (places, _) = fetching(folder.path());
        let (library, _) = find_or_fetch(&places, &mut |_| {}).unwrap();
        for damaged in ["libsome.so.1", "libsome_parser.so.1"] {
            let path = library.with_file_name(damaged);
            File::options().write(true).open(&path).unwrap().set_len(3).unwrap();
            let error = find(&places).unwrap_err().to_string();
            for word in [damaged, "is damaged", "delete it", "SOME_DYLIB_PATH"] {
                assert!(error.contains(word), "{word} is missing in: {error}");
            }
            let mut lines = Vec::new();
            let found = find_or_fetch(&places, &mut |line| lines.push(line.to_owned())).unwrap();
            assert_eq!(found, (library.clone(), Source::Fetched));
            assert!(lines[0].contains("is damaged"), "{lines:?}");
            assert_eq!(find(&places).unwrap(), Some((library.clone(), Source::Cache)));
        }
    }

    #[test]
    fn truncated_explicit_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.so");
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        let places = LibrarySearch { explicit: Some(path.clone()), ..places(folder.path()) };
        assert_eq!(find(&places).unwrap(), Some((path.clone(), Source::Environment)));
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let error = find(&places).unwrap_err().to_string();
        assert!(error.contains("mine.so") && error.contains("not copied completely"), "{error}");
    }

    #[test]
    fn python_files_in_the_current_folder_are_not_run() {
        let folder = tempfile::tempdir().unwrap();
        // A real interpreter is started in a folder with a module named pip, which it must not import.
        let evil = "open('ran', 'w').write('x'); raise SystemExit(1)";
        fs::write(folder.path().join("pip.py"), evil).unwrap();
        let python = Program::find("python3").expect("python3 is needed to build and test");
        let arguments = ["-I", "-m", "pip", "--version"].map(OsStr::new);
        python.run(&arguments, folder.path(), Duration::from_secs(60), &mut |_| {}).unwrap();
        assert!(!folder.path().join("ran").exists());
    }

    #[cfg(unix)]
    fn make_executable(path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
