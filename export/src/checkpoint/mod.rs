//! The weight files of a checkpoint folder of any model family.
//!
//! Opening reads only tensor headers and maps the weight files into memory, so a folder of 12 GB opens
//! in milliseconds. The model family interprets the tensors.

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

/// Type, shape and byte range of a stored tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorEntry {
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Index into [`Tensors::files`].
    pub file: usize,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Size of the tensor, bytes.
    pub length: u64,
}

/// The tensors of a checkpoint folder by their names in the model.
///
/// The weight files are mapped: they must not be changed or truncated during
/// the lifetime of this value.
pub struct Tensors {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    maps: Vec<MappedFile>,
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
    /// Tensors with an unsupported element type: type as named in the file, and index of the file.
    pub(crate) unsupported: BTreeMap<String, (String, usize)>,
    /// Files that are marked as sparse.
    sparse: Vec<PathBuf>,
    /// Prefix of all stored names, which is removed from the names in `tensors`.
    prefix: String,
    /// Names of weight files that are not part of the checkpoint.
    unused_files: Vec<String>,
}

impl Tensors {
    /// Opens the weight files of a folder: those that `model.safetensors.index.json` names; without
    /// an index `model.safetensors`; otherwise all `model-*.safetensors`.
    ///
    /// Fails if a file is missing or damaged, or if index and files contradict each other.
    pub fn open(dir: &Path, naming: &Naming) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::NoFolder { dir: dir.into() });
        }
        let WeightFiles { files, index, unused_files } = WeightFiles::find(dir)?;
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
                    return Err(CheckpointError::DuplicateTensor {
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
        let mut unsupported: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for (stored_name, found) in stored {
            let file = file_of[&stored_name];
            let name = (naming.of_model)(&stored_name[prefix.len()..]);
            if let Some(earlier) = tensors
                .get(&name)
                .map(|entry| entry.file)
                .or_else(|| unsupported.get(&name).map(|(_, file)| *file))
            {
                return Err(CheckpointError::DuplicateTensor {
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
                    unsupported.insert(name, (found.dtype_name, file));
                }
            }
        }
        let dir = dir.into();
        Ok(Self { dir, files, maps, tensors, unsupported, sparse, prefix, unused_files })
    }

    /// Iterates over the names of all stored tensors, including unsupported types.
    pub(crate) fn stored_names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys().chain(self.unsupported.keys())
    }

    /// Returns warnings about the files that apply to every family.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> =
            self.sparse.iter().map(|path| Warning::Sparse { path: path.clone() }).collect();
        if !self.prefix.is_empty() {
            warnings.push(Warning::Prefix { prefix: self.prefix.clone() });
        }
        if !self.unused_files.is_empty() {
            warnings.push(Warning::UnusedFiles { files: self.unused_files.clone() });
        }
        warnings
    }

    /// Path of the checkpoint folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Weight files, indexed by [`TensorEntry::file`].
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Tensors with a supported element type, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// Finds a tensor by name. Fails if the tensor does not exist or its
    /// element type is not supported.
    pub fn tensor(&self, name: &str) -> Result<&TensorEntry, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| match self.unsupported.get(name) {
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

    /// Returns the stored bytes of a tensor: row-major, little-endian, unaligned.
    ///
    /// # Panics
    /// If `entry` is not of this checkpoint.
    pub fn bytes(&self, entry: &TensorEntry) -> &[u8] {
        // In range: the header was checked against the length of the mapping, which is a usize.
        let start = entry.offset as usize;
        &self.maps[entry.file][start..start + entry.length as usize]
    }
}
