//! Hash over the values of all weights that a network reads.
//!
//! Hashing reads gigabytes, so hashes are cached by path, length and times of the files.

use super::file_error::FileError;
use super::network_file::NetworkFile;
use super::weight_file::{ExternalData, WeightFile};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_export::onnx::{ModelProto, TensorProto};
use tandem_export::weights::{HashCache, hex};
use tandem_files::open_regular;

/// Number of bytes per read.
const CHUNK: usize = 1 << 20;

/// Error returned when the weights of a network cannot be listed or hashed.
#[derive(Debug, thiserror::Error)]
pub enum WeightHashError {
    #[error("the graph of network {network:?} is not an ONNX file: {source}")]
    NotOnnx {
        network: String,
        #[source]
        source: prost::DecodeError,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("hashing of weights was canceled")]
    Canceled,
}

/// Weights of an exported graph.
pub(in crate::engine) struct GraphWeights(Vec<TensorProto>);

impl GraphWeights {
    /// Decodes the weights of `file`; fails if it is not an ONNX file.
    pub(in crate::engine) fn of(file: &NetworkFile) -> Result<Self, WeightHashError> {
        let model = ModelProto::decode(file.graph.as_slice()).map_err(|source| {
            WeightHashError::NotOnnx { network: file.contract.network.clone(), source }
        })?;
        Ok(Self(model.graph.unwrap_or_default().initializer))
    }

    /// Returns the locations of weight files, as the graph names them.
    pub(in crate::engine) fn locations(&self) -> Vec<String> {
        let mut locations: Vec<String> =
            self.0.iter().filter_map(|tensor| Some(ExternalData::of(tensor)?.location)).collect();
        locations.sort();
        locations.dedup();
        locations
    }

    /// Returns the total size of external weights, bytes.
    pub(in crate::engine) fn bytes(&self) -> u64 {
        self.0.iter().filter_map(|tensor| Some(ExternalData::of(tensor)?.length)).sum()
    }
}

/// Hashes weights and caches the results.
pub struct WeightHasher<'a> {
    /// Cache file; `None` disables the cache.
    pub cache: Option<PathBuf>,
    /// Cancels hashing when set to true.
    pub cancel: &'a AtomicBool,
}

impl WeightHasher<'_> {
    /// Returns the lower-case SHA-256 over name, type, shape and values of each weight of `file`,
    /// in the order of the graph. `progress` receives the hashed and the total bytes; it is not
    /// called if the hash is cached. Fails if the graph or a weight file cannot be read, a file is
    /// too short, or hashing was canceled.
    pub fn hash(
        &self,
        file: &NetworkFile,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<String, WeightHashError> {
        let weights = GraphWeights::of(file)?;
        let mut files = BTreeMap::new();
        let mut identity = Sha256::new();
        identity.update(file.contract.graph_sha256.as_bytes());
        for location in weights.locations() {
            let path = file.folder.join(&location);
            let known =
                WeightFile::of(&file.folder, &location).map_err(FileError::at("read", &path))?;
            let WeightFile { bytes, modified_ns, changed_ns, .. } = known;
            identity.update(format!("\0{bytes}\0{modified_ns}\0{changed_ns}\0"));
            identity.update(known.path.as_os_str().as_encoded_bytes());
            let open = open_regular(&known.path).map_err(FileError::at("open", &known.path))?;
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
            let place = ExternalData::of(tensor);
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
                    return Err(WeightHashError::Canceled);
                }
                let part = &mut chunk[..(length - at).min(CHUNK as u64) as usize];
                open.read_exact_at(part, place.offset + at)
                    .map_err(FileError::at("read weights of", path))?;
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
