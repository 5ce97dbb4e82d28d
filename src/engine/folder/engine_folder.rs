//! A folder of built engines: what is in it, and whether it may be used here and now.
//!
//! | file | holds |
//! |---|---|
//! | `engine.json` | the [`EngineRecord`]; written last, so a folder without it is not finished |
//! | `NETWORK.KEY.engine` | what the library loads |
//! | `NETWORK.KEY.weights` | weights that only this engine has, if there are any |
//! | `NETWORK.KEY.layers.json` | the engine's layers, if the library listed them ([`LayerReport`]) |
//! | `NETWORK.KEY.runtime-cache` | kernels that TensorRT-RTX compiled at the first run, for one driver |
//! | `NETWORK.onnx`, `NETWORK.json` | the network that it was built from, with its contract |
//! | `export.json`, `tokenizer.json` | as in the network folder |
//! | links | to the files that weights are read from |
//! | `accuracy.json` | what `tandem verify` found of these engines |
//! | `latency.json` | the last profile that `tandem profile` took of these engines |
//! | `build.lock` | held by a build |

use super::network_file::{NetworkFile, NetworkFileError, hex};
use super::weight_hash::{WeightFile, WeightHasher, hashes_file};
use crate::engine::target::{BackendKind, Target, comma_separated};
use crate::engine::tensorrt::{LAYER_FORMAT, LayerReport};
use crate::engine::{BuildError, Prediction};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tandem_export::contract::Contract;
use tandem_export::networks::Precision;
use tandem_export::summary::is_file_name;
use tandem_files::{open_regular, read_regular};

/// File of the [`EngineRecord`].
pub const ENGINE_FILE: &str = "engine.json";

/// File in which `tandem profile` leaves the latencies of these engines.
pub const LATENCY_FILE: &str = "latency.json";

/// Largest [`ENGINE_FILE`], bytes.
const LARGEST_RECORD: u64 = 64 << 20;

/// Version of [`EngineRecord`]'s layout; a reader refuses another.
pub(in crate::engine) const FORMAT: u32 = 1;

/// Ending of engine files.
pub(in crate::engine) const ENGINE_ENDING: &str = "engine";

/// Ending of files of layers.
pub(in crate::engine) const LAYERS_ENDING: &str = "layers.json";

/// Ending of files with kernels that a library compiled when an engine first ran.
pub(in crate::engine) const RUNTIME_CACHE_ENDING: &str = "runtime-cache";

/// Everything that an engine was made from. Engines of equal keys are interchangeable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Lower-case SHA-256 of the exported graph.
    pub graph_sha256: String,
    /// Lower-case SHA-256 over the values of every weight that the graph reads.
    pub weights_sha256: String,
    /// What it runs on.
    pub targets: Vec<Target>,
    /// What else of the building machine it depends on, such as CPU features.
    pub machine: Option<String>,
    /// What built it.
    pub backend: BackendKind,
    /// Library and version.
    pub library: String,
    /// What the network computes in.
    pub precision: Precision,
    /// Version of tandem.
    pub tandem: String,
}

impl Key {
    /// Lower-case SHA-256 over all of it.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(serde_json::to_vec(self).expect("a struct of words")))
    }

    /// What is otherwise in `now`, in words.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, built: &str, now: &str| {
            if built != now {
                differences.push(format!("{what}: built for {built:?}, here is {now:?}"));
            }
        };
        compare("library", &self.library, &now.library);
        let machine = |key: &Self| key.machine.clone().unwrap_or_else(|| "any".into());
        compare("machine", &machine(self), &machine(now));
        compare("targets", &comma_separated(&self.targets), &comma_separated(&now.targets));
        compare("tandem", &self.tandem, &now.tandem);
        compare("back end", self.backend.as_str(), now.backend.as_str());
        compare("graph", &self.graph_sha256, &now.graph_sha256);
        compare("weights", &self.weights_sha256, &now.weights_sha256);
        compare("precision", &precision_word(self.precision), &precision_word(now.precision));
        differences
    }
}

/// A file with what it must hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Name in the folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Lower-case SHA-256.
    pub sha256: String,
}

/// How a build went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// Wall time, seconds.
    pub seconds: f64,
    /// What it was predicted to need.
    pub predicted: Prediction,
    /// Most memory that was resident, mapped weights included, bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Disk that its files take, bytes.
    pub result_bytes: u64,
}

/// One built network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// What it was made from.
    pub key: Key,
    /// What the library loads.
    pub engine: FileRecord,
    /// Weights that only this engine has.
    pub own_weights: Option<FileRecord>,
    /// The engine's layers, if the library listed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<FileRecord>,
    /// Files of the network folder and the checkpoint that weights are read from.
    pub weight_files: Vec<WeightFile>,
    /// Inputs, outputs and sizes.
    pub contract: Contract,
    /// How the build went.
    pub build: BuildRecord,
}

