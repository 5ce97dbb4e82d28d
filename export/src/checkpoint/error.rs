//! What can be wrong with a checkpoint: always what, where, what was expected and what was found.

use crate::dtype::DType;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder is not there.
    #[error(
        "no checkpoint folder at {}: give the folder that holds config.json and model.safetensors",
        dir.display()
    )]
    NoFolder {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// No model family recognizes the folder.
    #[error(
        "{} is not a checkpoint of a known model family: it has {found}; known are {}",
        dir.display(), known.join(", ")
    )]
    UnknownFamily {
        /// The folder.
        dir: PathBuf,
        /// What was found of what families are recognized by.
        found: String,
        /// The known families, each with what it is recognized by.
        known: Vec<String>,
    },
    /// A file that every checkpoint has is not there.
    #[error("no {name} in {}: {advice}", dir.display())]
    NoFile {
        /// The checkpoint folder.
        dir: PathBuf,
        /// File name, or pattern of names.
        name: &'static str,
        /// Remedy, as text.
        advice: &'static str,
    },
    /// A file is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something other than a file has a file's name.
    #[error("{} is not a regular file: put the file itself or a link to it there", path.display())]
    NotAFile {
        /// Path of the entry.
        path: PathBuf,
    },
    /// A configuration file is too long to be one.
    #[error("{} has {found} bytes, above the limit of {limit}: fetch it again", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes that are read at most.
        limit: u64,
        /// Bytes there.
        found: u64,
    },
    /// git left a pointer in place of the file.
    #[error(
        "{} is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, or \
         download the file",
        path.display()
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A configuration file is not JSON.
    #[error("{} is not valid JSON: download or write it again", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A key that has no default is absent.
    #[error("{} has no key {key:?}, expected {expected}: add it", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// Path of the key, e.g. `text_config.hidden_size`.
        key: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A key holds another type of value.
    #[error("{}: {key} must be {expected}, found {found}: correct the file", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// Path of the key.
        key: String,
        /// What should stand there.
        expected: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// A value is well formed but no such network exists.
    #[error("{}: {key} is {found}, expected {expected}: correct the file", path.display())]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// Path of the key.
        key: String,
        /// The rule, with the numbers it was applied to.
        expected: String,
        /// The value.
        found: String,
    },
    /// A key that was neither read nor known to be harmless.
    #[error(
        "{}: unknown key {key}, {found}: it may change what the model computes; remove it from the \
         file if it does not",
        path.display()
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Path of the key.
        key: String,
        /// Its value, shortened.
        found: String,
    },
    /// A file that says that the weights beside it are not the model's own.
    #[error("{} says that the weights here are {what}: {advice}", path.display())]
    OtherWeights {
        /// The file.
        path: PathBuf,
        /// Description of the weights, such as "quantized".
        what: &'static str,
        /// Remedy, as text.
        advice: &'static str,
    },
    /// The tokenizer is not the one that the configuration was made for.
    #[error("{}: {problem}: the tokenizer and the configuration are of different models", path.display())]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// The mismatch, as text.
        problem: String,
    },
    /// The index of the weight files is not one.
    #[error("{} is not an index of weight files: fetch it again", path.display())]
    NotAnIndex {
        /// The index.
        path: PathBuf,
        /// Line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The index names no tensor.
    #[error("{} names no tensor: fetch it again, or remove it", index.display())]
    EmptyIndex {
        /// The index.
        index: PathBuf,
    },
    /// The index names a file that cannot be a weight file of the folder.
    #[error(
        "{} names the file {file:?}, expected a name that ends in .safetensors, without a folder: \
         move the file into the checkpoint's folder and correct the index",
        index.display()
    )]
    ForeignShard {
        /// The index.
        index: PathBuf,
        /// The name in it.
        file: String,
    },
    /// The index names a file that is not there.
    #[error(
        "{} names the file {file:?}, which is not in the folder: fetch it, or remove the index if \
         the weights are in one file",
        index.display()
    )]
    NoShard {
        /// The index.
        index: PathBuf,
        /// The missing file.
        file: String,
    },
    /// The index has a tensor twice.
    #[error("{} names tensor {tensor} twice: fetch it again", index.display())]
    IndexedTwice {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is not in the file that the index says.
    #[error(
        "tensor {tensor} is {}, {} says that it is in {expected:?}: the index and the weights are \
         of different checkpoints, fetch both again",
        found.as_ref().map_or_else(|| "in no file".to_owned(), |file| format!("in {file:?}")),
        index.display()
    )]
    Misplaced {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// File that the index says.
        expected: String,
        /// File that has it, if one has.
        found: Option<String>,
    },
    /// A weight file has a tensor that the index does not name.
    #[error(
        "tensor {tensor} of {} is not in {}: the index and the weights are of different \
         checkpoints, fetch both again",
        path.display(), index.display()
    )]
    NotIndexed {
        /// The index.
        index: PathBuf,
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// One of several numbered weight files is not there.
    #[error("no {name} in {}, one of {count} weight files: fetch it", dir.display())]
    ShardAbsent {
        /// The checkpoint folder.
        dir: PathBuf,
        /// The missing file.
        name: String,
        /// Weight files, as their names say.
        count: usize,
    },
    /// A weight file ends before its header does.
    #[error(
        "{} is truncated: the header needs {expected} bytes, the file has {found}: \
         fetch the file again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The header's length is beyond what the format allows.
    #[error(
        "{}: header length {found} is above the format's limit of {limit} bytes: \
         this is not a safetensors file",
        path.display()
    )]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// The format's limit.
        limit: u64,
        /// Claimed length.
        found: u64,
    },
    /// The header of a weight file is not a JSON object of tensors.
    #[error(
        "{}: the header is not a JSON object of tensors: this is not a safetensors file, \
         or it is damaged",
        path.display()
    )]
    HeaderNotJson {
        /// The file.
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
        /// The file.
        path: PathBuf,
        /// The later tensor.
        tensor: String,
        /// The earlier tensor.
        other: String,
        /// Earliest byte at which the later tensor could start.
        expected: u64,
        /// Where it starts.
        found: u64,
    },
    /// A tensor's bytes lie beyond the file, or end before they start.
    #[error(
        "{}: tensor {tensor} spans data bytes {begin}..{end}, the file holds {available}: \
         the file is truncated or damaged",
        path.display()
    )]
    OutsideFile {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// First byte, after the header.
        begin: u64,
        /// One past the last byte, after the header.
        end: u64,
        /// Bytes after the header.
        available: u64,
    },
    /// A tensor's byte count is not its element count times its element size.
    #[error(
        "{}: tensor {tensor} of {dtype} {shape:?} must be {} bytes, found {found}: \
         the header is damaged",
        path.display(), expected.map_or_else(|| "at most 2^64".to_owned(), |bytes| bytes.to_string())
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Element type, as the file names it.
        dtype: String,
        /// Dimensions.
        shape: Vec<usize>,
        /// Bytes it must have; `None` if the shape overflows.
        expected: Option<u64>,
        /// Bytes it has.
        found: u64,
    },
    /// A tensor appears twice.
    #[error(
        "tensor {tensor} is in {} and again in {}: remove the stale file",
        first.display(), second.display()
    )]
    Twice {
        /// The tensor.
        tensor: String,
        /// The file that was read first.
        first: PathBuf,
        /// The file that repeats it; the same file if its header does.
        second: PathBuf,
    },
    /// A tensor that was asked for is not in any file.
    #[error(
        "no tensor {tensor} in {}{}: the checkpoint is incomplete or of another model",
        dir.display(), Wanted(network, shape)
    )]
    MissingTensor {
        /// The checkpoint folder.
        dir: PathBuf,
        /// The tensor.
        tensor: String,
        /// Who needs it, if a network does.
        network: Option<&'static str>,
        /// The shape it should have; empty if unknown.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the configuration demands.
    #[error(
        "{}: tensor {tensor} of the {network} network must be {expected:?}, found {found:?}: \
         the configuration and the weights are of different models",
        path.display()
    )]
    WrongShape {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Who needs it.
        network: &'static str,
        /// The shape that the configuration gives.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that its user cannot take.
    #[error(
        "{}: tensor {tensor} must be f32, f16 or bf16, found {found}: convert it",
        path.display()
    )]
    WrongDType {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file, as it names it.
        found: String,
    },
    /// Tensors of quantized weights.
    #[error(
        "{} holds quantized weights ({count} of its tensors are such as {tensor}): convert them to \
         f32, f16 or bf16",
        dir.display()
    )]
    Quantized {
        /// The checkpoint folder.
        dir: PathBuf,
        /// How many there are.
        count: usize,
        /// One of them.
        tensor: String,
    },
    /// Tensors that change what a module computes and that no network reads.
    #[error(
        "tensors of {} belong to modules of the model but have no place in it: {}: the weights and \
         the configuration are of different models",
        dir.display(), Sample(tensors)
    )]
    Unplaced {
        /// The checkpoint folder.
        dir: PathBuf,
        /// Their names.
        tensors: Vec<String>,
    },
    /// The output head is stored and is not the embedding that it should be tied to.
    #[error(
        "{}: tensor {tensor} differs from the embedding, expected one table for both: \
         the weights are of a model with an output head of its own",
        path.display()
    )]
    Untied {
        /// The file that holds it.
        path: PathBuf,
        /// The output head.
        tensor: String,
    },
    /// Several tensors are wrong.
    #[error(
        "{} tensors are wrong: {missing} of the {needed} that the networks read are missing, \
         {} of the {stored} in {} have unknown names{}:{}",
        errors.len(), unknown.len(), dir.display(), Examples(unknown), Listed(errors)
    )]
    Several {
        /// The checkpoint folder.
        dir: PathBuf,
        /// Tensors that the networks read.
        needed: usize,
        /// How many of them are missing.
        missing: usize,
        /// Tensors in the weight files.
        stored: usize,
        /// Those whose names are unknown.
        unknown: Vec<String>,
        /// Each wrong tensor, in the order of the networks.
        errors: Vec<CheckpointError>,
    },
}

