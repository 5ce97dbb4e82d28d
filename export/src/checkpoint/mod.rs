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
mod harmless;
mod header;
mod inspection;
mod names;
mod parse;
mod preprocessor;
mod shards;
mod small_file;
mod tokenizer;
mod values;

pub use config::{AutomotConfig, BevConfig, MotConfig, SpecialTokens, TextConfig, VisionConfig};
pub use error::{CheckpointError, Warning};
pub use expected::Network;
pub(crate) use header::{SPARSE_KEY, SPARSE_VALUE};
pub use inspection::{FoundFile, Inspection, Stored, inspect};
pub use trunk::{Stage, Trunk};

use crate::dtype::DType;
use header::Described;
use shards::WeightFiles;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tandem_files::MappedFile;

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
    maps: Vec<MappedFile>,
    tensors: BTreeMap<String, TensorEntry>,
    /// Tensors of an element type that we have no name for: type as the file names it, file.
    foreign: BTreeMap<String, (String, usize)>,
    /// Files that say that their weights were left out.
    sparse: Vec<PathBuf>,
    /// Prefix of every stored name; the names in `tensors` omit it.
    prefix: String,
    /// Names of weight files that are not part of the checkpoint.
    left_out: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder: its configuration files and the headers of its weight files, which are those
    /// that `model.safetensors.index.json` names, `model.safetensors` if there is no index, or every
    /// `model-*.safetensors`.
    ///
    /// # Errors
    /// If a file is missing or damaged, if index and files contradict each other, or if the
    /// configuration describes no possible model. [`Self::check`] compares the tensors.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::NoFolder { dir: dir.into() });
        }
        let WeightFiles { files, index, left_out } = WeightFiles::find(dir)?;
        let mut maps: Vec<MappedFile> = Vec::with_capacity(files.len());
        let mut stored: BTreeMap<String, Described> = BTreeMap::new();
        let mut file_of: BTreeMap<String, usize> = BTreeMap::new();
        let mut sparse = Vec::new();
        for (file, path) in files.iter().enumerate() {
            small_file::require_regular(path)?;
            let map = File::open(path)
                .and_then(|file| MappedFile::map(&file, path))
                .map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
            small_file::refuse_pointer(path, &map)?;
            let header = header::read(path, &map)?;
            if header.is_sparse {
                sparse.push(path.clone());
            }
            for found in header.tensors {
                if let Some(&earlier) = file_of.get(&found.name) {
                    return Err(CheckpointError::Twice {
                        tensor: found.name,
                        first: files[earlier].clone(),
                        second: path.clone(),
                    });
                }
                file_of.insert(found.name.clone(), file);
                stored.insert(found.name.clone(), found);
            }
            maps.push(map);
        }
        if let Some(index) = index {
            names::check_index(&dir.join(shards::INDEX_FILE), &index, &file_of, &files)?;
        }
        let prefix = names::shared_prefix(file_of.keys().map(String::as_str));
        let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
        let mut foreign: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for (stored_name, found) in stored {
            let file = file_of[&stored_name];
            let name = names::of_model(&stored_name[prefix.len()..]);
            if let Some(earlier) = tensors
                .get(&name)
                .map(|entry| entry.file)
                .or_else(|| foreign.get(&name).map(|(_, file)| *file))
            {
                return Err(CheckpointError::Twice {
                    tensor: name,
                    first: files[earlier].clone(),
                    second: files[file].clone(),
                });
            }
            let (shape, offset, length) = (found.shape, found.offset, found.length);
            match found.dtype {
                Some(dtype) => {
                    tensors.insert(name, TensorEntry { dtype, shape, file, offset, length });
                }
                None => {
                    foreign.insert(name, (found.dtype_name, file));
                }
            }
        }
        let config = parse::read(&dir.join(parse::CONFIG_FILE), &tensors)?;
        let dir = dir.into();
        Ok(Self { dir, config, files, maps, tensors, foreign, sparse, prefix, left_out })
    }

    /// Reads the sizes of the networks from a `config.json` of any name, with the other configuration
    /// files that lie beside it.
    pub(crate) fn config_of(file: &Path) -> Result<AutomotConfig, CheckpointError> {
        parse::read(file, &BTreeMap::new())
    }

    /// Checks a folder's configuration files by themselves, before there are weights.
    pub(crate) fn check_config(dir: &Path) -> Result<(), CheckpointError> {
        Self::config_of(&dir.join(parse::CONFIG_FILE)).map(|_| ())
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
