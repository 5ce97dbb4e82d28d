//! A network on disk: `NAME.onnx` beside `NAME.json`, its contract; in an engine folder also what was
//! built of it.

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

/// Largest graph: the limit of its format, bytes.
const LARGEST_GRAPH: u64 = 2 << 30;

/// A network file that was read whole and is what its contract says.
pub struct NetworkFile {
    /// The folder that weight locations are relative to.
    pub folder: PathBuf,
    /// The contract.
    pub contract: Contract,
    /// The ONNX graph as exported, without external weights.
    pub graph: Vec<u8>,
    /// What was built of it, if it comes from an engine folder.
    pub built: Option<BuiltNetwork>,
}

/// A built engine as it comes from its folder, hashes checked.
pub struct BuiltNetwork {
    /// What it was made from.
    pub key: Key,
    /// What the library loads.
    pub bytes: Vec<u8>,
    /// Build that makes it again; `None` if its folder does not say how it was built.
    pub rebuild: Option<Box<Rebuild>>,
    /// Build that makes an engine for the CPU, in a folder beside it.
    pub rebuild_for_cpu: Option<Box<Rebuild>>,
}

/// A network file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFileError {
    /// A file is missing or unreadable.
    #[error("cannot read {path:?}: {source}; `tandem export` writes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The contract is not usable.
    #[error("{path:?} is not a network contract: {source}; export the checkpoint again")]
    Contract {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ContractError,
    },
    /// The summary of an export is none.
    #[error("{path:?} is not the summary of an export: {source}; export the checkpoint again")]
    Summary {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SummaryError,
    },
    /// The graph changed after its contract was written.
    #[error(
        "{path:?} is not the graph that its contract describes (SHA-256 {found}, contract says {expected}): it is damaged or from another export; export the checkpoint again"
    )]
    Hash {
        /// The graph file.
        path: PathBuf,
        /// Hash in the contract.
        expected: String,
        /// Hash of the file.
        found: String,
    },
    /// The graph is not one that an export wrote.
    #[error("{path:?} cannot be used: {source}; export the checkpoint again")]
    Graph {
        /// The graph file.
        path: PathBuf,
        /// Why.
        #[source]
        source: GraphError,
    },
    /// Weights are missing or changed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The graph reads a file that the export did not write and does not link to.
    #[error(
        "network {network:?} reads weights from {file:?}, which {SUMMARY_FILE} does not list; export \
         again with `{export}`"
    )]
    Unlisted {
        /// The network.
        network: String,
        /// The file, shortened.
        file: String,
        /// The command that exports again.
        export: String,
    },
}

impl NetworkFile {
    /// Reads the network `name` from `folder`, a network folder. Of an engine folder,
    /// [`EngineFolder::network`](super::EngineFolder::network) also reads what was built.
    ///
    /// # Errors
    /// If a file is missing, the contract is unreadable or of another format, the graph is not the
    /// one that the contract was written for, or weights are missing or changed.
    pub fn read(folder: &Path, name: &str) -> Result<Self, NetworkFileError> {
        let file = Self::exported(folder, name)?;
        // A network by itself is not part of an export, whose record says what its weights were.
        if folder.join(SUMMARY_FILE).exists() {
            file.check_weights(&Self::summary(folder)?)?;
        }
        Ok(file)
    }

    /// Checks that the files that weights are read from are what `summary` says that they were.
    ///
    /// # Errors
    /// If one is missing, has changed, or is not of the export.
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

    /// Reads what `folder`, a network folder or an engine folder, says of its export: among others,
    /// which networks there are.
    ///
    /// # Errors
    /// If the file is missing or unreadable.
    pub fn summary(folder: &Path) -> Result<Summary, NetworkFileError> {
        Self::summary_with_sha256(folder).map(|(summary, _)| summary)
    }

    /// As [`summary`](Self::summary), with the lower-case SHA-256 of the file.
    ///
    /// # Errors
    /// As [`summary`](Self::summary).
    pub fn summary_with_sha256(folder: &Path) -> Result<(Summary, String), NetworkFileError> {
        let path = folder.join(SUMMARY_FILE);
        let text = read(&path, LARGEST_JSON)?;
        let sha256 = hex(&Sha256::digest(&text));
        match Summary::parse(&text) {
            Ok(summary) => Ok((summary, sha256)),
            Err(source) => Err(NetworkFileError::Summary { path, source }),
        }
    }

    /// Reads the network `name` as it was exported, whether or not there is something built of it.
    ///
    /// # Errors
    /// If a file is missing, the contract is unreadable or of another format, or the graph is not the
    /// one that the contract was written for or not one that an export writes.
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
