//! A network on disk: `NAME.onnx` beside `NAME.json`, its contract; in an engine folder also what was
//! built of it.

use super::engine_folder::{BuiltNetwork, EngineFolder, EngineFolderError};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tandem_export::contract::{Contract, FORMAT};
use tandem_export::folder::{SUMMARY_FILE, Summary};

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
    /// The contract is not one.
    #[error("{path:?} is not a network contract: {source}")]
    Contract {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The summary of an export is none.
    #[error("{path:?} is not the summary of an export: {source}; export the checkpoint again")]
    Summary {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The contract has another format.
    #[error(
        "{path:?} has contract format {found}, this tandem reads format {FORMAT}; export the checkpoint again"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
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
    /// A built engine cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineFolderError),
}

impl NetworkFile {
    /// Reads the network `name` from `folder`, a network folder or an engine folder.
    ///
    /// # Errors
    /// If a file is missing, the contract is unreadable or of another format, the graph is not the
    /// one that the contract was written for, or a built engine is not what was built.
    pub fn read(folder: &Path, name: &str) -> Result<Self, NetworkFileError> {
        match EngineFolder::read(folder)? {
            Some(engines) => engines.network(name),
            None => Self::exported(folder, name),
        }
    }

    /// Reads what `folder`, a network folder or an engine folder, says of its export: among others,
    /// which networks there are.
    ///
    /// # Errors
    /// If the file is missing or unreadable.
    pub fn summary(folder: &Path) -> Result<Summary, NetworkFileError> {
        let path = folder.join(SUMMARY_FILE);
        let text = fs::read(&path)
            .map_err(|source| NetworkFileError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| NetworkFileError::Summary { path, source })
    }

    /// Reads the network `name` as it was exported, whether or not there is something built of it.
    ///
    /// # Errors
    /// If a file is missing, the contract is unreadable or of another format, or the graph is not the
    /// one that the contract was written for.
    pub fn exported(folder: &Path, name: &str) -> Result<Self, NetworkFileError> {
        let path = folder.join(format!("{name}.json"));
        let text = fs::read(&path)
            .map_err(|source| NetworkFileError::Read { path: path.clone(), source })?;
        let contract: Contract = serde_json::from_slice(&text)
            .map_err(|source| NetworkFileError::Contract { path: path.clone(), source })?;
        if contract.format != FORMAT {
            return Err(NetworkFileError::Format { path, found: contract.format });
        }
        let path = folder.join(format!("{name}.onnx"));
        let graph = fs::read(&path)
            .map_err(|source| NetworkFileError::Read { path: path.clone(), source })?;
        let found = hex(&Sha256::digest(&graph));
        if found != contract.graph_sha256 {
            let expected = contract.graph_sha256;
            return Err(NetworkFileError::Hash { path, expected, found });
        }
        Ok(Self { folder: folder.to_path_buf(), contract, graph, built: None })
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
