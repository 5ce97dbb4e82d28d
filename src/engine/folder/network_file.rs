//! A network on disk: the graph `NAME.onnx` and its contract `NAME.json`; in an engine folder also the
//! built engine.

use super::graph_check::{GraphError, check_exported, locations};
use super::rebuild::Rebuild;
use super::record::Key;
use super::weight_file::hash_cache;
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use tandem_export::contract::{Contract, ContractError};
use tandem_export::folder::{SUMMARY_FILE, Summary};
use tandem_export::summary::SummaryError;
use tandem_export::weights::{WeightsError, hex};
use tandem_files::{read_regular, shortened};

/// Largest contract or summary, bytes.
const LARGEST_JSON: u64 = 64 << 20;

/// Largest graph, bytes: the limit of Protocol Buffers.
const LARGEST_GRAPH: u64 = 2 << 30;

/// Network that was read and matches its contract.
pub struct NetworkFile {
    /// Folder that weight locations are relative to.
    pub folder: PathBuf,
    pub contract: Contract,
    /// The exported ONNX graph, without external weights.
    pub graph: Vec<u8>,
    /// The built engine, if the network was read from an engine folder.
    pub built: Option<BuiltNetwork>,
}

/// Built engine read from its folder; its hashes were checked.
pub struct BuiltNetwork {
    pub key: Key,
    /// Content of the engine file.
    pub bytes: Vec<u8>,
    /// Build that replaces the engine; `None` if its folder does not record how it was built.
    pub rebuild: Option<Box<Rebuild>>,
    /// Build that makes an engine for the CPU in a sibling folder.
    pub rebuild_for_cpu: Option<Box<Rebuild>>,
}

/// Error returned when a network file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFileError {
    #[error("cannot read {path:?}: {source}; `tandem export` writes it")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is not a network contract: {source}; export the checkpoint again")]
    Contract {
        path: PathBuf,
        #[source]
        source: ContractError,
    },
    #[error("{path:?} is not the summary of an export: {source}; export the checkpoint again")]
    Summary {
        path: PathBuf,
        #[source]
        source: SummaryError,
    },
    #[error(
        "{path:?} is not the graph that its contract describes (SHA-256 {found}, the contract has {expected}): it is damaged or from another export; export the checkpoint again"
    )]
    Hash { path: PathBuf, expected: String, found: String },
    #[error("{path:?} cannot be used: {source}; export the checkpoint again")]
    Graph {
        path: PathBuf,
        #[source]
        source: GraphError,
    },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(
        "network {network:?} reads weights from {file:?}, which {SUMMARY_FILE} does not list; export \
         again with `{export}`"
    )]
    Unlisted {
        network: String,
        file: String,
        /// Command that exports the checkpoint again.
        export: String,
    },
}

impl NetworkFile {
    /// Reads the network `name` from the network folder `folder`. For an engine folder, use
    /// [`EngineFolder::network`](super::EngineFolder::network), which also reads the built engine.
    /// Fails if a file is missing, the contract is unreadable or of another format, the graph does
    /// not match the contract, or weights are missing or changed.
    pub fn read(folder: &Path, name: &str) -> Result<Self, NetworkFileError> {
        let file = Self::exported(folder, name)?;
        // A single network without an export's summary has no record of its weight files.
        if folder.join(SUMMARY_FILE).exists() {
            file.check_weights(&Self::summary(folder)?)?;
        }
        Ok(file)
    }

    /// Compares the weight files with those recorded in `summary`. Fails if one is missing, has
    /// changed, or does not belong to the export.
    pub fn check_weights(&self, summary: &Summary) -> Result<(), NetworkFileError> {
        let locations = locations(&self.graph).map_err(|source| NetworkFileError::Graph {
            path: self.folder.join(format!("{}.onnx", self.contract.network)),
            source,
        })?;
        let export = summary.export_command(&self.folder);
        let cache = hash_cache();
        for location in locations {
            let Some(known) = summary.weights.iter().find(|file| file.name == location) else {
                let network = self.contract.network.clone();
                let file = shortened(location);
                return Err(NetworkFileError::Unlisted { network, file, export });
            };
            known.check(&self.folder, &cache, &export)?;
        }
        Ok(())
    }

    /// Reads the summary of an export, which lists its networks among others, from `folder`, a
    /// network folder or an engine folder. Fails if the file is missing or unreadable.
    pub fn summary(folder: &Path) -> Result<Summary, NetworkFileError> {
        Self::summary_with_sha256(folder).map(|(summary, _)| summary)
    }

    /// Like [`summary`](Self::summary), and returns the lower-case SHA-256 of the file. Fails like
    /// [`summary`](Self::summary).
    pub fn summary_with_sha256(folder: &Path) -> Result<(Summary, String), NetworkFileError> {
        let path = folder.join(SUMMARY_FILE);
        let text = read(&path, LARGEST_JSON)?;
        let sha256 = hex(&Sha256::digest(&text));
        match Summary::parse(&text) {
            Ok(summary) => Ok((summary, sha256)),
            Err(source) => Err(NetworkFileError::Summary { path, source }),
        }
    }

    /// Reads the exported network `name` and ignores a built engine. Fails if a file is missing,
    /// the contract is unreadable or of another format, or the graph does not match the contract or
    /// has fields that an export does not write.
    pub fn exported(folder: &Path, name: &str) -> Result<Self, NetworkFileError> {
        let path = folder.join(format!("{name}.json"));
        let text = read(&path, LARGEST_JSON)?;
        let contract =
            Contract::parse(&text).map_err(|source| NetworkFileError::Contract { path, source })?;
        let path = folder.join(format!("{name}.onnx"));
        let graph = read(&path, LARGEST_GRAPH)?;
        let found = hex(&Sha256::digest(&graph));
        if found != contract.graph_sha256 {
            let expected = contract.graph_sha256;
            return Err(NetworkFileError::Hash { path, expected, found });
        }
        check_exported(&graph).map_err(|source| NetworkFileError::Graph { path, source })?;
        Ok(Self { folder: folder.to_path_buf(), contract, graph, built: None })
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, NetworkFileError> {
    read_regular(path, most)
        .map_err(|source| NetworkFileError::Read { path: path.to_owned(), source })
}
