//! What can be wrong with a checkpoint: always what, where, what was expected and what was found.

use super::expected::Network;
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
    /// A file that every checkpoint has is not there.
    #[error("no {name} in {}: {advice}", dir.display())]
    NoFile {
        /// The checkpoint folder.
        dir: PathBuf,
        /// File name, or pattern of names.
        name: &'static str,
        /// What to do about it.
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
        network: Option<Network>,
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
        network: Network,
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
    /// Several tensors are wrong.
    #[error("{} tensors are wrong:{}", .0.len(), Listed(.0))]
    Several(
        /// Each of them, in the order of the networks.
        Vec<CheckpointError>,
    ),
}

/// The tail of a missing tensor's message: who needs it, and of which shape.
struct Wanted<'a>(&'a Option<Network>, &'a [usize]);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
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
    /// A tensor that no network knows; it is ignored.
    UnknownTensor {
        /// The tensor.
        tensor: String,
    },
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
    /// The output head is stored although it is tied to the embedding; the embedding is used.
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
            Self::UnknownTensor { tensor } => write!(f, "tensor {tensor} is unknown and ignored"),
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
            Self::StoredHead { dtype } => {
                write!(f, "a stored output head ({dtype}) is ignored: it is tied to the embedding")
            }
        }
    }
}
