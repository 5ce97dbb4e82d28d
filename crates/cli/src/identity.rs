//! Identity of the weights that the networks of a folder compute with.

use super::print;
use super::print::megabytes;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem::engine::{EngineFolder, NetworkFile, hash_cache};

/// Everything about the networks of `folder` that decides results, by name: hashes of graphs, of
/// engines, and of all weights.
pub(super) fn of(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let summary = NetworkFile::summary(folder)?;
    let mut identity = BTreeMap::new();
    identity.insert("checkpoint headers (SHA-256)".to_owned(), summary.headers_sha256.clone());
    for (network, hash) in &summary.networks {
        identity.insert(format!("{network} (SHA-256)"), hash.clone());
    }
    if let Some(engines) = EngineFolder::read(folder)? {
        for network in &engines.record.networks {
            let name = &network.contract.network;
            identity.insert(format!("{name} engine (SHA-256)"), network.engine.sha256.clone());
            let weights = network.key.weights_sha256.clone();
            identity.insert(format!("{name} weights (SHA-256)"), weights);
        }
        return Ok(identity);
    }
    let cache = hash_cache();
    let mut weights = Sha256::new();
    for file in &summary.weights {
        let hash = file.sha256(folder, &cache);
        let hash =
            hash.with_context(|| format!("cannot read {}", folder.join(&file.name).display()))?;
        weights.update(format!("{}\0{hash}\0", file.name));
    }
    let weights = weights.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    identity.insert("weights (SHA-256)".to_owned(), weights);
    Ok(identity)
}

/// Computes what [`of`] needs and this machine does not know yet, so that workers find it, and notes
/// a checkpoint that has changed since the export.
///
/// Problems are left to whoever loads the networks, which names them.
pub(super) fn prepare(folder: &Path) {
    for path in changed_sources(folder) {
        print::note(&changed_source(&path, folder));
    }
    let (Ok(summary), Ok(None)) = (NetworkFile::summary(folder), EngineFolder::read(folder)) else {
        return;
    };
    let cache = hash_cache();
    for file in &summary.weights {
        if file.must_be_read(folder, &cache) {
            let size = megabytes(file.bytes);
            print::note(&format!("hashing {} ({size} MB), once for this machine", file.name));
            let _ = file.sha256(folder, &cache);
        }
    }
}

/// Files of the checkpoint that have changed since the networks in `folder`, which do not read them,
/// were exported.
pub(super) fn changed_sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(summary) = NetworkFile::summary(folder) else { return Vec::new() };
    let reads_them = summary.weights.iter().any(|file| file.origin.is_some());
    if reads_them { Vec::new() } else { summary.changed_sources(&hash_cache()) }
}

/// One line about a changed file of the checkpoint.
pub(super) fn changed_source(path: &Path, folder: &Path) -> String {
    format!(
        "note: {} has changed since {} was exported, which keeps the weights from before; export \
         again to use the new ones",
        path.display(),
        folder.display()
    )
}
