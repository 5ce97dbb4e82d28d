//! Errors and warnings about checkpoints. Each names the file, the expected and the found value.

use crate::dtype::DType;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Error of reading or checking a checkpoint folder.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder does not exist.
    #[error(
        "no checkpoint folder at {}: give the folder with config.json and model.safetensors",
        dir.display()
    )]
    NoFolder { dir: PathBuf },
    /// No model family recognizes the folder.
    #[error(
        "{} is not a checkpoint of a known model family: it has {found}; known are {}",
        dir.display(), known.join(", ")
    )]
    UnknownFamily {
        dir: PathBuf,
        /// Description of `config.json`.
        found: String,
        /// Registered families, each with the property by which it recognizes folders.
        known: Vec<String>,
    },
    /// A required file does not exist.
    #[error("no {name} in {}: {advice}", dir.display())]
    NoFile { dir: PathBuf, name: &'static str, advice: &'static str },
    /// A file exists but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A path that should be a file is something else.
    #[error("{} is not a regular file: put the file itself or a link to it there", path.display())]
    NotAFile { path: PathBuf },
    /// A configuration file exceeds the size limit.
    #[error("{} has {found} bytes, above the limit of {limit}: fetch it again", path.display())]
    TooLong { path: PathBuf, limit: u64, found: u64 },
    /// The file is a git-lfs pointer.
    #[error(
        "{} is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, or \
         download the file",
        path.display()
    )]
    LfsPointer { path: PathBuf },
    /// A configuration file is not JSON.
    #[error("{} is not valid JSON: download or write it again", path.display())]
    NotJson {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// A required key of a configuration file is absent.
    #[error("{} has no key {key:?}, expected {expected}: add it", path.display())]
    MissingKey {
        path: PathBuf,
        /// Path of the key, e.g. `text_config.hidden_size`.
        key: String,
        expected: &'static str,
    },
    /// A value has the wrong type.
    #[error("{}: {key} must be {expected}, found {found}: correct the file", path.display())]
    WrongType { path: PathBuf, key: String, expected: &'static str, found: String },
    /// A value has the right type but is not supported or contradicts another.
    #[error("{}: {key} is {found}, expected {expected}: correct the file", path.display())]
    InvalidValue {
        path: PathBuf,
        key: String,
        /// The rule and the numbers to which it applies.
        expected: String,
        found: String,
    },
    /// A key is neither read nor in the list of ignored keys.
    #[error(
        "{}: unknown key {key}, {found}: it may change what the model computes; remove it from the \
         file if it does not",
        path.display()
    )]
    UnknownKey { path: PathBuf, key: String, found: String },
    /// A file marks the weights as ones that cannot be used directly.
    #[error("{} marks the weights in its folder as {what}: {advice}", path.display())]
    UnsupportedWeights {
        path: PathBuf,
        /// Description of the weights, such as "quantized".
        what: &'static str,
        advice: &'static str,
    },
    /// The tokenizer contradicts the configuration.
    #[error("{}: {problem}: the tokenizer and the configuration are of different models", path.display())]
    Tokenizer { path: PathBuf, problem: String },
    /// The index of the weight files does not have the structure of an index.
    #[error("{} is not an index of weight files: fetch it again", path.display())]
    NotAnIndex {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The index names no tensor.
    #[error("{} names no tensor: fetch it again, or remove it", index.display())]
    EmptyIndex { index: PathBuf },
    /// The index names a file that is outside the folder or not a safetensors file.
    #[error(
        "{} names the file {file:?}, expected a name that ends in .safetensors, without a folder: \
         move the file into the checkpoint's folder and correct the index",
        index.display()
    )]
    InvalidShardName { index: PathBuf, file: String },
    /// The index names a file that does not exist.
    #[error(
        "{} names the file {file:?}, which is not in the folder: fetch it, or remove the index if \
         the weights are in one file",
        index.display()
    )]
    MissingShard { index: PathBuf, file: String },
    /// The index lists a tensor twice.
    #[error("{} names tensor {tensor} twice: fetch it again", index.display())]
    DuplicateIndexEntry { index: PathBuf, tensor: String },
    /// A tensor is not in the file that the index names.
    #[error(
        "tensor {tensor} is {}, but {} lists it in {expected:?}: the index and the weights are of \
         different checkpoints, fetch both again",
        found.as_ref().map_or_else(|| "in no file".to_owned(), |file| format!("in {file:?}")),
        index.display()
    )]
    Misplaced {
        index: PathBuf,
        tensor: String,
        /// File that the index names.
        expected: String,
        /// File that contains the tensor, if any.
        found: Option<String>,
    },
    /// A weight file has a tensor that the index does not name.
    #[error(
        "tensor {tensor} of {} is not in {}: the index and the weights are of different \
         checkpoints, fetch both again",
        path.display(), index.display()
    )]
    NotIndexed { index: PathBuf, path: PathBuf, tensor: String },
    /// One of several numbered weight files does not exist.
    #[error("no {name} in {}, one of {count} weight files: fetch it", dir.display())]
    MissingNumberedShard {
        dir: PathBuf,
        name: String,
        /// Number of weight files according to their names.
        count: usize,
    },
    /// A weight file ends before its header does.
    #[error(
        "{} is truncated: the header needs {expected} bytes, the file has {found}: \
         fetch the file again",
        path.display()
    )]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    /// The length of the header is above the limit of the format.
    #[error(
        "{}: header length {found} is above the format's limit of {limit} bytes: \
         this is not a safetensors file",
        path.display()
    )]
    HeaderTooLong { path: PathBuf, limit: u64, found: u64 },
    /// The header of a weight file is not a JSON object of tensors.
    #[error(
        "{}: the header is not a JSON object of tensors: this is not a safetensors file, \
         or it is damaged",
        path.display()
    )]
    HeaderNotJson {
        path: PathBuf,
        /// Line and column inside the header.
        #[source]
        source: serde_json::Error,
    },
    /// Two tensors of one file share bytes.
    #[error(
        "{}: tensor {tensor} starts at data byte {found}, inside {other} which ends at {expected}: \
         the header is damaged",
        path.display()
    )]
    Overlap {
        path: PathBuf,
        tensor: String,
        other: String,
        /// End of the earlier tensor, bytes after the header.
        expected: u64,
        /// Start of the later tensor, bytes after the header.
        found: u64,
    },
    /// The byte range of a tensor is outside the file or reversed.
    #[error(
        "{}: tensor {tensor} spans data bytes {begin}..{end}, the file has {available}: \
         the file is truncated or damaged",
        path.display()
    )]
    OutsideFile {
        path: PathBuf,
        tensor: String,
        /// First byte, counted from the end of the header.
        begin: u64,
        /// One past the last byte, counted from the end of the header.
        end: u64,
        available: u64,
    },
    /// The size of a tensor is not its number of elements times the element size.
    #[error(
        "{}: tensor {tensor} of {dtype} {shape:?} must be {} bytes, found {found}: \
         the header is damaged",
        path.display(), expected.map_or_else(|| "at most 2^64".to_owned(), |bytes| bytes.to_string())
    )]
    WrongLength {
        path: PathBuf,
        tensor: String,
        /// Element type as named in the file.
        dtype: String,
        shape: Vec<usize>,
        /// Bytes; `None` if the shape overflows.
        expected: Option<u64>,
        found: u64,
    },
    /// A tensor is stored twice, in one file or in two.
    #[error(
        "tensor {tensor} is in {} and again in {}: remove the stale file",
        first.display(), second.display()
    )]
    DuplicateTensor {
        tensor: String,
        first: PathBuf,
        /// The same as `first` if one header has the tensor twice.
        second: PathBuf,
    },
    /// A tensor is not in any file.
    #[error(
        "no tensor {tensor} in {}{}: the checkpoint is incomplete or of another model",
        dir.display(), Required(network, shape)
    )]
    MissingTensor {
        dir: PathBuf,
        tensor: String,
        /// Network that reads the tensor.
        network: Option<&'static str>,
        /// Required shape; empty if unknown.
        shape: Vec<usize>,
    },
    /// The shape of a tensor contradicts the configuration.
    #[error(
        "{}: tensor {tensor} of the {network} network must be {expected:?}, found {found:?}: \
         the configuration and the weights are of different models",
        path.display()
    )]
    WrongShape {
        path: PathBuf,
        tensor: String,
        network: &'static str,
        /// Shape according to the configuration.
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// A tensor does not have a floating-point type.
    #[error(
        "{}: tensor {tensor} must be f32, f16 or bf16, found {found}: convert it",
        path.display()
    )]
    WrongDType {
        path: PathBuf,
        tensor: String,
        /// Element type as named in the file.
        found: String,
    },
    /// The checkpoint has quantized weights.
    #[error(
        "{} contains quantized weights ({count} of its tensors, such as {tensor}): convert them to \
         f32, f16 or bf16",
        dir.display()
    )]
    Quantized { dir: PathBuf, count: usize, tensor: String },
    /// Tensors that would change the computation of a module and that no network reads.
    #[error(
        "{} has tensors inside modules of the model that the model does not use: {}: the weights \
         and the configuration are of different models",
        dir.display(), Sample(tensors)
    )]
    UnusedInModule { dir: PathBuf, tensors: Vec<String> },
    /// A stored output head differs from the embedding to which it should be tied.
    #[error(
        "{}: tensor {tensor} differs from the embedding, expected one table for both: \
         the weights are of a model with a separate output head",
        path.display()
    )]
    UntiedHead { path: PathBuf, tensor: String },
    /// Several tensors are wrong.
    #[error(
        "{} tensors are wrong: {missing} of the {needed} that the networks read are missing, \
         {} of the {stored} in {} have unknown names{}:{}",
        errors.len(), unknown.len(), dir.display(), Examples(unknown), Listed(errors)
    )]
    Several {
        dir: PathBuf,
        /// Number of tensors that the networks read.
        needed: usize,
        /// Number of those that are missing.
        missing: usize,
        /// Number of tensors in the weight files.
        stored: usize,
        /// Stored tensors with unknown names.
        unknown: Vec<String>,
        /// One error per wrong tensor, in the order of the networks.
        errors: Vec<CheckpointError>,
    },
}

