//! Identity of the networks and weights of a folder.

use super::print;
use super::print::megabytes;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem::engine::{EngineFolder, NetworkFile, hash_cache};

/// Returns the hashes of all graphs, engines and weights in `folder` that affect results, by name.
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

/// Fills the hash cache for [`of`] so that workers need not compute hashes, and prints a note if
/// the checkpoint has changed since the export. Ignores errors; loading the networks reports them.
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
            print::note(&format!("hashing {} ({size} MB), once on this machine", file.name));
            let _ = file.sha256(folder, &cache);
        }
    }
}

/// Returns the checkpoint files that have changed since the export and that `folder` does not read.
pub(super) fn changed_sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(summary) = NetworkFile::summary(folder) else { return Vec::new() };
    let reads_them = summary.weights.iter().any(|file| file.origin.is_some());
    if reads_them { Vec::new() } else { summary.changed_sources(&hash_cache()) }
}

/// Returns the note on a changed checkpoint file.
pub(super) fn changed_source(path: &Path, folder: &Path) -> String {
    format!(
        "note: {} has changed since {} was exported; the folder still holds the old weights. Export \
         again to use the new ones",
        path.display(),
        folder.display()
    )
}
