//! The weight files of a checkpoint folder, of any model family.
//!
//! Opening reads tensor headers only and maps the weight files into memory, so a folder of 12 GB opens
//! in milliseconds. What the tensors mean is for a family to say.

mod error;
mod fields;
mod header;
mod names;
mod quantized;
mod shards;
mod small_file;
mod values;

pub use error::{CheckpointError, Warning};
pub(crate) use fields::{Fields, MAX_COUNT};
pub(crate) use header::{SPARSE_KEY, SPARSE_VALUE};
pub use names::Naming;
pub(crate) use small_file::read as read_small_file;

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
    /// Index into [`Tensors::files`].
    pub file: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The tensors of a checkpoint folder, by the model's names for them.
///
/// The weight files stay mapped: they must not be changed or shortened while this lives.
pub struct Tensors {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    maps: Vec<MappedFile>,
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
    /// Tensors of an element type that we have no name for: type as the file names it, file.
    pub(crate) foreign: BTreeMap<String, (String, usize)>,
    /// Files that say that their weights were left out.
    sparse: Vec<PathBuf>,
    /// Prefix of every stored name; the names in `tensors` omit it.
    prefix: String,
    /// Names of weight files that are not part of the checkpoint.
    left_out: Vec<String>,
}

impl Tensors {
    /// Opens the weight files of a folder, which are those that `model.safetensors.index.json` names,
    /// `model.safetensors` if there is no index, or every `model-*.safetensors`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or if index and files contradict each other.
    pub fn open(dir: &Path, naming: &Naming) -> Result<Self, CheckpointError> {
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
        let prefix = naming.shared_prefix(file_of.keys().map(String::as_str));
        let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
        let mut foreign: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for (stored_name, found) in stored {
            let file = file_of[&stored_name];
            let name = (naming.of_model)(&stored_name[prefix.len()..]);
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
        let dir = dir.into();
        Ok(Self { dir, files, maps, tensors, foreign, sparse, prefix, left_out })
    }

    /// Names of all stored tensors, whatever their type.
    pub(crate) fn stored_names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys().chain(self.foreign.keys())
    }

    /// Oddities of the files that concern every family.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> =
            self.sparse.iter().map(|path| Warning::Sparse { path: path.clone() }).collect();
        if !self.prefix.is_empty() {
            warnings.push(Warning::Prefix { prefix: self.prefix.clone() });
        }
        if !self.left_out.is_empty() {
            warnings.push(Warning::LeftOut { files: self.left_out.clone() });
        }
        warnings
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
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