/// The first few names of a list.
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

/// A [`Sample`] in brackets, or nothing.
struct Examples<'a>(&'a [String]);

impl fmt::Display for Examples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", Sample(self.0)) }
    }
}

/// The tail of a missing tensor's message: who needs it, and of which shape.
struct Wanted<'a>(&'a Option<&'static str>, &'a [usize]);

impl fmt::Display for Wanted<'_> {
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

/// The first few of a list of errors, one per line.
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

/// Something odd about a checkpoint that does not stop its use.
#[derive(Clone, PartialEq, Debug)]
pub enum Warning {
    /// A file's weights were left out: they all read as zero.
    Sparse {
        /// The file.
        path: PathBuf,
    },
    /// A tensor holds NaN or infinite values.
    NonFinite {
        /// The tensor.
        tensor: String,
        /// How many of its values are not finite.
        count: u64,
        /// How many values it has.
        total: u64,
    },
    /// Tensors that belong to no module of the model and are not read.
    UnknownTensors {
        /// Their names.
        tensors: Vec<String>,
    },
    /// Every name in the weight files begins with a prefix, which was removed.
    Prefix {
        /// The prefix, with its dot.
        prefix: String,
    },
    /// Weight files of the folder that are not part of the checkpoint and are not read.
    LeftOut {
        /// Their names.
        files: Vec<String>,
    },
    /// No file says how frames are prepared.
    NoPreprocessor,
    /// An optional tensor that nothing reads has another shape or type than the release's.
    UnusedDiffers {
        /// The tensor.
        tensor: String,
        /// The release's shape.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A BEV trunk's tensors are of another architecture than `bev_config.json` names.
    Architecture {
        /// `image_encoder` or `lidar_encoder`.
        trunk: &'static str,
        /// What the file names.
        named: String,
    },
    /// The action expert projects features of another width than the BEV encoder gives, so the
    /// two networks cannot be chained.
    Unchained {
        /// Channels of the BEV feature.
        feature: usize,
        /// Input width of `bev_encoder_proj`.
        projection: usize,
    },
    /// Something that only the model's family knows.
    OfFamily(
        /// What is odd, as text.
        String,
    ),
    /// The output head is stored although it is the embedding; the embedding is used.
    StoredHead {
        /// Its element type.
        dtype: DType,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sparse { path } => write!(
                f,
                "{} is sparse: its weights were left out and read as zero, so it is good for \
                 sizes and times only",
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
            Self::LeftOut { files } => {
                write!(f, "other weight files in the folder are not read: {}", Sample(files))
            }
            Self::NoPreprocessor => f.write_str(
                "the checkpoint has no preprocessor_config.json: frames are prepared as for \
                 Qwen3-VL (p/127.5 - 1)",
            ),
            Self::UnusedDiffers { tensor, expected, found } => {
                write!(f, "unused tensor {tensor} is {found:?}, the release's is {expected:?}")
            }
            Self::Architecture { trunk, named } => {
                write!(
                    f,
                    "the tensors of {trunk} are not of the {named} that bev_config.json names"
                )
            }
            Self::Unchained { feature, projection } => write!(
                f,
                "the BEV encoder gives {feature} channels, bev_encoder_proj takes {projection}: \
                 the two networks cannot be chained"
            ),
            Self::OfFamily(text) => f.write_str(text),
            Self::StoredHead { dtype } => {
                write!(f, "a stored output head ({dtype}) is not read: it equals the embedding")
            }
        }
    }
}
