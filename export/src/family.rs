//! Model families: recognizing, reading and exporting the checkpoints of one kind of model.
//!
//! A family is a folder of this crate and one line in [`registry`](crate::registry).

use crate::checkpoint::{CheckpointError, Tensors, Warning, read_small_file};
use crate::graph::{GraphError, Network};
use crate::options::Options;
use crate::spec::{Spec, SpecError, SpecFile};
use crate::synth::{SynthError, SynthWeights, Synthesized};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// One kind of model: recognizes and opens its checkpoints.
pub trait Family: Sync {
    /// Name of the family, which is the `model` of its summaries and contracts.
    fn name(&self) -> &'static str;

    /// Describes the property that [`recognizes`](Self::recognizes) tests, for messages.
    fn recognized_by(&self) -> &'static str;

    /// True if a folder contains a checkpoint of this family. Reads no weights.
    ///
    /// At most one family may recognize a folder, because the order in which
    /// families are asked is unspecified.
    fn recognizes(&self, folder: &Candidate) -> bool;

    /// Opens a checkpoint. Fails if a file is missing or damaged, or the
    /// configuration is not valid.
    fn open(&self, folder: &Path) -> Result<Box<dyn OpenCheckpoint>, CheckpointError>;

    /// True if an export may have a network of this name.
    fn is_network(&self, name: &str) -> bool;

    /// Sorts names of networks into execution order. Unknown names come last.
    fn sort_networks(&self, names: &mut [String]);

    /// Files of the checkpoint other than weights that are needed for driving.
    fn companions(&self) -> &'static [&'static str] {
        &[]
    }

    /// Formats the family's options as arguments of `tandem export`, each with a leading space.
    fn arguments(&self, options: &Options) -> String {
        options.own.iter().map(|(name, value)| format!(" --option '{name}={value}'")).collect()
    }

    /// Reads a specification of a checkpoint, or the published configuration of a model of this
    /// family. The default implementation returns the content unchanged, and
    /// [`synthesize`](Self::synthesize) validates it.
    ///
    /// Fails if the content is not a specification of this family.
    fn read_spec(&self, file: &SpecFile) -> Result<Spec, SpecError> {
        Ok(Spec { value: file.specification()?, notes: Vec::new() })
    }

    /// Writes a checkpoint folder with random or sparse weights. `progress` receives the number of
    /// written bytes and their total.
    ///
    /// Fails if the specification is not valid for the family, or the folder cannot be written.
    fn synthesize(
        &self,
        spec: &Value,
        weights: SynthWeights,
        out: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Synthesized, SynthError>;
}

/// An opened checkpoint of any family.
pub trait OpenCheckpoint {
    /// Family that opened the checkpoint.
    fn family(&self) -> &'static dyn Family;

    /// Tensors stored in the weight files.
    fn tensors(&self) -> &Tensors;

    /// Checks that every tensor that a network reads exists and fits. Reads almost no weights.
    /// Fails with the tensors that are missing or wrong.
    fn check(&self) -> Result<Vec<Warning>, CheckpointError>;

    /// Describes the sizes of the networks.
    fn describe(&self) -> Description;

