//! Reads a folder of built engines and checks that its files are complete and unchanged.
//!
//! | file | content |
//! |---|---|
//! | `engine.json` | the [`EngineRecord`]; written last, so a folder without it is not finished |
//! | `NETWORK.KEY.engine` | the engine that the library loads |
//! | `NETWORK.KEY.weights` | converted weights of this engine alone, if the library wrote any |
//! | `NETWORK.KEY.layers.json` | the engine's layers, if the library listed them ([`LayerReport`]) |
//! | `NETWORK.KEY.runtime-cache` | kernels that TensorRT-RTX compiled at the first run, for one driver |
//! | `NETWORK.onnx`, `NETWORK.json` | the exported network and its contract |
//! | `export.json`, `tokenizer.json` | copies from the network folder |
//! | links | to the weight files |
//! | `accuracy.json` | result of `tandem verify` for these engines |
//! | `latency.json` | latest result of `tandem profile` for these engines |
//! | `build.lock` | locked during a build |

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

/// The format version, which is checked before the rest of a file is parsed.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Engine folder whose record was read.
pub struct EngineFolder {
    pub path: PathBuf,
    pub record: EngineRecord,
    /// Lower-case SHA-256 of its [`ENGINE_FILE`].
    pub sha256: String,
}

/// Error returned when an engine folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineFolderError {
    #[error(
        "{} contains engines but no {ENGINE_FILE}: its build was not finished, or the file was lost; \
         finish it with `tandem build`, which keeps finished engines",
        folder.display()
    )]
    Unfinished { folder: PathBuf },
    #[error("cannot read {}: {source}; build the folder again", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
        rebuild: Option<Box<Rebuild>>,
    },
    #[error("{} is not the record of an engine folder: {source}; build the folder again", path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "{} has format {found}, this tandem reads format {FORMAT}; build the folder again with this \
         tandem, or use it with the one that built it",
        path.display()
    )]
    Format { path: PathBuf, found: u32 },
    #[error("{} lists {name:?}, which is not a file name; build the folder again", path.display())]
    Name { path: PathBuf, name: String },
    #[error("{} is not a list of an engine's layers: {reason}; build the folder again", path.display())]
    Layers { path: PathBuf, reason: String, rebuild: Option<Box<Rebuild>> },
    #[error(
        "{} has {found} bytes, {ENGINE_FILE} lists {expected}: it was truncated or is another file; \
         build the folder again",
        path.display()
    )]
    Length { path: PathBuf, expected: u64, found: u64, rebuild: Option<Box<Rebuild>> },
    #[error(
        "{} is not the file that was built (SHA-256 {found}, {ENGINE_FILE} lists {expected}): it is \
         damaged or from another folder; build the folder again",
        path.display()
    )]
    Hash { path: PathBuf, expected: String, found: String, rebuild: Option<Box<Rebuild>> },
    #[error("{} has no network {network:?}, only {found:?}", folder.display())]
    NoNetwork { folder: PathBuf, network: String, found: Vec<String> },
    #[error(
        "network {network:?}: its weight file {} is missing ({source}); restore it, or export the \
         checkpoint and build the folder again",
        path.display()
    )]
    WeightsMoved {
        network: String,
        path: PathBuf,
        #[source]
        source: io::Error,
        rebuild: Option<Box<Rebuild>>,
    },
    #[error(
        "network {network:?}: {} changed since the engine was built ({how}); build the folder again",
        path.display()
    )]
    WeightsChanged { network: String, path: PathBuf, how: String, rebuild: Option<Box<Rebuild>> },
    #[error(transparent)]
    Weights(#[from] WeightHashError),
    #[error(transparent)]
    Network(#[from] NetworkFileError),
}

impl EngineFolderError {
    /// Returns the build that repairs the folder, if the folder records how it was built.
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

/// Reads network `name` of `folder`, a network folder or an engine folder. From an engine folder,
/// the built engine is read too. Fails like [`NetworkFile::read`] and [`EngineFolder::network`].
pub fn read_network(folder: &Path, name: &str) -> Result<NetworkFile, EngineFolderError> {
    match EngineFolder::read(folder)? {
        Some(engines) => engines.network(name),
        None => Ok(NetworkFile::read(folder, name)?),
    }
}

impl EngineFolder {
    /// Reads the record of `folder`; `None` if it is not an engine folder, such as a network
    /// folder. Fails if the folder contains engines without a record, or the record is unreadable
    /// or of another format.
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

    /// Returns the key of each engine, by network.
    pub fn keys(&self) -> BTreeMap<String, Key> {
        let networks = self.record.networks.iter();
        networks.map(|record| (record.contract.network.clone(), record.key.clone())).collect()
    }

    /// Returns the build that replaces this folder; `None` if it has no networks.
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

    /// Returns the folder of the networks: this folder itself if its network folder is missing.
    fn source(&self) -> &Path {
        if self.record.network_folder.is_dir() { &self.record.network_folder } else { &self.path }
    }

    /// Returns the build that makes engines for the CPU in a sibling folder; `None` if the networks
    /// must be exported again and the folder does not record how they were exported.
    fn rebuild_for_cpu(&self) -> Option<Box<Rebuild>> {
        let sibling = |ending: &str| {
            let name = self.path.file_name().unwrap_or("engines".as_ref()).to_string_lossy();
            self.path.with_file_name(format!("{name}-{ending}"))
        };
        let mut rebuild = Rebuild {
            export: None,
            network: self.source().to_owned(),
            backend: None,
            targets: vec![Target::Cpu],
            precision: None,
            out: sibling("cpu"),
        };
        let is_bf16 = |network: &NetworkRecord| network.key.precision == Precision::Bf16;
        if self.record.networks.iter().any(is_bf16) {
            // The CPU back end does not compute in bfloat16.
            let summary = NetworkFile::summary(&self.path).ok()?.in_precision(Precision::F32);
            rebuild.network = sibling("f32");
            rebuild.export = Some(Reexport { summary, out: rebuild.network.clone() });
        }
        Some(Box::new(rebuild))
    }

    /// Reads one network and checks each of its files. Fails if the network does not exist, a file
    /// is not the one that was built, or weights are missing or changed. Machine and library are
    /// checked when a back end loads the engine.
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

    /// Reads the layers of a network's engine; `None` if its library did not list them. Fails if
    /// the file is not the one that was built, or of another format.
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
        for recorded in &record.weight_files {
            let now = WeightFile::of(&self.path, &recorded.name).map_err(|source| {
                EngineFolderError::WeightsMoved {
                    network: network.clone(),
                    path: fs::read_link(self.path.join(&recorded.name))
                        .unwrap_or_else(|_| recorded.path.clone()),
                    source,
                    rebuild: self.rebuild(),
                }
            })?;
            if now.bytes != recorded.bytes {
                return Err(EngineFolderError::WeightsChanged {
                    network: network.clone(),
                    path: now.path,
                    how: format!("it had {} bytes, now {}", recorded.bytes, now.bytes),
                    rebuild: self.rebuild(),
                });
            }
            if (now.modified_ns, now.changed_ns) != (recorded.modified_ns, recorded.changed_ns) {
                touched = Some(now.path);
            }
        }
        let Some(path) = touched else { return Ok(()) };
        // Copying or touching a file changes its times but not its values.
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

/// Returns whether `folder` contains engine files.
fn holds_engines(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        path.extension().is_some_and(|extension| extension == ENGINE_ENDING) && path.is_file()
    })
}

/// Computes the lower-case SHA-256 of a file.
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
