//! Builds the engines of a network folder into an engine folder.
//!
//! Each engine goes through a scratch folder and is renamed to a name that holds its key, so a folder
//! in use stays whole until `engine.json`, written last, turns to the new engines. Beside each
//! finished engine lies its record until then: a build that was interrupted goes on from there.

use super::builder::{Available, BuildError, BuildJob, Builder, PeakMemory, StepListener};
use super::folder::{
    BuildRecord, ENGINE_ENDING, ENGINE_FILE, EngineFolder, EngineFolderError, EngineRecord, FORMAT,
    FileError, Key, LAYERS_ENDING, NetworkFile, NetworkFileError, NetworkRecord, Prediction,
    WEIGHTS_ENDING, WeightHashError, WeightHasher, file_name, finished_engine, keep, link_weights,
    precision_word, publish, remove_folder, weight_files, write_record, write_whole,
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

/// Held by a build; it holds the number of the process.
const LOCK_FILE: &str = "build.lock";

/// Folder of a build's files in between.
const SCRATCH: &str = "scratch.partial";

/// How often a build that waits for another looks again.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// What to build.
pub struct BuildRequest<'a> {
    /// Folder of networks, or an engine folder to build again.
    pub network: &'a Path,
    /// Engine folder to write.
    pub out: &'a Path,
    /// What for; each engine runs on all of them.
    pub targets: &'a [Target],
    /// What the networks are expected to compute in; `None`: whatever they do.
    pub precision: Option<Precision>,
    /// File of weight hashes that are known.
    pub hashes: Option<PathBuf>,
    /// What there is, as told for the engine folder, once it exists.
    pub available: &'a dyn Fn(&Path) -> Available,
    /// Hears of the steps within a network's build, from any thread, where the library tells.
    pub steps: StepListener,
    /// Set when the build shall end; finished engines stay.
    pub cancel: &'a Arc<AtomicBool>,
}

/// How far a build is.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress<'a> {
    /// Another build of the same folder runs.
    Waiting {
        /// Its process, as far as it says.
        holder: &'a str,
    },
    /// Weights are being hashed.
    Hashing {
        /// The network.
        network: &'a str,
        /// Bytes hashed.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// An engine with this key is there already.
    Kept {
        /// The network.
        network: &'a str,
    },
    /// A network is about to be built.
    Building {
        /// The network.
        network: &'a str,
        /// What it is predicted to need.
        predicted: Prediction,
    },
    /// A network was built.
    Built {
        /// The network.
        network: &'a str,
        /// How that went.
        build: &'a BuildRecord,
    },
}

/// An engine folder cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildFolderError {
    /// The back end does not build for a target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A network cannot be read.
    #[error(transparent)]
    Network(#[from] NetworkFileError),
    /// An earlier engine folder cannot be read.
    #[error(transparent)]
    Folder(#[from] EngineFolderError),
    /// A network cannot be built, or a file not written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The networks were exported for another precision.
    #[error(
        "the networks in {} compute in {found}, not {asked}; export the checkpoint with --precision \
         {asked} first",
        folder.display()
    )]
    Precision {
        /// The network folder.
        folder: PathBuf,
        /// As exported.
        found: String,
        /// As asked for.
        asked: String,
    },
    /// The engine folder would be written over something else.
    #[error(
        "{} holds {found:?} and is not an engine folder; give an empty or a new folder as --out",
        folder.display()
    )]
    InTheWay {
        /// The folder.
        folder: PathBuf,
        /// Something in it.
        found: String,
    },
    /// There is too little memory.
    #[error(
        "building network {network:?} needs up to {needed_mb:.0} MB of memory, {available_mb:.0} MB \
         are free; free some, or build on a larger machine"
    )]
    Memory {
        /// The network.
        network: String,
        /// Predicted.
        needed_mb: f64,
        /// Free.
        available_mb: f64,
    },
    /// There is too little disk.
    #[error(
        "building needs up to {needed_mb:.0} MB of disk in {}, {available_mb:.0} MB are free; free \
         some, or give another folder as --out",
        folder.display()
    )]
    Disk {
        /// The engine folder.
        folder: PathBuf,
        /// Predicted.
        needed_mb: f64,
        /// Free.
        available_mb: f64,
    },
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

/// What a build did.
pub struct Report {
    /// The folder's record.
    pub record: EngineRecord,
    /// Networks that were built now; the others were there.
    pub built: Vec<String>,
}

/// Builds an engine of every network that has none with the same key yet.
///
/// # Errors
/// If the target is not the back end's, a network cannot be read or built, or there is too little
/// memory or disk. Engines that are finished stay for the next build.
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
    // Whatever is called so was left by a build that was killed: this one holds the lock.
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

/// One network on its way.
struct Plan {
    name: String,
    file: NetworkFile,
    key: Key,
    predicted: Prediction,
    /// An engine of the same key.
    done: Option<NetworkRecord>,
}

fn read_summary(request: &BuildRequest<'_>) -> Result<(Summary, String), BuildFolderError> {
    let (summary, sha256) = NetworkFile::summary_with_sha256(request.network)?;
    let found = summary.options.precision;
    match request.precision {
        Some(asked) if asked != found => Err(BuildFolderError::Precision {
            folder: request.network.to_owned(),
            found: precision_word(found),
            asked: precision_word(asked),
        }),
        _ => Ok((summary, sha256)),
    }
}

/// A new or empty folder may be built in, and one that was built in before.
fn refuse_foreign(out: &Path) -> Result<(), BuildFolderError> {
    let reading = || BuildError::file("read", out);
    if !out.exists() || out.join(LOCK_FILE).exists() || out.join(ENGINE_FILE).exists() {
        return Ok(());
    }
    match fs::read_dir(out).map_err(reading())?.next() {
        None => Ok(()),
        Some(entry) => {
            let found = entry.map_err(reading())?.file_name().to_string_lossy().into_owned();
            Err(BuildFolderError::InTheWay { folder: out.to_owned(), found })
        }
    }
}

/// Waits until no other build of the folder runs. The lock ends with the file that is returned.
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
    let mut said = false;
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
        if !said {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            progress(Progress::Waiting { holder: holder.trim() });
            said = true;
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

/// Puts the exported networks, and links to their weights, into the engine folder.
fn copy_exported(request: &BuildRequest<'_>, plans: &[Plan]) -> Result<(), BuildFolderError> {
    let mut names = vec![SUMMARY_FILE.to_owned(), TOKENIZER_FILE.to_owned()];
    names.extend(plans.iter().flat_map(|plan| [graph_file(&plan.name), contract_file(&plan.name)]));
    for name in names {
        let (from, to) = (request.network.join(&name), request.out.join(&name));
        match fs::read(&from) {
            Ok(bytes) if fs::read(&to).ok().as_ref() == Some(&bytes) => {}
            Ok(bytes) => write_whole(&to, &bytes)?,
            // A checkpoint without a tokenizer exports, and says that it cannot drive.
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
    // Read before the files move: a change of the weights during the build shows as a change later.
    let weight_files = weight_files(&plan.file)?;
    let keep_if_there = |path: &Path, name| match path.exists() {
        true => keep(path, request.out, name).map(Some),
        false => Ok(None),
    };
    let own_weights = keep_if_there(&weights, weights_name)?;
    let layers = keep_if_there(&layers, layers_name)?;
    let engine = keep(&engine, request.out, engine_name)?;
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