impl NetworkRecord {
    /// Files that only this engine has.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        [&self.engine].into_iter().chain(&self.own_weights).chain(&self.layers)
    }
}

/// What an engine folder holds; the content of [`ENGINE_FILE`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    /// `FORMAT` at the time of writing.
    pub format: u32,
    /// Version of tandem.
    pub tandem: String,
    /// The folder that it was built from.
    pub network_folder: PathBuf,
    /// Lower-case SHA-256 of that folder's `export.json`.
    pub export_sha256: String,
    /// Networks in the order in which they run.
    pub networks: Vec<NetworkRecord>,
}

/// Only the layout's version, which comes before everything else.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// An engine folder, its record read.
pub struct EngineFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub record: EngineRecord,
    /// Lower-case SHA-256 of its [`ENGINE_FILE`].
    pub sha256: String,
}

/// A built engine as it comes from its folder, hashes checked.
pub struct BuiltNetwork {
    /// What it was made from.
    pub key: Key,
    /// What the library loads.
    pub bytes: Vec<u8>,
    /// The command that builds it again.
    pub rebuild: String,
    /// The command that builds an engine for the CPU beside it, whatever this one is for.
    pub rebuild_for_cpu: String,
}

/// An engine folder cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum EngineFolderError {
    /// There are engines, but no record of them.
    #[error(
        "{} holds engines but no {ENGINE_FILE}: its build was not finished, or the file was lost; \
         finish it with `tandem build`, which keeps what is done",
        folder.display()
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is missing or unreadable.
    #[error("cannot read {}: {source}; mend it with `{rebuild}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
        /// The command that mends it.
        rebuild: String,
    },
    /// The record is none.
    #[error("{} is not the record of an engine folder: {source}; build the folder again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The record has another format.
    #[error(
        "{} has format {found}, this tandem reads format {FORMAT}; build the folder again with this \
         tandem, or use it with the one that built it",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The record says something that leads out of its folder.
    #[error("{} names a file {name:?}, which is no file name; build the folder again", path.display())]
    Name {
        /// The record.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A file of layers is none.
    #[error("{} is not a list of an engine's layers: {reason}; mend it with `{rebuild}`", path.display())]
    Layers {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// The command that mends it.
        rebuild: String,
    },
    /// A file has another length than it was written with.
    #[error(
        "{} has {found} bytes, {ENGINE_FILE} says {expected}: it was cut off or is another file; mend \
         it with `{rebuild}`",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// As recorded.
        expected: u64,
        /// As found.
        found: u64,
        /// The command that mends it.
        rebuild: String,
    },
    /// A file has another content than it was written with.
    #[error(
        "{} is not the file that was built (SHA-256 {found}, {ENGINE_FILE} says {expected}): it is \
         damaged or from another folder; mend it with `{rebuild}`",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// As recorded.
        expected: String,
        /// As found.
        found: String,
        /// The command that mends it.
        rebuild: String,
    },
    /// There is no such network.
    #[error("{} has no network {network:?}, only {found:?}", folder.display())]
    NoNetwork {
        /// The folder.
        folder: PathBuf,
        /// The network asked for.
        network: String,
        /// Those it has.
        found: Vec<String>,
    },
    /// A file of weights is gone.
    #[error(
        "network {network:?}: its weights were read from {}, which is not there now ({source}); put \
         it back, or export the checkpoint again and run `{rebuild}`",
        path.display()
    )]
    WeightsMoved {
        /// The network.
        network: String,
        /// Where they were.
        path: PathBuf,
        /// Why they cannot be read.
        #[source]
        source: io::Error,
        /// The command that builds it again.
        rebuild: String,
    },
    /// Weights have other values than those that the engine was built with.
    #[error(
        "network {network:?}: {} changed since the engine was built ({how}); build it again with \
         `{rebuild}`",
        path.display()
    )]
    WeightsChanged {
        /// The network.
        network: String,
        /// The file.
        path: PathBuf,
        /// What differs.
        how: String,
        /// The command that builds it again.
        rebuild: String,
    },
    /// The weights changed on disk, and could not be hashed to see whether their values did.
    #[error(transparent)]
    Weights(Box<BuildError>),
}