    /// Builds all networks in execution order. `before` receives the name of each before it is built.
    ///
    /// Fails if a network does not fit the checkpoint, or the options are not valid for the family.
    fn build(
        &self,
        options: &Options,
        before: &mut dyn FnMut(&'static str),
    ) -> Result<Built, NetworkError>;
}

/// Sizes of a checkpoint's networks.
pub struct Description {
    pub config: Value,
    /// Text, one line per network.
    pub networks: Vec<String>,
}

/// The networks of a checkpoint.
pub struct Built {
    /// Options used, including defaults.
    pub options: Options,
    /// Networks in execution order.
    pub networks: Vec<Network>,
    /// Capacity of the prefix KV cache in tokens; `None` for a family without one.
    pub prefix_capacity: Option<usize>,
}

/// A folder that may contain a checkpoint.
pub struct Candidate {
    dir: PathBuf,
    config: Option<Value>,
}

impl Candidate {
    /// Reads the `config.json` of a folder, if the file exists. Fails if the folder does not exist,
    /// or the file is not valid JSON.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::NoFolder { dir: dir.into() });
        }
        let path = dir.join(CONFIG_FILE);
        let config = read_small_file(&path)?.map(|text| serde_json::from_slice(&text)).transpose();
        let config = config.map_err(|source| CheckpointError::NotJson { path, source })?;
        Ok(Self { dir: dir.into(), config })
    }

    /// Creates a candidate with the given content of `config.json`.
    pub(crate) fn of_config(dir: &Path, config: Value) -> Self {
        Self { dir: dir.into(), config: Some(config) }
    }

    /// Returns the path of the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Content of `config.json`; `None` if the file does not exist.
    pub fn config(&self) -> Option<&Value> {
        self.config.as_ref()
    }

    /// Value of `model_type` in `config.json`.
    pub fn model_type(&self) -> Option<&str> {
        self.config.as_ref()?.get("model_type")?.as_str()
    }

    /// Describes `config.json` for the error that no family recognizes the folder.
    pub(crate) fn found(&self) -> String {
        match (&self.config, self.model_type()) {
            (None, _) => format!("no {CONFIG_FILE}"),
            (Some(_), None) => format!("a {CONFIG_FILE} without a model_type"),
            (Some(_), Some(model_type)) => {
                format!("a {CONFIG_FILE} with the model_type {:?}", shortened(model_type))
            }
        }
    }
}

/// File in which most checkpoints name their model type.
const CONFIG_FILE: &str = "config.json";

/// Error of building a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The checkpoint's tensors do not fit the network.
    #[error("the {network} network does not fit the checkpoint")]
    Graph {
        network: &'static str,
        #[source]
        source: GraphError,
    },
    /// A tensor that is folded into a constant cannot be read.
    #[error("cannot fold a constant of the {network} network")]
    Fold {
        network: &'static str,
        #[source]
        source: Box<CheckpointError>,
    },
    /// A frame does not divide into merged patches.
    #[error("frame size {frame:?} is not a multiple of {multiple}, the side of a merged patch")]
    FrameSize {
        /// Requested height and width, pixels.
        frame: [usize; 2],
        /// Side of a merged patch, pixels.
        multiple: usize,
    },
    /// The checkpoint's preprocessor would resize the frames.
    #[error(
        "frames of {} by {} pixels are outside the {} to {} pixels that the preprocessor does not \
         resize; give another frame size",
        frame[0], frame[1], bounds[0], bounds[1]
    )]
    FramePixels {
        /// Requested height and width, pixels.
        frame: [usize; 2],
        /// Minimum and maximum number of pixels of a frame.
        bounds: [usize; 2],
    },
    /// The number of frames of a prompt is out of range.
    #[error("{frames} frames in a prompt; ask for 1 to {limit}")]
    Frames { frames: usize, limit: usize },
    /// The capacity of the prefix KV cache is above the limit.
    #[error("a prefix capacity of {capacity} tokens is above the limit of {limit}")]
    PrefixLimit {
        /// Requested or required capacity, tokens.
        capacity: usize,
        limit: usize,
    },
    /// The images alone exceed the capacity of the prefix KV cache.
    #[error("prefix capacity {capacity} does not hold the prompt's {needed} tokens")]
    PrefixCapacity {
        /// Requested capacity, tokens.
        capacity: usize,
        /// Tokens of images and fixed text.
        needed: usize,
    },
    /// The number of layer groups is out of range.
    #[error(
        "{groups} layer groups of an understanding expert of {layers} layers; ask for 1 to {layers}"
    )]
    LayerGroups { groups: usize, layers: usize },
    /// Two values of the configuration contradict each other.
    #[error("inconsistent configuration: {0}")]
    Config(String),
    /// The family has no such option, or its value is not valid.
    #[error("the export options are not valid for model family {family:?}: {source}")]
    Options {
        family: &'static str,
        #[source]
        source: serde_json::Error,
    },
}
