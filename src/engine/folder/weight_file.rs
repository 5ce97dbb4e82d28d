//! Locations of a graph's weights on disk, and the state of their files when they were read.

use crate::engine::library::cache_folder;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tandem_export::onnx::{DataLocation, TensorProto};
use tandem_export::weights::HashCache;

/// Name of the hash cache in tandem's cache folder.
const HASHES_FILE: &str = "weight-hashes.json";

/// Location of a weight that is stored outside its graph (ONNX external data).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::engine) struct ExternalData {
    /// File, relative to the graph's folder.
    pub(in crate::engine) location: String,
    /// Offset of the first byte in the file.
    pub(in crate::engine) offset: u64,
    pub(in crate::engine) length: u64,
}

impl ExternalData {
    /// Returns the location of an external weight; `None` if the weight is stored in the graph.
    pub(in crate::engine) fn of(tensor: &TensorProto) -> Option<Self> {
        if tensor.data_location != Some(DataLocation::External as i32) {
            return None;
        }
        let value = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
            entry.and_then(|entry| entry.value.clone()).unwrap_or_default()
        };
        let number = |key: &str| value(key).parse().unwrap_or(0);
        Some(Self {
            location: value("location"),
            offset: number("offset"),
            length: number("length"),
        })
    }
}

/// State of a weight file when it was read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// Name of the link to `path` in the engine folder.
    pub name: String,
    /// Canonical path of the weight file.
    pub path: PathBuf,
    pub bytes: u64,
    /// Modification time (mtime), nanoseconds since the Unix epoch.
    pub modified_ns: i128,
    /// Status change time (ctime), nanoseconds since the Unix epoch; 0 in records of old versions.
    #[serde(default)]
    pub changed_ns: i128,
}

impl WeightFile {
    /// Reads the state of the file `name` in `folder`, following links.
    pub(in crate::engine) fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name).canonicalize()?;
        let metadata = fs::metadata(&path)?;
        let nanoseconds =
            |seconds: i64, part: i64| i128::from(seconds) * 1_000_000_000 + i128::from(part);
        Ok(Self {
            name: name.to_owned(),
            path,
            bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Opens this machine's cache of weight hashes.
pub fn hash_cache() -> HashCache {
    HashCache::new(hashes_file())
}

/// Returns the file of [`hash_cache`], or `None` without a cache folder.
pub fn hashes_file() -> Option<PathBuf> {
    Some(cache_folder()?.join(HASHES_FILE))
}
