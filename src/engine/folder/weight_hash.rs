//! One hash over the values of every weight that a network reads.
//!
//! Hashing reads gigabytes, so hashes are remembered by the path, length and times of every file that
//! was read.

use super::network_file::NetworkFile;
use super::network_file::hex;
use crate::engine::builder::BuildError;
use crate::engine::library::cache_folder;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_export::onnx::{DataLocation, ModelProto, TensorProto};
use tandem_export::weights::HashCache;
use tandem_files::open_regular;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// File of known hashes, in the cache folder.
const HASHES_FILE: &str = "weight-hashes.json";

/// Hashes that this machine knows.
pub fn hash_cache() -> HashCache {
    HashCache::new(hashes_file())
}

/// The file of [`hash_cache`], if there is a cache folder.
pub fn hashes_file() -> Option<PathBuf> {
    Some(cache_folder()?.join(HASHES_FILE))
}

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

/// Weights of an exported graph.
pub(in crate::engine) struct GraphWeights(Vec<TensorProto>);

impl GraphWeights {
    /// # Errors
    /// If it is not an ONNX file.
    pub(in crate::engine) fn of(file: &NetworkFile) -> Result<Self, BuildError> {
        let model = ModelProto::decode(file.graph.as_slice()).map_err(|error| {
            let network = file.contract.network.clone();
            let reason = format!("not an ONNX file: {error}");
            BuildError::Refused { library: "tandem".into(), network, reason }
        })?;
        Ok(Self(model.graph.unwrap_or_default().initializer))
    }

    /// Files that weights lie in, as the graph names them.
    pub(in crate::engine) fn locations(&self) -> Vec<String> {
        let mut locations: Vec<String> =
            self.0.iter().filter_map(|tensor| Some(Place::of(tensor)?.location)).collect();
        locations.sort();
        locations.dedup();
        locations
    }

    /// Bytes that lie in files.
    pub(in crate::engine) fn bytes(&self) -> u64 {
        self.0.iter().filter_map(|tensor| Some(Place::of(tensor)?.length)).sum()
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

/// Hashes weights, or remembers their hash.
pub struct WeightHasher<'a> {
    /// File of hashes known; none: nothing is remembered.
    pub cache: Option<PathBuf>,
    /// Set when hashing shall end.
    pub cancel: &'a AtomicBool,
}

impl WeightHasher<'_> {
    /// Lower-case SHA-256 over name, type, shape and values of every weight of `file`, in the order of
    /// the graph. `progress` gets bytes hashed and bytes in all; it is not called for a hash that is
    /// known.
    ///
    /// # Errors
    /// If the graph or a weight file cannot be read, a file is too short, or hashing was canceled.
    pub fn hash(
        &self,
        file: &NetworkFile,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<String, BuildError> {
        let weights = GraphWeights::of(file)?;
        let mut files = BTreeMap::new();
        let mut identity = Sha256::new();
        identity.update(file.contract.graph_sha256.as_bytes());
        for location in weights.locations() {
            let path = file.folder.join(&location);
            let known =
                WeightFile::of(&file.folder, &location).map_err(BuildError::file("read", &path))?;
            let WeightFile { bytes, modified_ns, changed_ns, .. } = known;
            identity.update(format!("\0{bytes}\0{modified_ns}\0{changed_ns}\0"));
            identity.update(known.path.as_os_str().as_encoded_bytes());
            let open = open_regular(&known.path).map_err(BuildError::file("open", &known.path))?;
            files.insert(location, (known.path, open));
        }
        let identity = hex(&identity.finalize());
        let cache = HashCache::new(self.cache.clone());
        if let Some(hash) = cache.get(&identity) {
            return Ok(hash);
        }
        let total = weights.bytes();
        let mut done = 0;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        for tensor in &weights.0 {
            let place = Place::of(tensor);
            let inline = tensor.raw_data.as_deref().unwrap_or_default();
            let length = place.as_ref().map_or(inline.len() as u64, |place| place.length);
            let head =
                format!("{}\0{:?}\0{:?}\0{length}\0", tensor.name(), tensor.data_type, tensor.dims);
            hash.update(head);
            let Some(place) = place else {
                hash.update(inline);
                continue;
            };
            let (path, open) = &files[&place.location];
            let mut at = 0;
            while at < length {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(BuildError::Canceled);
                }
                let part = &mut chunk[..(length - at).min(CHUNK as u64) as usize];
                open.read_exact_at(part, place.offset + at)
                    .map_err(BuildError::file("read weights of", path))?;
                hash.update(&*part);
                at += part.len() as u64;
                done += part.len() as u64;
                progress(done, total);
            }
        }
        let hash = hex(&hash.finalize());
        cache.insert(identity, &hash);
        Ok(hash)
    }
}
