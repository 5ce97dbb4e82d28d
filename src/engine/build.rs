//! Builds the engines of a network folder into an engine folder.
//!
//! Each engine is written to a scratch folder and then renamed to a name that contains its key, so a
//! folder in use stays consistent until `engine.json`, written last, refers to the new engines. Until
//! then each finished engine has a build record of its own, from which an interrupted build resumes.

use super::builder::{BuildError, BuildJob, Builder, FreeResources, PeakMemory, StepListener};
use super::folder::{
    BuildRecord, ENGINE_ENDING, ENGINE_FILE, EngineFolder, EngineFolderError, EngineRecord, FORMAT,
    FileError, Key, LAYERS_ENDING, NetworkFile, NetworkFileError, NetworkRecord, Prediction,
    WEIGHTS_ENDING, WeightHashError, WeightHasher, file_name, finished_engine, link_weights,
    move_into, precision_name, publish, remove_folder, weight_files, write_atomic, write_record,
};
use super::target::{Target, TargetError};
use crate::timing::Stopwatch;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem_export::folder::{SUMMARY_FILE, Summary, TOKENIZER_FILE, contract_file, graph_file};
use tandem_export::options::Precision;

/// File locked during a build; contains the process id of the build.
const LOCK_FILE: &str = "build.lock";

/// Folder for temporary files of a build.
const SCRATCH: &str = "scratch.partial";

/// Poll period while a build waits for another.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Settings of a build of an engine folder.
pub struct BuildRequest<'a> {
    /// Network folder, or an engine folder to build again.
    pub network: &'a Path,
    /// Engine folder to write; it is created if needed.
    pub out: &'a Path,
    /// Targets of each engine, which runs on all of them.
    pub targets: &'a [Target],
    /// Required precision of the networks; `None` accepts any.
    pub precision: Option<Precision>,
    /// Cache file of weight hashes.
    pub hashes: Option<PathBuf>,
    /// Returns the free memory, and the free disk at the engine folder; called once the folder exists.
    pub available: &'a dyn Fn(&Path) -> FreeResources,
    /// Called for the steps within a network's build, from any thread, where the library reports them.
    pub steps: StepListener,
    /// Cancels the build when set to true; finished engines stay.
    pub cancel: &'a Arc<AtomicBool>,
}

/// Progress of the build of an engine folder.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress<'a> {
    /// Another build of the same folder is running.
    Waiting {
        /// Content of its lock file, which names its process.
        holder: &'a str,
    },
    Hashing {
        network: &'a str,
        /// Bytes hashed so far, of `total`.
        done: u64,
        total: u64,
    },
    /// An engine with the same key exists.
    Kept {
        network: &'a str,
    },
    /// The build of a network starts.
    Building {
        network: &'a str,
        predicted: Prediction,
    },
    Built {
        network: &'a str,
        build: &'a BuildRecord,
    },
}

/// Error returned when an engine folder cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildFolderError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Network(#[from] NetworkFileError),
    #[error(transparent)]
    Folder(#[from] EngineFolderError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(
        "the networks in {} compute in {found}, not {asked}; export the checkpoint with --precision \
         {asked} first",
        folder.display()
    )]
    Precision { folder: PathBuf, found: String, asked: String },
    #[error(
        "{} holds {found:?} and is not an engine folder; give an empty or a new folder as --out",
        folder.display()
    )]
    NotAnEngineFolder { folder: PathBuf, found: String },
    #[error(
        "building network {network:?} needs up to {needed_mb:.0} MB of memory, {available_mb:.0} MB \
         are free; free some, or build on a larger machine"
    )]
    Memory { network: String, needed_mb: f64, available_mb: f64 },
    #[error(
        "building needs up to {needed_mb:.0} MB of disk in {}, {available_mb:.0} MB are free; free \
         some, or give another folder as --out",
        folder.display()
    )]
    Disk { folder: PathBuf, needed_mb: f64, available_mb: f64 },
}

impl From<FileError> for BuildFolderError {
    fn from(error: FileError) -> Self {
        Self::Build(error.into())
    }
}

impl From<WeightHashError> for BuildFolderError {
    fn from(error: WeightHashError) -> Self {
        Self::Build(error.into())
    }
}

/// Result of the build of an engine folder.
pub struct Report {
    pub record: EngineRecord,
    /// Networks that this build compiled; the engines of the others were kept.
    pub built: Vec<String>,
}

