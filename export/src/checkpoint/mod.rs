//! A checkpoint folder in AutoMoT's own format: configuration and tensors.
//!
//! Opening reads configuration files and tensor headers only and maps the weight files into
//! memory, so a folder of 12 GB opens in milliseconds. [`Checkpoint::check`] then compares every
//! tensor with what the networks need, and [`Checkpoint::scan_values`] reads all of the weights.

mod config;
pub mod expected;
mod trunk;

mod check;
mod error;
mod fields;
mod header;
mod parse;
mod values;

pub use config::{AutomotConfig, BevConfig, MotConfig, SpecialTokens, TextConfig, VisionConfig};
pub use error::{CheckpointError, Warning};
pub use expected::Network;
pub(crate) use header::{SPARSE_KEY, SPARSE_VALUE};
pub use trunk::{Stage, Trunk};

use crate::dtype::DType;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where a tensor's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorEntry {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Index into [`Checkpoint::files`].
    pub file: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// An opened checkpoint folder.
///
/// The weight files stay mapped: they must not be changed or shortened while this lives.
pub struct Checkpoint {
    dir: PathBuf,
    config: AutomotConfig,
    files: Vec<PathBuf>,
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, TensorEntry>,
    /// Tensors of an element type that we have no name for: type as the file names it, file.
    foreign: BTreeMap<String, (String, usize)>,
    /// Files that say that their weights were left out.
    sparse: Vec<PathBuf>,
}

impl Checkpoint {
    /// Opens a folder: `config.json`, `automot_args.json` and `bev_config.json` where present, and
    /// the headers of `model.safetensors` or, without it, of every `model-*.safetensors`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the configuration describes no possible model. Which
    /// tensors there are is [`Self::check`]'s business.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::NoFolder { dir: dir.into() });
        }
        let files = weight_files(dir)?;
        let mut maps: Vec<Mmap> = Vec::with_capacity(files.len());
        let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
        let mut foreign: BTreeMap<String, (String, usize)> = BTreeMap::new();
        let mut sparse = Vec::new();
        for (file, path) in files.iter().enumerate() {
            let map =
                map(path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
            let header = header::read(path, &map)?;
            if header.is_sparse {
                sparse.push(path.clone());
            }
            for mut found in header.tensors {
                // Training wraps the encoder once more; the release's loader drops that, too.
                if let Some(rest) = found.name.strip_prefix("bev_encoder.backbone.") {
                    found.name = format!("bev_encoder.{rest}");
                }
                let earlier = tensors
                    .get(&found.name)
                    .map(|entry| entry.file)
                    .or_else(|| foreign.get(&found.name).map(|(_, file)| *file));
                if let Some(earlier) = earlier {
                    return Err(CheckpointError::Twice {
                        tensor: found.name,
                        first: files[earlier].clone(),
                        second: path.clone(),
                    });
                }
                let (shape, offset, length) = (found.shape, found.offset, found.length);
                match found.dtype {
                    Some(dtype) => {
                        let entry = TensorEntry { dtype, shape, file, offset, length };
                        tensors.insert(found.name, entry);
                    }
                    None => {
                        foreign.insert(found.name, (found.dtype_name, file));
                    }
                }
            }
            maps.push(map);
        }
        let config = parse::read(dir, &tensors)?;
        Ok(Self { dir: dir.into(), config, files, maps, tensors, foreign, sparse })
    }

    /// Checks a folder's configuration files by themselves, before there are weights.
    pub(crate) fn check_config(dir: &Path) -> Result<(), CheckpointError> {
        parse::read(dir, &BTreeMap::new()).map(|_| ())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sizes of the networks.
    pub fn config(&self) -> &AutomotConfig {
        &self.config
    }

    /// The weight files, in the order that [`TensorEntry::file`] counts.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Every tensor of an element type that [`DType`] names.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// One tensor.
    ///
    /// # Errors
    /// If there is no such tensor, or its element type is not one of [`DType`].
    pub fn tensor(&self, name: &str) -> Result<&TensorEntry, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| match self.foreign.get(name) {
            Some((dtype, file)) => CheckpointError::WrongDType {
                path: self.files[*file].clone(),
                tensor: name.to_owned(),
                found: dtype.clone(),
            },
            None => CheckpointError::MissingTensor {
                dir: self.dir.clone(),
                tensor: name.to_owned(),
                network: None,
                shape: Vec::new(),
            },
        })
    }

    /// The stored bytes of a tensor: row-major, little endian, without any alignment.
    ///
    /// # Panics
    /// If `entry` is not of this checkpoint.
    pub fn bytes(&self, entry: &TensorEntry) -> &[u8] {
        // Fits: the header was checked against the mapping's length, which is a usize.
        let start = entry.offset as usize;
        &self.maps[entry.file][start..start + entry.length as usize]
    }
}

/// `model.safetensors`, or the sorted shards.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let unreadable = |source| CheckpointError::Read { path: dir.into(), source };
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("model-") && name.ends_with(".safetensors") {
            shards.push(path);
        }
    }
    if shards.is_empty() {
        return Err(CheckpointError::NoFile {
            dir: dir.into(),
            name: "model.safetensors or model-*.safetensors",
            advice: "give the folder that holds the weights",
        });
    }
    shards.sort();
    Ok(shards)
}

/// Maps a whole file for reading.
fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the mapping is private to this process and read-only. That nobody shortens or
    // rewrites the file meanwhile is the documented duty of whoever opens a `Checkpoint`; weight
    // files are replaced by renaming, which leaves the mapped file as it was.
    #[expect(unsafe_code, reason = "12 GB of weights cannot be copied into memory")]
    unsafe {
        Mmap::map(&file)
    }
}
