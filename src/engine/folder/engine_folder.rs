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

use super::layers::{LAYER_FORMAT, LayerReport};
use super::network_file::{BuiltNetwork, NetworkFile, NetworkFileError};
use super::rebuild::{Rebuild, Reexport};
use super::record::{
    ENGINE_ENDING, ENGINE_FILE, EngineRecord, FORMAT, FileRecord, Key, NetworkRecord,
};
use super::weight_file::{WeightFile, hashes_file};
use super::weight_hash::{WeightHashError, WeightHasher};
use crate::engine::target::Target;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tandem_export::options::Precision;
use tandem_export::summary::is_file_name;
use tandem_export::weights::hex;
use tandem_files::{open_regular, read_regular};

/// Largest [`ENGINE_FILE`], bytes.
const LARGEST_RECORD: u64 = 64 << 20;

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
    #[error("cannot read {}: {source}; build the folder again", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
        /// Build that replaces it.
        rebuild: Option<Box<Rebuild>>,
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
    #[error("{} is not a list of an engine's layers: {reason}; build the folder again", path.display())]
    Layers {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// Build that replaces it.
        rebuild: Option<Box<Rebuild>>,
    },
    /// A file has another length than it was written with.
    #[error(
        "{} has {found} bytes, {ENGINE_FILE} says {expected}: it was cut off or is another file; build \
         the folder again",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// As recorded.
        expected: u64,
        /// As found.
        found: u64,
        /// Build that replaces it.
        rebuild: Option<Box<Rebuild>>,
    },
    /// A file has another content than it was written with.
    #[error(
        "{} is not the file that was built (SHA-256 {found}, {ENGINE_FILE} says {expected}): it is \
         damaged or from another folder; build the folder again",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// As recorded.
        expected: String,
        /// As found.
        found: String,
        /// Build that replaces it.
        rebuild: Option<Box<Rebuild>>,
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
         it back, or export the checkpoint and build the folder again",
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
        /// Build that replaces its engine.
        rebuild: Option<Box<Rebuild>>,
    },
    /// Weights have other values than those that the engine was built with.
    #[error(
        "network {network:?}: {} changed since the engine was built ({how}); build the folder again",
        path.display()
    )]
    WeightsChanged {
        /// The network.
        network: String,
        /// The file.
        path: PathBuf,
        /// What differs.
        how: String,
        /// Build that replaces its engine.
        rebuild: Option<Box<Rebuild>>,
    },
    /// The weights changed on disk, and could not be hashed to see whether their values did.
    #[error(transparent)]
    Weights(#[from] WeightHashError),
    /// A network cannot be read.
    #[error(transparent)]
    Network(#[from] NetworkFileError),
}

impl EngineFolderError {
    /// Build that makes the folder usable again, where the folder says how it was built.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::Read { rebuild, .. }
            | Self::Layers { rebuild, .. }
            | Self::Length { rebuild, .. }
            | Self::Hash { rebuild, .. }
            | Self::WeightsMoved { rebuild, .. }
            | Self::WeightsChanged { rebuild, .. } => rebuild.as_deref(),
            Self::Unfinished { .. }
            | Self::Record { .. }
            | Self::Format { .. }
            | Self::Name { .. }
            | Self::NoNetwork { .. }
            | Self::Weights(_)
            | Self::Network(_) => None,
        }
    }
}

/// Reads network `name` of `folder`, a network folder or an engine folder; of the latter with what
/// was built of it.
///
/// # Errors
/// As [`NetworkFile::read`] and [`EngineFolder::network`].
pub fn read_network(folder: &Path, name: &str) -> Result<NetworkFile, EngineFolderError> {
    match EngineFolder::read(folder)? {
        Some(engines) => engines.network(name),
        None => Ok(NetworkFile::read(folder, name)?),
    }
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
            Err(source) => return Err(EngineFolderError::Read { path, source, rebuild: None }),
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

    /// Build that makes this folder again; `None` if it has no networks.
    pub fn rebuild(&self) -> Option<Box<Rebuild>> {
        let network = self.record.networks.first()?;
        Some(Box::new(Rebuild {
            export: None,
            network: self.source().to_owned(),
            backend: Some(network.key.backend),
            targets: network.key.targets.clone(),
            precision: Some(network.key.precision),
            out: self.path.clone(),
        }))
    }

    /// Folder of the networks. Without its network folder, an engine folder is one itself.
    fn source(&self) -> &Path {
        if self.record.network_folder.is_dir() { &self.record.network_folder } else { &self.path }
    }

    /// Build that makes engines for the CPU, in a folder of their own beside this one; `None` if the
    /// networks have to be exported again and the folder does not say how they were.
    fn rebuild_for_cpu(&self) -> Option<Box<Rebuild>> {
        let beside = |ending: &str| {
            let name = self.path.file_name().unwrap_or("engines".as_ref()).to_string_lossy();
            self.path.with_file_name(format!("{name}-{ending}"))
        };
        let mut rebuild = Rebuild {
            export: None,
            network: self.source().to_owned(),
            backend: None,
            targets: vec![Target::Cpu],
            precision: None,
            out: beside("cpu"),
        };
        let is_bf16 = |network: &NetworkRecord| network.key.precision == Precision::Bf16;
        if self.record.networks.iter().any(is_bf16) {
            // No CPU library computes in bfloat16.
            let summary = NetworkFile::summary(&self.path).ok()?.in_precision(Precision::F32);
            rebuild.network = beside("f32");
            rebuild.export = Some(Reexport { summary, out: rebuild.network.clone() });
        }
        Some(Box::new(rebuild))
    }

    /// Reads one network, checking every file that is of it.
    ///
    /// # Errors
    /// If there is no such network, a file is not what was built, or weights moved or changed. What
    /// the engine needs of machine and library is checked when a back end loads it.
    pub fn network(&self, name: &str) -> Result<NetworkFile, EngineFolderError> {
        let record = self.record.networks.iter().find(|record| record.contract.network == name);
        let record = record.ok_or_else(|| EngineFolderError::NoNetwork {
            folder: self.path.clone(),
            network: name.to_owned(),
            found: self.record.networks.iter().map(|r| r.contract.network.clone()).collect(),
        })?;
        let mut file = NetworkFile::exported(&self.path, name)?;
        if file.contract.graph_sha256 != record.key.graph_sha256 {
            return Err(EngineFolderError::Network(NetworkFileError::Hash {
                path: self.path.join(format!("{name}.onnx")),
                expected: record.key.graph_sha256.clone(),
                found: file.contract.graph_sha256,
            }));
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
        let hash =
            WeightHasher { cache: hashes_file(), cancel: &never }.hash(file, &mut |_, _| {})?;
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
