//! Where the weights of a graph are on disk, and what their files were when they were read.

use crate::engine::library::cache_folder;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tandem_export::onnx::{DataLocation, TensorProto};
use tandem_export::weights::HashCache;

/// File of known hashes, in the cache folder.
const HASHES_FILE: &str = "weight-hashes.json";

/// Where a weight lies outside its graph.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::engine) struct Place {
    /// File, relative to the graph's folder.
    pub(in crate::engine) location: String,
    /// First byte.
    pub(in crate::engine) offset: u64,
    /// Bytes.
    pub(in crate::engine) length: u64,
}

impl Place {
    /// The place of an external weight; `None` if the graph holds it itself.
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

/// A file of weights as it was when it was read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// Name beside the engine: a link to `path`.
    pub name: String,
    /// Where it really is.
    pub path: PathBuf,
    /// Length.
    pub bytes: u64,
    /// Time of the last change of its content, nanoseconds since the Unix epoch.
    pub modified_ns: i128,
    /// Time of the last change of its content or its attributes, nanoseconds since the Unix epoch;
    /// zero in records of earlier versions.
    #[serde(default)]
    pub changed_ns: i128,
}

impl WeightFile {
    /// The file `name` in `folder`, links followed.
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

/// Hashes that this machine knows.
pub fn hash_cache() -> HashCache {
    HashCache::new(hashes_file())
}

/// The file of [`hash_cache`], if there is a cache folder.
pub fn hashes_file() -> Option<PathBuf> {
    Some(cache_folder()?.join(HASHES_FILE))
}