/// Displays the first few names of a list.
struct Sample<'a>(&'a [String]);

impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let shown = &self.0[..self.0.len().min(SHOWN)];
        f.write_str(&shown.join(", "))?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Displays a [`Sample`] in parentheses; nothing for an empty list.
struct Examples<'a>(&'a [String]);

impl fmt::Display for Examples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", Sample(self.0)) }
    }
}

/// Displays the network that requires a tensor, and the shape.
struct Required<'a>(&'a Option<&'static str>, &'a [usize]);

impl fmt::Display for Required<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(network) if self.1.is_empty() => {
                write!(f, ", which the {network} network needs")
            }
            Some(network) => write!(f, ", which the {network} network needs as {:?}", self.1),
            None => Ok(()),
        }
    }
}

/// Displays the first few errors of a list, one per line.
struct Listed<'a>(&'a [CheckpointError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        for error in self.0.iter().take(SHOWN) {
            write!(f, "\n  {error}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  … and {more} more"),
        }
    }
}

/// Warning about a checkpoint that does not prevent its use.
#[derive(Clone, PartialEq, Debug)]
pub enum Warning {
    /// A weight file is sparse: all weights read as zero.
    Sparse { path: PathBuf },
    /// A tensor contains NaN or infinite values.
    NonFinite {
        tensor: String,
        /// Number of values that are not finite.
        count: u64,
        total: u64,
    },
    /// Tensors outside the modules of the model, which are not read.
    UnknownTensors { tensors: Vec<String> },
    /// All names in the weight files begin with a prefix, which is removed.
    Prefix { prefix: String },
    /// Weight files in the folder that are not part of the checkpoint, which are not read.
    UnusedFiles { files: Vec<String> },
    /// No file describes the preprocessing of frames.
    NoPreprocessor,
    /// A tensor that inference does not read has another shape than in the AutoMoT release.
    UnusedDiffers { tensor: String, expected: Vec<usize>, found: Vec<usize> },
    /// The tensors of a BEV trunk have another architecture than `bev_config.json` names.
    Architecture {
        /// `image_encoder` or `lidar_encoder`.
        trunk: &'static str,
        named: String,
    },
    /// The width of the BEV feature differs from the input width of the action expert, so the two
    /// networks cannot be chained.
    BevWidthDiffers {
        /// Channels of the BEV feature.
        feature: usize,
        /// Input width of `bev_encoder_proj`.
        projection: usize,
    },
    /// A warning that is specific to a model family, as text.
    OfFamily(String),
    /// The output head is stored although it equals the embedding. The embedding is used.
    StoredHead { dtype: DType },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sparse { path } => write!(
                f,
                "{} is sparse: its weights read as zero, so it is only suitable for measuring sizes \
                 and times",
                path.display()
            ),
            Self::NonFinite { tensor, count, total } => {
                write!(f, "tensor {tensor} has {count} NaN or infinite values of {total}")
            }
            Self::UnknownTensors { tensors } => {
                write!(f, "tensors with unknown names are not read: {}", Sample(tensors))
            }
            Self::Prefix { prefix } => {
                write!(f, "every tensor's name begins with {prefix:?}, which is removed")
            }
            Self::UnusedFiles { files } => {
                write!(f, "other weight files in the folder are not read: {}", Sample(files))
            }
            Self::NoPreprocessor => f.write_str(
                "the checkpoint has no preprocessor_config.json: frames are preprocessed as for \
                 Qwen3-VL (p/127.5 - 1)",
            ),
            Self::UnusedDiffers { tensor, expected, found } => {
                write!(f, "unused tensor {tensor} is {found:?}, in the release {expected:?}")
            }
            Self::Architecture { trunk, named } => {
                write!(f, "the tensors of {trunk} are not a {named}, as in bev_config.json")
            }
            Self::BevWidthDiffers { feature, projection } => write!(
                f,
                "the BEV encoder returns {feature} channels, bev_encoder_proj takes {projection}: \
                 the two networks cannot be chained"
            ),
            Self::OfFamily(text) => f.write_str(text),
            Self::StoredHead { dtype } => {
                write!(f, "a stored output head ({dtype}) is not read: it equals the embedding")
            }
        }
    }
}