impl EngineFolder {
    /// Reads the record of `folder`; `None` if it is not an engine folder, such as a network folder.
    ///
    /// # Errors
    /// If the record is missing beside engines, unreadable or of another format.
    pub fn read(folder: &Path) -> Result<Option<Self>, EngineFolderError> {
        let path = folder.join(ENGINE_FILE);
        let text = match read_regular(&path, LARGEST_RECORD) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if holds_engines(folder) {
                    return Err(EngineFolderError::Unfinished { folder: folder.to_owned() });
                }
                return Ok(None);
            }
            Err(source) => {
                let rebuild = "tandem build".to_owned();
                return Err(EngineFolderError::Read { path, source, rebuild });
            }
        };
        let broken = |source| EngineFolderError::Record { path: path.clone(), source };
        let FormatOnly { format } = serde_json::from_slice(&text).map_err(broken)?;
        if format != FORMAT {
            return Err(EngineFolderError::Format { path, found: format });
        }
        let record: EngineRecord = serde_json::from_slice(&text).map_err(broken)?;
        let links = record.networks.iter().flat_map(|n| &n.weight_files).map(|file| &file.name);
        let files = record.networks.iter().flat_map(NetworkRecord::files).map(|file| &file.name);
        if let Some(name) = files.chain(links).find(|name| !is_file_name(name)) {
            return Err(EngineFolderError::Name { path, name: name.clone() });
        }
        Ok(Some(Self { path: folder.to_owned(), record, sha256: hex(&Sha256::digest(&text)) }))
    }

    /// What each engine was made from, by network.
    pub fn keys(&self) -> BTreeMap<String, Key> {
        let networks = self.record.networks.iter();
        networks.map(|record| (record.contract.network.clone(), record.key.clone())).collect()
    }

    /// The command that builds this folder again.
    pub fn rebuild(&self) -> String {
        let Some(network) = self.record.networks.first() else {
            return "tandem build".to_owned();
        };
        let source = self.source();
        format!(
            "tandem build --network {} --backend {} --target {} --precision {} --out {}",
            source.display(),
            network.key.backend,
            comma_separated(&network.key.targets),
            precision_word(network.key.precision),
            self.path.display(),
        )
    }

    /// Where the networks are. Without its network folder, an engine folder is one itself.
    fn source(&self) -> &Path {
        match self.record.network_folder.is_dir() {
            true => &self.record.network_folder,
            false => &self.path,
        }
    }

    /// The command that builds engines for the CPU, in a folder of their own beside this one.
    fn rebuild_for_cpu(&self) -> String {
        let beside = |ending: &str| {
            let name = self.path.file_name().unwrap_or("engines".as_ref()).to_string_lossy();
            self.path.with_file_name(format!("{name}-{ending}"))
        };
        let build = |network: &Path| {
            let (network, out) = (network.display(), beside("cpu"));
            format!("tandem build --network {network} --target cpu --out {}", out.display())
        };
        let is_bf16 = |network: &NetworkRecord| network.key.precision == Precision::Bf16;
        if !self.record.networks.iter().any(is_bf16) {
            return build(self.source());
        }
        // No CPU library computes in bfloat16, so the networks have to be drawn anew.
        let Ok(mut summary) = NetworkFile::summary(&self.path) else {
            return "tandem export --precision f32".to_owned();
        };
        let networks = beside("f32");
        summary.options.precision = Precision::F32;
        summary.options.prefix_capacity = Some(summary.prefix_capacity);
        format!("{} && {}", summary.export_command(&networks), build(&networks))
    }

    /// Reads one network, checking every file that is of it.
    ///
    /// # Errors
    /// If there is no such network, a file is not what was built, or weights moved or changed. What
    /// the engine needs of machine and library is checked when a back end loads it.
    pub fn network(&self, name: &str) -> Result<NetworkFile, NetworkFileError> {
        let record = self.record.networks.iter().find(|record| record.contract.network == name);
        let record = record.ok_or_else(|| EngineFolderError::NoNetwork {
            folder: self.path.clone(),
            network: name.to_owned(),
            found: self.record.networks.iter().map(|r| r.contract.network.clone()).collect(),
        })?;
        let mut file = NetworkFile::exported(&self.path, name)?;
        if file.contract.graph_sha256 != record.key.graph_sha256 {
            return Err(NetworkFileError::Hash {
                path: self.path.join(format!("{name}.onnx")),
                expected: record.key.graph_sha256.clone(),
                found: file.contract.graph_sha256,
            });
        }
        if let Some(own) = &record.own_weights {
            self.check_file(own)?;
        }
        let bytes = self.read_file(&record.engine)?;
        self.check_weights(record, &file)?;
        let (key, rebuild) = (record.key.clone(), self.rebuild());
        let rebuild_for_cpu = self.rebuild_for_cpu();
        file.built = Some(BuiltNetwork { key, bytes, rebuild, rebuild_for_cpu });
        Ok(file)
    }

    /// The layers of a network's engine; `None` if its library did not list them.
    ///
    /// # Errors
    /// If their file is not what was built, or of another format.
    pub fn layers(&self, record: &NetworkRecord) -> Result<Option<LayerReport>, EngineFolderError> {
        let Some(file) = &record.layers else { return Ok(None) };
        let text = self.read_file(file)?;
        let broken = |reason: String| EngineFolderError::Layers {
            path: self.path.join(&file.name),
            reason,
            rebuild: self.rebuild(),
        };
        let read = |error: serde_json::Error| broken(error.to_string());
        let FormatOnly { format } = serde_json::from_slice(&text).map_err(read)?;
        if format != LAYER_FORMAT {
            return Err(broken(format!(
                "it has format {format}, this tandem reads {LAYER_FORMAT}"
            )));
        }
        serde_json::from_slice(&text).map(Some).map_err(read)
    }

    fn check_weights(
        &self,
        record: &NetworkRecord,
        file: &NetworkFile,
    ) -> Result<(), EngineFolderError> {
        let network = &record.contract.network;
        let mut touched = None;
        for known in &record.weight_files {
            let now = WeightFile::of(&self.path, &known.name).map_err(|source| {
                EngineFolderError::WeightsMoved {
                    network: network.clone(),
                    path: fs::read_link(self.path.join(&known.name))
                        .unwrap_or_else(|_| known.path.clone()),
                    source,
                    rebuild: self.rebuild(),
                }
            })?;
            if now.bytes != known.bytes {
                return Err(EngineFolderError::WeightsChanged {
                    network: network.clone(),
                    path: now.path,
                    how: format!("it had {} bytes, now {}", known.bytes, now.bytes),
                    rebuild: self.rebuild(),
                });
            }
            if (now.modified_ns, now.changed_ns) != (known.modified_ns, known.changed_ns) {
                touched = Some(now.path);
            }
        }
        let Some(path) = touched else { return Ok(()) };
        // A copy or a touch changes the time, not the values.
        let never = AtomicBool::new(false);
        let hash = WeightHasher { cache: hashes_file(), cancel: &never }
            .hash(file, &mut |_, _| {})
            .map_err(|error| EngineFolderError::Weights(Box::new(error)))?;
        if hash == record.key.weights_sha256 {
            return Ok(());
        }
        Err(EngineFolderError::WeightsChanged {
            network: network.clone(),
            path,
            how: format!("SHA-256 of the values was {}, is {hash}", record.key.weights_sha256),
            rebuild: self.rebuild(),
        })
    }

    fn read_file(&self, record: &FileRecord) -> Result<Vec<u8>, EngineFolderError> {
        let path = self.path.join(&record.name);
        self.check_length(record, &path)?;
        let read = |source| self.unreadable(&path, source);
        let bytes = read_regular(&path, record.bytes).map_err(read)?;
        self.check_hash(record, &path, hex(&Sha256::digest(&bytes)))?;
        Ok(bytes)
    }

    fn check_file(&self, record: &FileRecord) -> Result<(), EngineFolderError> {
        let path = self.path.join(&record.name);
        self.check_length(record, &path)?;
        let hash = file_sha256(&path).map_err(|source| self.unreadable(&path, source))?;
        self.check_hash(record, &path, hash)
    }

    fn check_length(&self, record: &FileRecord, path: &Path) -> Result<(), EngineFolderError> {
        let found = fs::metadata(path).map_err(|source| self.unreadable(path, source))?.len();
        if found == record.bytes {
            return Ok(());
        }
        let (expected, rebuild) = (record.bytes, self.rebuild());
        Err(EngineFolderError::Length { path: path.to_owned(), expected, found, rebuild })
    }

    fn check_hash(
        &self,
        record: &FileRecord,
        path: &Path,
        found: String,
    ) -> Result<(), EngineFolderError> {
        if found == record.sha256 {
            return Ok(());
        }
        let (expected, rebuild) = (record.sha256.clone(), self.rebuild());
        Err(EngineFolderError::Hash { path: path.to_owned(), expected, found, rebuild })
    }

    fn unreadable(&self, path: &Path, source: io::Error) -> EngineFolderError {
        EngineFolderError::Read { path: path.to_owned(), source, rebuild: self.rebuild() }
    }
}

/// A precision as the command line spells it.
pub(in crate::engine) fn precision_word(precision: Precision) -> String {
    let value = serde_json::to_value(precision).expect("an enum of words");
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether some file in `folder` is an engine.
fn holds_engines(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        path.extension().is_some_and(|extension| extension == ENGINE_ENDING) && path.is_file()
    })
}

/// Lower-case SHA-256 of a file.
pub(in crate::engine) fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = open_regular(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&chunk[..read]),
        }
    }
}