/// Builds an engine for every network that has no engine with the same key yet. Fails if the back
/// end does not support the targets, a network cannot be read or built, or memory or disk do not
/// suffice. Finished engines are kept for the next build.
pub fn build(
    request: &BuildRequest<'_>,
    builder: &dyn Builder,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, BuildFolderError> {
    builder.kind().check_targets(request.targets)?;
    let (summary, export_sha256) = read_summary(request)?;
    refuse_foreign(request.out)?;
    fs::create_dir_all(request.out).map_err(BuildError::file("make", request.out))?;
    let _lock = lock(request, progress)?;
    let out = request.out;
    let earlier = EngineFolder::read(out).unwrap_or(None);
    // This build holds the lock, so an existing scratch folder is from a build that was killed.
    let scratch = out.join(SCRATCH);
    remove_folder(&scratch)?;

    let mut plans = Vec::new();
    for name in summary.network_names() {
        let file = NetworkFile::exported(request.network, &name)?;
        file.check_weights(&summary)?;
        let hasher = WeightHasher { cache: request.hashes.clone(), cancel: request.cancel };
        let weights_sha256 = hasher.hash(&file, &mut |done, total| {
            progress(Progress::Hashing { network: &name, done, total });
        })?;
        let key = Key {
            graph_sha256: file.contract.graph_sha256.clone(),
            weights_sha256,
            targets: request.targets.to_vec(),
            machine: builder.machine(request.targets),
            backend: builder.kind(),
            library: builder.library_version(),
            precision: summary.options.precision,
            tandem: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let done = finished_engine(out, &key, earlier.as_ref(), &file)?;
        let predicted = builder.predict(&file, request.targets)?;
        plans.push(Plan { name, file, key, predicted, done });
    }
    refuse_too_small(request, &plans)?;
    copy_exported(request, &plans)?;

    let mut built = Vec::new();
    let mut networks = Vec::new();
    for plan in plans {
        if let Some(record) = plan.done {
            progress(Progress::Kept { network: &plan.name });
            networks.push(record);
            continue;
        }
        if request.cancel.load(Ordering::Relaxed) {
            return Err(BuildError::Canceled.into());
        }
        progress(Progress::Building { network: &plan.name, predicted: plan.predicted });
        let record = build_one(request, builder, &plan, &scratch)?;
        progress(Progress::Built { network: &plan.name, build: &record.build });
        built.push(plan.name);
        networks.push(record);
    }
    let network_folder =
        request.network.canonicalize().map_err(BuildError::file("find", request.network))?;
    let here = out.canonicalize().map_err(BuildError::file("find", out))?;
    let network_folder = match &earlier {
        Some(earlier) if network_folder == here => earlier.record.network_folder.clone(),
        _ => network_folder,
    };
    let tandem = env!("CARGO_PKG_VERSION").to_owned();
    let record = EngineRecord { format: FORMAT, tandem, network_folder, export_sha256, networks };
    publish(out, &record, earlier.as_ref())?;
    Ok(Report { record, built })
}

/// Network to build or to keep.
struct Plan {
    name: String,
    file: NetworkFile,
    key: Key,
    predicted: Prediction,
    /// Record of an existing engine with the same key.
    done: Option<NetworkRecord>,
}

fn read_summary(request: &BuildRequest<'_>) -> Result<(Summary, String), BuildFolderError> {
    let (summary, sha256) = NetworkFile::summary_with_sha256(request.network)?;
    let found = summary.options.precision;
    match request.precision {
        Some(asked) if asked != found => Err(BuildFolderError::Precision {
            folder: request.network.to_owned(),
            found: precision_name(found),
            asked: precision_name(asked),
        }),
        _ => Ok((summary, sha256)),
    }
}

/// Accepts a new or empty folder and one that a build wrote before; refuses any other.
fn refuse_foreign(out: &Path) -> Result<(), BuildFolderError> {
    let reading = || BuildError::file("read", out);
    if !out.exists() || out.join(LOCK_FILE).exists() || out.join(ENGINE_FILE).exists() {
        return Ok(());
    }
    match fs::read_dir(out).map_err(reading())?.next() {
        None => Ok(()),
        Some(entry) => {
            let found = entry.map_err(reading())?.file_name().to_string_lossy().into_owned();
            Err(BuildFolderError::NotAnEngineFolder { folder: out.to_owned(), found })
        }
    }
}

/// Waits until no other build of the folder runs. Dropping the returned file releases the lock.
fn lock(
    request: &BuildRequest<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<File, BuildError> {
    let path = request.out.join(LOCK_FILE);
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(BuildError::file("open", &path))?;
    let mut reported = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => {
                return Err(BuildError::file("lock", &path)(source));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if request.cancel.load(Ordering::Relaxed) {
            return Err(BuildError::Canceled);
        }
        if !reported {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            progress(Progress::Waiting { holder: holder.trim() });
            reported = true;
        }
        std::thread::sleep(LOCK_POLL);
    }
    let written = file.set_len(0).and_then(|()| file.rewind());
    written
        .and_then(|()| writeln!(file, "process {}", std::process::id()))
        .map_err(BuildError::file("write", &path))?;
    Ok(file)
}

fn refuse_too_small(request: &BuildRequest<'_>, plans: &[Plan]) -> Result<(), BuildFolderError> {
    let available = (request.available)(request.out);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let todo = || plans.iter().filter(|plan| plan.done.is_none());
    if let Some(free) = available.memory_bytes
        && let Some(plan) = todo().find(|plan| plan.predicted.memory_bytes > free)
    {
        return Err(BuildFolderError::Memory {
            network: plan.name.clone(),
            needed_mb: megabytes(plan.predicted.memory_bytes),
            available_mb: megabytes(free),
        });
    }
    let results: u64 = todo().map(|plan| plan.predicted.result_bytes).sum();
    let scratch = todo().map(|plan| plan.predicted.scratch_bytes).max().unwrap_or(0);
    match available.disk_bytes {
        Some(free) if results + scratch > free => Err(BuildFolderError::Disk {
            folder: request.out.to_owned(),
            needed_mb: megabytes(results + scratch),
            available_mb: megabytes(free),
        }),
        _ => Ok(()),
    }
}

/// Copies the exported networks into the engine folder and links to their weights.
fn copy_exported(request: &BuildRequest<'_>, plans: &[Plan]) -> Result<(), BuildFolderError> {
    let mut names = vec![SUMMARY_FILE.to_owned(), TOKENIZER_FILE.to_owned()];
    names.extend(plans.iter().flat_map(|plan| [graph_file(&plan.name), contract_file(&plan.name)]));
    for name in names {
        let (from, to) = (request.network.join(&name), request.out.join(&name));
        match fs::read(&from) {
            Ok(bytes) if fs::read(&to).ok().as_ref() == Some(&bytes) => {}
            Ok(bytes) => write_atomic(&to, &bytes)?,
            // A checkpoint without a tokenizer can be exported; its summary says that it cannot drive.
            Err(error) if name == TOKENIZER_FILE && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(NetworkFileError::Read { path: from, source }.into()),
        }
    }
    for plan in plans {
        link_weights(request.out, &plan.file)?;
    }
    Ok(())
}

fn build_one(
    request: &BuildRequest<'_>,
    builder: &dyn Builder,
    plan: &Plan,
    scratch: &Path,
) -> Result<NetworkRecord, BuildError> {
    fs::create_dir(scratch).map_err(BuildError::file("make", scratch))?;
    let [engine_name, weights_name, layers_name] = [ENGINE_ENDING, WEIGHTS_ENDING, LAYERS_ENDING]
        .map(|ending| file_name(&plan.name, &plan.key, ending));
    let [engine, weights, layers] =
        [&engine_name, &weights_name, &layers_name].map(|name| scratch.join(name));
    let peak = PeakMemory::start();
    let watch = Stopwatch::start();
    builder.build(&BuildJob {
        file: &plan.file,
        targets: request.targets,
        engine: &engine,
        weights: &weights,
        weights_name: &weights_name,
        layers: &layers,
        steps: &request.steps,
        cancel: request.cancel,
    })?;
    let seconds = watch.elapsed().as_secs_f64();
    let peak_resident_bytes = peak.bytes();
    // Read before the files move, so that weights changed during the build are detected at the next load.
    let weight_files = weight_files(&plan.file)?;
    let move_if_written = |path: &Path, name| match path.exists() {
        true => move_into(path, request.out, name).map(Some),
        false => Ok(None),
    };
    let own_weights = move_if_written(&weights, weights_name)?;
    let layers = move_if_written(&layers, layers_name)?;
    let engine = move_into(&engine, request.out, engine_name)?;
    let result_bytes =
        [&engine].into_iter().chain(&own_weights).chain(&layers).map(|file| file.bytes).sum();
    let build =
        BuildRecord { seconds, predicted: plan.predicted, peak_resident_bytes, result_bytes };
    let record = NetworkRecord {
        key: plan.key.clone(),
        engine,
        own_weights,
        layers,
        weight_files,
        contract: plan.file.contract.clone(),
        build,
    };
    write_record(request.out, &record)?;
    remove_folder(scratch)?;
    Ok(record)
}
